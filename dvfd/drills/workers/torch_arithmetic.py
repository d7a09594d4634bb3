"""The computations with known answers that need torch: matrix products and FFTs."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from dvfd.drills.workers.arithmetic import LENGTH, SIDE, Operation, noise, rows, sequence

if TYPE_CHECKING:
    from collections.abc import Callable


def _product(kind: str) -> Callable[[], bytes]:
    """An exact matrix product: operands of 22, 8 and 1.6 bits keep every sum an integer."""
    dtype = getattr(torch, kind)
    a, b = (_matrix(f"{kind} {side}", kind).to(dtype) for side in "ab")
    return lambda: _bytes((a @ b).to(torch.int64))


def _matrix(name: str, kind: str) -> torch.Tensor:
    """Integers, shape (SIDE, SIDE)."""
    if kind == "float64":
        return torch.tensor(rows(name, SIDE))
    small = torch.frombuffer(noise(name, SIDE * SIDE), dtype=torch.int8).reshape(SIDE, SIDE)
    return small if kind == "float32" else (small & 3).clamp(max=2) - 1


def _rounded(kind: str) -> Callable[[], bytes]:
    """A matrix product of operands with a full mantissa."""
    dtype = getattr(torch, kind)
    a, b = (_full(f"{kind} rounded {side}", SIDE * SIDE).to(dtype) for side in "ab")
    a, b = a.reshape(SIDE, SIDE), b.reshape(SIDE, SIDE)
    return lambda: _bytes(a @ b)


def _full(name: str, count: int) -> torch.Tensor:
    """Float64 from -0.5 to 0.5, every bit of the mantissa in use."""
    bits = torch.frombuffer(noise(name, 8 * count), dtype=torch.int64)
    return (bits & (1 << 52) - 1 | 0x3FF << 52).view(torch.float64) - 1.5


def _convolution() -> Callable[[], bytes]:
    """Two sequences of integers, convolved by FFT: rounded it is exact.

    The error is about log2(LENGTH) 2^-53 times the norms' product, 2^21 each at the most: 0.006.
    """
    a, b = (torch.tensor(sequence(name), dtype=torch.float64) for name in ("fft a", "fft b"))

    def compute() -> bytes:
        spectrum = torch.fft.rfft(a) * torch.fft.rfft(b)
        return _bytes(torch.fft.irfft(spectrum, n=LENGTH).round().to(torch.int64))

    return compute


def _spectrum() -> Callable[[], bytes]:
    values = _full("spectrum", LENGTH)
    return lambda: _bytes(torch.view_as_real(torch.fft.rfft(values)))


def _bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor: without numpy, which may be absent."""
    whole = tensor.contiguous()
    return ctypes.string_at(whole.data_ptr(), whole.numel() * whole.element_size())


TORCH_OPERATIONS = (
    Operation("matrix product, float64", 150, lambda: _product("float64")),
    Operation("matrix product, float32", 300, lambda: _product("float32")),
    Operation("matrix product, bfloat16", 150, lambda: _product("bfloat16")),
    Operation("rounded matrix product, float64", 150, lambda: _rounded("float64")),
    Operation("rounded matrix product, float32", 300, lambda: _rounded("float32")),
    Operation("FFT", 400, _convolution),
    Operation("rounded FFT", 400, _spectrum),
)
