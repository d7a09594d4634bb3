"""Computations whose results are known beforehand, or must at least have the same bits everywhere.

Floats that hold integers are multiplied and added exactly, in any order and by any library, while
sums stay below 2^53 (float64), 2^24 (float32) or 2^8 (bfloat16): so one hash is right on all
machines. Operands that fill the mantissa are rounded as the library likes: their results are only
compared between the processors of one machine.
"""

from __future__ import annotations

import hashlib
import operator
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 256
"""Rows of a square matrix: three of float64 fill 1.5 MB, about a core's second-level cache."""

LENGTH = 4096
"""Values in each of the sequences that are convolved."""

FEW = 48
"""Rows of the matrix for Python's own floats, which take 0.1 us for each product."""

MILLION = b"a" * 1_000_000
"""The long message of the examples to FIPS 180."""

RESIDUE = 0x2144DF1C
"""CRC-32 of any message with its own CRC-32 after it, least significant byte first."""

PLAIN = 64
"""Bytes up to which a result is told as it is; a longer one by its SHA-256."""

KNOWN = {
    "SHA-256": "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    "SHA-512": (
        "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
        "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"
    ),
    "CRC-32": struct.pack("<II", 0xDC25BFBC, RESIDUE).hex(),
    "multiplication": struct.pack("<I", 1_043_618_065).hex(),
    "long multiplication": hashlib.sha256(bytes(276)).hexdigest(),
    "float arithmetic": "a829497b56fc28e4fd38a6ffbd4fb2be59e9b0c043ea3cc3d7e1a5c7443df844",
    "matrix product, float64": "5cd54c973a2d5efc242e3746d93daf391c0f3f583a7271d89091bc5cbc020b49",
    "matrix product, float32": "d2d29ffce3391adf2c1bf9bb0a17eb4678531008f53aacbcf271a22fe85184dc",
    "matrix product, bfloat16": "8e0c5df4133aa85c7d8eec149e45b36f9a4ba33691cdc0a396a772fb5850042a",
    "FFT": "802a84150f25e6ef0cebf8b923b67e7102fa80ffc4f283f2d533861dd8a88bc0",
}
"""What operations must give, by `told`. The others depend on the library: only the same bits on
every processor are wanted of them.
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """`prepare` makes the operands and returns what computes the result's bytes from them."""

    name: str
    rounds: int
    prepare: Callable[[], Callable[[], bytes]]


def told(result: bytes) -> str:
    """A result of any length in at most 128 hexadecimal digits."""
    return result.hex() if len(result) <= PLAIN else hashlib.sha256(result).hexdigest()


def noise(name: str, size: int) -> bytearray:
    """*size* bytes that are the same everywhere and look like nothing."""
    return bytearray(hashlib.shake_256(f"dvfd {name}".encode()).digest(size))


def _sha256() -> Callable[[], bytes]:
    return lambda: hashlib.sha256(MILLION).digest()


def _sha512() -> Callable[[], bytes]:
    return lambda: hashlib.sha512(MILLION).digest()


def _crc() -> Callable[[], bytes]:
    """CRC-32 of the million, and of the million with it."""

    def compute() -> bytes:
        first = zlib.crc32(MILLION)
        return struct.pack("<II", first, zlib.crc32(struct.pack("<I", first), first))

    return compute


def _multiplications() -> Callable[[], bytes]:
    """The 10 000th value of the minimal standard generator, from the seed 1 (Park, Miller 1988)."""

    def compute() -> bytes:
        value = 1
        for _ in range(10_000):
            value = 16_807 * value % 2_147_483_647
        return struct.pack("<I", value)

    return compute


def _lucas_lehmer() -> Callable[[], bytes]:
    """The residue that is 0 because 2^2203 - 1 is prime (Robinson 1952)."""
    exponent = 2203
    prime = (1 << exponent) - 1

    def compute() -> bytes:
        value = 4
        for _ in range(exponent - 2):
            value = (value * value - 2) % prime
        return value.to_bytes(exponent // 8 + 1, "little")

    return compute


def _floats() -> Callable[[], bytes]:
    """A matrix product in Python's own floats: every sum is an integer below 2^53."""
    a, b = (rows(name, FEW) for name in ("floats a", "floats b"))
    first = [[float(x) for x in row] for row in a]
    second = [[float(x) for x in column] for column in zip(*b, strict=True)]

    def compute() -> bytes:
        product = (int(sum(map(operator.mul, r, c))) for r in first for c in second)
        return struct.pack(f"<{FEW * FEW}q", *product)

    return compute


def rows(name: str, side: int) -> list[list[int]]:
    """A square matrix of integers from -2^21 to 2^21 - 1."""
    words = struct.unpack(f"<{side * side}I", noise(name, 4 * side * side))
    values = [(word & (1 << 22) - 1) - (1 << 21) for word in words]
    return [values[i : i + side] for i in range(0, len(values), side)]


def sequence(name: str) -> list[int]:
    """LENGTH integers from -2^15 to 2^15 - 1."""
    return list(struct.unpack(f"<{LENGTH}h", noise(name, 2 * LENGTH)))


PLAIN_OPERATIONS = (
    Operation("SHA-256", 10, _sha256),
    Operation("SHA-512", 10, _sha512),
    Operation("CRC-32", 20, _crc),
    Operation("multiplication", 20, _multiplications),
    Operation("long multiplication", 4, _lucas_lehmer),
    Operation("float arithmetic", 10, _floats),
)
