"""Every criterion of the catalogue, judged: it can pass, it can fail, and silence is UNKNOWN."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.judge import judge
from dvfd.model import Combine, Kind, Limit, Sample, Verdict, labels

AT = 1_800_000_000.0
PIECES = 24
CATALOGUE = load(Config())
EVERY = [*CATALOGUE.criteria.values(), *(v for g in CATALOGUE.gates.values() for v in g.vetoes)]
NAMES = [criterion.id for criterion in EVERY]

PLAIN = [c for c in EVERY if c.reduce not in ("stdev", "fraction_within")]
PLAIN = [c for c in PLAIN if c.combine in (Combine.WORST, Combine.SUM)]
PLAIN_NAMES = [criterion.id for criterion in PLAIN]


def measured(criterion):
    """The criterion as it will be once its metric is measured, on a profile that has everything."""
    limit = criterion.limit
    if limit.value is None:
        limit = Limit(value=limit.times * middle(criterion) + limit.plus)
    return replace(criterion, source="probe", inapplicable="", limit=limit)


def middle(criterion):
    """Something plausible for a limit that a profile or another metric gives."""
    return 0.5 if criterion.unit == "ratio" else 100.0


def outcomes(criterion):
    """A plausible value that satisfies, and one that does not."""
    limit, possible = criterion.limit.value, criterion.possible
    counts = CATALOGUE.metrics[criterion.metric].kind is Kind.COUNTER
    step = 1.0 if counts else abs(limit) / 100 or 1.0
    tried = [limit - step, limit + step, limit]
    if possible is not None:
        tried += [(limit + possible.low) / 2, (limit + possible.high) / 2]
        tried = [value for value in tried if value in possible]
    holds = [criterion.comparison.holds(value, limit) for value in tried]
    return tried[holds.index(True)], tried[holds.index(False)]


def samples(criterion, outcome):
    """Samples over the whole window that reduce to *outcome*."""
    metric = CATALOGUE.metrics[criterion.metric]
    names = {**dict.fromkeys(metric.labels, "0"), **dict(criterion.where)}
    window = criterion.window or 1.0
    rise = outcome if metric.kind is Kind.COUNTER else 0.0
    base = 0.0 if rise else outcome
    return [
        Sample(
            criterion.metric,
            base + rise * n / PIECES,
            AT - window * (1 - n / PIECES),
            labels(**names),
            span=window / PIECES if metric.kind is Kind.GAUGE and criterion.window else 0.0,
        )
        for n in range(PIECES + 1)
    ]


@pytest.mark.parametrize("criterion", EVERY, ids=NAMES)
def test_silence_is_unknown(criterion):
    assert judge(measured(criterion), [], at=AT).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("criterion", EVERY, ids=NAMES)
def test_before_it_is_measured_nothing_passes_or_fails(criterion):
    assert judge(criterion, [], at=AT).verdict in (Verdict.UNKNOWN, Verdict.NOT_APPLICABLE)


@pytest.mark.parametrize("criterion", PLAIN, ids=PLAIN_NAMES)
def test_what_is_wanted_passes(criterion):
    bound = replace(measured(criterion), coverage=0.0)
    result = judge(bound, samples(bound, outcomes(bound)[0]), at=AT)
    assert result.verdict is Verdict.PASS, result.reason


@pytest.mark.parametrize("criterion", PLAIN, ids=PLAIN_NAMES)
def test_what_is_not_wanted_fails(criterion):
    bound = replace(measured(criterion), coverage=0.0)
    result = judge(bound, samples(bound, outcomes(bound)[1]), at=AT)
    assert result.verdict is Verdict.FAIL, result.reason


def rows(metric, values, **names):
    """Values evenly over the 48 hours of phase 2a."""
    span = 172_800 / len(values)
    at = [AT - 172_800 + span * (n + 1) for n in range(len(values))]
    pairs = zip(values, at, strict=True)
    return [Sample(metric, v, t, labels(**names), span=span) for v, t in pairs]


@pytest.mark.parametrize(("outside", "verdict"), [(5, Verdict.PASS), (6, Verdict.FAIL)])
def test_the_band_of_phase_2a_holds_95_of_100_windows(outside, verdict):
    criterion = measured(CATALOGUE.criteria["stability_phase2a.throughput_band"])
    values = [550.0] * (100 - outside) + [590.0] * outside
    assert judge(criterion, rows(criterion.metric, values), at=AT).verdict is verdict


@pytest.mark.parametrize(("sigma", "verdict"), [(19, Verdict.PASS), (21, Verdict.FAIL)])
def test_sigma_of_phase_1_is_below_20(sigma, verdict):
    criterion = measured(CATALOGUE.criteria["stability_phase1.throughput_sigma"])
    values = [275.0 - sigma, 275.0 + sigma] * 100
    assert judge(criterion, rows(criterion.metric, values), at=AT).verdict is verdict


@pytest.mark.parametrize(("slow", "verdict"), [(1.05, Verdict.PASS), (1.10, Verdict.FAIL)])
def test_balance_is_the_rank_furthest_from_the_mean(slow, verdict):
    criterion = measured(CATALOGUE.criteria["stability_phase2a.balance"])
    paces = enumerate([1, 1, 1, slow])
    seen = [s for n, x in paces for s in rows(criterion.metric, [x] * 10, job="gpt", rank=n)]
    assert judge(criterion, seen, at=AT).verdict is verdict


@pytest.mark.parametrize(
    ("attempted", "verdict"), [(691, Verdict.PASS), (690, Verdict.FAIL), (692, Verdict.FAIL)]
)
def test_as_many_checkpoints_are_attempted_as_expected(attempted, verdict):
    criterion = CATALOGUE.criteria["stability_phase1.checkpoints_attempted"]
    pair = [Sample("run_checkpoints_expected", 691.0, AT), Sample(criterion.metric, attempted, AT)]
    assert judge(replace(criterion, source="probe"), pair, at=AT).verdict is verdict


def test_an_uptime_whose_bounds_straddle_the_limit_is_unknown():
    criterion = measured(CATALOGUE.criteria["stability_phase2a.uptime"])
    seen = Sample(criterion.metric, 0.9996, AT, low=0.9990, high=1.0)
    assert judge(criterion, [seen], at=AT).verdict is Verdict.UNKNOWN
