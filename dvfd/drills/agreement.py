"""How near a reduced gradient is to what went into it: counts, and a rounding bound that is proved.

Pure arithmetic on tensors: no process group, no clock, no file.

**The bound.** DDP multiplies each rank's gradient g_i with 1/n and sums the products in the
gradient's own format, with unit roundoff u. The truth is s = sum(g_i) / n. With x_i = g_i / n:

- If n is a power of two the product is exact, unless it is subnormal. Otherwise 1/n is rounded, and
  the product again: |x'_i| <= (1 + u)^k |x_i|, and |x'_i - x_i| <= ((1 + u)^k - 1) |x_i|, with
  k = 0 or 2. A subnormal product is off by half the smallest number, e / 2, at the most.
- A sum of n numbers in any order is off by at most (n - 1) u sum|x'_i|, without terms of second
  order (Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34, 2013). Sums do not underflow, and
  dividing first keeps them from overflowing, but for a mean within n u of the format's largest
  number: an infinity there is counted as out of bounds.

Together: |y - s| <= ((n - 1) u (1 + u)^k + (1 + u)^k - 1) sum|x_i| + (1 + (n - 1) u) n e / 2.
Where the division comes last its own rounding, u |y|, stands in place of k; that is less. The truth
itself is computed in float64: n 2^-51 sum|x_i| is more than that can be off, and is added.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""u of each format: half the distance from 1 to the next number."""

CLOSE = (1e-5, 1e-7)
"""Relative and absolute tolerance of `isclose` and of norms in float32: the source's own."""

NORMS_REDUCED = (1e-2, 1e-7)
"""The same for norms in bfloat16 and float16: 1e-5 is finer than the formats are."""

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Tally:
    """What was compared, and how much of it agreed. All are counts; two tallies can be added."""

    pairs: int = 0  # sampled (step, bucket) pairs
    elements: int = 0  # in them, each held against the float64 sum of the ranks' gradients
    close: int = 0  # of those, by isclose
    bounded: int = 0  # of those, within the proved bound
    replayed: int = 0  # of those, equal to the sum in one of the ring's n orders
    alone: int = 0  # elements held against one process that has the whole batch
    alone_equal: int = 0  # of those, bit by bit
    alone_close: int = 0  # of those, by isclose
    recomputed: int = 0  # gradients of one rank that another computed again
    recomputed_differently: int = 0  # of those, with other bits

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def against_ranks(reduced: torch.Tensor, gradients: Sequence[torch.Tensor]) -> Tally:
    """Hold a reduced bucket against the undivided *gradients* of all ranks, in order of rank."""
    count = len(gradients)
    wide = [gradient.double() for gradient in gradients]
    truth = torch.stack(wide).sum(0) / count
    magnitude = torch.stack([w.abs() for w in wide]).sum(0) / count
    error = (reduced.double() - truth).abs()
    alike = same_nonfinite(reduced.double(), truth)
    finite = truth.isfinite()
    within = torch.where(finite, error <= bound(magnitude, count, reduced.dtype), alike)
    near = torch.where(finite, error <= CLOSE[1] + CLOSE[0] * truth.abs(), alike)
    return Tally(
        pairs=1,
        elements=reduced.numel(),
        close=int(near.sum()),
        bounded=int(within.sum()),
        replayed=int(in_some_order(reduced, gradients).sum()),
    )


def bound(magnitude: torch.Tensor, count: int, dtype: torch.dtype) -> torch.Tensor:
    """The largest error that rounding can explain, in float64; *magnitude* is sum|g_i| / n."""
    u = ROUNDOFF[dtype]
    spread = 1.0 if count & (count - 1) == 0 else (1 + u) ** 2
    relative = (count - 1) * u * spread + (spread - 1) + count * 2.0**-51
    return magnitude * relative + (1 + (count - 1) * u) * count * smallest(dtype) / 2


def smallest(dtype: torch.dtype) -> float:
    """The smallest positive number of *dtype*, a subnormal one."""
    about = torch.finfo(dtype)
    return about.smallest_normal * about.eps


def same_nonfinite(reduced: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Where both are NaN, or the same infinity."""
    return (reduced.isnan() & truth.isnan()) | (reduced.isinf() & (reduced == truth))


def in_some_order(reduced: torch.Tensor, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Where *reduced* equals the sum in one of the n orders of a ring.

    A ring's segment begins at some rank and walks down to the next one below.
    """
    parts = [gradient * (1.0 / len(gradients)) for gradient in gradients]
    found = torch.zeros(reduced.shape, dtype=torch.bool, device=reduced.device)
    for total in _rotations(parts):
        found |= (total == reduced) | (total.isnan() & reduced.isnan())
    return found


def _rotations(parts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    for first in range(len(parts)):
        total = parts[first].clone()
        for step in range(1, len(parts)):
            total += parts[(first - step) % len(parts)]
        yield total


def against_one(reduced: torch.Tensor, alone: torch.Tensor) -> Tally:
    """Hold a reduced bucket against the same of one process that has the whole batch."""
    near = torch.isclose(reduced, alone, rtol=CLOSE[0], atol=CLOSE[1], equal_nan=True)
    same = bits(reduced) == bits(alone)
    return Tally(alone=reduced.numel(), alone_equal=int(same.sum()), alone_close=int(near.sum()))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as whole numbers: equal means equal bit by bit, NaN and -0 included."""
    return tensor.contiguous().view(_BITS[tensor.element_size()])


def norms_agree(norms: Sequence[float], dtype: torch.dtype) -> bool:
    """Whether all ranks' gradient norms are allclose to each other. One that is no number is not.

    The tolerance is taken at the least of them: allclose is not symmetric, this is.
    """
    relative, absolute = CLOSE if dtype == torch.float32 else NORMS_REDUCED
    least = min(norms)
    return all(norm - least <= absolute + relative * least for norm in norms)


def disagreements(hashes: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """The buckets whose hashes differ, each with the ranks that differ from most.

    *hashes* has a row for each rank, with the hash of each bucket in it. Where no hash is that of
    most ranks, all are named: nobody can say who is right.
    """
    found = []
    for bucket, column in enumerate(zip(*hashes, strict=True)):
        usual = max(set(column), key=column.count)
        if all(each == usual for each in column):
            continue
        clear = 2 * column.count(usual) > len(column)
        odd = [rank for rank, each in enumerate(column) if each != usual or not clear]
        found.append((bucket, odd))
    return found
