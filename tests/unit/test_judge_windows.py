"""Verdicts over a window: reducers by known answers, coverage, counters, certain failures."""

from __future__ import annotations

import math

import pytest
from fakes_judge import NOW, criterion, sample, series

from dvfd.judge import judge
from dvfd.model import Combine, Range, Verdict, labels
from dvfd.reduce import seconds


def windowed(wanted: str, reduce: str, window: float = 60, **changes):
    return criterion(wanted, reduce=reduce, window=window, **changes)


def verdict(rule, samples):
    return judge(rule, samples, at=NOW).verdict


KNOWN = [
    ("mean", 5.0),
    ("median", 4.5),
    ("min", 2.0),
    ("max", 9.0),
    ("sum", 40.0),
    ("stdev", 2.1380899352993947),
    ("p0", 2.0),
    ("p50", 4.5),
    ("p95", 8.3),
    ("p99", 8.86),
    ("p99.9", 8.986),
    ("p100", 9.0),
    ("count", 8.0),
    ("rate", 12 / 35),
    ("increase", 12.0),
    ("fraction_within", 0.75),
]


@pytest.mark.parametrize(("reduce", "answer"), KNOWN)
def test_a_reducer_gives_the_known_answer(reduce, answer):
    # rises 4 to 9 by 5 and, after the fall to 2, counts those 2 and the 5 to 7
    samples = series(4, 4, 4, 5, 5, 9, 2, 7)
    found = judge(windowed("<= 1e9", reduce, band=2), samples, at=NOW)

    assert found.observed == pytest.approx(answer)
    assert found.samples == 8


def test_only_samples_of_the_window_count():
    samples = [sample(100, 61), sample(3, 60), sample(5, 0)]

    assert judge(windowed("<= 9", "mean", max_age=60), samples, at=NOW).observed == 4


def test_an_empty_window_is_unknown():
    found = judge(windowed("<= 9", "mean", window=10, max_age=60), [sample(3, 30, rank=1)], at=NOW)

    assert (found.verdict, found.observed) == (Verdict.UNKNOWN, None)
    assert (found.labels, found.sampled_at) == (labels(rank=1), NOW - 30)
    assert "no sample in the last 10 s" in found.reason


def test_a_reducer_without_a_window_is_unknown():
    assert verdict(windowed("<= 9", "mean", window=0), [sample(3)]) == "UNKNOWN"


@pytest.mark.parametrize("reduce", ["average", "p101", "p", "px", "p9.9.9", "fraction_within"])
def test_a_reducer_that_is_not_there_is_unknown(reduce):
    assert verdict(windowed("<= 9", reduce), series(1, 2)) == "UNKNOWN"


@pytest.mark.parametrize("reduce", [name for name, _ in KNOWN])
def test_a_series_that_fell_silent_never_passes(reduce):
    samples = [sample(1, 50), sample(1, 45), sample(1, 40)]

    assert verdict(windowed("<= 9", reduce, band=2), samples) == "UNKNOWN"


@pytest.mark.parametrize("reduce", [name for name, _ in KNOWN])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_one_implausible_sample_poisons_its_window(reduce, bad):
    rule = windowed("<= 1e9", reduce, band=2, possible=Range(0, 1e6))

    assert verdict(rule, series(1, bad, 1)) == "UNKNOWN"


@pytest.mark.parametrize(
    ("reduce", "samples", "reason"),
    [
        ("mean", series(1, math.nan), "implausible value nan, wanted"),
        ("p9.9.9", series(1, 2), "there is no reducer 'p9.9.9'"),
        ("mean", series(1.7e308, -1.7e308, 1.7e308, 1.7e308), "mean of 4 samples: "),
        ("sum", series(1.7e308, 1.7e308), "sum of 2 samples: "),
        ("rate", series(-1.7e308, 1.7e308), "rate of 2 samples is beyond any number"),
        ("rate", series(1), "rate needs two samples at two times, there is one"),
        ("increase", series(1), "increase needs two samples, there is one"),
        ("stdev", series(1), "stdev needs two samples, there is one"),
        ("fraction_within", series(1), "fraction_within needs two samples, there is one"),
        (
            "stdev",
            series(1, 2, low=0, high=3),
            "stdev of values that are known only as intervals says nothing",
        ),
        ("average", series(1, 2), "there is no reducer 'average', or it lacks its band"),
    ],
)
def test_a_window_that_gives_no_value_says_why(reduce, samples, reason):
    found = judge(windowed("<= 9", reduce, band=2), samples, at=NOW)

    assert (found.verdict, found.observed) == (Verdict.UNKNOWN, None)
    assert found.reason.startswith(f"m: {reason}")


def test_a_window_that_gives_no_value_is_told_with_what_was_seen_of_it():
    found = judge(windowed("<= 9", "mean", window=10), series(1, math.nan, rank=1), at=NOW)

    assert (found.labels, found.samples, found.coverage) == (labels(rank=1), 2, 0.5)


def test_samples_of_one_instant_count_in_the_order_of_their_values():
    one, other = [sample(5, 10), sample(3, 10)], [sample(3, 10), sample(5, 10)]
    found = [
        judge(windowed("<= 9", "increase"), [sample(1, 20), *each, sample(6)], at=NOW).observed
        for each in (one, other)
    ]

    assert found == [5, 5]


def test_only_the_last_sample_before_a_window_counts_for_its_growth():
    samples = [sample(0, 80), sample(10, 70), sample(12, 5)]

    assert judge(windowed("<= 9", "increase", max_age=60), samples, at=NOW).observed == 2


@pytest.mark.parametrize(("reduce", "answer"), [("increase", 2), ("rate", 2 / 70)])
def test_a_sample_that_stands_for_the_start_of_a_window_to_the_second_counts(reduce, answer):
    samples = [sample(10, 75), sample(12, 5)]
    found = judge(windowed("<= 9", reduce, max_age=15), samples, at=NOW)

    assert found.observed == pytest.approx(answer)


WEIGHTED = [sample(1, 15, span=105, low=0, high=2), sample(9, 0, span=15, low=8, high=10)]


def test_the_ends_of_weighted_intervals_have_the_weights_of_their_values():
    found = [verdict(windowed(f"<= {n}", "mean", window=120), WEIGHTED) for n in (3, 2.9)]

    assert found == ["PASS", "UNKNOWN"]


@pytest.mark.parametrize(("reduce", "answer"), [("fraction_within", 0.875), ("p50", 1)])
def test_a_rollup_counts_by_its_span(reduce, answer):
    samples = [sample(1, 15, span=105), sample(9, 0, span=15)]
    found = judge(windowed("<= 9", reduce, window=120, band=2), samples, at=NOW)

    assert found.observed == answer


def test_a_window_may_be_as_short_as_a_second():
    assert verdict(windowed("<= 9", "max", window=1), series(1, 1, every=1)) == "PASS"
    assert judge(windowed("<= 9", "rate", window=1), series(1, 4, every=1), at=NOW).observed == 3


@pytest.mark.parametrize("bounds", [{"low": 8.0}, {"high": 9.5}])
def test_one_bound_that_is_given_is_enough_to_doubt(bounds):
    samples = [sample(9, 5, **bounds), sample(9, 0, **bounds)]

    assert verdict(windowed("== 9", "mean", coverage=0), samples) == "UNKNOWN"


def test_a_raw_sample_before_all_rollups_stands_for_no_longer_than_its_greatest_age():
    samples = [sample(0, 120), sample(6, 60, span=60), sample(6, 0, span=60)]
    found = judge(windowed("<= 9", "mean", window=120, max_age=15), samples, at=NOW)

    assert found.observed == pytest.approx(6 * 120 / 135)


def test_rollups_of_one_span_count_as_raw_samples_do():
    samples = [sample(1, 60, span=60), sample(3, 0, span=60)]
    found = judge(windowed("<= 9", "stdev", window=120), samples, at=NOW)

    assert found.observed == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (179.6, "180 s"),
        (180, "3 min"),
        (10_799, "180 min"),
        (10_800, "3 h"),
        (259_199, "72 h"),
        (259_200, "3 d"),
    ],
)
def test_a_duration_is_told_in_the_unit_that_shows_it_best(duration, words):
    assert seconds(duration) == words


def test_an_implausible_sample_before_the_window_does_no_harm():
    assert verdict(windowed("<= 9", "mean"), [sample(math.nan, 61), *series(1, 1)]) == "PASS"


@pytest.mark.parametrize("reduce", ["stdev", "fraction_within", "rate", "increase"])
def test_what_needs_two_samples_is_unknown_with_one(reduce):
    assert verdict(windowed("<= 9", reduce, band=2), [sample(0)]) == "UNKNOWN"


def test_ninety_five_percent_of_windows_within_ten_of_the_mean():
    rule = windowed(">= 0.95", "fraction_within", window=500, band=10)
    steady = [100.0] * 95

    assert verdict(rule, series(*steady, *[150.0] * 5)) == "PASS"
    assert verdict(rule, series(*steady, *[150.0] * 6)) == "FAIL"


# --- Coverage ---------------------------------------------------------------------------------


def test_of_a_window_that_was_not_seen_enough_neither_value_nor_margin_is_told():
    found = judge(windowed("<= 9", "mean", window=600, coverage=0.9), series(1, 1), at=NOW)

    assert (found.verdict, found.observed, found.margin) == (Verdict.UNKNOWN, None, None)


def test_a_window_seen_whole_is_covered_whole():
    found = judge(windowed("<= 9", "mean", coverage=0.99), series(*[1] * 13), at=NOW)

    assert (found.verdict, found.coverage) == (Verdict.PASS, 1.0)


def test_a_sample_before_the_window_still_stands_for_its_start():
    samples = [sample(1, 62), *series(*[1] * 12)]

    assert judge(windowed("<= 9", "mean", coverage=1), samples, at=NOW).coverage == 1.0


def test_a_window_seen_too_little_is_unknown_and_says_how_much_was_seen():
    rule = windowed("<= 9", "mean", coverage=0.99, max_age=10)
    found = judge(rule, series(*[1] * 5), at=NOW)

    assert (found.verdict, found.observed) == (Verdict.UNKNOWN, None)
    assert found.coverage == pytest.approx(20 / 60)
    assert "20 s of 60 s observed (33.3%), wanted 99%" in found.reason
    assert "mean of 5 samples is 1, wanted <= 9" in found.reason


def test_overlapping_samples_cover_once():
    samples = [sample(1, 20), sample(1, 19), sample(1, 18), sample(1, 0)]

    assert judge(windowed("<= 9", "mean"), samples, at=NOW).coverage == pytest.approx(17 / 60)


def test_a_rollup_covers_its_span_before_it():
    samples = [sample(1, 0, span=30), sample(1, 30, span=15)]

    assert judge(windowed("<= 9", "mean"), samples, at=NOW).coverage == pytest.approx(45 / 60)


def test_a_gap_in_the_middle_is_not_covered():
    samples = [sample(1, 60), sample(1, 0)]

    assert judge(windowed("<= 9", "mean"), samples, at=NOW).coverage == pytest.approx(15 / 60)


@pytest.mark.parametrize(
    ("reduce", "wanted"),
    [("max", "< 9"), ("min", "> 10"), ("increase", "<= 0"), ("count", "== 1"), ("sum", "<= 5")],
)
def test_a_breach_that_nothing_can_mend_fails_under_low_coverage(reduce, wanted):
    rule = windowed(wanted, reduce, coverage=0.99, possible=Range(0, 100))

    assert verdict(rule, series(8, 9)) == "FAIL"


def test_a_breach_that_nothing_can_mend_fails_after_its_source_fell_silent():
    found = judge(windowed("<= 75", "max"), [sample(90, 40), sample(50, 35)], at=NOW)

    assert found.verdict is Verdict.FAIL
    assert found.reason == (
        "m: silent for 35 s, wanted a sample every 15 s; max of 2 samples is 90, wanted <= 75"
    )


@pytest.mark.parametrize("reduce", ["mean", "median", "p99", "stdev", "rate", "fraction_within"])
def test_what_more_samples_could_mend_is_unknown_under_low_coverage(reduce):
    rule = windowed("<= -1", reduce, coverage=0.99, band=100)

    assert verdict(rule, series(8, 9)) == "UNKNOWN"


def test_a_sum_of_values_that_may_be_negative_can_be_mended():
    assert verdict(windowed("<= 5", "sum", coverage=0.99), series(8, 9)) == "UNKNOWN"


def test_nothing_passes_under_low_coverage_though_its_bounds_would():
    assert verdict(windowed(">= 5", "max", coverage=0.99), series(8, 9)) == "UNKNOWN"


def test_a_certain_breach_of_one_series_fails_their_sum():
    rule = windowed("<= 0", "increase", across="rank", combine=Combine.SUM, coverage=0.99)
    samples = series(0, 2, rank=0) + series(*[0] * 13, rank=1)

    assert verdict(rule, samples) == "FAIL"


# --- Counters ---------------------------------------------------------------------------------


def test_a_counter_that_stands_still_has_not_increased():
    assert verdict(windowed("<= 0", "increase"), series(7, 7, 7)) == "PASS"


def test_a_counter_that_begins_in_the_window_is_counted_from_its_first_sample():
    found = judge(windowed("<= 0", "increase"), series(0, 1), at=NOW)

    assert (found.verdict, found.observed) == (Verdict.FAIL, 1)


def test_growth_across_the_start_of_the_window_counts():
    samples = [sample(0, 62), sample(3, 58), *series(*[3] * 11)]

    assert verdict(windowed("<= 0", "increase"), samples) == "FAIL"


def test_growth_while_nobody_looked_is_neither_inside_nor_outside():
    samples = [sample(0, 600), sample(3, 50), *series(*[3] * 10)]
    found = judge(windowed("<= 0", "increase"), samples, at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert "the interval 0 to 3 straddles the limit" in found.reason


def test_a_counter_that_stood_still_while_nobody_looked_passes():
    samples = [sample(3, 600), *series(*[3] * 10)]

    assert verdict(windowed("<= 0", "increase"), samples) == "PASS"


def test_one_look_after_a_gap_shows_what_grew_in_it():
    assert verdict(windowed("<= 0", "increase"), [sample(3, 600), sample(3)]) == "PASS"
    assert verdict(windowed("<= 0", "increase"), [sample(3, 600), sample(5)]) == "UNKNOWN"


def test_an_implausible_baseline_poisons_the_growth():
    samples = [sample(math.nan, 62), *series(*[0] * 12)]

    assert verdict(windowed("<= 0", "increase"), samples) == "UNKNOWN"


def test_a_rate_is_growth_over_the_time_between_the_looks():
    found = judge(windowed("<= 99", "rate"), series(100, 350, 600), at=NOW)

    assert found.observed == 50


def test_a_rate_survives_the_restart_of_its_counter():
    assert judge(windowed("<= 99", "rate"), series(900, 0, 100), at=NOW).observed == 10


def test_a_rate_does_not_reach_back_over_a_gap():
    samples = [sample(0, 3600), sample(1000, 10), sample(1100, 0)]

    assert judge(windowed("<= 99", "rate"), samples, at=NOW).observed == 10


# --- Intervals --------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["mean", "median", "min", "max", "p90"])
def test_an_interval_goes_through_a_monotone_reducer_by_its_ends(reduce):
    samples = [sample(5, 5, low=4, high=6), sample(5, 0, low=4, high=6)]
    rules = [windowed(f"<= {limit}", reduce) for limit in (3, 5, 6)]

    assert [verdict(rule, samples) for rule in rules] == ["FAIL", "UNKNOWN", "PASS"]


@pytest.mark.parametrize("reduce", ["stdev", "rate", "increase", "fraction_within"])
def test_an_interval_does_not_go_through_other_reducers(reduce):
    samples = [sample(5, 5, low=4, high=6), sample(5, 0)]

    assert verdict(windowed("<= 9", reduce, band=1), samples) == "UNKNOWN"


def test_a_count_does_not_ask_for_values():
    assert verdict(windowed("== 1", "count"), [sample(5, low=4, high=6)]) == "PASS"


@pytest.mark.parametrize("reduce", ["sum", "stdev", "mean"])
def test_a_value_beyond_any_number_is_unknown(reduce):
    samples = [sample(1.7e308, 2), sample(1.7e308, 1), sample(-1.7e308, 0)]

    assert verdict(windowed("<= 9", reduce), samples[: 2 if reduce != "stdev" else 3]) == "UNKNOWN"


# --- Rollups beside raw samples ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduce", "answer"),
    [("mean", 1.18), ("median", 1.0), ("min", 1), ("max", 5), ("stdev", 0.833)],
)
def test_a_rollup_weighs_as_many_seconds_as_it_stands_for(reduce, answer):
    raw = series(*[5] * 4, every=5)
    rollups = [sample(1, 20 + 60 * i, span=60) for i in range(6, -1, -1)]
    samples = [s for s in (*rollups, *raw) if s.at > NOW - 400]
    found = judge(windowed("<= 9", reduce, window=400), samples, at=NOW)

    assert found.observed == pytest.approx(answer, abs=0.005)


# --- Series that have just begun ---------------------------------------------------------------

HALF = windowed(">= 1", "median", coverage=0.5, max_age=15)


def test_a_series_that_began_within_the_window_is_unknown_and_said_to_be_new():
    found = judge(HALF, [*series(*[1] * 20, rank=0), *series(1, 1, rank=1)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert found.unseen == found.began == ((("rank", "1"),),)


def test_a_series_that_was_there_before_the_window_is_not_new_however_little_was_seen():
    found = judge(HALF, [sample(1, 70), sample(1, 0)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert (found.unseen, found.began) == (((),), ())


def test_a_new_series_that_fell_silent_is_not_new_any_more():
    found = judge(HALF, [sample(1, 20)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert (found.unseen, found.began) == (((),), ())
