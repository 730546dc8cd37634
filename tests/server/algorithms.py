"""The algorithms of the module, in its order. test_description.py holds the list against a server.

Names are `str`. `packed` makes of them what stands in a command that is a list of words.
"""

BY_LOAD = ["lc", "p2c"]
BY_CHANCE = ["random", "wrandom", "p2c"]
ALGORITHMS = ["rr", "wrr", "random", "wrandom", "lc", "p2c"]
# It picks with LEASE only, so it is not among those that every test takes its turn with.
BY_LATENCY = ["ewma"]
# The policies. `hash` is none, and it has an item behind it.
ALL = [*ALGORITHMS, *BY_LATENCY]
BY_ITEM = ["hash"]

FORESEEABLE = [name for name in ALGORITHMS if name not in BY_CHANCE]
# They do not look at leases, so they pick with LEASE what they pick without.
BLIND = [name for name in ALGORITHMS if name not in BY_LOAD]


def packed(names: list[str]) -> list[bytes]:
    """The names as words of a command."""
    return [name.encode() for name in names]
