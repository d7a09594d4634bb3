"""The proved rounding bound under adversarial sums, and what each count of a comparison means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from dvfd.drills import agreement  # noqa: E402
from dvfd.drills.agreement import Tally, against_ranks  # noqa: E402

pytestmark = pytest.mark.torch

FORMATS = (torch.float32, torch.bfloat16, torch.float16)


def sums(parts: Sequence[Any]) -> Iterator[Any]:
    """The sum of *parts* in every order and bracketing there is: all binary trees over them."""
    if len(parts) == 1:
        yield parts[0]
        return
    first, *rest = parts
    for mask in range(2 ** len(rest) - 1):
        left = [first, *(p for n, p in enumerate(rest) if mask >> n & 1)]
        right = [p for n, p in enumerate(rest) if not mask >> n & 1]
        for a in sums(left):
            for b in sums(right):
                yield a + b


def numbers(dtype: torch.dtype) -> st.SearchStrategy[list[float]]:
    """Two to five numbers of *dtype*: of any size, and near each other so that sums cancel."""
    top = 0.9 * float(torch.finfo(dtype).max)  # a mean at the very end may round to infinity
    wild = st.floats(-top, top, allow_nan=False).map(lambda x: _rounded(x, dtype))
    near = st.builds(
        lambda sign, mantissa, scale: _rounded(sign * (1 + mantissa / 4096) * 2.0**scale, dtype),
        st.sampled_from((-1, 1)),
        st.integers(0, 4095),
        st.integers(-9, 9),
    )
    return st.lists(wild | near, min_size=2, max_size=5)


def _rounded(value: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(value, dtype=torch.float64).to(dtype))


def exact_bound(values: Sequence[float], dtype: torch.dtype) -> float:
    magnitude = sum(abs(v) for v in values) / len(values)
    return float(agreement.bound(torch.tensor(magnitude, dtype=torch.float64), len(values), dtype))


def _largest_error(values: Sequence[float], dtype: torch.dtype, *, divide: bool) -> float:
    """The largest error of the mean over all orders, against the truth in rational numbers."""
    gradients = [torch.tensor(v, dtype=dtype) for v in values]
    count = len(gradients)
    parts = [g / count if divide else g * (1.0 / count) for g in gradients]
    truth = sum(map(Fraction, values)) / count
    return max(abs(float(Fraction(float(total)) - truth)) for total in sums(parts))


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("divide", [False, True], ids=["by multiplying", "by dividing"])
def test_no_order_of_summing_ever_leaves_the_bound(dtype: torch.dtype, divide: bool) -> None:
    @settings(max_examples=150, deadline=None)
    @given(numbers(dtype))
    @example([1.0, -1.0, 2.0**-9, 1.0])
    @example([agreement.smallest(dtype)] * 3)
    def holds(values: list[float]) -> None:
        error = _largest_error(values, dtype, divide=divide)
        assert error <= exact_bound(values, dtype)

    holds()


def test_averaging_over_three_ranks_needs_more_than_the_sums_share_of_the_bound() -> None:
    u = agreement.ROUNDOFF[torch.float32]
    values = [3 * (1 + 2 * u), -3 * u, -3 * u]  # 1/3 and its products round the same way as the sum
    error = _largest_error(values, torch.float32, divide=False)
    magnitude = sum(map(abs, values)) / 3
    assert error > 3.2 * u * magnitude  # (n - 1) u sum|x| + u |y| is 3 u: DDP breaks it
    assert error <= exact_bound(values, torch.float32)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_the_bound_is_nearly_reached_so_nothing_smaller_would_do(dtype: torch.dtype) -> None:
    u = agreement.ROUNDOFF[dtype]
    values = [1.0, _rounded(u, dtype)]
    error = _largest_error(values, dtype, divide=True)
    assert error > 0.99 * exact_bound(values, dtype)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_an_error_beyond_rounding_is_counted_out(dtype: torch.dtype) -> None:
    gradients = [torch.full((8,), v, dtype=dtype) for v in (1.0, 2.0, 3.0, 4.0)]
    reduced = torch.full((8,), 2.5, dtype=dtype)
    reduced[3] *= 1 + 8 * agreement.ROUNDOFF[dtype]
    assert against_ranks(reduced, gradients).bounded == 7


def test_a_wrong_element_is_not_close() -> None:
    gradients = [torch.ones(8), torch.ones(8)]
    reduced = torch.ones(8)
    reduced[0] += 2e-5
    found = against_ranks(reduced, gradients)
    assert (found.pairs, found.elements, found.close) == (1, 8, 7)


@pytest.mark.parametrize(
    ("mine", "theirs", "good", "bad"),
    [
        (math.nan, 1.0, math.nan, 1.0),
        (math.inf, 1.0, math.inf, -math.inf),
        (math.inf, -math.inf, math.nan, math.inf),
        (1.0, 1.0, 1.0, math.nan),
    ],
)
def test_what_is_not_finite_must_come_out_as_it_went_in(
    mine: float, theirs: float, good: float, bad: float
) -> None:
    gradients = [torch.tensor([mine, mine]), torch.tensor([theirs, theirs])]
    found = against_ranks(torch.tensor([good, bad]), gradients)
    assert (found.bounded, found.close) == (1, 1)


def test_a_sum_that_overflowed_is_out_of_bounds() -> None:
    top = torch.full((1,), torch.finfo(torch.float16).max, dtype=torch.float16)
    found = against_ranks(torch.full((1,), math.inf, dtype=torch.float16), [top, top])
    assert found.bounded == 0


def test_every_ring_order_is_known_and_no_other_sum() -> None:
    torch.manual_seed(1)
    parts = [torch.randn(1000) for _ in range(4)]
    scaled = [p * 0.25 for p in parts]
    ring = ((scaled[2] + scaled[1]) + scaled[0]) + scaled[3]
    tree = (scaled[0] + scaled[2]) + (scaled[1] + scaled[3])
    assert against_ranks(ring, parts).replayed == 1000
    assert against_ranks(tree, parts).replayed < 1000


def test_equal_to_one_process_means_every_bit() -> None:
    alone = torch.tensor([0.0, 1.0, 1.0, math.nan])
    reduced = torch.tensor([-0.0, 1.0, 1.0 + 2.0**-23, math.nan])
    found = agreement.against_one(reduced, alone)
    assert (found.alone, found.alone_equal, found.alone_close) == (4, 2, 4)


@pytest.mark.parametrize(
    ("norms", "dtype", "agree"),
    [
        ([1.0, 1.000009], torch.float32, True),
        ([1.0, 1.00002], torch.float32, False),
        ([1.00002, 1.0], torch.float32, False),
        ([1.0, 1.009], torch.bfloat16, True),
        ([1.0, 1.02], torch.bfloat16, False),
        ([math.nan, math.nan], torch.float32, False),
        ([1.0, math.nan], torch.float32, False),
        ([math.nan, 1.0], torch.float32, False),
        ([math.inf, math.inf], torch.float32, False),
    ],
)
def test_norms_agree_within_the_formats_tolerance(
    norms: list[float], dtype: torch.dtype, agree: bool
) -> None:
    assert agreement.norms_agree(norms, dtype) is agree


def test_the_rank_that_differs_from_most_is_named() -> None:
    assert agreement.disagreements([[1, 5], [1, 5], [2, 5], [1, 5]]) == [(0, [2])]
    assert agreement.disagreements([[1, 5], [1, 5]]) == []


def test_where_no_hash_is_that_of_most_ranks_all_are_named() -> None:
    assert agreement.disagreements([[1], [2]]) == [(0, [0, 1])]
    assert agreement.disagreements([[1], [1], [2], [2]]) == [(0, [0, 1, 2, 3])]


def test_tallies_add_up() -> None:
    assert Tally(1, 2, 3) + Tally(10, 20, 30, 40) == Tally(11, 22, 33, 40)
