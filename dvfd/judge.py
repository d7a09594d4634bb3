"""Hold samples against criteria. Pure: no clock, no store, no I/O.

Never green while blind: PASS needs every series seen, fresh, plausible and on the right side of
the limit with its whole interval. FAIL needs one series that is beyond it whatever is missing.
All else is UNKNOWN, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dvfd import derive
from dvfd.model import NONE_YET, WORST_FIRST, Combine, Comparison, Result, Verdict
from dvfd.reduce import ANYTHING, FINITE, Interval, Reading, exactly, read
from dvfd.words import UNITLESS, digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dvfd.model import Criterion, Labels, Limit, Sample

_PLACE = {verdict: place for place, verdict in enumerate(WORST_FIRST)}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a reading is held against. A `blind` one can be met by nothing; it says why."""

    value: Interval
    blind: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A reading held against its limit. `margin` is positive inside the limit."""

    reading: Reading
    bound: Bound
    verdict: Verdict
    margin: float | None


def judge(
    criterion: Criterion, samples: Sequence[Sample], *, at: float, trouble: str = ""
) -> Result:
    """Reduce *samples* to one value for each series, compare, and let the worst decide.

    *samples* are those of the criterion's metric and of its limit's: all of the last `window`
    plus `max_age` seconds before *at* (Unix seconds), and the newest of each live series however
    old it is. *trouble* is the last error of their source: an UNKNOWN repeats it.
    """
    readings = read(criterion, samples, at) if _refusal(criterion) is None else []
    return judge_readings(criterion, readings, samples, at=at, trouble=trouble)


def judge_readings(
    criterion: Criterion,
    readings: Sequence[Reading],
    others: Sequence[Sample] = (),
    *,
    at: float,
    trouble: str = "",
) -> Result:
    """Compare what is known of each series, and let the worst decide. *others* are samples of the
    limit's metric.
    """
    refusal = _refusal(criterion)
    if refusal is not None:
        return Result(criterion, refusal[0], at, refusal[1])
    groups = _combine(criterion, list(readings))
    if not groups:
        reason = f"no sample of {criterion.metric}{_braces(criterion.where)}"
        return Result(criterion, Verdict.UNKNOWN, at, _blame(reason, trouble), absent=True)
    bound = _bounds(criterion, others, at)
    findings = [_find(criterion.comparison, r, bound(r.labels)) for r in groups]
    return _conclude(criterion, findings, at, trouble)


def _refusal(criterion: Criterion) -> tuple[Verdict, str] | None:
    """The verdict that needs no look, with its reason."""
    limit = criterion.limit
    if criterion.inapplicable:
        return Verdict.NOT_APPLICABLE, criterion.inapplicable
    if criterion.source == NONE_YET:
        return Verdict.UNKNOWN, f"nothing measures {criterion.metric} yet"
    if limit.value is None and not limit.metric:
        return Verdict.UNKNOWN, _unset(limit)
    if criterion.reduce != "latest" and criterion.window <= 0:
        return Verdict.UNKNOWN, f"{criterion.reduce} needs a window and the criterion has none"
    return None


def _unset(limit: Limit) -> str:
    if not limit.of.startswith("profile."):
        return "the criterion has no limit: set one in the catalogue or as an override"
    why = limit.missing or "set it under [profile] in the configuration"
    return f"{limit.of} is not set: {why}"


# --- Several series as one --------------------------------------------------------------------


def _combine(criterion: Criterion, readings: list[Reading]) -> list[Reading]:
    """One reading for each group of series that differ only in the `across` label."""
    if criterion.combine is Combine.WORST:
        return readings
    groups: dict[Labels, list[Reading]] = {}
    for reading in readings:
        rest = tuple(pair for pair in reading.labels if pair[0] != criterion.across)
        groups.setdefault(rest, []).append(reading)
    return [_group(criterion.combine, labels, members) for labels, members in groups.items()]


def _group(combine: Combine, labels: Labels, members: Sequence[Reading]) -> Reading:
    """A group is blind with any of its members."""
    try:
        value, none = _COMBINERS[combine](members)
    except OverflowError:
        value, none = ANYTHING, "their sum is beyond any number"
    blind = next((f"{_braces(m.labels)} {m.blind}" for m in members if m.blind), none)
    return Reading(
        labels,
        value,
        sum(m.count for m in members),
        max(m.newest for m in members),
        min((m.coverage for m in members if m.coverage is not None), default=None),
        blind,
    )


def _sum(members: Sequence[Reading]) -> tuple[Interval, str]:
    return Interval(*(math.fsum(ends) for ends in _ends(members))), ""


def _ends(members: Sequence[Reading]) -> Iterable[tuple[float, ...]]:
    """All values, all lower and all upper bounds."""
    return zip(*(m.value for m in members), strict=True)


def _mean(members: Sequence[Reading]) -> tuple[Interval, str]:
    return Interval(*(derive.mean(ends) for ends in _ends(members))), ""


def _spread(members: Sequence[Reading]) -> tuple[Interval, str]:
    """max |x - mean| / |mean|. One series alone is balanced with nothing: no value."""
    if len(members) < 2 or any(not m.value.exact for m in members):
        return ANYTHING, "a spread needs two series, each known exactly"
    spread = derive.spread([m.value.value for m in members])
    return (ANYTHING, "their mean is 0") if spread is None else (exactly(spread), "")


def _equal(members: Sequence[Reading]) -> tuple[Interval, str]:
    """The number of distinct values. Two that differ stay different, whatever else is missing."""
    known = [m.value.value for m in members if m.value.exact and not m.blind]
    distinct = float(len(set(known)))
    if len(known) < len(members) and known:
        return Interval(distinct, distinct, math.inf), "some values are known only as intervals"
    if len(known) < 2:
        return ANYTHING, "one series alone has none to be equal to"
    return exactly(distinct), ""


_COMBINERS: dict[Combine, Callable[[Sequence[Reading]], tuple[Interval, str]]] = {
    Combine.SUM: _sum,
    Combine.MEAN: _mean,
    Combine.SPREAD: _spread,
    Combine.EQUAL: _equal,
}


# --- The limit --------------------------------------------------------------------------------


def _bounds(
    criterion: Criterion, samples: Sequence[Sample], at: float
) -> Callable[[Labels], Bound]:
    """What gives the limit for a series with the given labels."""
    limit = criterion.limit
    if not limit.metric:
        bound = _number(limit.value)
        return lambda _labels: bound
    asked = replace(criterion, metric=limit.metric, reduce="latest", where=(), possible=None)
    readings = read(asked, samples, at)
    return lambda labels: _bound(criterion, [r for r in readings if _agree(r.labels, labels)])


def _number(value: float | None) -> Bound:
    if value is None or value not in FINITE:
        return Bound(ANYTHING, f"the limit {value} is no number")
    return Bound(exactly(value))


def _bound(criterion: Criterion, readings: Sequence[Reading]) -> Bound:
    """The limit that other series give. Several must all be met, so they are an interval."""
    limit = criterion.limit
    if not readings:
        return Bound(ANYTHING, f"no sample of {limit.metric} to compare with")
    for r in readings:
        if r.blind:
            return Bound(ANYTHING, f"{limit.metric}{_braces(r.labels)}: {r.blind}")
    ends = [end * limit.times + limit.plus for r in readings for end in r.value]
    if not all(end in FINITE for end in ends):
        return Bound(ANYTHING, f"{limit.metric} gives a limit beyond any number")
    low, high = min(ends), max(ends)
    return Bound(Interval(low if _upper(criterion.comparison) else high, low, high))


def _agree(some: Labels, others: Labels) -> bool:
    """Whether the labels that both have are equal."""
    known = dict(some)
    return all(known.get(name, value) == value for name, value in others)


def _upper(comparison: Comparison) -> bool:
    return comparison in (Comparison.AT_MOST, Comparison.LESS_THAN)


# --- The verdict ------------------------------------------------------------------------------


def _find(comparison: Comparison, reading: Reading, bound: Bound) -> Finding:
    """Compare: beyond the limit in the best case is FAIL, within it in the worst is PASS."""
    best, worst = _cases(comparison, reading.value, bound.value)
    verdict = Verdict.FAIL
    if best:
        sure = worst and not reading.blind and not bound.blind
        verdict = Verdict.PASS if sure else Verdict.UNKNOWN
    return Finding(reading, bound, verdict, _margin(comparison, reading, bound))


def _cases(comparison: Comparison, value: Interval, limit: Interval) -> tuple[bool, bool]:
    """Whether the comparison holds in the best and in the worst case."""
    if comparison is Comparison.EQUAL:
        overlap = value.low <= limit.high and limit.low <= value.high
        return overlap, value.low == value.high == limit.low == limit.high
    if _upper(comparison):
        return comparison.holds(value.low, limit.high), comparison.holds(value.high, limit.low)
    return comparison.holds(value.high, limit.low), comparison.holds(value.low, limit.high)


def _margin(comparison: Comparison, reading: Reading, bound: Bound) -> float | None:
    """Distance to the limit in the metric's unit, positive inside it; None if either is unknown."""
    value, limit = reading.value.value, bound.value.value
    if math.isnan(value) or math.isnan(limit):
        return None
    if comparison is Comparison.EQUAL:
        return 0.0 - abs(value - limit)
    return limit - value if _upper(comparison) else value - limit


def _conclude(criterion: Criterion, findings: Sequence[Finding], at: float, trouble: str) -> Result:
    """The worst finding decides; among equals the one furthest out, or with the least margin."""
    decider = min(findings, key=_rank)
    reading, limit = decider.reading, decider.bound.value.value
    reason = f"{_explain(criterion, decider)}{_tally(findings, decider.verdict)}"
    if decider.verdict is Verdict.UNKNOWN:
        reason = _blame(reason, trouble)
    unseen = [f for f in findings if f.verdict is decider.verdict is Verdict.UNKNOWN]
    seen = not math.isnan(reading.value.value) and (
        decider.verdict is Verdict.FAIL or not reading.blind
    )
    return Result(
        criterion,
        decider.verdict,
        at,
        reason,
        observed=reading.value.value if seen else None,
        limit=None if math.isnan(limit) else limit,
        margin=decider.margin if seen else None,
        coverage=reading.coverage,
        labels=reading.labels,
        note="" if decider.verdict is Verdict.FAIL else _unexpected(criterion, findings),
        samples=reading.count,
        sampled_at=reading.newest if math.isfinite(reading.newest) else None,
        unseen=tuple(f.reading.labels for f in unseen),
        began=tuple(f.reading.labels for f in unseen if f.reading.began and not f.bound.blind),
    )


def _rank(finding: Finding) -> tuple[int, float, Labels]:
    margin = -math.inf if finding.margin is None else finding.margin
    return _PLACE[finding.verdict], margin, finding.reading.labels


# --- Words ------------------------------------------------------------------------------------


def _explain(criterion: Criterion, finding: Finding) -> str:
    """Both sides of the comparison, and what stands in the way of a verdict."""
    reading, bound = finding.reading, finding.bound
    who = f"{criterion.metric}{_braces(reading.labels)}"
    why = reading.blind or bound.blind
    if math.isnan(reading.value.value):
        return f"{who}: {why}, wanted {_wanted(criterion, bound.value, math.nan)}"
    if not why and finding.verdict is Verdict.UNKNOWN:
        why = _straddle(reading.value, bound.value)
    known = f"{_measured(criterion, reading)}, wanted "
    known += _wanted(criterion, bound.value, reading.value.value)
    return f"{who}: {why}; {known}" if why else f"{who}: {known}"


def _measured(criterion: Criterion, reading: Reading) -> str:
    """What was observed, and of how much: `mean of 864 samples is 243.1 samples/second`."""
    what = f"{criterion.reduce} of {reading.count} sample{'s' if reading.count != 1 else ''}"
    if criterion.combine is not Combine.WORST:
        what = f"{criterion.combine} over {criterion.across} of the {what}"
    value = _digits(criterion, reading.value.value)
    unit = "" if criterion.unit in UNITLESS or value.endswith("B") else f" {criterion.unit}"
    return f"{what} is {value}{unit}"


def _digits(criterion: Criterion, value: float) -> str:
    return digits(value, criterion.unit)


def _wanted(criterion: Criterion, limit: Interval, observed: float) -> str:
    """The other side, with as many digits as it takes to differ from *observed*."""
    of = criterion.limit.of
    origin = f"{criterion.limit.times:g} x {of}" if of else ""
    if criterion.limit.plus:
        origin += f" + {criterion.limit.plus:g}"
    if math.isnan(limit.value):
        return f"{criterion.comparison} {origin or 'a number'}"
    short = _digits(criterion, limit.value)
    if short == _digits(criterion, observed) and limit.value != observed:
        short = f"{limit.value!r}, by {abs(limit.value - observed):.2g}"
    return f"{criterion.comparison} {short}{f' ({origin})' if origin else ''}"


def _straddle(value: Interval, limit: Interval) -> str:
    doubtful = value if not value.exact else limit
    return f"the interval {doubtful.low:.6g} to {doubtful.high:.6g} straddles the limit"


def _tally(findings: Sequence[Finding], verdict: Verdict) -> str:
    """How many series share the verdict, where there are several."""
    whole = len(findings)
    if whole == 1:
        return ""
    if verdict is Verdict.PASS:
        return f"; all {whole} series pass"
    unknown = sum(f.verdict is Verdict.UNKNOWN for f in findings)
    if verdict is Verdict.UNKNOWN:
        return f"; {unknown} of {whole} series unknown"
    failing = sum(f.verdict is Verdict.FAIL for f in findings)
    return f"; {failing} of {whole} series fail" + (f", {unknown} unknown" if unknown else "")


def _unexpected(criterion: Criterion, findings: Iterable[Finding]) -> str:
    """A note on the first value that is plausible but not what was expected."""
    expected = criterion.expected
    if expected is None:
        return ""
    for finding in findings:
        value = finding.reading.value.value
        if not math.isnan(value) and value not in expected:
            side = "above" if value > expected.high else "below"
            low, high = _digits(criterion, expected.low), _digits(criterion, expected.high)
            return (
                f"{criterion.metric}{_braces(finding.reading.labels)}: {_digits(criterion, value)} "
                f"is {side} the expected {low} to {high}: was the right thing measured?"
            )
    return ""


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f"{name}={value}" for name, value in labels) + "}" if labels else ""


def _blame(reason: str, trouble: str) -> str:
    return f"{reason}; its source: {trouble}" if trouble else reason
