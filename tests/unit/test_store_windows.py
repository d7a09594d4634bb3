"""What stands in for many samples reduces as they would, or says that it does not know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd import derive
from dvfd.store.retention import Retention
from dvfd.store.rollups import HOURS, MINUTES, fold
from dvfd.store.windows import resolution, stand_in

NOW = 1_800_000_000
DAY = 86_400.0


def rollup(*values: float):
    rows = [(NOW + 5.0 * i, v, None, None) for i, v in enumerate(values)]
    return fold(NOW, rows, None, 15.0, HOURS)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_two_values_have_the_mean_and_spread_of_all(values: list[float]) -> None:
    low, high = stand_in("stdev", rollup(*values))

    assert (low + high) / 2 == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert (high - low) / 2 == pytest.approx(rollup(*values).deviation, abs=1e-6)


@pytest.mark.parametrize("values", [(1, 2, 5), (0, 5, 5), (7, 9, 1, 4)])
def test_a_counter_grows_in_a_bucket_as_its_samples_did(values: tuple[float, ...]) -> None:
    before = values[0] - 1  # the last sample of the bucket before
    all_of_it = derive.counter_increase([before, *values])

    assert derive.counter_increase([before, *stand_in("increase", rollup(*values))]) == all_of_it


@pytest.mark.parametrize(
    ("reduce", "value"),
    [("max", 9), ("min", 1), ("latest", 4), ("sum", 21), ("mean", 5.25), ("median", 5.5)],
)
def test_each_reduction_gets_its_own_number(reduce: str, value: float) -> None:
    assert stand_in(reduce, rollup(7, 9, 1, 4)) == (value,)


def test_counting_samples_still_counts_each() -> None:
    assert len(stand_in("count", rollup(1, 2, 3))) == 3


@pytest.mark.parametrize(
    ("reduce", "window", "level"),
    [
        ("mean", 3600.0, None),
        ("mean", DAY, MINUTES),
        ("mean", 7 * DAY, HOURS),
        ("p99", DAY, None),
        ("count", DAY, None),
        ("fraction_within", 7 * DAY, HOURS),
    ],
)
def test_the_length_of_a_window_chooses_its_resolution(reduce, window, level) -> None:
    assert resolution(reduce, NOW - window, NOW, NOW, Retention()) is level
