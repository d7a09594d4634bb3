"""The known answers themselves, found once more by integers in Python."""

from __future__ import annotations

import struct
from operator import mul

import pytest

from dvfd.drills.workers.arithmetic import (
    FEW,
    KNOWN,
    LENGTH,
    MILLION,
    PLAIN_OPERATIONS,
    RESIDUE,
    SIDE,
    noise,
    rows,
    sequence,
    told,
)


def square(values):
    return [values[i : i + SIDE] for i in range(0, len(values), SIDE)]


def small(name):
    return square([v - 256 if v > 127 else v for v in noise(name, SIDE * SIDE)])


def tiny(name):
    return square([min(v & 3, 2) - 1 for v in noise(name, SIDE * SIDE)])


def product(a, b):
    columns = list(zip(*b, strict=True))
    return [sum(map(mul, row, column)) for row in a for column in columns]


def as_told(integers):
    return told(struct.pack(f"<{len(integers)}q", *integers))


OPERANDS = {
    "float64": lambda name: rows(name, SIDE),
    "float32": small,
    "bfloat16": tiny,
}
EXACT = {"float64": 2**53, "float32": 2**24, "bfloat16": 2**8}


@pytest.mark.parametrize("kind", OPERANDS)
def test_a_matrix_product_is_that_of_integers(kind):
    a, b = (OPERANDS[kind](f"{kind} {side}") for side in "ab")

    assert as_told(product(a, b)) == KNOWN[f"matrix product, {kind}"]


@pytest.mark.parametrize("kind", OPERANDS)
def test_no_sum_in_any_order_can_leave_the_exact_integers(kind):
    most = [max(abs(v) for row in OPERANDS[kind](f"{kind} {side}") for v in row) for side in "ab"]

    assert SIDE * most[0] * most[1] <= EXACT[kind]


def test_pythons_floats_multiply_like_integers():
    a, b = rows("floats a", FEW), rows("floats b", FEW)

    assert as_told(product(a, b)) == KNOWN["float arithmetic"]


def packed(values):
    """One number whose digits in base 2^64 are *values*."""
    return sum(v << 64 * i for i, v in enumerate(values))


def test_the_convolution_is_that_of_one_long_multiplication():
    lifted = [[v + 2**15 for v in sequence(name)] for name in ("fft a", "fft b")]
    whole = (packed(lifted[0]) * packed(lifted[1])).to_bytes(16 * LENGTH, "little")
    linear = struct.unpack(f"<{2 * LENGTH}Q", whole)
    sums = [sum(sequence(name)) for name in ("fft a", "fft b")]
    shift = 2**15 * (sums[0] + sums[1]) + LENGTH * 2**30  # what lifting the operands added
    cyclic = [linear[i] + linear[i + LENGTH] - shift for i in range(LENGTH)]

    assert as_told(cyclic) == KNOWN["FFT"]


def test_the_checksum_is_that_of_shifting_bit_by_bit():
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in MILLION:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]

    assert struct.pack("<II", crc ^ 0xFFFFFFFF, RESIDUE).hex() == KNOWN["CRC-32"]


@pytest.mark.parametrize("operation", PLAIN_OPERATIONS, ids=lambda o: o.name)
def test_this_processor_gives_the_known_answer(operation):
    assert told(operation.prepare()()) == KNOWN[operation.name]


@pytest.mark.torch
def test_torch_gives_the_known_answers():
    from dvfd.drills.workers.torch_arithmetic import TORCH_OPERATIONS

    known = [o for o in TORCH_OPERATIONS if o.name in KNOWN]

    assert [told(o.prepare()()) for o in known] == [KNOWN[o.name] for o in known]
    assert len(known) + len(PLAIN_OPERATIONS) == len(KNOWN)
