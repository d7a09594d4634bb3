"""Draw one series over time as SVG: line, extremes, limit and gaps. Pure: samples in, text out.

What it returns goes between the tags of an <svg>; it holds numbers only, nothing from outside.
Time that nobody observed is never drawn over: the line breaks there, and the ground is shaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dvfd.model import Sample

POINTS = 180
"""Points across a chart: one each three pixels of a desktop's half."""

ROWS = 12
"""Rows of the table beneath: five minutes each of an hour, two hours each of a day."""

SIDE = 1000
"""Units of the plot's own square; the page stretches it to what room there is."""

LEAST = 0.1
"""The axis spans at least this share of the values: else a steady line would look like a storm."""

SLIVER = 2.0
"""Units that a gap is wide at least: a short one must be seen, too."""

HUGE = 1e150
"""Values beyond this are drawn at this: their differences would overflow."""

STEPS = (60, 300, 600, 1800, 3600, 14_400, 86_400)
"""Seconds between the times on the axis: the first that gives at most seven."""


@dataclass(frozen=True, slots=True)
class Point:
    """Samples of a short time as one: their mean, and how far they reach."""

    at: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; None where nothing was observed."""

    since: float
    point: Point | None


@dataclass(frozen=True, slots=True)
class Chart:
    """The parts of a drawn chart: plot, labels of either axis, the table, what was not observed."""

    plot: str
    values: str
    times: str
    rows: tuple[Row, ...]
    unobserved: float
    last: Sample | None


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a moment and a value lie in the plot."""

    since: float
    until: float
    low: float
    high: float

    def x(self, at: float) -> float:
        """Units from the left."""
        return SIDE * (at - self.since) / (self.until - self.since)

    def y(self, value: float) -> float:
        """Units from the top."""
        return SIDE * (self.high - _tame(value)) / (self.high - self.low)


def draw(
    samples: Sequence[Sample],
    *,
    since: float,
    until: float,
    max_age: float,
    limit: float | None = None,
) -> Chart:
    """Draw *samples*, oldest first, over [since, until]; each stands for *max_age* s at most."""
    inside = [s for s in samples if since <= s.at <= until]
    parts = stretches(inside, max_age)
    drawn = [thin(part, since, (until - since) / POINTS) for part in parts]
    low, high = bounds((point for part in drawn for point in part), limit)
    frame = Frame(since, until, low, high)
    blind = gaps(parts, since, until, max_age)
    return Chart(
        plot=_plot(frame, drawn, blind, limit),
        values=_values(frame),
        times=_times(frame),
        rows=_rows(inside, since, until),
        unobserved=sum(end - start for start, end in blind),
        last=inside[-1] if inside else None,
    )


def stretches(samples: Sequence[Sample], max_age: float) -> list[list[Sample]]:
    """*samples* cut wherever more than *max_age* seconds went unobserved."""
    found: list[list[Sample]] = [[samples[0]]] if samples else []
    for before, after in pairwise(samples):
        if _start(after) - before.at > max_age:
            found.append([])
        found[-1].append(after)
    return found


def gaps(
    parts: Sequence[Sequence[Sample]], since: float, until: float, max_age: float
) -> list[tuple[float, float]]:
    """The times in [since, until] that no stretch covers, but for waits below *max_age*."""
    edges = [since, *(edge for part in parts for edge in (_start(part[0]), part[-1].at)), until]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(start, end) for start, end in pairs if end - start > max_age]


def thin(samples: Sequence[Sample], since: float, width: float) -> list[Point]:
    """One point for each *width* seconds, counted from *since*."""
    return [_point(list(group)) for _, group in groupby(samples, lambda s: (s.at - since) // width)]


def bounds(points: Iterable[Point], limit: float | None) -> tuple[float, float]:
    """Least and greatest value of the axis: all points and the limit, with some air."""
    values = [_tame(value) for point in points for value in (point.low, point.high)]
    values += [] if limit is None else [_tame(limit)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high == 0.0:
        return 0.0, 1.0
    wanted = max(LEAST * max(abs(low), abs(high)), 1e-9)
    room = max(0.08 * (high - low), (wanted - (high - low)) / 2)
    floor = low - room
    return (max(floor, 0.0) if low >= 0 else floor), high + room


def ticks(low: float, high: float) -> list[float]:
    """Two to six round values in [low, high]."""
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * times for times in (1, 2, 2.5, 5, 10) if size * times >= raw * 0.999)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def moments(since: float, until: float) -> list[float]:
    """Round times in [since, until]."""
    step = next((s for s in STEPS if (until - since) / s <= 7), STEPS[-1])
    first = math.ceil(since / step)
    return [float(n * step) for n in range(first, math.floor(until / step) + 1)]


def _plot(
    frame: Frame,
    drawn: Sequence[Sequence[Point]],
    blind: Sequence[tuple[float, float]],
    limit: float | None,
) -> str:
    grid = "".join(
        f'<path class="grid" d="M0 {_n(frame.y(value))}H{SIDE}"/>'
        for value in ticks(frame.low, frame.high)
    )
    shades = "".join(_shade(frame, start, end) for start, end in blind)
    bands = "".join(f'<path class="band" d="{_band(frame, part)}"/>' for part in drawn)
    lines = "".join(f'<path class="line" d="{_line(frame, part)}"/>' for part in drawn)
    wanted = "" if limit is None else f'<path class="limit" d="M0 {_n(frame.y(limit))}H{SIDE}"/>'
    return shades + grid + bands + wanted + lines


def _shade(frame: Frame, start: float, end: float) -> str:
    left, right = frame.x(start), frame.x(end)
    width = max(right - left, SLIVER)
    return f'<path class="gap" d="M{_n(left)} 0h{_n(width)}V{SIDE}h-{_n(width)}z"/>'


def _line(frame: Frame, part: Sequence[Point]) -> str:
    places = [f"{_n(frame.x(p.at))} {_n(frame.y(p.mean))}" for p in part]
    # A line needs two ends: one point alone is drawn as a dash of one unit.
    return f"M{places[0]}h1" if len(places) == 1 else "M" + "L".join(places)


def _band(frame: Frame, part: Sequence[Point]) -> str:
    upper = [f"{_n(frame.x(p.at))} {_n(frame.y(p.high))}" for p in part]
    lower = [f"{_n(frame.x(p.at))} {_n(frame.y(p.low))}" for p in reversed(part)]
    return "M" + "L".join(upper + lower) + "z"


def _values(frame: Frame) -> str:
    """Labels beside the plot: heights in percent, so that the letters keep their size."""
    shown = ticks(frame.low, frame.high)
    size = shown[1] - shown[0] if len(shown) > 1 else 0.0
    return "".join(
        f'<text x="100%" y="{_n(frame.y(value) / 10)}%">{_short(value, size)}</text>'
        for value in shown
    )


def _times(frame: Frame) -> str:
    """Labels below the plot; one that would stick out at either end is left away."""
    places = [(frame.x(at) / 10, at) for at in moments(frame.since, frame.until)]
    return "".join(
        f'<text x="{_n(x)}%" y="75%">{datetime.fromtimestamp(at, UTC):%H:%M}</text>'
        for x, at in places
        if 4 <= x <= 96
    )


def _rows(samples: Sequence[Sample], since: float, until: float) -> tuple[Row, ...]:
    width = (until - since) / ROWS
    inside: list[list[Sample]] = [[] for _ in range(ROWS)]
    for sample in samples:
        inside[min(int((sample.at - since) / width), ROWS - 1)].append(sample)
    return tuple(
        Row(since + n * width, _point(some) if some else None) for n, some in enumerate(inside)
    )


def _point(samples: Sequence[Sample]) -> Point:
    count = len(samples)
    return Point(
        at=sum(s.at for s in samples) / count,
        mean=sum(s.value / count for s in samples),
        low=min(s.value if s.low is None else s.low for s in samples),
        high=max(s.value if s.high is None else s.high for s in samples),
    )


def _start(sample: Sample) -> float:
    """Since when a sample stands for what was observed."""
    return sample.at - sample.span


def _tame(value: float) -> float:
    return max(-HUGE, min(HUGE, value))


def _n(value: float) -> str:
    """A coordinate, as short as it can be."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _short(value: float, step: float) -> str:
    """A value on an axis with the decimals that tell it from its neighbour."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}"
    return f"{value:.{_decimals(step)}f}"


def _decimals(step: float) -> int:
    """How many decimals a multiple of *step* needs."""
    return next((n for n in range(6) if math.isclose(round(step, n), step, rel_tol=1e-6)), 6)
