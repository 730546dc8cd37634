"""What the golden files record of a pool (tests/data/golden)."""

# Those that every release has.
ALGORITHMS = [b"rr", b"wrr", b"random", b"wrandom"]


def told(pools, key):
    """What a pool comes down to, which of its members the next picks are, and what becomes of it in time."""
    members = pools.ask([b"LB.LIST", key])
    (digest,) = pools.digest(key)

    def picks(*by):
        return [members.index(name) for name in pools.ask([b"LB.PICK", key, *by])]

    told = {"digest": digest, "picks": [picks(by, b"COUNT", b"50") for by in ALGORITHMS]}
    told["by load"] = [picks(by, b"COUNT", b"20") for by in (b"lc", b"p2c")]
    told["later"] = []
    # Tokens come back, leases end, one backend after the other is free again; and in the end all are.
    for time in b"5001", b"5100", b"20000", b"999999":
        pools.ask([b"LB.TICK", key, time])
        told["later"].append([picks(b"COUNT", b"9"), *pools.digest(key)])
    return told
