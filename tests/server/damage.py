"""Damaged payloads, and a server that gets them."""

import random
from itertools import chain, islice

from algorithms import ALGORITHMS, BLIND, packed
from dump import Dump
from epoch import OPENER, opened
from payload import varint
from wire import Refused, Wire, pack

# At these numbers something may end: as the codec writes them (varints; credits are zigzag).
EXTREMES = [0, 1, 0x7F, 0x80, 0xFFFF, 1 << 16, 1 << 24, (1 << 24) + 1, (1 << 32) - 1]
EXTREMES += [(1 << 61) - 1, 1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
# Spans, clocks, limits of leases, and how full a bucket is.
EXTREMES += [1 << 40, (1 << 40) + 1, 1 << 47, (1 << 47) + 1, (1 << 31) - 1, 1 << 31, 1 << 80, (1 << 128) - 1]


# These, and lengths as RDB files write them: 32 and 64 bits, and strings that are numbers or compressed.
NUMBERS = [varint(number) for number in EXTREMES]
NUMBERS += [b"\x80\xff\xff\xff\xff", b"\x81" + b"\xff" * 8, b"\xc0\x01", b"\xc2\xff\xff\xff\xff", b"\xc3\x05"]


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
        self._payloads = [Dump(plain).payload for plain in dumps]
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
            for algorithm in chance.sample(BLIND, chance.randrange(5)):
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
    return [[b"LB.PICK", key, algorithm, b"COUNT", b"3"] for algorithm in packed(ALGORITHMS)]


def restore(key, dumped):
    return [b"RESTORE", key, b"0", dumped, b"REPLACE"]
