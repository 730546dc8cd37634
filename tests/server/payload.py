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


def limit(most, rate, at):
    """A limit as it is written there; its bucket was looked at last at that time."""
    bucket = b"\0" if rate is None else b"".join([b"\1", *map(varint, [*rate, at])])
    return varint(most) + bucket


def refill(rate, at):
    """When that bucket has a token."""
    picks, millis, _, level = rate
    return at + max(0, -((level - millis) // picks))


def account(fields, entries, members, over):
    """The part of a payload that follows the backends."""
    clock, turns, pool, leases, following = fields
    can_have = [place for place, (can, _) in enumerate(members.values()) if can]
    places = [can_have[number % len(can_have)] for number in range(leases)] if can_have else []
    epochs = [(0, 7), (2, 2**64 - 1)] if len(places) > 2 else [(0, 7)]
    owners = [b"\1o", b"\2\0\xff"][: len(places) // 2]
    # Of odd leases each second one has an owner who was seen before.
    of = [min(number // 2, len(owners) - 1) if number % 2 else None for number in range(len(places))]
    deadlines = [clock + 10 * (number + 1) for number in range(len(places))]
    at, section = clock, b""
    if over:
        is_due, gone, marked = over
        at = clock // 2
        # The leases of some backends that are gone stand between the others.
        places = [place if number % 3 or not gone else len(members) for number, place in enumerate(places)]
        if is_due and clock:
            deadlines = [max(clock - clock // 2 + 1, deadline - 30) for deadline in deadlines]
        marks = []
        for kind in marked if not gone or 1 in marked else [*marked, 1]:
            # Of a gone backend all are over, of others the first one.
            if kind == 0 and can_have and can_have[0] in places:
                marks.append(bytes([0, can_have[0], 1]))
            if kind == 1 and len(members) in places:
                marks.append(bytes([1, places.count(len(members))]))
            if kind == 2 and owners:
                marks.append(b"\2" + owners[0] + b"\1")
        limits = [pool, *(own for _, own, _, _ in entries[: len(members)])]
        refills = [(refill(rate, at), place) for place, (_, rate) in enumerate(limits) if rate]
        # The pool's own comes after those of backends.
        refills = sorted((time, place or 2**32) for time, place in refills if 0 < time <= clock)
        overdue = [place % 2**32 for _, place in refills]
        if marks or overdue:
            section = b"".join([varint(len(overdue)), *map(varint, overdue), *marks])
            section = b"\x80" + varint(len(section)) + section
    numbers = [following, len(epochs), len(owners), len(places)]
    written = [varint(clock), varint(turns), limit(*pool, at), *map(varint, numbers)]
    for tier, own, last, ended in entries[: len(members)]:
        written += [bytes([tier]), limit(*own, at), varint(last), *map(varint, ended)]
    written += [varint(number) for epoch in epochs for number in epoch] + owners
    for number, place in enumerate(places):
        rest = [varint(clock - clock // 2), varint(deadlines[number])]
        written += [varint(number), varint(place), option(of[number]), *rest]
    return b"".join(written), section


def sessions(turn, groups):
    """The section of sessions: of each backend by its place their hashes, deadlines and turns."""
    written = [varint(turn)]
    for place, pinned in groups:
        written += [varint(place), varint(len(pinned))]
        for hash, deadline, picked in pinned:
            written += [hash.to_bytes(8, "little"), varint(deadline), varint(picked)]
    section = b"".join(written)
    return b"\x85" + varint(len(section)) + section


def payload(head, members, accounted, entries, over=None, pinned=None):
    """A pool that no sequence would lead to, as LB.LOAD takes it.

    `over` gives it version 2 of the rules: whether leases are due, whether some are of a backend that is
    gone, and which lists have marks, in which order: of a backend (0), of the gone one (1), of an owner (2).
    Buckets that have a token again are overdue. `pinned` are the next turn and sessions, with their deadlines
    after the clock: they are pinned to the first backends, and the last one to a backend that is gone.
    """
    policy, picks, cursor, generator = head
    members = dict(members)
    more, section = account(accounted, entries, members, over) if accounted else (b"", b"")
    if accounted and pinned:
        turn, *all_pinned = pinned
        clock, places = accounted[0], [*range(len(members))][: len(all_pinned) - 1] + [len(members)]
        groups = [
            (place, [(hash, max(clock + later, 0), picked)])
            for place, (hash, later, picked) in zip(places, all_pinned, strict=False)
        ]
        section += sessions(turn, groups)
    form = 3 if section else 2 if accounted else 1
    written = [bytes([form, 2 if over else 1]), varint(policy), varint(picks), varint(cursor), generator]
    written += [varint(len(members)), *(written for _, written in members.values())]
    return b"".join([*written, more, section])
