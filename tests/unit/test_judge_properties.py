"""Never green while blind, held against thousands of invented samples."""

from __future__ import annotations

import math
import random

from fakes_judge import NOW, criterion, sample, series
from hypothesis import given, settings
from hypothesis import strategies as st

from dvfd.judge import judge
from dvfd.model import Combine, Range, Verdict, worst

QUICK = settings(max_examples=150, deadline=None)

STATISTICS = ["latest", "mean", "median", "min", "max", "sum", "p95"]
REDUCERS = st.sampled_from([*STATISTICS, "stdev", "rate", "increase", "count", "fraction_within"])
WANTED = st.sampled_from([">= 3", "> 3", "<= 3", "< 3", "== 3", "== 0", "<= 0"])
PLAUSIBLE = st.floats(0, 10)
AGES = st.floats(0, 80)
SAMPLES = st.lists(st.builds(sample, PLAUSIBLE, AGES, rank=st.integers(0, 2)), max_size=12)

COVERAGES = st.sampled_from([0.0, 0.5, 0.99])


@st.composite
def rules(draw, coverage=COVERAGES):
    return criterion(
        draw(WANTED),
        reduce=draw(REDUCERS),
        window=60.0,
        band=2.0,
        coverage=draw(coverage),
        possible=Range(0, 10),
        combine=draw(st.sampled_from(Combine)),
        across="rank",
    )


def verdict(rule, samples):
    return judge(rule, samples, at=NOW).verdict


BAD = st.one_of(
    st.builds(sample, st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 11.0])),
    st.builds(sample, PLAUSIBLE, st.floats(-1e6, -2.01)),
    st.builds(sample, PLAUSIBLE, st.just(math.nan)),
    st.builds(sample, PLAUSIBLE, low=st.just(math.nan)),
    st.builds(sample, PLAUSIBLE, high=st.just(-1.0)),
)


@QUICK
@given(rules(), SAMPLES, BAD)
def test_no_implausible_sample_ever_passes(rule, others, bad):
    assert verdict(rule, [*others, bad]) is not Verdict.PASS


@QUICK
@given(rules(), st.lists(st.builds(sample, PLAUSIBLE, st.floats(15.01, 500)), max_size=9))
def test_nothing_stale_or_missing_ever_passes(rule, stale):
    assert verdict(rule, stale) is not Verdict.PASS


@QUICK
@given(rules(), SAMPLES, st.floats(15.01, 500))
def test_a_series_more_that_is_unknown_never_makes_a_pass(rule, samples, age):
    assert verdict(rule, [*samples, sample(3, age, rank=9)]) is not Verdict.PASS


@QUICK
@given(rules(), SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(rule, samples, chance: random.Random):
    shuffled = samples.copy()
    chance.shuffle(shuffled)

    assert judge(rule, shuffled, at=NOW) == judge(rule, samples, at=NOW)


@QUICK
@given(rules(), SAMPLES)
def test_judging_twice_says_the_same_and_leaves_the_samples_alone(rule, samples):
    before = list(samples)

    assert judge(rule, samples, at=NOW) == judge(rule, samples, at=NOW)
    assert samples == before


@QUICK
@given(
    rules(coverage=st.just(0.9)), st.lists(PLAUSIBLE, min_size=13, max_size=13), st.integers(0, 12)
)
def test_taking_samples_away_never_turns_too_little_into_enough(rule, values, missing):
    samples = series(*values)[missing:]
    fewer = samples[: missing // 2] + samples[missing // 2 + 1 :]
    result = judge(rule, samples, at=NOW)

    if result.coverage is not None and result.coverage < 0.9 and rule.reduce != "latest":
        assert verdict(rule, samples) is not Verdict.PASS
        assert verdict(rule, fewer) is not Verdict.PASS


ORDER = {Verdict.FAIL: 0, Verdict.UNKNOWN: 1, Verdict.PASS: 2}


@QUICK
@given(
    st.sampled_from(STATISTICS),
    st.sampled_from([(">=", 1), (">", 1), ("<=", -1), ("<", -1)]),
    st.lists(PLAUSIBLE, min_size=1, max_size=6),
    st.floats(0, 5),
)
def test_a_verdict_only_gets_better_towards_the_right_side(reduce, comparison, values, more):
    sign, better = comparison
    rule = criterion(f"{sign} 3", reduce=reduce, window=60.0)
    moved = [v + better * more for v in values]

    assert ORDER[verdict(rule, series(*moved))] >= ORDER[verdict(rule, series(*values))]


@QUICK
@given(st.sampled_from([">= 3", "> 3", "<= 3", "< 3", "== 3"]), PLAUSIBLE, PLAUSIBLE, PLAUSIBLE)
def test_an_interval_passes_or_fails_only_with_every_value_in_it(wanted, a, b, c):
    low, value, high = sorted((a, b, c))
    found = verdict(criterion(wanted), [sample(value, low=low, high=high)])

    if found is not Verdict.UNKNOWN:
        assert {verdict(criterion(wanted), [sample(v)]) for v in (low, value, high)} == {found}


@QUICK
@given(rules(), SAMPLES)
def test_the_worst_series_decides(rule, samples):
    rule = criterion("<= 5", reduce=rule.reduce, window=60.0, band=2.0, coverage=rule.coverage)
    ranks = {s.labels for s in samples}
    alone = [verdict(rule, [s for s in samples if s.labels == rank]) for rank in ranks]

    assert verdict(rule, samples) == worst(alone)


@QUICK
@given(rules(), SAMPLES)
def test_every_pass_rests_on_a_fresh_sample_and_shows_it(rule, samples):
    found = judge(rule, samples, at=NOW)

    if found.verdict is Verdict.PASS:
        assert found.samples >= 1
        assert found.observed is not None
        assert found.sampled_at is not None
        assert NOW - found.sampled_at <= rule.max_age
