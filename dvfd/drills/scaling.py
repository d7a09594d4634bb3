"""Read off the ledger how throughput grew with processes, and where a fit of it leads.

Runs nothing: what is judged was measured before, by the runs that people accepted and by
`dvfd scaling measure`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dvfd import answers
from dvfd.catalogue import load
from dvfd.drills.drill import About, Fact, Remark, Trouble
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.scaling import asked, floors, reading
from dvfd.scaling.efficiency import rows
from dvfd.scaling.points import doubts, of
from dvfd.scaling.series import configuration, series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dvfd.drills.drill import Ran, Task
    from dvfd.model import Check, Labels
    from dvfd.scaling.asked import Answer, Projection, Target
    from dvfd.scaling.efficiency import Row
    from dvfd.scaling.points import Point
    from dvfd.scaling.reading import Known
    from dvfd.scaling.series import Series

EFFICIENCY, SMALLER = floors.EFFICIENCY, floors.SMALLER
SHARE, SMALLER_SHARE = "run_communication_ratio", "run_smaller_communication_ratio"
ERROR = floors.ERROR

FEWEST = 3
"""Process counts of a projection: two determine two parameters, and say nothing of the error."""


Found = Sample | Remark | Trouble | Fact


def ledger() -> Known:
    """What this node's ledger holds. Raises DvfdError if there is one and it cannot be read."""
    return reading.known(answers.asked("scaling"))


class Efficiency:
    """Every process count of the ledger against one process, and against what was foretold."""

    name = "efficiency"
    metrics = (EFFICIENCY, SMALLER, SHARE, SMALLER_SHARE, ERROR)

    def __init__(self, read: Callable[[], Known] = ledger) -> None:
        self._read = read

    def run(self, task: Task) -> Iterator[Found | Ran | About]:
        """Read the ledger and compare. Raises DvfdError."""
        wanted = task.options.processes or task.check.processes
        yield About(wanted)
        yield Fact("judged for", of(wanted))
        known, chosen = _chosen(self._read(), wanted)
        found = rows(chosen, known.points, known.frozen, run=task.run)
        at, checks = task.clock.now(), load(task.config).checks
        yield from _facts(known, chosen)
        by_count = {row.processes: row for row in found}
        for row in found:
            smaller = chosen.smaller(row.processes)
            below = by_count.get(smaller.processes) if smaller else None
            yield from _of_count(row, below, at)
            yield _account(row, below, checks)
        yield from _others(task.check, wanted, by_count)
        if wanted not in by_count:
            where = labels(processes=wanted)
            why = f"no throughput of {of(wanted)} is in the ledger: dvfd stability accept RUN"
            yield from (Trouble(metric, why, where) for metric in self.metrics)


def _chosen(known: Known, wanted: int) -> tuple[Known, Series]:
    """The ledger, and the configuration of it that *wanted* processes are asked about in. Raises
    ProbeError.
    """
    name = configuration(known.points, wanted)
    if not name:
        damage = f"; {'; '.join(known.damaged)}" if known.damaged else ""
        raise ProbeError(
            "no throughput is in the ledger: dvfd stability accept RUN, dvfd scaling measure"
            f"{damage}"
        )
    return known, series(known.points, name)


def _facts(known: Known, chosen: Series) -> Iterator[Fact]:
    others = {p.configuration for p in known.points} - {chosen.configuration}
    more = f"; {len(others)} more, never compared with it" if others else ""
    yield Fact("configuration", f"{chosen.configuration[:12]}{more}")
    yield from (Fact("left out", words) for words in chosen.left_out)
    yield from (Fact("damaged", words) for words in known.damaged)


def _others(check: Check, wanted: int, found: Iterable[int]) -> Iterator[Fact]:
    """What else the ledger has that this check judges: one command for each."""
    for count in sorted(set(check.counts) & set(found) - {wanted}):
        yield Fact("not judged here", f"{of(count)}: dvfd check {check.id} --processes {count}")


# --- One process count ----------------------------------------------------------------------------


def _of_count(row: Row, below: Row | None, at: float) -> Iterator[Found]:
    where = labels(processes=row.processes)
    yield from _efficiency(row, below, at, where)
    yield from _communication(row, below, at, where)
    if row.error is None:
        yield Trouble(ERROR, row.unforetold, where)
        return
    assert row.foretold
    yield Sample(ERROR, row.error, at, where)
    yield Remark(ERROR, f"against {row.foretold[0].words}", where)
    yield from _doubted(row, [ERROR], where)


def _efficiency(row: Row, below: Row | None, at: float, where: Labels) -> Iterator[Found]:
    if row.efficiency is None or row.single is None:
        yield Trouble(EFFICIENCY, row.lack, where)
        return
    yield Sample(EFFICIENCY, row.efficiency, at, where, *(row.ends or (None, None)))
    yield from _doubted(row, [EFFICIENCY], where)
    one = f"{row.single.throughput:.5g} samples/s on one process, {row.single.words}"
    if row.efficiency > 1:
        yield Remark(EFFICIENCY, f"super-linear: verify the baseline: {one}", where)
    else:
        yield Remark(EFFICIENCY, f"against {one}", where)
    if below is None:
        yield Trouble(SMALLER, "no smaller process count is in the ledger", where)
    elif below.efficiency is None or below.doubt:
        why = below.lack or below.doubt
        yield Remark(EFFICIENCY, f"no efficiency of {of(below.processes)}: {why}", where)
        yield Trouble(SMALLER, why, where)
    else:
        yield Sample(SMALLER, below.efficiency, at, where, *(below.ends or (None, None)))


def _communication(row: Row, below: Row | None, at: float, where: Labels) -> Iterator[Found]:
    if row.point.communication is None:
        why = f"{row.point.words}: no rank told its communication"
        yield Trouble(SHARE, why, where)
        return
    yield Sample(SHARE, row.point.communication, at, where)
    if row.point.proves:
        yield Trouble(SHARE, row.point.proves, where)
    if below is None or below.point.communication is None or below.point.proves:
        yield Trouble(SMALLER_SHARE, "no smaller process count told its communication", where)
    else:
        yield Sample(SMALLER_SHARE, below.point.communication, at, where)


def _doubted(row: Row, metrics: Sequence[str], where: Labels) -> Iterator[Trouble]:
    """Why nothing that rests on *row* may pass."""
    if row.doubt:
        yield from (Trouble(metric, row.doubt, where) for metric in metrics)


def _account(row: Row, below: Row | None, checks: Mapping[str, Check]) -> Fact:
    """One count in words: what was measured, what it is of linear, which floor binds."""
    known = floors.Known(
        single=row.single.throughput if row.single else None,
        smaller=below.efficiency if below else None,
        foretold=row.foretold[1].value if row.foretold else None,
    )
    found = floors.floors(checks, row.processes, known)
    share = f"{row.efficiency:.2%} of linear" if row.efficiency is not None else row.lack
    low, high = row.point.low, row.point.high
    bounds = "" if low is None or high is None else f" ({low:.5g} to {high:.5g})"
    relative = ""
    if below and row.efficiency is not None:
        against = row.point.throughput / below.point.throughput * below.processes / row.processes
        relative = f", {against:.2%} of {of(below.processes)}"
    text = (
        f"{row.point.throughput:.5g}{bounds} samples/s, {row.point.words}; {share}{relative}; "
        f"{floors.told(found)}"
    )
    return Fact(of(row.processes), text)


# --- Where it leads -------------------------------------------------------------------------------


class ToCome:
    """The fit through all smaller counts, at the one that the check is about."""

    name = "projection"
    metrics = (
        floors.TO_COME,
        floors.TO_COME_EFFICIENCY,
        "projection_reach_samples_per_second",
        "projection_communication_ratio",
        "projection_smaller_communication_ratio",
        "projection_sound",
        "projection_left_out_error_ratio",
        "projection_extrapolation_ratio",
    )

    def __init__(self, read: Callable[[], Known] = ledger) -> None:
        self._read = read

    def run(self, task: Task) -> Iterator[Found | Ran]:
        """Read the ledger and fit. Raises DvfdError."""
        wanted = task.check.processes
        known, chosen = _chosen(self._read(), wanted)
        points = [point for point in chosen.points if point.processes < wanted]
        answer = asked.ask(
            points, fit=range(len(points)), targets=[wanted, 2 * wanted], run=task.run
        )
        yield from _facts(known, chosen)
        if answer.projection is None:
            counts = ", ".join(str(point.processes) for point in points) or "none"
            raise ProbeError(f"process counts below {wanted} in the ledger: {counts}; two at least")
        few = f"{len(points)} process counts: {FEWEST} at least say how sure a fit is"
        why = "; ".join(filter(None, (doubts(points), few if len(points) < FEWEST else "")))
        yield from (Trouble(metric, why) for metric in self.metrics if why)
        yield from _told(answer.projection, points, wanted, task.clock.now())
        yield from _words(answer, points, wanted, task)


def _told(found: Projection, points: Sequence[Point], wanted: int, at: float) -> Iterator[Found]:
    target = found.of(wanted)
    assert target is not None
    sample = partial(Sample, at=at)
    if target.open or target.value is None or target.low is None or target.high is None:
        lack = (
            target.open
            or "; ".join(found.lacks.values())
            or f"the fit is not finite at {of(wanted)}"
        )
        yield Trouble(floors.TO_COME, lack)
        yield Trouble(floors.TO_COME_EFFICIENCY, lack)
        yield Trouble("projection_reach_samples_per_second", lack)
    else:
        values = target.value, target.low, target.high
        yield from _throughput(values, points, wanted, at)
    for name, holds in (("finite", target.finite), ("monotone", target.monotone)):
        yield sample("projection_sound", float(holds), labels=labels(property=name))
    if found.worst is None:
        yield Trouble("projection_left_out_error_ratio", found.not_left_out)
    else:
        yield sample("projection_left_out_error_ratio", found.worst)
    yield sample("projection_extrapolation_ratio", target.extrapolation)
    yield from _exchange(target, points, at)


def _throughput(
    values: tuple[float, float, float], points: Sequence[Point], wanted: int, at: float
) -> Iterator[Found]:
    value, low, high = values
    yield Sample(floors.TO_COME, value, at, (), low, high)
    yield Sample("projection_reach_samples_per_second", high, at)
    one = next((point for point in points if point.processes == 1), None)
    if one is None:
        yield Trouble(floors.TO_COME_EFFICIENCY, "one process was not measured")
        return
    linear = wanted * one.throughput
    yield Sample(floors.TO_COME_EFFICIENCY, value / linear, at, (), low / linear, high / linear)


def _exchange(target: Target, points: Sequence[Point], at: float) -> Iterator[Found]:
    largest = points[-1]
    if target.communication is None or largest.communication is None:
        why = "fewer than two process counts told their communication, or the largest did not"
        yield Trouble("projection_communication_ratio", why)
        return
    value, low, high = target.communication
    yield Sample("projection_communication_ratio", value, at, (), low, high)
    yield Sample("projection_smaller_communication_ratio", largest.communication, at)


def _words(answer: Answer, points: Sequence[Point], wanted: int, task: Task) -> Iterator[Found]:
    found = answer.projection
    assert found
    target, beyond = found.of(wanted), found.of(2 * wanted)
    assert target
    assert beyond
    yield Remark(floors.TO_COME, f"interval: {target.interval}")
    if found.superlinear:
        beside = "; ".join(f"{fit.title} {_at(found, fit.name, wanted)}" for fit in found.fits)
        yield Remark(floors.TO_COME, f"super-linear: verify the baseline; {beside}")
    yield Fact(
        "projected from",
        "; ".join(f"{of(p.processes)} {p.throughput:.5g} samples/s, {p.words}" for p in points),
    )
    one = next((point.throughput for point in points if point.processes == 1), None)
    asked_for = floors.floors(load(task.config).checks, wanted, floors.Known(single=one))
    name = asked.NAMES.get(found.decides, "none")
    yield Fact("fit", f"{name} decides; {target.interval}; {floors.told(asked_for)}")
    for fit in found.fits:
        odd = "" if fit.physical else ", which nothing physical has"
        text = f"{_at(found, fit.name, wanted)} samples/s; {fit.words}{odd}; error {fit.error:.1%}"
        yield Fact(fit.title, text)
    reach = "no finite value" if beyond.value is None else f"{beyond.value:.5g} samples/s"
    bounds = "" if beyond.low is None else f" ({beyond.low:.5g} to {beyond.high:.5g})"
    turn = "" if beyond.monotone else ", beyond the fit's own peak"
    yield Fact(
        of(2 * wanted),
        f"extrapolation, {beyond.extrapolation:.3g} times the largest count: {reach}{bounds}{turn}",
    )


def _at(found: Projection, name: str, processes: int) -> str:
    fit = next(fit for fit in found.fits if fit.name == name)
    value = fit.values[found.along.index(processes)]
    return "no finite value" if value is None else f"{value:.5g}"
