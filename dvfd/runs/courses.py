"""The courses that a report draws of a run, each folded to a few hundred points. Pure.

The same rows in any order give the same points: sums are exact, and places are of the run's own
clock. A stretch that nobody observed has no point.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvfd.runs.intervals import Grid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dvfd.model import Labels, Result
    from dvfd.runs.intervals import Interval
    from dvfd.runs.rows import Minute, Rows
    from dvfd.runs.run import Run
    from dvfd.runs.verdicts import Judged

POINTS = 240
"""Points of a course at most: six minutes each of a day, one each three pixels of a chart."""

MINUTE = 60.0

LINES = 64
"""Courses in one chart: 16 ranks, or the NUMA nodes of four nodes with eight each, twice."""

DIGITS = 6
"""Significant digits of a point: more than a chart shows and any criterion's limit has."""

SHAPES = frozenset({"stdev", "fraction_within", "increase", "count"})
"""Reducers whose limit is not one of the course itself."""


@dataclass(frozen=True, slots=True)
class Topic:
    """Something that is drawn. `metric` is what a criterion holds to a limit; the course itself is
    of whole intervals (`of` names the figure) or of minutes of the probe metric `probed`, a line
    for each of its `label`. An `optional` one is left out where nothing of it was observed.
    """

    id: str
    title: str
    unit: str
    metric: str
    of: str = ""
    probed: str = ""
    label: str = ""
    grown: bool = False  # a counter, drawn as its rate
    optional: bool = False


TOPICS = (
    Topic("throughput", "Throughput of all ranks", "samples/s",
          "run_window_throughput_samples_per_second", of="throughput"),
    Topic("loss", "Training loss", "", "job_loss", of="loss"),
    Topic("norm", "Gradient norm", "", "job_gradient_norm", of="norm"),
    Topic("communication", "Exposed communication", "share of step time",
          "run_communication_ratio", of="communication", optional=True),
    Topic("allreduce", "All-reduce, slowest rank", "s", "run_allreduce_seconds",
          of="allreduce", optional=True),
    Topic("cpu", "Processor use by rank", "share of its cores", "rank_cpu_ratio",
          probed="rank_cpu_ratio", label="rank"),
    Topic("memory", "Memory in use by NUMA node", "share", "node_memory_used_ratio",
          probed="node_memory_used_ratio", label="numa_node"),
    Topic("power", "Power by processor package", "W", "run_power_joules_per_second",
          probed="cpu_package_energy_joules_total", label="package", grown=True),
    Topic("temperature", "Temperature by processor package", "°C", "cpu_temperature_celsius",
          probed="cpu_temperature_celsius", label="package"),
    Topic("gpu", "Use of each GPU", "share", "gpu_utilization_ratio",
          probed="gpu_utilization_ratio", label="gpu", optional=True),
    Topic("gpu_temperature", "Temperature of each GPU", "°C", "gpu_temperature_celsius",
          probed="gpu_temperature_celsius", label="gpu", optional=True),
)  # fmt: skip
"""In the order of the report."""


@dataclass(slots=True)
class Cell:
    """What fell into one point: seconds, and values by their seconds."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))
    low: float = math.inf
    high: float = -math.inf

    def point(self) -> tuple[float, float, float]:
        """Mean over time, least, greatest."""
        mean = math.fsum(self.values) / math.fsum(self.seconds)
        return _short(mean), _short(self.low), _short(self.high)


class Course:
    """One line of a chart: values over stretches of time, folded into points of *step* seconds."""

    def __init__(self, since: float, until: float, step: float) -> None:
        self._since, self._until, self._step = since, until, step
        self._cells: dict[int, Cell] = {}

    def add(self, began: float, ended: float, value: float, low: float, high: float) -> None:
        """A value that stands for [began, ended); what lies outside of the run does not count."""
        began, ended = max(began, self._since), min(ended, self._until)
        if ended <= began or not all(map(math.isfinite, (value, low, high))):
            return
        first = int((began - self._since) // self._step)
        last = math.ceil((ended - self._since) / self._step)
        for number in range(first, last):
            left = self._since + number * self._step
            share = min(ended, left + self._step) - max(began, left)
            if share <= 0:
                continue
            cell = self._cells.setdefault(number, Cell())
            cell.seconds.append(share)
            cell.values.append(share * value)
            cell.low, cell.high = min(cell.low, low), max(cell.high, high)

    def to_document(self, name: str) -> dict[str, Any]:
        """As JSON: one column each of means, least and greatest; null where nobody observed."""
        count = math.ceil((self._until - self._since) / self._step)
        points = {n: cell.point() for n, cell in self._cells.items()}
        columns = [[points[n][k] if n in points else None for n in range(count)] for k in range(3)]
        return {"name": name, "mean": columns[0], "low": columns[1], "high": columns[2]}

    @property
    def empty(self) -> bool:
        """Whether nothing was observed."""
        return not self._cells


def courses(run: Run, rows: Rows, judged: Sequence[Judged], until: float) -> list[dict[str, Any]]:
    """Every topic as JSON: its lines over [began, *until*] and the limits that it is held to."""
    since = run.began_t or 0.0
    until = max(until, since + 1.0)
    intervals = _intervals(run, rows)
    minutes = _minutes(rows, since, until, several=run.plan.nodes > 1)
    found = []
    for topic in TOPICS:
        if topic.of:
            step = _step(since, until, 1.0)
            lines = _of_intervals(topic, intervals, Course(since, until, step))
        else:
            step, lines = _step(since, until, MINUTE), minutes.get(topic.id, [])
        if lines or not topic.optional:
            found.append(_document(topic, lines, _held(topic, judged), since, step))
    return found


def _step(since: float, until: float, least: float) -> float:
    """Seconds of a point: whole multiples of *least*, so that minutes are never cut."""
    return least * math.ceil((until - since) / POINTS / least)


def _intervals(run: Run, rows: Rows) -> list[Interval]:
    grid = Grid(every=run.plan.every, ranks=run.plan.processes)
    for window in rows.windows():
        grid.add(window)
    return list(grid.intervals)


def _of_intervals(
    topic: Topic, intervals: Iterable[Interval], course: Course
) -> list[dict[str, Any]]:
    for interval in intervals:
        value = getattr(interval, topic.of)
        if value is not None:
            course.add(interval.began, interval.ended, value, value, value)
    return [] if course.empty else [course.to_document("all ranks")]


def _minutes(
    rows: Rows, since: float, until: float, *, several: bool
) -> dict[str, list[dict[str, Any]]]:
    """The lines of every topic of a probe, by its id."""
    topics = {topic.probed: topic for topic in TOPICS if topic.probed}
    step = _step(since, until, MINUTE)
    made: dict[str, dict[tuple[str, Labels], Course]] = {}
    for minute in rows.minutes():
        topic = topics.get(minute.metric)
        if topic is None:
            continue
        lines = made.setdefault(topic.id, {})
        key = (minute.node if several else "", minute.labels)
        if key not in lines:
            lines[key] = Course(since, until, step)
        _add(lines[key], minute, grown=topic.grown)
    by_id = {topic.id: topic for topic in TOPICS}
    return {
        id_: [
            lines[key].to_document(_name(by_id[id_], *key))
            for key in sorted(lines, key=_numbered)
            if not lines[key].empty
        ]
        for id_, lines in made.items()
    }


def _add(course: Course, minute: Minute, *, grown: bool) -> None:
    began = minute.minute * MINUTE
    ended = began + MINUTE
    if not grown:
        mean = minute.sum / minute.count if minute.count else minute.last
        course.add(began, ended, mean, minute.low, minute.high)
    elif minute.covered >= 0.9 * MINUTE:  # as the criterion on power has it: of whole minutes
        rate = minute.grown / minute.covered
        course.add(began, ended, rate, rate, rate)


def _numbered(key: tuple[str, Labels]) -> tuple[str, list[tuple[str, int, str]]]:
    """Sorts rank 2 before rank 10."""
    node, labels = key
    return node, [(name, int(v) if v.isdecimal() else -1, v) for name, v in labels]


def _name(topic: Topic, node: str, labels: Labels) -> str:
    value = dict(labels).get(topic.label, "")
    own = f"{topic.label.replace('_', ' ').replace('numa', 'NUMA').replace('gpu', 'GPU')} {value}"
    return f"{node} {own}".strip()


def _held(topic: Topic, judged: Sequence[Judged]) -> Result | None:
    """The result whose criterion holds the course to a limit."""
    for each in judged:
        criterion = each.result.criterion
        bucket = dict(criterion.where).get("message", "bucket") == "bucket"
        if criterion.metric == topic.metric and criterion.reduce not in SHAPES and bucket:
            return each.result
    return None


def _document(
    topic: Topic,
    lines: Sequence[Mapping[str, Any]],
    held: Result | None,
    since: float,
    step: float,
) -> dict[str, Any]:
    criterion = held.criterion if held else None
    expected = criterion.expected if criterion else None
    return {
        "id": topic.id,
        "title": topic.title,
        "unit": topic.unit,
        "since": since,
        "step": step,
        "criterion": criterion.id if criterion else "",
        "comparison": criterion.comparison.value if criterion else "",
        "limit": None if held is None or criterion is None else _limit(held),
        "expected": [expected.low, expected.high] if expected else None,
        "lines": list(lines[:LINES]),
        "lines_left_out": max(0, len(lines) - LINES),
    }


def _limit(held: Result) -> float | None:
    return held.criterion.limit.value if held.limit is None else held.limit


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
