"""Pools as src/lb/codec.rs writes them, and LB.LOAD takes them: also those to which no command would lead."""


def varint(number):
    """A number as src/lb/codec.rs writes it."""
    septets = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(septet | 128 for septet in septets[:-1]), septets[-1]])


def option(number):
    """A number that may be None, as it is written there."""
    return b"\0" if number is None else b"\1" + varint(number)


def member(name, weight, state, credit, picks):
    """A backend as it is written there, under its name, and whether it can have leases."""
    zigzag = 2 * credit if credit >= 0 else -2 * credit - 1
    rest = [varint(int(weight)), varint(state), varint(zigzag), varint(picks)]
    return name, (state != 2, b"".join([varint(len(name)), name, *rest]))


def limit(most, rate, clock):
    """A limit as it is written there."""
    bucket = b"\0" if rate is None else b"".join([b"\1", *map(varint, [*rate, clock])])
    return varint(most) + bucket


def account(fields, entries, members):
    """The part of a payload that follows the backends."""
    clock, turns, pool, leases, following = fields
    can_have = [place for place, (can, _) in enumerate(members.values()) if can]
    places = [can_have[number % len(can_have)] for number in range(leases)] if can_have else []
    epochs = [(0, 7), (2, 2**64 - 1)] if len(places) > 2 else [(0, 7)]
    owners = [b"\1o", b"\2\0\xff"][: len(places) // 2]
    numbers = [following, len(epochs), len(owners), len(places)]
    written = [varint(clock), varint(turns), limit(*pool, clock), *map(varint, numbers)]
    for tier, own, last, ended in entries[: len(members)]:
        written += [bytes([tier]), limit(*own, clock), varint(last), *map(varint, ended)]
    written += [varint(number) for epoch in epochs for number in epoch] + owners
    for number, place in enumerate(places):
        # Of odd leases each second one has an owner who was seen before.
        owner = min(number // 2, len(owners) - 1) if number % 2 else None
        rest = [varint(clock - clock // 2), varint(clock + 10 * (number + 1))]
        written += [varint(number), varint(place), option(owner), *rest]
    return b"".join(written)


def payload(head, members, accounted, entries):
    """A pool that no sequence would lead to, as LB.LOAD takes it."""
    policy, picks, cursor, generator = head
    members = dict(members)
    written = [b"\2\1" if accounted else b"\1\1", varint(policy), varint(picks), varint(cursor), generator]
    written += [varint(len(members)), *(written for _, written in members.values())]
    return b"".join([*written, account(accounted, entries, members) if accounted else b""])
