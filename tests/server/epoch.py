"""The epoch of a pool: the first part of the ids of its leases, which a server chooses by itself."""

OPENER = b"opener"
# LB.RELEASE would leave the lease in the pool, with the server's own epoch, until the next tick.
END = b"""
for _, lease in ipairs(redis.call('LB.LEASES', KEYS[1], 'OWNER', ARGV[1])) do
  redis.call('LB.DONE', KEYS[1], lease[2])
end
"""


def opened(key):
    """A server opens an epoch of its own before the first lease. Behind this all is the same everywhere."""
    yield from ([b"LB.ADD", key, OPENER, b"1"], [b"LB.SEED", key, b"43"])
    yield [b"LB.LIMIT", key, b"MAX", b"0", b"RATE", b"0", b"0"]
    yield [b"LB.PICK", key, b"rr", b"LEASE", b"1", b"OWNER", OPENER]
    yield [b"EVAL", END, b"1", key, OPENER]
    yield from ([b"LB.REM", key, OPENER], [b"LB.EPOCH", key, b"9"])
