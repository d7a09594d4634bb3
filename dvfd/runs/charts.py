"""Draw a report's courses and marks as SVG. Pure: the report's document in, text out.

What it returns goes between the tags of an <svg> and holds numbers only. Time that nobody observed
is never drawn over: lines break there, and the ground is shaded. Of several lines the one that
decides is drawn strongly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dvfd.sinks.chart import SIDE, Frame, Point, bounds, ticks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROWS = 12
"""Rows of the table under a chart of one line: two hours each of a day."""

STEPS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
"""Seconds between the times on the axis: the first that gives at most seven."""

SLIVER = 2.0
"""Units that a gap or a mark is wide at least: a short one must be seen, too."""

BANDED = 2
"""Lines at most that are drawn with how far they reach: more bands hide each other."""

LOWER_IS_WORSE = frozenset({">", ">="})


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table; all None where nothing was observed. `since` in run seconds."""

    since: float
    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table of a chart with several."""

    name: str
    mean: float
    low: float
    high: float
    observed: float  # share of the points


@dataclass(frozen=True, slots=True)
class Drawn:
    """The parts of a drawn chart: plot, labels of either axis, its table, what is said of it."""

    chart: Mapping[str, Any]
    plot: str
    values: str
    times: str
    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    decides: str  # the name of the line that is drawn strongly, of several
    unobserved: float  # seconds without any line


@dataclass(frozen=True, slots=True)
class Axis:
    """The run's own time: from its first step to its end, run seconds."""

    since: float
    until: float

    def x(self, t: float) -> float:
        """Units from the left."""
        return SIDE * min(1.0, max(0.0, (t - self.since) / (self.until - self.since)))


def axis(report: Mapping[str, Any]) -> Axis:
    """The time axis of all charts of *report*."""
    began, times = report["times"]["began"], report["times"]
    since = began["t"] if began else 0.0
    return Axis(since, since + max(times["elapsed"], 1.0))


def draw(chart: Mapping[str, Any], along: Axis, report: Mapping[str, Any]) -> Drawn:
    """One chart, with the restarts of the run and what nobody saw of it."""
    lines = chart["lines"]
    strong = _deciding(chart)
    points = [_points(chart, line, along) for line in lines]
    low, high = bounds((p for line in points for p in line if p), chart["limit"])
    frame = Frame(along.since, along.until, low, high)
    blind = _united([*_blind(chart, along), *_unseen(report)])
    plot = "".join([
        _expected(frame, chart["expected"]),
        *(_shade(along, since, until) for since, until in blind),
        *(f'<path class="grid" d="M0 {_n(frame.y(v))}H{SIDE}"/>' for v in ticks(low, high)),
        *(_mark(along, event["t"]) for event in report["events"] if event["what"] == "restart"),
        *(_band(frame, part) for line in points[:BANDED] for part in _parts(line)
          if len(lines) <= BANDED),
        "" if chart["limit"] is None
        else f'<path class="limit" d="M0 {_n(frame.y(chart["limit"]))}H{SIDE}"/>',
        *(_course(frame, line, chart["step"]) for n, line in enumerate(points) if n != strong),
        *([_course(frame, points[strong], chart["step"], strong=True)] if lines else []),
    ])  # fmt: skip
    return Drawn(
        chart=chart,
        plot=plot,
        values=_values(frame),
        times=times(along),
        rows=_rows(points[0], along) if len(lines) == 1 else (),
        lines=tuple(map(_line, lines)) if len(lines) > 1 else (),
        decides=lines[strong]["name"] if len(lines) > 1 else "",
        unobserved=math.fsum(until - since for since, until in blind),
    )


def times(along: Axis) -> str:
    """Labels below the plot: how long the run had run."""
    span = along.until - along.since
    step = next((s for s in STEPS if span / s <= 7), STEPS[-1])
    places = [n * step for n in range(1, int(span // step) + 1)]
    return "".join(
        f'<text x="{_n(100 * at / span)}%" y="75%">{after(at)}</text>'
        for at in places
        if 4 <= 100 * at / span <= 96
    )


def after(elapsed: float) -> str:
    """How long the run had run, as an axis says it: `30 s`, `90 min`, `12 h`."""
    if elapsed % 60:
        return f"{elapsed:g} s"
    hours = elapsed / 3600
    return f"{hours:g} h" if hours == int(hours) and hours else f"{elapsed / 60:.0f} min"


def lane(places: Sequence[Sequence[int]], width: int) -> str:
    """Marks of one kind along the run, at the places of *width* that had any."""
    unit = SIDE / width
    return "".join(
        f'<path d="M{_n(place * unit)} 0h{_n(max(unit * 0.6, SLIVER))}v20h-'
        f'{_n(max(unit * 0.6, SLIVER))}z"/>'
        for place, _ in places
    )


def states(report: Mapping[str, Any], along: Axis) -> str:
    """The lane of up, down and unseen: up is the ground, the rest lies on it."""
    found = []
    for stretch in report["observed"]["stretches"]:
        left, right = along.x(stretch["since"]), along.x(stretch["until"])
        width = _n(max(right - left, SLIVER))
        tone = "down" if stretch["what"] == "down" else "gap"
        found.append(f'<path class="{tone}" d="M{_n(left)} 0h{width}v20h-{width}z"/>')
    return "".join(found)


def _points(chart: Mapping[str, Any], line: Mapping[str, Any], along: Axis) -> list[Point | None]:
    step = chart["step"]
    columns = zip(line["mean"], line["low"], line["high"], strict=True)
    return [
        None if mean is None
        else Point(min(chart["since"] + (n + 0.5) * step, along.until), mean, low, high)
        for n, (mean, low, high) in enumerate(columns)
    ]  # fmt: skip


def _deciding(chart: Mapping[str, Any]) -> int:
    """The line that is worst for the criterion: the lowest where more is wanted, or the highest."""
    means = [_mean(line) for line in chart["lines"]]
    if not means:
        return 0
    pick = min if chart["comparison"] in LOWER_IS_WORSE else max
    return means.index(pick(means))


def _mean(line: Mapping[str, Any]) -> float:
    known = [value for value in line["mean"] if value is not None]
    return math.fsum(known) / len(known)


def _line(line: Mapping[str, Any]) -> Line:
    known = [value for value in line["low"] if value is not None]
    return Line(
        line["name"],
        _mean(line),
        min(known),
        max(value for value in line["high"] if value is not None),
        len(known) / len(line["mean"]),
    )


def _blind(chart: Mapping[str, Any], along: Axis) -> list[tuple[float, float]]:
    """Where no line of *chart* has a point; all of the run if it has no line."""
    lines = [line["mean"] for line in chart["lines"]]
    if not lines:
        return [(along.since, along.until)]
    count = len(lines[0])
    empty = [all(line[n] is None for line in lines) for n in range(count)]
    found, place = [], 0
    for blind, group in groupby(empty):
        size = len(list(group))
        if blind:
            since = chart["since"] + place * chart["step"]
            found.append((since, min(since + size * chart["step"], along.until)))
        place += size
    return found


def _unseen(report: Mapping[str, Any]) -> list[tuple[float, float]]:
    found = report["observed"]["stretches"]
    return [(s["since"], s["until"]) for s in found if s["what"] == "unseen"]


def _united(stretches: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches put together where they touch: none is counted twice."""
    found: list[tuple[float, float]] = []
    for since, until in sorted(stretches):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(until, found[-1][1]))
        else:
            found.append((since, until))
    return found


def _shade(along: Axis, since: float, until: float) -> str:
    left, right = along.x(since), along.x(until)
    width = _n(max(right - left, SLIVER))
    return f'<path class="gap" d="M{_n(left)} 0h{width}V{SIDE}h-{width}z"/>'


def _mark(along: Axis, t: float) -> str:
    return f'<path class="restart" d="M{_n(along.x(t))} 0V{SIDE}"/>'


def _expected(frame: Frame, expected: Sequence[float] | None) -> str:
    """The band that was expected, as far as it lies in the plot."""
    if expected is None:
        return ""
    top, bottom = (min(SIDE, max(0.0, frame.y(value))) for value in (expected[1], expected[0]))
    if bottom - top < 1:
        return ""
    return f'<path class="expected" d="M0 {_n(top)}H{SIDE}V{_n(bottom)}H0z"/>'


def _parts(points: Sequence[Point | None]) -> list[list[Point]]:
    """Points cut wherever nothing was observed."""
    return [
        [point for point in group if point]
        for seen, group in groupby(points, lambda point: point is not None)
        if seen
    ]


def _course(
    frame: Frame, points: Sequence[Point | None], step: float, *, strong: bool = False
) -> str:
    kind = "line" if strong else "line other"
    drawn = []
    for part in _parts(points):
        if len(part) == 1:  # a line needs two ends: the stretch that the point stands for
            (point,) = part
            left, right = frame.x(point.at - step / 2), frame.x(point.at + step / 2)
            drawn.append(f"M{_n(max(0.0, left))} {_n(frame.y(point.mean))}H{_n(min(SIDE, right))}")
        else:
            drawn.append("M" + "L".join(f"{_n(frame.x(p.at))} {_n(frame.y(p.mean))}" for p in part))
    return f'<path class="{kind}" d="{"".join(drawn)}"/>' if drawn else ""


def _band(frame: Frame, part: Sequence[Point]) -> str:
    upper = [f"{_n(frame.x(p.at))} {_n(frame.y(p.high))}" for p in part]
    lower = [f"{_n(frame.x(p.at))} {_n(frame.y(p.low))}" for p in reversed(part)]
    return f'<path class="band" d="M{"L".join(upper + lower)}z"/>'


def _values(frame: Frame) -> str:
    """Labels beside the plot: heights in percent, so that the letters keep their size."""
    return "".join(
        f'<text x="100%" y="{_n(frame.y(value) / 10)}%">{value + 0.0:.6g}</text>'
        for value in ticks(frame.low, frame.high)
    )


def _rows(points: Sequence[Point | None], along: Axis) -> tuple[Row, ...]:
    width = (along.until - along.since) / ROWS
    inside: list[list[Point]] = [[] for _ in range(ROWS)]
    for point in points:
        if point:
            inside[min(int((point.at - along.since) / width), ROWS - 1)].append(point)
    return tuple(
        _row(along.since + n * width, some) if some else Row(along.since + n * width)
        for n, some in enumerate(inside)
    )


def _row(since: float, points: Sequence[Point]) -> Row:
    return Row(
        since,
        math.fsum(p.mean for p in points) / len(points),
        min(p.low for p in points),
        max(p.high for p in points),
    )


def _n(value: float) -> str:
    """A coordinate, as short as it can be."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
