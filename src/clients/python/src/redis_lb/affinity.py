"""Where `hash` sends an item: the map that src/lb/README.md publishes.

XXH3-64 stands here, for names and items of up to 1,024 bytes, so that the client needs no package but redis-py.
"""

from collections.abc import Mapping
from functools import lru_cache

M = 2**64 - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def winner(item: bytes, weights: Mapping[str, int]) -> str | None:
    """The backend of an item, if there are backends. Their weights are above 0."""
    asked = xxh3_64(item)
    best: tuple[int, int, bytes, str] | None = None
    for name, weight in weights.items():
        first = fold(asked, _of_name(name))
        # The time is at least its first number. So nearly all are passed over here.
        if best is not None and first * best[1] > best[0] * weight:
            continue
        drawn, packed = time(first), name.encode("utf-8", "surrogateescape")
        if best is not None:
            one, other = drawn * best[1], best[0] * weight
            if (one, packed) > (other, best[2]):
                continue
        best = (drawn, weight, packed, name)
    return best and best[3]


def time(first: int) -> int:
    """The exponential time whose first number this is, in units of 2^-64 (von Neumann, 1951)."""
    stream, whole, start = first, 0, first
    while True:
        last, is_odd = start, True
        while True:
            stream, number = splitmix64(stream)
            if number >= last:
                break
            last, is_odd = number, not is_odd
        if is_odd:
            return (whole << 64) + start
        whole += 1
        stream, start = splitmix64(stream)


def splitmix64(stream: int) -> tuple[int, int]:
    """The stream, and its next number."""
    z = stream = (stream + 0x9E3779B97F4A7C15) & M
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M
    z = (z ^ z >> 27) * 0x94D049BB133111EB & M
    return stream, z ^ z >> 31


@lru_cache(maxsize=1 << 16)
def _of_name(name: str) -> int:
    return xxh3_64(name.encode("utf-8", "surrogateescape"))


# XXH3 as https://github.com/Cyan4973/xxHash specifies it, with seed 0


def xxh3_64(data: bytes) -> int:
    """The hash of up to 1,024 bytes."""
    n = len(data)
    if n <= 16:
        return _short(data, n)
    if n > 240:
        return _long(data, n)
    acc = n * P64_1
    if n <= 128:
        for i in reversed(range((n - 1) // 32 + 1)):
            acc += mix16(data, 16 * i, 32 * i) + mix16(data, n - 16 * (i + 1), 32 * i + 16)
        return avalanche(acc & M)
    acc = avalanche(sum((mix16(data, 16 * i, 16 * i) for i in range(8)), acc) & M)
    acc += sum(mix16(data, 16 * i, 16 * (i - 8) + 3) for i in range(8, n // 16))
    return avalanche((acc + mix16(data, n - 16, 119)) & M)


def _short(data: bytes, n: int) -> int:
    if n > 8:
        low = word(data) ^ word(SECRET, 24) ^ word(SECRET, 32)
        high = word(data, n - 8) ^ word(SECRET, 40) ^ word(SECRET, 48)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return avalanche((n + swapped + high + fold(low, high)) & M)
    if n > 3:
        h = word(data, n - 4, 4) + (word(data, 0, 4) << 32) ^ word(SECRET, 8) ^ word(SECRET, 16)
        h ^= (h << 49 | h >> 15) & M ^ (h << 24 | h >> 40) & M
        h = h * 0x9FB21C651E98DF25 & M
        h = (h ^ (h >> 35) + n) * 0x9FB21C651E98DF25 & M
        return h ^ h >> 28
    h = word(SECRET, 56) ^ word(SECRET, 64)
    if n > 0:
        mixed = data[0] << 16 | data[n >> 1] << 24 | data[-1] | n << 8
        h = mixed ^ word(SECRET, 0, 4) ^ word(SECRET, 4, 4)
    h = (h ^ h >> 33) * P64_2 & M
    h = (h ^ h >> 29) * P64_3 & M
    return h ^ h >> 32


def _long(data: bytes, n: int) -> int:
    acc = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    stripes = [(64 * i, 8 * i) for i in range((n - 1) // 64)] + [(n - 64, 121)]
    for at, secret in stripes:
        for i in range(8):
            value = word(data, at + 8 * i)
            key = value ^ word(SECRET, secret + 8 * i)
            acc[i ^ 1] = acc[i ^ 1] + value & M
            acc[i] = acc[i] + (key & 0xFFFFFFFF) * (key >> 32) & M
    pairs = (fold(acc[i] ^ word(SECRET, 11 + 8 * i), acc[i + 1] ^ word(SECRET, 19 + 8 * i)) for i in (0, 2, 4, 6))
    return avalanche(sum(pairs, n * P64_1) & M)


def word(data: bytes, at: int = 0, size: int = 8) -> int:
    return int.from_bytes(data[at : at + size], "little")


def fold(a: int, b: int) -> int:
    """The halves of a product of 128 bits, one xor the other."""
    product = a * b
    return product >> 64 ^ product & M


def mix16(data: bytes, at: int, secret: int) -> int:
    return fold(word(data, at) ^ word(SECRET, secret), word(data, at + 8) ^ word(SECRET, secret + 8))


def avalanche(h: int) -> int:
    h = (h ^ h >> 37) * 0x165667919E3779F9 & M
    return h ^ h >> 32
