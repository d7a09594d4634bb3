"""Find what cannot be meant in a catalogue: units, ranges, labels, contradictions. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from dvfd.catalogue_keys import Table, near
from dvfd.model import (
    PROCESSES,
    REVIEW,
    Catalogue,
    Combine,
    Comparison,
    Criterion,
    Gate,
    GateLine,
    Kind,
    Limit,
    Metric,
    Range,
)

WINDOW_KEYS = ("window", "coverage", "band")
"""Keys that mean nothing for the latest value."""

COUNTED = ("rate", "increase", "count")
"""What a counter may be reduced by: its own height says only how long it has been counting."""

KEEPS = ("latest", "mean", "median", "min", "max")
"""Reductions whose outcome lies where the samples lie."""

INFINITE = float("inf")


def lint(catalogue: Catalogue, places: Mapping[str, str]) -> list[str]:
    """Everything that contradicts or leads nowhere; *places* says where each criterion stands."""
    problems: list[str] = []
    vetoes = [veto for gate in catalogue.gates.values() for veto in gate.vetoes]
    for criterion in (*catalogue.criteria.values(), *vetoes):
        metric = catalogue.metrics[criterion.metric]
        why = f"; overridden: {criterion.overridden}" if criterion.overridden else ""
        problems.extend(places[criterion.id] + said + why for said in _criterion(criterion, metric))
    twice = sorted(catalogue.checks.keys() & catalogue.gates.keys())
    problems.extend(f"{id_}.toml: id: a gate is called {id_!r} too" for id_ in twice)
    problems.extend(_contradictions(catalogue, places))
    for gate in catalogue.gates.values():
        problems.extend(_references(gate, catalogue))
        problems.extend(_torn(gate, catalogue, places))
        problems.extend(_alone(gate, catalogue, places))
    problems.extend(_rows(catalogue))
    return problems


def outcome_unit(found: Table, metric: Metric) -> str:
    """The unit of what *found* reduces *metric* to."""
    if found.get("across") and found.get("combine") is Combine.SPREAD:
        return "ratio"
    if found.get("across") and found.get("combine") is Combine.EQUAL:
        return "count"
    match found.get("reduce", "latest"):
        case "count":
            return "count"
        case "fraction_within":
            return "ratio"
        case "rate":
            # A joule a second has a name of its own.
            return "watts" if metric.unit == "joules" else f"{metric.unit}/second"
        case _:
            return metric.unit


def units(found: Table, metric: Metric, quantities: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the units of *found*; *quantities* are what limits may name, and in what.

    The unit of a criterion is that of its outcome; `possible` is of single samples.
    """
    outcome = outcome_unit(found, metric)
    if found["unit"] != outcome:
        how = found.get("reduce", "latest")
        yield f"unit: {found['unit']!r}, but {how} of {metric.name} is in {outcome!r}"
    yield from _of("limit", (found["limit"],), found["unit"], quantities)
    yield from _of(
        "limits", (each for _, each in found.get("limits", ())), found["unit"], quantities
    )
    yield from _of("expected", found.get("expected", ()), found["unit"], quantities)
    yield from _of("possible", found.get("possible", ()), metric.unit, quantities)


def _of(
    key: str, limits: Iterable[Limit], unit: str, quantities: Mapping[str, str]
) -> Iterator[str]:
    """What is wrong with the names that limits refer to."""
    for limit in limits:
        known = quantities.get(limit.of, unit if not limit.of else "")
        if not known:
            yield f"{key}: nothing is called {limit.of!r}{near(limit.of, quantities)}"
        elif known != unit:
            yield f"{key}: {limit.of} is in {known!r}, the criterion in {unit!r}"


def _criterion(criterion: Criterion, metric: Metric) -> Iterator[str]:
    """What is wrong with one criterion taken by itself."""
    yield from _window(criterion, metric)
    counter = metric.kind is Kind.COUNTER
    if counter != (criterion.reduce in ("rate", "increase")) and criterion.reduce != "count":
        wanted = ", ".join(COUNTED) if counter else "rate and increase need a counter"
        yield f"reduce: {criterion.reduce!r} of a {metric.kind}: {wanted}"
    used = [name for name, _ in criterion.where] + [criterion.across] * bool(criterion.across)
    for label in used:
        if label not in metric.labels:
            key = "across" if label == criterion.across else "where"
            yield f"{key}: {metric.name} has no label {label!r}{near(label, metric.labels)}"
    if criterion.combine is not Combine.WORST and not criterion.across:
        yield f"combine: {criterion.combine} of what? give a label in across"
    yield from _ranges(criterion)
    yield from _by_count(criterion, metric)


def _by_count(criterion: Criterion, metric: Metric) -> Iterator[str]:
    """What is wrong with the process counts that a criterion tells apart."""
    own = dict(criterion.where).get(PROCESSES, "")
    if criterion.counts and PROCESSES not in metric.labels:
        yield f"counts: {metric.name} has no label {PROCESSES!r}"
    elif criterion.counts and own not in map(str, criterion.counts):
        yield f"counts: where has processes = {own!r}, which is none of {list(criterion.counts)}"
    for count, limit in criterion.limits:
        if count not in criterion.counts or str(count) == own:
            yield f"limits: {count} is none of the other counts, {list(criterion.counts)}"
        else:
            yield from _ranges(replace(criterion, limit=limit))


def _window(criterion: Criterion, metric: Metric) -> Iterator[str]:
    windowed = criterion.reduce != "latest"
    if windowed and not criterion.window:
        yield f"window: missing: {criterion.reduce} is taken over seconds"
    covered = criterion.coverage and metric.source != REVIEW  # which is of days by itself
    if not windowed and (criterion.window or covered):
        yield "window: the latest value has none; give a reduction over time"
    if (criterion.reduce == "fraction_within") != (criterion.band is not None):
        yield "band: goes with reduce = 'fraction_within', and only with it"


def _ranges(criterion: Criterion) -> Iterator[str]:
    """A limit that no plausible value meets, or that none misses: either way nothing is judged."""
    accepted = acceptance(criterion)
    if accepted is None:
        return
    if (expected := _closed(criterion.expected)) and not overlap(accepted, expected):
        yield f"limit: empty range: {wanted(criterion)}, but expected is {_ends(expected)}"
    keeps = criterion.reduce in KEEPS and criterion.combine in (Combine.WORST, Combine.MEAN)
    possible = _closed(criterion.possible) if keeps else None
    if possible is None:
        return
    if not overlap(accepted, possible):
        yield f"limit: empty range: {wanted(criterion)}, but possible is {_ends(possible)}"
    elif accepted[0] <= possible[0] and possible[1] <= accepted[1]:
        yield f"limit: nothing possible fails {wanted(criterion)}: {_ends(possible)}"


def _closed(bounds: Range | None) -> Interval | None:
    return None if bounds is None else ((bounds.low, 0), (bounds.high, 0))


def _ends(interval: Interval) -> str:
    return f"{interval[0][0]:g} to {interval[1][0]:g}"


Interval = tuple[tuple[float, int], tuple[float, int]]
"""Two ends; an open end is just inside its number: (5, 1) is above 5, (5, -1) below."""


def acceptance(criterion: Criterion) -> Interval | None:
    """The values that satisfy *criterion*, or None while its limit is not a number."""
    limit = criterion.limit.value
    if limit is None:
        return None
    lowest, highest = (-INFINITE, 0), (INFINITE, 0)
    match criterion.comparison:
        case Comparison.AT_LEAST:
            return (limit, 0), highest
        case Comparison.MORE_THAN:
            return (limit, 1), highest
        case Comparison.AT_MOST:
            return lowest, (limit, 0)
        case Comparison.LESS_THAN:
            return lowest, (limit, -1)
        case Comparison.EQUAL:
            return (limit, 0), (limit, 0)


def overlap(a: Interval, b: Interval) -> bool:
    """Whether some value lies in both."""
    return max(a[0], b[0]) <= min(a[1], b[1])


def wanted(criterion: Criterion) -> str:
    """`>= 250 samples/second`."""
    return f"{criterion.comparison} {say(criterion.limit)} {criterion.unit}"


def say(limit: Limit) -> str:
    """A limit in words, with its number where it has one."""
    if not limit.of:
        return f"{limit.value:g}"
    said = f"{limit.times:g} x {limit.of}" + (f" + {limit.plus:g}" if limit.plus else "")
    return said if limit.value is None else f"{limit.value:g} ({said})"


def _same(criterion: Criterion) -> tuple[object, ...]:
    """What two criteria must share to speak of the same value."""
    return (
        criterion.metric,
        criterion.where,
        criterion.reduce,
        criterion.window,
        criterion.band,
        criterion.across,
        criterion.combine,
    )


def _contradictions(catalogue: Catalogue, places: Mapping[str, str]) -> Iterator[str]:
    """Pairs of criteria of one phase that no value can satisfy together."""
    groups: dict[tuple[object, ...], list[Criterion]] = defaultdict(list)
    for check in catalogue.checks.values():
        for criterion in check.criteria:
            groups[check.phase, *_same(criterion)].append(criterion)
    for group in groups.values():
        for n, one in enumerate(group):
            for other in group[:n]:
                a, b = acceptance(one), acceptance(other)
                if a and b and not overlap(a, b):
                    yield (
                        f"{places[one.id]}limit: {wanted(one)} contradicts {other.id}:"
                        f" {wanted(other)}"
                    )


def _torn(gate: Gate, catalogue: Catalogue, places: Mapping[str, str]) -> Iterator[str]:
    """Vetoes that hold where something that the gate needs passes."""
    needed: dict[tuple[object, ...], list[Criterion]] = defaultdict(list)
    for criterion in needs(gate, catalogue):
        needed[_same(criterion)].append(criterion)
    for veto in gate.vetoes:
        for criterion in needed[_same(veto)]:
            a, b = acceptance(veto), acceptance(criterion)
            if a and b and overlap(a, b):
                yield (
                    f"{places[veto.id]}limit: vetoes at {wanted(veto)}, where {criterion.id}"
                    f" passes at {wanted(criterion)}: they contradict"
                )


def _alone(gate: Gate, catalogue: Catalogue, places: Mapping[str, str]) -> Iterator[str]:
    """Vetoes that no figure of the gate's own tests can show to be false."""
    shown = {c.id for c in needs(gate, catalogue)}
    for veto in gate.vetoes:
        if veto.like not in shown:
            place = f"{places[veto.id]}like: {veto.like!r}"
            yield f"{place}: wanted a criterion of what the gate stands on"


def _rows(catalogue: Catalogue) -> Iterator[str]:
    """What the summary table names and the catalogue has not."""
    for n, row in enumerate(catalogue.summary, 1):
        place = f"gates.toml: row {n}."
        yield from _unknown(f"{place}tests", "check", row.tests, catalogue.checks)
        yield from _unknown(f"{place}gate", "gate", [row.gate] * bool(row.gate), catalogue.gates)
        if bool(row.tests) == bool(row.gate):
            yield f"{place}tests: give either tests or a gate"


def needs(gate: Gate, catalogue: Catalogue) -> tuple[Criterion, ...]:
    """Every criterion that *gate* stands on, by its tests and its GO lines."""
    checks = {*gate.tests, *(name for line in gate.requires for name in line.checks)}
    ids = {name for line in gate.requires for name in line.criteria}
    found = {
        c.id: c
        for name in checks & catalogue.checks.keys()
        for c in catalogue.checks[name].criteria
    }
    found |= {id_: catalogue.criteria[id_] for id_ in ids & catalogue.criteria.keys()}
    return tuple(found.values())


def _references(gate: Gate, catalogue: Catalogue) -> Iterator[str]:
    """What a gate names and the catalogue has not."""
    place = f"gates.toml: {gate.id}."
    yield from _unknown(f"{place}tests", "check", gate.tests, catalogue.checks)
    for line in gate.requires:
        spot = f"{place}{line.id}."
        yield from _unknown(f"{spot}checks", "check", line.checks, catalogue.checks)
        yield from _unknown(f"{spot}criteria", "criterion", line.criteria, catalogue.criteria)
        if not _stands(line):
            yield f"{spot}checks: stands on nothing: give checks, criteria or attestations"
    for id_, count in _counts(line.id for line in gate.requires).items():
        if count > 1:
            yield f"{place}{id_}: there {count} times"


def _stands(line: GateLine) -> bool:
    return bool(line.checks or line.criteria or line.attestations)


def _unknown(
    place: str, kind: str, names: Iterable[str], known: Mapping[str, object]
) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{place}: no {kind} {name!r}{near(name, known)}"


def _counts(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for name in names:
        found[name] += 1
    return found
