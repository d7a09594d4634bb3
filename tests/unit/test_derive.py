"""Metrics computed from metrics: known answers, and None where there is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd import derive
from dvfd.derive import StepStats

EIGHT = [4.0, 4.0, 4.0, 5.0, 5.0, 9.0, 2.0, 7.0]


@pytest.mark.parametrize(
    ("percent", "answer"), [(0, 2), (25, 4), (50, 4.5), (95, 8.3), (99, 8.86), (100, 9)]
)
def test_a_percentile_lies_between_its_neighbours(percent, answer):
    assert derive.percentile(EIGHT, percent) == pytest.approx(answer)


def test_a_percentile_looks_no_further_than_its_neighbours():
    assert derive.percentile([1, 2, 4, 8], 50) == 3


@given(st.floats(-1e300, 1e300), st.integers(1, 9), st.floats(0, 100))
def test_statistics_of_equal_values_are_that_value_exactly(value, count, percent):
    values = [value] * count

    assert derive.mean(values) == derive.percentile(values, percent) == value


def test_the_sample_deviation_divides_by_one_less():
    assert derive.stdev([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx(2.138089935)
    assert derive.stdev([1]) is None


def test_the_share_within_a_band_includes_its_ends():
    assert derive.fraction_within([90, 100, 110], 10) == 1.0
    assert derive.fraction_within([89, 100, 111], 10) == pytest.approx(1 / 3)
    assert derive.fraction_within([1], 10) is None


def test_a_spread_is_the_largest_distance_from_the_mean_over_the_mean():
    assert derive.spread([8, 10, 12]) == pytest.approx(0.2)
    assert derive.spread([0, 0]) == 0.0
    assert derive.spread([-1, 1]) is None


def test_a_counter_grows_through_a_reset():
    assert derive.counter_increase([5, 7, 7, 10]) == 5
    assert derive.counter_increase([5, 7, 2, 3]) == 5
    assert derive.counter_increase([5]) == 0


def test_a_wrapped_counter_goes_on():
    assert derive.unwrap(100, 150, 262143) == 50
    assert derive.unwrap(262100, 57, 262143) == 100


def test_communication_is_a_share_of_the_step():
    assert derive.communication_ratio(0.03, 0.2) == pytest.approx(0.15)
    assert derive.communication_ratio(0, 0.2) == 0
    assert derive.communication_ratio(0.03, 0) is None
    assert derive.communication_ratio(-0.1, 0.2) is None


def test_the_busier_direction_saturates_a_link():
    gigabyte = 1e9

    assert derive.saturation(5 * gigabyte, 45 * gigabyte, 1, bits_per_second=400e9) == 0.9
    assert derive.saturation(1, 1, 0, bits_per_second=400e9) is None
    assert derive.saturation(1, -1, 1, bits_per_second=400e9) is None
    assert derive.saturation(1, 1, 1, bits_per_second=-1) is None


def test_a_straggler_takes_longer_than_its_reference():
    assert derive.straggler_ratio(0.2, 0.15) == pytest.approx(0.75)


@pytest.mark.parametrize(("own", "reference"), [(0, 1), (1, 0), (math.nan, 1), (1, math.inf)])
def test_a_straggler_ratio_of_nothing_is_none(own, reference):
    assert derive.straggler_ratio(own, reference) is None


@pytest.mark.parametrize(("p99", "limit"), [(None, 10), (0.1, 10), (2, 10), (3, 15)])
def test_a_rank_hangs_after_ten_seconds_or_five_long_steps(p99, limit):
    assert derive.hang_limit(p99) == limit


def test_a_stall_is_silence_over_the_hang_limit():
    assert derive.stall_ratio(20, 0.1) == 2
    assert derive.stall_ratio(-5, 0.1) == 0


def test_step_statistics_know_their_quantiles():
    stats = StepStats()
    stats.extend(i / 100 for i in range(1, 102))

    assert stats.median() == pytest.approx(0.51)
    assert stats.p99() == pytest.approx(1.0)
    assert stats.hang_limit() == 10


def test_step_statistics_without_a_step_know_nothing():
    stats = StepStats()

    assert (stats.median(), stats.p99(), stats.hang_limit(), len(stats)) == (None, None, 10, 0)


def test_step_statistics_forget_the_oldest_and_stay_small():
    stats = StepStats(4)
    stats.extend([9, 9, 1, 2, 3, 4])

    assert (len(stats), stats.percentile(100)) == (4, 4)


def test_step_statistics_remember_256_steps():
    stats = StepStats()
    stats.extend([1.0] * 300)

    assert len(stats) == 256


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -1.0])
def test_step_statistics_leave_out_what_no_clock_gives(nonsense):
    stats = StepStats()
    stats.add(nonsense)

    assert len(stats) == 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.integers(1, 9))
def test_a_weight_counts_as_so_many_equal_values(values, weight):
    weights = [1] * len(values)
    weights[0] = weight
    repeated = [values[0]] * (weight - 1) + values

    assert derive.mean(values, weights) == pytest.approx(derive.mean(repeated), abs=1e-6)
    assert derive.percentile(values, 100, weights) == max(values)
    assert min(values) <= derive.median(values, weights) <= max(values)


def test_weighted_statistics_give_the_known_answers():
    assert derive.mean([1, 5], [3, 1]) == 2
    assert derive.median([9, 1, 5], [1, 98, 1]) == 1
    assert derive.percentile([9, 1, 5], 99, [1, 98, 1]) == 5
    assert derive.stdev([1, 5], [3, 1]) == pytest.approx(math.sqrt(3))
    assert derive.fraction_within([1, 1, 9], 2, [10, 10, 1]) == pytest.approx(20 / 21)


def test_each_value_needs_its_weight():
    with pytest.raises(ValueError, match="zip"):
        derive.median([1, 5], [3])
