"""The story of a stability run from its own file: every step, restart and checkpoint, all nodes
that are in it. Pure: rows in, a story out. What it holds at once is a number of each window.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from dvfd.errors import DvfdError
from dvfd.reporting.courses import Columns
from dvfd.reporting.from_store import METERS
from dvfd.reporting.story import Checkpoints, Meter, Restart, Story
from dvfd.reporting.stragglers import Watcher
from dvfd.runs.availability import stretches, total
from dvfd.runs.goodput import Part
from dvfd.runs.intervals import Grid
from dvfd.runs.rows import What
from dvfd.spent import of_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.reporting.story import Line
    from dvfd.runs.intervals import Interval
    from dvfd.runs.rows import Event, Rows, Window
    from dvfd.runs.run import Run

ELSEWHERE = "the file of this run holds {} of {} nodes: that of its lead has all"
PRICED = "cost: all {} nodes are taken to cost what this one does"


def story(run: Run, rows: Rows) -> Story:
    """All of *run* from its first step to its end. Raises DvfdError if it made none."""
    if run.began_t is None:
        raise DvfdError(f"run {run.id} made no step with all its ranks: there is nothing to tell")
    since, until = run.began_t, run.seen_t if run.ended_t is None else run.ended_t
    goodput = of_run(run, rows)
    events = list(rows.events())
    heard = _heard(rows, run)
    seen = stretches(events, nodes=run.plan.nodes, since=since, until=until)
    shift = run.armed_at - run.armed_t
    span = (shift + since, shift + until)
    columns = Columns(until - since)
    nodes = max(1, len(heard.nodes))
    return Story(
        job=run.plan.job,
        node=run.node,
        source="run file",
        run=run.id,
        since=span[0],
        until=span[1],
        goodput=goodput,
        live=not run.stage.over,
        spans=(span,),
        asked=span,
        world=run.plan.processes,
        ranks=len({rank for rank, _ in heard.lanes}),
        nodes=nodes,
        observed=1.0 - total(seen, What.UNSEEN) / (until - since) if until > since else None,
        samples=heard.samples if heard.told else None,
        lines=tuple(_lines(columns, heard.intervals, since)),
        by_step=_by_step(heard.intervals, run.plan.every),
        numbered=True,
        restarts=tuple(_restarts(heard, events, since)),
        checkpoints=_checkpoints(events, since, goodput.parts[Part.SAVE]),
        gaps=tuple((s.since - since, s.until - since) for s in seen if s.what is What.UNSEEN),
        stragglers=heard.watcher.found(len({rank for rank, _ in heard.lanes})),
        meters=tuple(_meters(rows, since, until)),
        hashes=dict(run.hashes),
        notes=(*goodput.notes, *_notes(nodes, run.plan.nodes)),
    )


def _notes(nodes: int, planned: int) -> Iterator[str]:
    if nodes < planned:
        yield ELSEWHERE.format(nodes, planned)
    if nodes > 1:
        yield PRICED.format(nodes)


@dataclass(slots=True)
class Lane:
    """One process of a rank: when its first and last steps ended, and their numbers."""

    began: float = math.inf
    ended: float = -math.inf
    first: int = 0
    last: int = 0

    def add(self, window: Window) -> None:
        """Take its steps."""
        if window.began < self.began:
            self.began, self.first = window.began, window.first_step
        self.ended, self.last = max(self.ended, window.ended), max(self.last, window.last_step)


@dataclass(slots=True)
class Heard:
    """What the windows of a file come to."""

    lanes: dict[tuple[int, str], Lane] = field(default_factory=lambda: defaultdict(Lane))
    nodes: set[str] = field(default_factory=set)
    watcher: Watcher = field(default_factory=Watcher)
    intervals: Sequence[Interval] = ()
    samples: float = 0.0
    told: bool = False  # some window told its samples


def _heard(rows: Rows, run: Run) -> Heard:
    """One pass over the windows."""
    found, grid = Heard(), Grid(every=run.plan.every, ranks=run.plan.processes)
    for _, group in groupby(rows.windows(), key=lambda window: window.window):
        computes: dict[tuple[int, str], float] = {}
        steps, stepping = math.inf, 0.0
        for window in group:
            grid.add(window)
            found.lanes[window.rank, window.session].add(window)
            found.nodes.add(window.node)
            found.told = found.told or window.samples is not None
            found.samples += window.samples or 0.0
            if window.computes:
                computes[window.rank, window.node] = window.compute / window.computes
                steps = min(steps, window.steps)
                stepping = max(stepping, _length(window))
        if computes:
            found.watcher.add(computes, steps, stepping)
    found.intervals = list(grid.intervals)
    return found


def _length(window: Window) -> float:
    """Seconds of its steps: of the first only the end is known, so it is taken to be like them."""
    timed = window.ended - window.began
    return timed * window.steps / (window.steps - 1) if window.steps > 1 else timed


def _lines(columns: Columns, intervals: Sequence[Interval], since: float) -> Iterator[Line]:
    asked = (
        ("throughput", "Throughput of all ranks", "samples/s"),
        ("loss", "Training loss", ""),
    )
    for name, title, unit in asked:
        told = ((i.began - since, i.ended - since, getattr(i, name)) for i in intervals)
        values = [(a, b, value) for a, b, value in told if value is not None]
        yield columns.line(name, title, unit, values)


def _by_step(
    intervals: Iterable[Interval], every: int
) -> dict[str, tuple[tuple[float, float], ...]]:
    """By the number of the last step of each interval; of one made again, the last."""
    found: dict[str, dict[float, float]] = {"loss": {}, "throughput": {}}
    for interval in sorted(intervals, key=lambda i: i.ended):
        for name, points in found.items():
            value = getattr(interval, name)
            if value is not None:
                points[float((interval.key + 1) * every)] = value
    return {name: tuple(sorted(points.items())) for name, points in found.items()}


@dataclass(frozen=True, slots=True)
class Change:
    """One rank that came back: from the last step of the old process to the first of the new."""

    since: float
    until: float
    again: int


def _changes(heard: Heard) -> Iterator[Change]:
    """Every change of process of every rank."""
    ranks: dict[int, list[Lane]] = defaultdict(list)
    for (rank, _), lane in heard.lanes.items():
        ranks[rank].append(lane)
    for lanes in ranks.values():
        done = 0
        before: Lane | None = None
        for lane in sorted(lanes, key=lambda each: each.began):
            if before is not None:
                again = min(max(0, done - lane.first + 1), lane.last - lane.first + 1)
                yield Change(before.ended, max(before.ended, lane.began), again)
            done, before = max(done, lane.last), lane


def _restarts(heard: Heard, events: Iterable[Event], since: float) -> Iterator[Restart]:
    """Changes of process that overlap are one restart; one that no step followed is not over."""
    changes = sorted(_changes(heard), key=lambda change: change.since)
    end = -math.inf
    group: list[Change] = []
    for change in changes:
        if group and change.since > end:
            yield _restart(group, since)
            group = []
        end = max(end, change.until) if group else change.until
        group.append(change)
    if group:
        yield _restart(group, since)
    open_ = [e.t for e in events if e.what is What.RESTART and e.t > end]
    if open_:
        yield Restart(t=min(open_) - since, ranks=len(open_))


def _restart(group: Sequence[Change], since: float) -> Restart:
    began, ended = min(c.since for c in group), max(c.until for c in group)
    return Restart(
        t=began - since,
        ranks=len(group),
        lost=ended - began,
        again=max(change.again for change in group),
    )


def _checkpoints(events: Iterable[Event], since: float, seconds: float) -> Checkpoints:
    """Every rank may report the shard of one checkpoint: it is saved once. How long all took is
    known if each tells it.
    """
    saved: dict[int | None, float] = {}
    took = []
    failed = untold = 0
    for event in events:
        if event.what is What.SAVED and event.t >= since:
            saved[event.step] = event.t - since
            took += [] if event.value is None else [event.value]
            untold += event.value is None
        failed += event.what is What.FAILED
    return Checkpoints(
        times=tuple(sorted(saved.values())),
        seconds=None if untold else seconds,
        longest=max(took, default=None),
        failed=failed,
        whole=True,
    )


def _meters(rows: Rows, since: float, until: float) -> Iterator[Meter]:
    """Energy by source and node, of the minutes that began in the run."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for minute in rows.minutes():
        if minute.metric in METERS and since <= 60.0 * minute.minute < until:
            source, label = METERS[minute.metric]
            name = dict(minute.labels).get(label, "")
            found[source, name, minute.node].append((minute.grown, minute.covered))
    for (source, name, node), told in sorted(found.items()):
        covered = math.fsum(seconds for _, seconds in told) / (until - since)
        if covered > 0:
            joules = math.fsum(grown for grown, _ in told)
            yield Meter(
                source=source, name=name, node=node, joules=joules, covered=min(1.0, covered)
            )
