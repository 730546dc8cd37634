"""Make vectors.json: see README.md. The package xxhash must be there, which is the reference of XXH3."""

import itertools
import json
import random
from fractions import Fraction
from pathlib import Path

import xxhash

WORD = 2**64
LENGTHS = [
    1,
    2,
    3,
    4,
    5,
    8,
    9,
    12,
    16,
    17,
    21,
    32,
    33,
    64,
    65,
    96,
    97,
    128,
    129,
    200,
    240,
    241,
    256,
    300,
    448,
    449,
    512,
]
POOLS = {
    "alike": {f"10.0.0.{i}:8080": 1 for i in range(1, 11)},
    "mixed": {f"gpu-{i}": weight for i, weight in enumerate([1, 100, 7, 65535, 33, 2, 1000, 512])},
    "two": {"a": 70, "b": 30},
    "long": {"n" * length: length for length in (1, 20, 100, 200, 300, 512)},
}


def splitmix64(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) % WORD
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
        yield z ^ z >> 31


def time(first):
    numbers = splitmix64(first)
    for trial in itertools.count():
        run = [next(numbers) if trial else first]
        while (number := next(numbers)) < run[-1]:
            run.append(number)
        if len(run) % 2:
            return trial * WORD + run[0]


def order(item, pool):
    def key(name):
        product = xxhash.xxh3_64_intdigest(item.encode()) * xxhash.xxh3_64_intdigest(name.encode())
        return Fraction(time(product // WORD ^ product % WORD), pool[name]), name

    return sorted(pool, key=key)


chance = random.Random(16)
texts = [chance.randbytes(length) for length in LENGTHS]
firsts = [0, 1, 2**32, 2**63, WORD - 1, *(chance.getrandbits(64) for _ in range(20))]
items = ["item", "/logo.png", "user:1001", "i" * 100, "i" * 512, *(f"item:{i}" for i in range(15))]
vectors = {
    "hashes": [[text.hex(), f"{xxhash.xxh3_64_intdigest(text):016x}"] for text in texts],
    "times": [[f"{first:016x}", f"{time(first):x}"] for first in firsts],
    "pools": [
        {"weights": pool, "items": {item: order(item, pool) for item in items}} for pool in POOLS.values()
    ],
}
Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")
