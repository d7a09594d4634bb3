"""Every criterion of the catalogue, as it stands, against thousands of invented series.

Never green while blind: a PASS is borne out by the fresh plausible samples alone. Monotone: what is
worse is never judged better, and what is taken away never mends anything.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.silences import everything, passing
from dvfd.judge import judge
from dvfd.model import (
    NONE_YET,
    Combine,
    Comparison,
    Criterion,
    Kind,
    Report,
    Result,
    Sample,
    Severity,
    Verdict,
    labels,
    worst,
)

pytestmark = pytest.mark.slow

NOW = 1_800_000_000.0
EVERYTHING = everything()
CRITERIA = [c for c in EVERYTHING.criteria.values() if c.source != NONE_YET]
IDS = [c.id for c in CRITERIA]
ORDER = {Verdict.FAIL: 0, Verdict.UNKNOWN: 1, Verdict.PASS: 2}
BETTER = {
    Comparison.AT_LEAST: 1, Comparison.MORE_THAN: 1,
    Comparison.AT_MOST: -1, Comparison.LESS_THAN: -1,
}  # fmt: skip
MONOTONE = {"latest", "mean", "median", "min", "max", "sum", "p95", "p99"}

QUICK = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
"""The same 300 each time, of 270 criteria: each alone, and in every way, is in bench.silences."""


def names(criterion, which="0"):
    given_ = dict.fromkeys(EVERYTHING.metrics[criterion.metric].labels, which)
    return labels(**given_ | dict(criterion.where))


def limit(criterion, at=NOW):
    """The sample that gives its limit, which then is 1, if a metric gives it."""
    other = criterion.limit.metric
    if not other:
        return []
    value = (1.0 - criterion.limit.plus) / criterion.limit.times
    own = dict.fromkeys(EVERYTHING.metrics[other].labels, "0")
    own |= {k: v for k, v in criterion.where if k in own}
    return [Sample(other, value, at, labels(**own))]


def plausible(criterion):
    """Values near the limit, where verdicts turn."""
    good = passing(criterion)
    reach = abs(good) or 1.0
    low, high = good - 2 * reach, good + 2 * reach
    if criterion.possible:
        low, high = max(low, criterion.possible.low), min(high, criterion.possible.high)
    return st.one_of(st.just(good), st.floats(low, high))


def bad(criterion):
    """Samples of the same series that nobody may believe."""
    name, known = criterion.metric, names(criterion)
    never = st.sampled_from([math.nan, math.inf, -math.inf])
    values = st.one_of(
        never.map(lambda v: Sample(name, v, NOW, known)),
        st.floats(2.01, 1e9).map(lambda s: Sample(name, passing(criterion), NOW + s, known)),
        never.map(lambda v: Sample(name, passing(criterion), v, known) if v != -math.inf
                  else Sample(name, passing(criterion), NOW, known, low=math.nan)),
    )  # fmt: skip
    if criterion.possible is None:
        return values
    beyond = [
        math.nextafter(criterion.possible.low, -math.inf),
        math.nextafter(criterion.possible.high, math.inf),
    ]
    return values | st.sampled_from(beyond).map(lambda v: Sample(name, v, NOW, known))


@st.composite
def series(draw, criterion):
    """A series that covers the window, some of it missing; out of order; across two labels if the
    criterion is about several.
    """
    window, pieces = criterion.window or 1.0, 12
    found = []
    for which in ("0", "1") if criterion.across else ("0",):
        known = names(criterion)
        if criterion.across:
            known = labels(**dict(known) | {criterion.across: which})
        for n in range(pieces + 1):
            at = NOW - window * (1 - n / pieces)
            span = window / pieces if criterion.window else 0.0
            found.append(Sample(criterion.metric, draw(plausible(criterion)), at, known, span=span))
    kept = draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    if draw(st.booleans()):
        found = [s for s, keep in zip(found, kept, strict=True) if keep]
    return draw(st.permutations(found))


def verdict(criterion, samples):
    return judge(criterion, [*samples, *limit(criterion)], at=NOW).verdict


@QUICK
@given(data=st.data(), criterion=st.sampled_from(CRITERIA))
def test_no_sample_that_nobody_may_believe_is_passed_over(criterion, data):
    samples = data.draw(series(criterion))
    spoilt = [*samples, data.draw(bad(criterion))]
    assert verdict(criterion, spoilt) is not Verdict.PASS


@QUICK
@given(data=st.data(), criterion=st.sampled_from(CRITERIA))
def test_a_pass_is_borne_out_by_the_fresh_plausible_samples_alone(criterion, data):
    samples = data.draw(series(criterion))
    found = judge(criterion, [*samples, *limit(criterion)], at=NOW)
    if found.verdict is not Verdict.PASS:
        return

    newest = max(s.at for s in samples)
    assert NOW - newest <= criterion.max_age
    assert found.observed is not None
    assert (
        criterion.possible is None
        or criterion.reduce != "latest"
        or (found.observed in criterion.possible)
    )
    assert criterion.comparison.holds(found.observed, found.limit)
    assert criterion.reduce == "latest" or found.coverage >= criterion.coverage
    late = [replace(s, at=s.at - criterion.max_age - 0.01 - (NOW - newest)) for s in samples]
    assert verdict(criterion, late) is not Verdict.PASS


@QUICK
@given(data=st.data(), criterion=st.sampled_from(CRITERIA))
def test_a_series_more_that_is_silent_takes_a_pass_away(criterion, data):
    samples = data.draw(series(criterion))
    known = dict(names(criterion))
    free = [name for name in known if name not in dict(criterion.where)]
    if not free:
        return
    silent = Sample(
        criterion.metric, passing(criterion), NOW - criterion.max_age - 1.0,
        labels(**known | {free[0]: "silent"}),
    )  # fmt: skip
    assert verdict(criterion, [*samples, silent]) is not Verdict.PASS


@QUICK
@given(data=st.data(), criterion=st.sampled_from(CRITERIA))
def test_taking_a_sample_away_makes_no_pass_of_what_was_not_known(criterion, data):
    samples = data.draw(series(criterion))
    before = judge(criterion, [*samples, *limit(criterion)], at=NOW)
    if before.verdict is not Verdict.UNKNOWN or not samples:
        return
    gone = data.draw(st.sampled_from(range(len(samples))))
    fewer = [s for n, s in enumerate(samples) if n != gone]
    straddles = "straddles" in before.reason or "reduce" in before.reason
    assert straddles or verdict(criterion, fewer) is not Verdict.PASS


TURNING = [
    c
    for c in CRITERIA
    if c.comparison in BETTER
    and c.combine in (Combine.WORST, Combine.SUM, Combine.MEAN)
    and (c.reduce in MONOTONE)
]


@QUICK
@given(data=st.data(), criterion=st.sampled_from(TURNING))
def test_what_is_better_is_never_judged_worse(criterion, data):
    samples = data.draw(series(criterion))
    more = data.draw(st.floats(0, abs(passing(criterion)) or 1.0))
    moved = [replace(s, value=_within(criterion, s.value + BETTER[criterion.comparison] * more))
             for s in samples]  # fmt: skip
    assert ORDER[verdict(criterion, moved)] >= ORDER[verdict(criterion, samples)]


def _within(criterion, value):
    if criterion.possible is None:
        return value
    return min(max(value, criterion.possible.low), criterion.possible.high)


COUNTING = [c for c in CRITERIA if c.reduce == "increase" and c.comparison != Comparison.AT_LEAST]


@QUICK
@given(data=st.data(), criterion=st.sampled_from(COUNTING))
def test_an_event_more_is_never_judged_better(criterion, data):
    assert EVERYTHING.metrics[criterion.metric].kind is Kind.COUNTER
    steps = data.draw(st.lists(st.integers(0, 2), min_size=6, max_size=6))
    place = data.draw(st.integers(0, 5))
    more = [step + (n == place) for n, step in enumerate(steps)]
    assert (
        ORDER[verdict(criterion, counted(criterion, more))]
        <= ORDER[verdict(criterion, counted(criterion, steps))]
    )


def counted(criterion, steps):
    """A counter that grows by *steps* over the window, seen all the time."""
    every = criterion.window / len(steps)
    total, found = 0, [Sample(criterion.metric, 0.0, NOW - criterion.window, names(criterion))]
    for n, step in enumerate(steps):
        total += step
        at = NOW - criterion.window + (n + 1) * every
        found.append(Sample(criterion.metric, float(total), at, names(criterion), span=every))
    return found


# --- The worst decides, whatever is put together -------------------------------------------------

VERDICTS = st.lists(st.sampled_from(Verdict), max_size=6)
PLACE = {
    v: n
    for n, v in enumerate(
        (Verdict.FAIL, Verdict.UNKNOWN, Verdict.WAIVED, Verdict.PASS, Verdict.NOT_APPLICABLE)
    )
}


def report(check, verdicts):
    pairs = zip(check.criteria, verdicts, strict=False)
    return Report(check, tuple(Result(c, v, NOW, "") for c, v in pairs), NOW)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(VERDICTS, st.sampled_from([Verdict.UNKNOWN, Verdict.FAIL]))
def test_one_more_that_is_not_known_makes_nothing_better(verdicts, one):
    assert PLACE[worst([*verdicts, one])] <= PLACE[worst(verdicts)]
    assert worst([*verdicts, one]) in (Verdict.UNKNOWN, Verdict.FAIL)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), check=st.sampled_from(list(EVERYTHING.checks.values())))
def test_a_report_with_a_criterion_blinded_is_never_better(data, check):
    verdicts = data.draw(
        st.lists(st.sampled_from(Verdict), min_size=len(check.criteria),
                 max_size=len(check.criteria))
    )  # fmt: skip
    place = data.draw(st.sampled_from(range(len(verdicts))))
    blinded = [Verdict.UNKNOWN if n == place else v for n, v in enumerate(verdicts)]
    before, after = report(check, verdicts).verdict, report(check, blinded).verdict
    if verdicts[place] is Verdict.FAIL:
        return
    critical = check.criteria[place].severity is Severity.CRITICAL
    assert PLACE[after] <= PLACE[before] or before is Verdict.NOT_APPLICABLE
    assert not critical or after in (Verdict.UNKNOWN, Verdict.FAIL)


def test_every_criterion_is_here():
    everything_ = {c.id for c in EVERYTHING.criteria.values()}
    assert everything_ - set(IDS) == {c.id for c in EVERYTHING.criteria.values()
                                      if c.source == NONE_YET}  # fmt: skip
    assert len(IDS) > 250
    assert isinstance(CRITERIA[0], Criterion)
