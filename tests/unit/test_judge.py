"""Verdicts: what passes, what fails, and what nobody can say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fakes_judge import NOW, criterion, sample, series

from dvfd.judge import judge, judge_readings
from dvfd.model import NONE_YET, Combine, Limit, Range, Verdict, labels


def verdict(rule, samples):
    return judge(rule, samples, at=NOW).verdict


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        (">= 250", 250, "PASS"),
        (">= 250", 249.9, "FAIL"),
        ("> 250", 250, "FAIL"),
        ("> 250", 250.1, "PASS"),
        ("<= 75", 75, "PASS"),
        ("<= 75", 75.1, "FAIL"),
        ("< 75", 75, "FAIL"),
        ("< 75", 74.9, "PASS"),
        ("== 1", 1, "PASS"),
        ("== 1", 0, "FAIL"),
        ("== 1", 1.0000001, "FAIL"),
    ],
)
def test_a_fresh_value_is_held_against_the_limit(wanted, value, expected):
    assert verdict(criterion(wanted), [sample(value)]) == expected


def test_a_criterion_that_does_not_apply_says_why():
    found = judge(criterion(inapplicable="no GPU in the profile"), [sample(0)], at=NOW)

    assert (found.verdict, found.reason) == (Verdict.NOT_APPLICABLE, "no GPU in the profile")
    assert found.at == NOW


def test_a_metric_that_nothing_measures_is_unknown_even_beside_samples():
    found = judge(criterion(source=NONE_YET), [sample(1)], at=NOW)

    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "nothing measures m yet")


def test_a_profile_key_that_is_not_set_is_unknown_and_says_what_to_do():
    rule = criterion(limit=Limit(of="profile.expected_throughput"))
    found = judge(rule, [sample(1)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == (
        "profile.expected_throughput is not set: set it under [profile] in the configuration"
    )


def test_a_limit_that_is_no_number_is_unknown():
    found = judge(criterion(limit=Limit(value=math.nan)), [sample(1)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == (
        "m: the limit nan is no number; latest of 1 sample is 1, wanted >= a number"
    )


def test_a_criterion_without_any_limit_is_unknown():
    assert verdict(criterion(limit=Limit()), [sample(1)]) == "UNKNOWN"


def test_no_sample_at_all_is_unknown_and_names_the_metric_and_its_labels():
    found = judge(criterion(where=labels(log="train")), [], at=NOW)

    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "no sample of m{log=train}")


def test_the_trouble_of_the_source_stands_in_the_reason_of_an_unknown():
    found = judge(criterion(), [], at=NOW, trouble="/proc/stat: denied")

    assert found.reason == "no sample of m; its source: /proc/stat: denied"


def test_the_trouble_of_the_source_explains_a_silent_series_too():
    found = judge(criterion(), [sample(1, 60)], at=NOW, trouble="/proc/stat: denied")

    assert found.reason.endswith("wanted >= 1; its source: /proc/stat: denied")


@pytest.mark.parametrize("rule", [criterion(), criterion(inapplicable="no GPU")])
@pytest.mark.parametrize("samples", [[], [sample(1)]])
def test_a_result_is_of_its_criterion_and_of_its_time(rule, samples):
    found = judge(rule, samples, at=NOW)

    assert (found.criterion, found.at) == (rule, NOW)


def test_without_trouble_the_reason_names_none():
    assert judge_readings(criterion(), [], at=NOW).reason == "no sample of m"


def test_only_an_unknown_has_series_that_were_not_seen():
    assert judge(criterion(), [sample(1, rank=0)], at=NOW).unseen == ()


def test_the_trouble_of_the_source_does_not_stand_in_the_reason_of_a_pass():
    assert "denied" not in judge(criterion(), [sample(1)], at=NOW, trouble="denied").reason


def test_a_series_at_its_greatest_age_is_still_known():
    assert verdict(criterion(max_age=15), [sample(1, 15)]) == "PASS"


def test_a_series_that_fell_silent_is_unknown_and_named_with_its_age():
    found = judge(criterion(max_age=15), [sample(1, 16, job="gpt", rank=2)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert found.reason == (
        "m{job=gpt,rank=2}: silent for 16 s, wanted a sample every 15 s, wanted >= 1"
    )
    assert found.labels == labels(job="gpt", rank=2)


def test_one_silent_series_among_passing_ones_is_unknown():
    samples = [sample(1, rank=0), sample(1, 60, rank=1)]

    assert verdict(criterion(), samples) == "UNKNOWN"


def test_a_failing_series_outweighs_a_silent_one():
    found = judge(criterion(), [sample(0, rank=0), sample(1, 60, rank=1)], at=NOW)

    assert found.verdict is Verdict.FAIL
    assert found.reason.endswith("1 of 2 series fail, 1 unknown")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_unknown(value):
    found = judge(criterion(), [sample(value)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert "implausible value" in found.reason


def test_a_value_outside_the_possible_is_unknown_not_a_failure():
    found = judge(criterion("<= 75", possible=Range(-20, 130)), [sample(4096)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert "implausible value 4096, possible -20 to 130" in found.reason


@pytest.mark.parametrize("silent", [sample(1, 60), sample(1, 60, span=60)])
def test_a_silent_series_is_told_with_the_time_at_which_it_was_last_seen(silent):
    assert judge(criterion(), [silent], at=NOW).sampled_at == NOW - 60


def test_an_implausible_value_is_told_with_its_time():
    assert judge(criterion(), [sample(math.nan, 3)], at=NOW).sampled_at == NOW - 3


@pytest.mark.parametrize("ago", [-2.1, -3600, -math.inf, math.nan])
def test_a_sample_from_the_future_is_unknown(ago):
    found = judge(criterion(), [sample(1, 5), sample(1, ago)], at=NOW)

    assert (found.verdict, found.sampled_at) == (Verdict.UNKNOWN, None)
    assert "future" in found.reason


def test_a_sample_a_moment_ahead_is_taken():
    assert verdict(criterion(), [sample(1, -2)]) == "PASS"


def test_only_the_newest_sample_counts_for_latest():
    assert verdict(criterion(), series(0, math.nan, 0, 1)) == "PASS"
    assert verdict(criterion(), series(1, 1, 0)) == "FAIL"


def test_two_values_of_one_instant_that_contradict_each_other_are_unknown():
    assert verdict(criterion(), [sample(1), sample(0)]) == "UNKNOWN"


def test_a_raw_sample_is_later_than_the_rollup_that_ends_with_it():
    assert verdict(criterion(), [sample(0.5, span=60), sample(1)]) == "PASS"


def test_samples_of_other_metrics_take_no_part():
    assert verdict(criterion(), [sample(1), sample(0, metric="other")]) == "PASS"


def test_only_series_with_the_wanted_labels_take_part():
    samples = [sample(1, log="train", host="a"), sample(0, log="kernel", host="a")]

    assert verdict(criterion(where=labels(log="train")), samples) == "PASS"


def test_the_reason_shows_both_sides_and_how_many_series_fail():
    samples = [sample(int(rank != 2), job="gpt", rank=rank) for rank in range(4)]
    found = judge(replace(criterion("== 1"), metric="m"), samples, at=NOW)

    assert found.reason == (
        "m{job=gpt,rank=2}: latest of 1 sample is 0, wanted == 1; 1 of 4 series fail"
    )


def test_the_result_carries_the_numbers_behind_its_verdict():
    found = judge(criterion("<= 75", unit="celsius"), [sample(80, 3, package=1)], at=NOW)

    assert (found.observed, found.limit, found.margin) == (80, 75, -5)
    assert (found.samples, found.sampled_at, found.labels) == (1, NOW - 3, labels(package=1))


def test_the_series_furthest_beyond_the_limit_decides():
    found = judge(criterion("<= 75"), [sample(80, p=0), sample(90, p=1), sample(60, p=2)], at=NOW)

    assert (found.observed, found.labels) == (90, labels(p=1))


def test_a_pass_shows_the_series_with_the_least_margin():
    found = judge(criterion("<= 75"), [sample(50, p=0), sample(74, p=1)], at=NOW)

    assert (found.verdict, found.observed, found.margin) == (Verdict.PASS, 74, 1)
    assert found.reason.endswith("all 2 series pass")


@pytest.mark.parametrize(
    ("wanted", "value", "margin"),
    [
        ("<= 5", 7, -2),
        (">= 5", 7, 2),
        ("> 5", 3, -2),
        ("< 5", 3, 2),
        ("== 5", 7, -2),
        ("== 5", 5, 0),
    ],
)
def test_the_margin_is_positive_inside_the_limit_and_none_is_left_where_it_is_met(
    wanted, value, margin
):
    assert judge(criterion(wanted), [sample(value)], at=NOW).margin == margin


def test_of_the_unknown_the_series_of_which_nothing_is_known_is_told_first():
    straddling, silent = sample(255, low=249, high=260, rank=0), sample(255, 60, rank=1)
    found = judge(criterion(">= 250"), [straddling, silent], at=NOW)

    assert found.labels == labels(rank=1)
    assert found.reason.endswith("2 of 2 series unknown")


def test_numbers_that_print_alike_are_told_apart():
    found = judge(criterion(">= 0.95"), [sample(0.94999999)], at=NOW)

    assert "is 0.95, wanted >= 0.95, by 1e-08" in found.reason


def test_units_are_in_the_reason_where_they_say_something():
    found = judge(criterion("<= 75", unit="celsius"), [sample(70)], at=NOW)

    assert "is 70 celsius, wanted <= 75" in found.reason


def test_a_value_above_the_expected_is_a_note_and_not_a_failure():
    found = judge(criterion(">= 250", expected=Range(250, 300)), [sample(312)], at=NOW)

    assert found.verdict is Verdict.PASS
    assert "312 is above the expected 250 to 300" in found.note


def test_the_note_names_the_series_and_the_side_on_which_it_lies():
    rule = criterion(">= 100", expected=Range(250, 300))
    found = judge(rule, [sample(275, rank=0), sample(200, rank=1)], at=NOW)

    assert found.note.startswith("m{rank=1}: 200 is below the expected 250 to 300")


def test_a_value_within_the_expected_needs_no_note():
    rule = criterion(">= 250", expected=Range(250, 300))

    assert [judge(rule, [sample(v)], at=NOW).note for v in (250, 260, 300)] == [""] * 3
    assert judge(criterion(), [sample(1)], at=NOW).note == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(250, 260, "PASS"), (240, 249, "FAIL"), (249, 260, "UNKNOWN"), (None, 260, "PASS")],
)
def test_an_interval_decides_only_where_it_lies_on_one_side(low, high, expected):
    assert verdict(criterion(">= 250"), [sample(low or 255, low=low, high=high)]) == expected


def test_an_interval_that_straddles_the_limit_says_so():
    found = judge(criterion(">= 250"), [sample(255, low=249, high=260)], at=NOW)

    assert "the interval 249 to 260 straddles the limit" in found.reason
    assert found.observed == 255


@pytest.mark.parametrize(("low", "high"), [(5, 1), (math.nan, 9), (1, math.inf), (4, 9)])
def test_an_interval_that_cannot_be_is_unknown(low, high):
    assert verdict(criterion(">= 0"), [sample(3, low=low, high=high)]) == "UNKNOWN"


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [({"low": 5}, "implausible interval 5 to 3 of 3"), ({"high": 1}, "interval 3 to 1 of 3")],
)
def test_a_bound_on_the_wrong_side_of_its_value_is_unknown(bounds, reason):
    found = judge(criterion(">= 0"), [sample(3, **bounds)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert reason in found.reason


@pytest.mark.parametrize("bounds", [{"low": 2}, {"high": 4}])
def test_one_bound_alone_is_taken(bounds):
    assert verdict(criterion(">= 2"), [sample(3, **bounds)]) == "PASS"


@pytest.mark.parametrize("value", [-20, 130])
def test_the_ends_of_the_possible_are_possible(value):
    assert verdict(criterion("<= 200", possible=Range(-20, 130)), [sample(value)]) == "PASS"


def test_equality_of_an_interval_is_never_certain():
    rule = criterion("== 1")

    assert verdict(rule, [sample(1, low=0.9, high=1.1)]) == "UNKNOWN"
    assert verdict(rule, [sample(2, low=1.9, high=2.1)]) == "FAIL"


# --- Limits from other metrics ----------------------------------------------------------------


def relative(wanted: str = ">= 1", times: float = 0.98, **changes):
    return criterion(wanted, limit=Limit(of="metric.base", times=times), **changes)


def test_a_limit_may_be_a_multiple_of_another_metric():
    base = sample(1.2, metric="base")

    assert verdict(relative(), [sample(1.176), base]) == "PASS"
    assert verdict(relative(), [sample(1.17), base]) == "FAIL"


def test_the_reason_shows_where_a_relative_limit_comes_from():
    found = judge(relative(), [sample(1.1), sample(1.2, metric="base")], at=NOW)

    assert "is 1.1, wanted >= 1.176 (0.98 x metric.base)" in found.reason


def test_a_relative_limit_takes_the_newest_value():
    base = [sample(9, 10, metric="base"), sample(1, metric="base")]

    assert verdict(relative(), [sample(1), *base]) == "PASS"


def test_the_reason_shows_what_is_added_to_a_relative_limit():
    rule = criterion(">= 1", limit=Limit(of="metric.base", times=0.5, plus=3))
    found = judge(rule, [sample(1), sample(2, metric="base")], at=NOW)

    assert "is 1, wanted >= 4 (0.5 x metric.base + 3)" in found.reason


def test_a_relative_limit_of_a_window_is_the_newest_value_all_the_same():
    base = [sample(9, 10, metric="base"), sample(1, metric="base")]
    rule = relative(reduce="max", window=10, max_age=15)

    assert verdict(rule, [*series(2, 2, 2), *base]) == "PASS"


def test_what_is_possible_for_a_metric_says_nothing_of_its_limits_metric():
    rule = relative(times=0.5, possible=Range(0, 1.5))

    assert verdict(rule, [sample(1), sample(1.6, metric="base")]) == "PASS"


def test_a_relative_limit_needs_none_of_the_labels_that_the_criterion_chooses():
    rule = relative(where=labels(log="train"))

    assert verdict(rule, [sample(1, log="train"), sample(1, metric="base")]) == "PASS"


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ([], "no sample of base to compare with; latest of 1 sample is 5"),
        ([sample(1, 60, metric="base", rank=0)], "base{rank=0}: silent for 60 s"),
        ([sample(math.nan, metric="base")], "base: implausible value nan"),
        ([sample(1, -60, metric="base")], "base: implausible: sampled in the future"),
        ([sample(1.7e308, metric="base")], "base gives a limit beyond any number"),
    ],
)
def test_a_relative_limit_that_is_not_known_now_is_unknown(base, reason):
    found = judge(relative(times=2), [sample(5), *base], at=NOW)

    assert (found.verdict, found.limit, found.margin) == (Verdict.UNKNOWN, None, None)
    assert found.reason.startswith(f"m: {reason}")
    assert found.reason.endswith("is 5, wanted >= 2 x metric.base")


def test_a_relative_limit_is_that_of_the_same_labels():
    base = [sample(1, metric="base", job="a"), sample(9, metric="base", job="b")]

    assert verdict(relative(), [sample(1, job="a", rank=0), *base]) == "PASS"
    assert verdict(relative(), [sample(1, job="b", rank=0), *base]) == "FAIL"


def test_of_several_relative_limits_all_must_be_met():
    base = [sample(1, metric="base", rank=0), sample(2, metric="base", rank=1)]
    rule = relative("<= 1", times=1)

    assert [verdict(rule, [sample(v), *base]) for v in (1, 1.5, 2.5)] == ["PASS", "UNKNOWN", "FAIL"]
    assert "the interval 1 to 2 straddles" in judge(rule, [sample(1.5), *base], at=NOW).reason


@pytest.mark.parametrize(("wanted", "limit"), [("<= 1", 1), ("< 1", 1), (">= 1", 2), ("> 1", 2)])
def test_of_several_relative_limits_the_strictest_is_told(wanted, limit):
    base = [sample(1, metric="base", rank=0), sample(2, metric="base", rank=1)]

    assert judge(relative(wanted, times=1), [sample(1.5), *base], at=NOW).limit == limit


# --- Series combined --------------------------------------------------------------------------


def across(wanted: str, combine: Combine, **changes):
    return criterion(wanted, across="rank", combine=combine, **changes)


def ranks(*values: float, **more):
    return [sample(v, rank=rank, **more) for rank, v in enumerate(values)]


@pytest.mark.parametrize(
    ("combine", "observed"),
    [(Combine.SUM, 30), (Combine.MEAN, 10), (Combine.SPREAD, 0.2), (Combine.EQUAL, 3)],
)
def test_series_across_a_label_become_one_value(combine, observed):
    found = judge(across("<= 99", combine), ranks(8, 10, 12), at=NOW)

    assert found.observed == pytest.approx(observed)
    assert (found.labels, found.samples) == ((), 3)


def test_series_that_differ_in_other_labels_stay_apart():
    samples = ranks(1, 1, job="a") + ranks(1, 2, job="b")
    found = judge(across("== 1", Combine.EQUAL), samples, at=NOW)

    assert (found.verdict, found.labels) == (Verdict.FAIL, labels(job="b"))


def test_the_reason_names_what_was_combined():
    found = judge(across("<= 0.05", Combine.SPREAD), ranks(8, 10, 12, job="gpt"), at=NOW)

    assert found.reason == (
        "m{job=gpt}: spread over rank of the latest of 3 samples is 0.2, wanted <= 0.05"
    )


@pytest.mark.parametrize("combine", [Combine.SUM, Combine.MEAN, Combine.SPREAD, Combine.EQUAL])
def test_a_group_with_a_silent_series_is_unknown_and_names_it(combine):
    found = judge(across("<= 1e9", combine), [*ranks(3, 3), sample(3, 60, rank=2)], at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert "{rank=2} silent for 60 s" in found.reason


@pytest.mark.parametrize(
    ("combine", "samples", "reason"),
    [
        (Combine.EQUAL, ranks(3), "one series alone has none to be equal to"),
        (Combine.SPREAD, ranks(3), "a spread needs two series, each known exactly"),
        (Combine.SPREAD, ranks(-1, 1), "their mean is 0"),
        (Combine.SUM, ranks(1.7e308, 1.7e308), "their sum is beyond any number"),
        (
            Combine.EQUAL,
            [*ranks(5, 5), sample(5, rank=2, low=4, high=6)],
            "some values are known only as intervals",
        ),
    ],
)
def test_a_group_without_a_value_says_why(combine, samples, reason):
    found = judge(across("<= 1", combine), samples, at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert found.reason.startswith(f"m: {reason}")


def test_a_group_was_seen_as_little_as_the_least_seen_of_it():
    rule = across("<= 99", Combine.SUM, reduce="mean", window=20)
    found = judge(rule, [*series(1, 1, rank=0), *series(1, 1, 1, rank=1)], at=NOW)

    assert found.coverage == 0.25


def test_values_that_differ_fail_whatever_a_silent_series_would_say():
    samples = [*ranks(3, 4), sample(3, 60, rank=2)]

    assert verdict(across("== 1", Combine.EQUAL), samples) == "FAIL"


@pytest.mark.parametrize("combine", [Combine.SPREAD, Combine.EQUAL])
def test_one_series_alone_agrees_with_nobody(combine):
    assert verdict(across("<= 1", combine), ranks(3)) == "UNKNOWN"


def test_a_spread_around_zero_is_unknown_unless_all_are_zero():
    assert verdict(across("<= 0.05", Combine.SPREAD), ranks(-1, 1)) == "UNKNOWN"
    assert verdict(across("<= 0.05", Combine.SPREAD), ranks(0, 0)) == "PASS"


def test_intervals_add_up():
    samples = [sample(5, rank=0, low=4, high=6), sample(5, rank=1, low=4, high=6)]
    rules = [across(f"<= {limit}", Combine.SUM) for limit in (7, 10, 12)]

    assert [verdict(rule, samples) for rule in rules] == ["FAIL", "UNKNOWN", "PASS"]


def test_intervals_neither_spread_nor_equal():
    samples = [*ranks(5, 5), sample(5, rank=2, low=4, high=6)]

    assert verdict(across("<= 1", Combine.SPREAD), samples) == "UNKNOWN"
    assert verdict(across("== 1", Combine.EQUAL), samples) == "UNKNOWN"


def test_a_sum_beyond_any_number_is_unknown():
    assert verdict(across("<= 1", Combine.SUM), ranks(1.7e308, 1.7e308)) == "UNKNOWN"


def test_the_absence_of_any_series_is_told_from_the_silence_of_one():
    assert judge(criterion(), [], at=NOW).absent
    assert not judge(criterion(), [sample(1, 60)], at=NOW).absent


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (4.001006, "is 4.1.6, wanted >= 4.1.0"),
        (4.0, "is 4.0.0, wanted >= 4.1.0"),
        (4.001, "is 4.1.0, wanted >= 4.1.0"),
        (0.0, "is 0, wanted >= 4.1.0"),
        (4.0009995, "is before 4.1.0, wanted >= 4.1.0"),
    ],
)
def test_a_version_is_told_as_people_write_it(value, words):
    rule = criterion(">= 4.001", unit="version")

    assert words in judge(rule, [sample(value)], at=NOW).reason


def test_many_bytes_are_told_in_gigabytes():
    rule = criterion(">= 64e9", unit="bytes")

    assert "is 21.5 GB, wanted >= 64 GB" in judge(rule, [sample(21.5e9)], at=NOW).reason


def test_a_failure_is_not_told_to_be_unexpected_besides():
    rule = criterion(">= 16", expected=Range(16, 32))

    assert not judge(rule, [sample(2)], at=NOW).note


def test_an_unknown_names_every_series_that_is_not_known():
    old = [sample(1, ago=1000, rank=0), sample(1, rank=1), sample(1, ago=1000, rank=2)]
    found = judge(criterion(), old, at=NOW)

    assert found.verdict is Verdict.UNKNOWN
    assert found.unseen == (labels(rank=0), labels(rank=2))
