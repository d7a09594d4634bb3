"""Draw two courses over the same steps as SVG. Pure: points in, text out; it holds numbers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.reporting.compare import at, parts
from dvfd.sinks.chart import SIDE, Frame, Point, bounds, ticks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLACES = (1, 2, 5)
"""Steps between labels are these times a power of ten: the first that gives at most six."""

LABELS = 6


@dataclass(frozen=True, slots=True)
class Drawn:
    """The parts of a drawn chart: plot, labels of either axis, and a table of both."""

    title: str
    unit: str
    plot: str
    values: str
    steps: str
    rows: tuple[tuple[float, float | None, float | None], ...]


def draw(curve: Mapping[str, Any], rows: int = 8) -> Drawn | None:
    """Both runs of *curve*; None where neither has a point."""
    a, b = curve["a"], curve["b"]
    points = [Point(x, y, y, y) for x, y in (*a, *b)]
    if not points:
        return None
    low, high = bounds(points, None)
    least, most = min(p.at for p in points), max(p.at for p in points)
    frame = Frame(least, max(most, least + 1), low, high)
    plot = "".join([
        *(f'<path class="grid" d="M0 {_n(frame.y(v))}H{SIDE}"/>' for v in ticks(low, high)),
        _path(frame, a, "line"),
        _path(frame, b, "line b"),
    ])  # fmt: skip
    values = "".join(
        f'<text x="100%" y="{_n(frame.y(v) / 10)}%">{v + 0.0:.6g}</text>' for v in ticks(low, high)
    )
    return Drawn(curve["title"], curve["unit"], plot, values, _labels(frame), _table(a, b, rows))


def _path(frame: Frame, points: Sequence[Sequence[float]], kind: str) -> str:
    drawn = "".join(_stretch(frame, part) for part in parts(points))
    return f'<path class="{kind}" d="{drawn}"/>' if drawn else ""


def _stretch(frame: Frame, points: Sequence[Sequence[float]]) -> str:
    places = [f"{_n(frame.x(x))} {_n(frame.y(y))}" for x, y in points]
    return "M" + "L".join(places) if len(places) > 1 else f"M{places[0]}h4"


def _labels(frame: Frame) -> str:
    span = frame.until - frame.since
    each = next(
        p * 10**power for power in range(12) for p in PLACES if span / (p * 10**power) <= LABELS
    )
    first = int(frame.since // each + 1) * each
    return "".join(
        f'<text x="{_n(frame.x(at) / 10)}%" y="75%">{at:,}</text>'
        for at in range(first, int(frame.until) + 1, each)
        if 3 <= frame.x(at) / 10 <= 97
    )


def _table(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], count: int
) -> tuple[tuple[float, float | None, float | None], ...]:
    """Both at evenly spaced steps."""
    steps = [x for x, _ in (*a, *b)]
    low, high = min(steps), max(steps)
    places = [round(low + (high - low) * n / (count - 1)) for n in range(count)]
    return tuple((float(x), at(a, x), at(b, x)) for x in sorted(set(places)))


def _n(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
