"""Damaged payloads: RESTORE and LB.LOAD take none for a pool that is not one, and the server lives on.

Whoever makes a payload can make its checksum right too, so each is sealed anew after the damage. Whatever is
taken for a pool is used, dumped, restored and saved like any other.
"""

import os
import random
import resource
import time
from itertools import chain, islice
from pathlib import Path

import pytest

from model import PAYLOAD
from server import eventually
from test_equality import OPENER, opened
from wire import Refused, Wire, pack

LONG = os.environ.get("REDIS_LB_LONG") == "1"
PAYLOADS = 1_000_000 if LONG else 6_000
BATCH = 500

pytestmark = pytest.mark.timeout(3600 if LONG else 120)

ALGORITHMS = [b"rr", b"wrr", b"random", b"wrandom", b"lc", b"p2c"]
MANUAL = {"module_args": ["clock", "manual"]}

# What the server may map beyond what it has mapped so far: to believe a length that is a lie takes far more.
ROOM = 256 << 20
# What it may keep when all keys are gone.
CRUMBS = 1 << 20

# At these numbers something may end: as the codec writes them (varints; credits are zigzag).
EXTREMES = [0, 1, 0x7F, 0x80, 0xFFFF, 1 << 16, 1 << 24, (1 << 24) + 1, (1 << 32) - 1]
EXTREMES += [(1 << 61) - 1, 1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
# Spans, clocks, limits of leases, and how full a bucket is.
EXTREMES += [1 << 40, (1 << 40) + 1, 1 << 47, (1 << 47) + 1, (1 << 31) - 1, 1 << 31, 1 << 80, (1 << 128) - 1]


def varint(number):
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


# These, and lengths as RDB files write them: 32 and 64 bits, and strings that are numbers or compressed.
NUMBERS = [varint(number) for number in EXTREMES]
NUMBERS += [b"\x80\xff\xff\xff\xff", b"\x81" + b"\xff" * 8, b"\xc0\x01", b"\xc2\xff\xff\xff\xff", b"\xc3\x05"]


def crc64_table():
    """CRC-64 as Jones chose it, bits reversed."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
        table.append(crc)
    return table


CRC64 = crc64_table()


def crc64(data):
    crc = 0
    for byte in data:
        crc = CRC64[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


class Dump:
    """What DUMP answered: its type, the module's type, a string that the codec wrote; then a footer."""

    def __init__(self, dump):
        self._body, self._version = dump[:-10], dump[-10:-8]
        self._head = dump[:10]

    def sealed(self, body):
        """A body with the version of the server and the right checksum behind it."""
        whole = body + self._version
        return whole + crc64(whole).to_bytes(8, "little")

    def damaged(self, damage, payload):
        """This dump with its payload damaged, or what stands around it, or anything.

        Not its first byte: in values of its own types the server believes more than it should.
        """
        match damage.chance.randrange(4):
            case 0:
                return self.sealed(self._body[:1] + damage.done_to(self._body[1:]))
            case 1:
                return self.sealed(self._body[:1] + damage.done_to(self._body[1:16]) + self._body[16:])
        return self.holding(damage.done_to(payload))

    def holding(self, payload):
        """A dump like this one with that payload."""
        return self.sealed(b"%b\x05\x80%b%b\0" % (self._head, len(payload).to_bytes(4, "big"), payload))


class Damage:
    """Damages payloads at random."""

    def __init__(self, seed, others):
        self.chance = random.Random(seed)
        self.others = others

    def done_to(self, payload):
        """The payload, damaged in one to three places."""
        payload = bytearray(payload)
        for _ in range(self.chance.choice([1, 1, 2, 3])):
            self._damage(payload)
        return bytes(payload)

    def _damage(self, payload):
        at = self.chance.randrange(len(payload) + 1)
        match self.chance.randrange(8):
            case 0 | 1 | 2 if at < len(payload):
                payload[at] ^= 1 << self.chance.randrange(8)
            case 3:
                del payload[at:]
            case 4:
                payload[at:at] = self.chance.randbytes(self.chance.choice([1, 1, 2, 9]))
            case 5:
                other = self.chance.choice(self.others)
                payload[at:] = other[self.chance.randrange(len(other) + 1) :]
            case 6:
                del payload[at : at + self.chance.randrange(16)]
            case _:
                end = at
                while end < len(payload) and payload[end] > 0x7F:
                    end += 1
                payload[at : end + 1] = self.chance.choice(NUMBERS)


class Target(Wire):
    """A server that gets damaged payloads. Time matters in none of the pools that they are made from."""

    def __init__(self, server, seed):
        super().__init__(server.port)
        self._chance = random.Random(seed)
        self.ask("CONFIG SET rdbcompression no")
        dumps = self.ask_all([dump(key) for key in self._sound()])
        # The head, 5 for a string, a length that is written in 1, 2 or 5 bytes, the string, 0 for the end.
        self._payloads = [plain[12 + [0, 1, 4][plain[11] >> 6] : -11] for plain in dumps]
        self.ask("CONFIG SET rdbcompression yes")
        compressed = self.ask_all([dump(b"%d" % key) for key in range(len(dumps))])
        self.ask("CONFIG SET rdbcompression no")
        self._dumps = [[Dump(one) for one in pair] for pair in zip(dumps, compressed, strict=True)]
        self._damage = Damage(seed, self._payloads)
        self.ask("FLUSHALL")

    def ask_all(self, commands):
        """Sends commands together; says after which of them an answer stayed away."""
        self.send(b"".join(map(pack, commands)))
        answers = []
        try:
            for _ in commands:
                answers.append(self.read())
        except (AssertionError, OSError) as error:
            error.add_note(f"no answer to {commands[len(answers)]}")
            raise
        return answers

    def _sound(self):
        """Makes pools of all kinds, in the middle of their lives; answers their keys."""
        chance = self._chance
        for key in range(60):
            commands = [f"LB.POLICY {key} {chance.choice(['rr', 'wrr', 'wrandom'])}"]
            names = [f"10.0.0.{n}" for n in range(chance.choice([0, 1, 2, 3, 4, 4, 12]) if key else 200)]
            names += ["n" * 512] * (chance.random() < 0.1)
            pairs = " ".join(f"{name} {chance.choice([0, 1, 1, 2, 3, 100, 65535])}" for name in names)
            commands += [f"LB.ADD {key} gone", f"LB.ADD {key} {pairs or 'last 0'}"]
            for name in chance.sample(names, len(names) // 4):
                commands.append(f"LB.STATE {key} {name} {chance.choice(['drain', 'down'])}")
            for algorithm in chance.sample(["rr", "wrr", "random", "wrandom"], chance.randrange(5)):
                commands.append(f"LB.PICK {key} {algorithm} COUNT {chance.randrange(1, 300)}")
            commands += self._more(key, names or ["last"])
            commands.append(f"LB.REM {key} gone")
            for command in commands:
                answer = self.ask(command)
                assert not isinstance(answer, Refused), f"{command}: {answer}"
            yield b"%d" % key

    def _more(self, key, names):
        """What else is done to a sound pool."""
        return []

    def uses(self, key):
        """What it and its twin must answer alike."""
        return [*picks(key), digest(key)]

    def hit(self, command, payloads):
        """Sends so many damaged payloads; answers those that were taken for a pool, by their keys."""
        commands = []
        for number in range(payloads):
            at = self._chance.randrange(len(self._payloads))
            payload = self._payloads[at]
            if command == "RESTORE":
                payload = self._chance.choice(self._dumps[at]).damaged(self._damage, payload)
                commands.append([b"RESTORE", b"%d" % number, b"0", payload, b"REPLACE"])
            else:
                payload = self._damage.done_to(payload)
                commands.append([b"LB.LOAD", b"%d" % number, payload, b"REPLACE"])
        taken = {}
        for (_, key, *words), answer in zip(commands, self.ask_all(commands), strict=True):
            if answer == "OK":
                taken[key] = words[-2]
            else:
                assert isinstance(answer, Refused) and answer.code == "ERR", answer
        return taken

    def use(self, taken):
        """Uses pools in all ways and deletes them; each goes on like what was dumped of it."""
        before = {}
        for key in taken:
            looks = [digest(key), [b"LB.STATS", key], [b"LB.INFO", key], [b"MEMORY", b"USAGE", key]]
            before[key] = [*looks, dump(key), *picks(key), dump(key), digest(key)]
        before = self._ask_each(before)
        after = {}
        for key, (_, stats, _, usage, first, *_, last, _) in before.items():
            # As in tests/fuzz/sound.rs, and what the server adds. What was taken may have been compressed.
            assert usage <= 1024 + 24 * len(first), f"{usage} bytes: {taken[key]}"
            # A poisoned pool, which a payload can hold too, answers nothing but an error.
            names = [] if isinstance(stats, Refused) else stats[::2]
            assert len(set(names)) == len(names), taken[key]
            copy = b"copy-" + key
            after[key] = [restore(copy, first), digest(copy), restore(copy, last), digest(copy)]
            after[key] += [*self.uses(key), *self.uses(copy), [b"DEL", key, copy]]
        for key, (*restored, deleted) in self._ask_each(after).items():
            assert restored[:4] == ["OK", before[key][0], "OK", before[key][-1]], taken[key]
            uses = self.uses(key)
            here, there = restored[4 : 4 + len(uses)], restored[4 + len(uses) :]
            for use, one, other in zip(uses, here, there, strict=True):
                assert one == other or OPENER in use, f"{use}: {taken[key]}"
            assert deleted == 2

    def _ask_each(self, commands):
        answers = iter(self.ask_all(list(chain.from_iterable(commands.values()))))
        return {key: list(islice(answers, len(some))) for key, some in commands.items()}


class TimedTarget(Target):
    """One to which time matters. It must have no clock but LB.TICK: twins are used one after the other."""

    def _more(self, key, names):
        chance = self._chance
        commands = [f"LB.TICK {key} {chance.choice([0, 1000, 1_700_000_000_000, 2**47 - 9999])}"]
        for name in chance.sample(names, len(names) // 2):
            rate = f"RATE {chance.choice([1, 50, 2**40])} {chance.choice([1, 1000, 2**40])}"
            limits = f"MAX {chance.choice([0, 2, 2**31 - 1])} TIER {chance.choice([0, 0, 1, 255])}"
            commands.append(f"LB.LIMIT {key} BACKEND {name} {rate} BURST 3 {limits}")
        commands.append(f"LB.LIMIT {key} {chance.choice(['MAX 9', 'RATE 5 1000 BURST 20', 'MAX 0'])}")
        for owner in chance.sample(["", "OWNER o", "OWNER p", "OWNER " + "o" * 512], 3):
            lease = f"COUNT {chance.randrange(1, 9)} LEASE {chance.choice([1, 999])} {owner}"
            commands.append(f"LB.PICK {key} {chance.choice(['rr', 'lc', 'p2c'])} {lease}")
            commands.append(f"LB.EPOCH {key} {chance.choice([0, 7, 2**64 - 1])}")
        commands.append(f"LB.RELEASE {key} OWNER p")
        return commands if chance.random() < 0.7 else []

    def uses(self, key):
        leases = [b"LB.LEASES", key]
        uses = [leases, *picks(key), *opened(key), [b"LB.PICK", key, b"lc", b"COUNT", b"4", b"LEASE", b"400"]]
        uses += [[b"LB.PICK", key, b"p2c", b"LEASE", b"1099511627776", b"OWNER", b"o"]]
        uses += [[b"LB.TICK", key, b"1700000000500"], [b"LB.WHEN", key], leases]
        return [*uses, [b"LB.TICK", key, b"140737488355328"], [b"LB.STATS", key], *super().uses(key)]


def digest(key):
    return [b"DEBUG", b"DIGEST-VALUE", key]


def dump(key):
    return [b"DUMP", key]


def picks(key):
    """Three picks by each algorithm, which give a pool without a generator its own."""
    return [[b"LB.PICK", key, algorithm, b"COUNT", b"3"] for algorithm in ALGORITHMS]


def restore(key, dumped):
    return [b"RESTORE", key, b"0", dumped, b"REPLACE"]


def limit(server):
    """From now on the server gets no memory for what a payload only claims to hold."""
    with server.client() as client:
        pid = client.info("server")["process_id"]
    mapped = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (mapped + ROOM, hard))


def used_memory(server):
    with server.client() as client:
        return client.info("memory")["used_memory"]


def test_the_checksum_is_the_one_of_redis():
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


@pytest.mark.parametrize("command", ["RESTORE", "LB.LOAD"])
def test_no_damaged_payload_does_harm(new_server, binary, command):
    server = new_server(**MANUAL)
    limit(server)
    with TimedTarget(server, f"{binary.name} {command}") as target:
        memory = used_memory(server)
        loaded = 0
        for _ in range(PAYLOADS // BATCH):
            taken = target.hit(command, BATCH)
            loaded += len(taken)
            target.use(taken)
            assert target.ask("DBSIZE") == 0
    # Else they are so damaged that nothing behind their first field is tried.
    assert PAYLOADS / 20 < loaded < PAYLOADS
    eventually(lambda: used_memory(server) < memory + CRUMBS)


@pytest.mark.parametrize("how", ["RDB", "AOF"])
def test_whatever_is_taken_for_a_pool_can_be_saved(new_server, binary, how):
    options = {"appendonly": "yes", "aof_use_rdb_preamble": "no"} if how == "AOF" else {}
    server = new_server(**MANUAL, **options)
    limit(server)
    with TimedTarget(server, f"{binary.name} {how}") as target:
        keys = list(target.hit("RESTORE", 2000))
        assert len(keys) > 100
        digests = target.ask_all([digest(key) for key in keys])
        if how == "RDB":
            assert target.ask("SAVE") == "OK"
        else:
            target.ask("BGREWRITEAOF")
            eventually(lambda: b"aof_rewrite_in_progress:0" in target.ask("INFO persistence"), seconds=30)
            assert b"aof_last_bgrewrite_status:ok" in target.ask("INFO persistence")
    server.restart()
    with Wire(server.port) as wire:
        for key, before in zip(keys, digests, strict=True):
            assert wire.ask(digest(key)) == before
        assert wire.ask("DBSIZE") == len(keys)


def test_whatever_is_taken_for_a_pool_lives_on_the_servers_clock(new_server, binary):
    """Clocks that are far ahead, leases that were over long ago, and the timer that finds them."""
    with TimedTarget(new_server(**MANUAL), f"{binary.name} clock") as target:
        taken = target.hit("LB.LOAD", 2000)
    assert len(taken) > 100
    server = new_server()
    limit(server)
    memory = used_memory(server)
    with Wire(server.port) as wire:
        for key, payload in taken.items():
            assert wire.ask([b"LB.LOAD", key, payload]) == "OK"
            for name in b"LB.PICK", b"LB.WHEN", b"LB.LEASES", b"LB.STATS":
                wire.ask([name, key])
        for key in taken:
            wire.ask([b"LB.PICK", key, b"lc", b"COUNT", b"9", b"LEASE", b"5"])
            wire.ask([b"LB.LIMIT", key, b"RATE", b"5", b"100"])
        # The timer comes round to all of them.
        wire.ask("LB.ADD last a")
        wire.ask("LB.PICK last LEASE 5")
        eventually(lambda: wire.ask("LB.LEASES last") == [])
        assert wire.ask("FLUSHALL") == "OK"
    eventually(lambda: used_memory(server) < memory + CRUMBS)


BACKENDS = 100_000


@pytest.mark.parametrize("command", ["RESTORE", "LB.LOAD"])
@pytest.mark.parametrize("side", ["high", "low", "either"])
def test_credits_at_their_bounds_hold_nobody_up(new_server, command, side):
    """Only a pick that passes a bound looks at all backends, and the next ones do not."""
    sides = {"high": [1 << 61], "low": [(1 << 61) - 1], "either": [1 << 61, (1 << 61) - 1]}[side]
    credits = [varint(sides[number % len(sides)]) for number in range(BACKENDS)]
    members = [b"\x04%b\1\0%b\0" % (n.to_bytes(4, "big"), credit) for n, credit in enumerate(credits)]
    payload = bytes([1, 1, 2, 0, 0, 0]) + varint(BACKENDS) + b"".join(members)
    server = new_server()
    with Wire(server.port) as wire:
        load = [b"LB.LOAD", b"web", payload, b"REPLACE"]
        if command == "RESTORE":
            assert wire.ask([b"LB.LOAD", b"one", PAYLOAD]) == "OK"
            load = restore(b"web", Dump(wire.ask("DUMP one")).holding(payload))
        for use in ["LB.PEEK web COUNT 10000", "LB.PICK web COUNT 10000"]:
            spans = []
            for _ in range(3):
                assert wire.ask(load) == "OK"
                begin = time.monotonic()
                assert len(wire.ask(use)) == 10_000
                spans.append(time.monotonic() - begin)
            # The machine may be busy: one of three is not. It takes 5 s if each pick looks at all.
            assert min(spans) < 1, (use, spans)


# Where a number or an id is expected.
WORDS = [b"%d" % number for number in EXTREMES] + [
    b"-1",
    b"-9223372036854775808",
    b"1e9",
    b"0x10",
    b"nan",
    b"inf",
]
WORDS += [
    b"7-0",
    b"7-1",
    b"7-18446744073709551615",
    b"7-18446744073709551616",
    b"7",
    b"-",
    b"",
    b"\0",
    b"\xff" * 600,
]
WORDS += [
    b"a",
    b"b",
    b"MAX",
    b"RATE",
    b"BURST",
    b"TIER",
    b"BACKEND",
    b"OWNER",
    b"LEASE",
    b"COUNT",
    b"o",
    b"OK",
    b"FAIL",
]
WORDS += [b"LATENCY", b"rr", b"lc", b"p2c", b"EXCLUDE", b"1", b"2", b"9"]
HURT = [
    *(
        [b"LB.DONE"],
        [b"LB.RENEW"],
        [b"LB.RELEASE"],
        [b"LB.LEASES"],
        [b"LB.LIMIT"],
        [b"LB.TICK"],
        [b"LB.EPOCH"],
    ),
    *([b"LB.PICK"], [b"LB.PEEK"], [b"LB.PICK", b"LEASE"], [b"LB.PICK", b"COUNT", b"9", b"LEASE"]),
    *([b"LB.DONE", b"7-0", b"LATENCY"], [b"LB.RENEW", b"7-0"], [b"LB.LEASES", b"COUNT"]),
    *([b"LB.LIMIT", b"MAX"], [b"LB.LIMIT", b"RATE", b"9"], [b"LB.LIMIT", b"RATE", b"9", b"9", b"BURST"]),
    *([b"LB.LIMIT", b"BACKEND", b"a", b"RATE"], [b"LB.LIMIT", b"BACKEND", b"b", b"TIER"]),
]


def test_no_hostile_id_or_number_does_harm(new_server, binary):
    """Random words where they hurt most; what comes of it is a pool that can be saved and read."""
    server = new_server(**MANUAL)
    chance = random.Random(binary.name)
    answers = set()
    with TimedTarget(server, binary.name) as target:
        for number in range(PAYLOADS // 200):
            key = b"%d" % number
            target.ask_all([[b"LB.ADD", key, b"a", b"5", b"b", b"1"], *opened(key)])
            commands = []
            for _ in range(200):
                name, *rest = chance.choice(HURT)
                commands.append([name, key, *rest, *chance.choices(WORDS, k=chance.randrange(5))])
            answers |= {type(answer) for answer in target.ask_all(commands)}
            target.use({key: commands})
    assert answers >= {Refused, str, int, list, bytes}
