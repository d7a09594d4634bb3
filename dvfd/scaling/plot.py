"""Draw throughput over processes as SVG: points, fits, interval, floors. Pure: a View in, text out.

What it returns goes between the tags of an <svg> and holds numbers and our own words only. Curves
end where a fit has no finite value; what lies beyond the largest measured count is shaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from dvfd.sinks.chart import SIDE, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dvfd.scaling.view import Model, View

AIR = 1.06
"""The axes end so far beyond the largest count and value."""

TALL, SMALL = 360.0, 240.0
LINE = 18.0
"""Pixels of the two plots' height, as in projection.css, and between two names."""

SPREAD = 1.35
"""A curve that leaves all points, intervals and floors so far below leaves the plot."""

FAR = 2.5
"""A floor that lies so many times above all else leaves the plot: it would flatten the rest."""

CLOSE = 3.5
"""Percent of the plot's width between two counts on the axis: two digits side by side."""


@dataclass(frozen=True, slots=True)
class Name:
    """A curve's name beside its end; `y` in percent from the top."""

    text: str
    y: float
    kind: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """The parts of a drawn figure."""

    title: str
    unit: str
    plot: str
    values: str
    counts: str
    names: tuple[Name, ...]
    above: int  # floors that lie beyond the plot


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a count and a value lie in the plot; values beyond it are drawn at its edge."""

    right: float
    top: float

    def x(self, count: float) -> float:
        """Units from the left."""
        return SIDE * count / self.right

    def y(self, value: float) -> float:
        """Units from the top."""
        return SIDE * (1.0 - min(max(value / self.top, 0.0), 1.0))


def throughput(view: View) -> Drawn:
    """Samples/second over processes."""
    linear = None if view.single is None else [view.single * n for n in view.along]
    return _drawn(view, ("Throughput", "samples/second", TALL), lambda _n, x: x, linear)


def efficiency(view: View) -> Drawn | None:
    """The same over n times one process; None where that is not known."""
    one = view.single
    if one is None:
        return None
    flat = [100.0] * len(view.along)
    figure = ("Efficiency", "% of linear", SMALL)
    return _drawn(view, figure, lambda n, x: 100.0 * x / (n * one), flat)


def _drawn(
    view: View,
    figure: tuple[str, str, float],
    scaled: Callable[[float, float], float],
    linear: Sequence[float] | None,
) -> Drawn:
    title, unit, height = figure
    frame = Frame(view.along[-1] * AIR, _top(view, scaled))
    curves = [(model, _curve(view, model, scaled)) for model in view.models]
    ordered = sorted(curves, key=lambda each: each[0].decides)
    largest = max(point.processes for point in view.points)
    parts = [
        f'<path class="gap" d="M{_n(frame.x(largest))} 0H{SIDE}V{SIDE}H{_n(frame.x(largest))}z"/>',
        *(f'<path class="grid" d="M0 {_n(frame.y(v))}H{SIDE}"/>' for v in ticks(0.0, frame.top)),
        _line(frame, view.along, linear, "ideal") if linear else "",
        *_bars(frame, view, scaled),
        *_floors(frame, view, scaled),
        *(_line(frame, view.along, curve, _kind(model)) for model, curve in ordered),
        *_points(frame, view, scaled),
    ]
    return Drawn(
        title=title,
        unit=unit,
        plot="".join(parts),
        values="".join(
            f'<text x="100%" y="{_n(frame.y(v) / 10)}%">{v:g}</text>' for v in ticks(0.0, frame.top)
        ),
        counts=_counts(frame, view),
        above=sum(scaled(count, floor.value) > frame.top for count, floor in view.limits),
        names=tuple(_names(frame, curves, 100.0 * LINE / height)),
    )


def _top(view: View, scaled: Callable[[float, float], float]) -> float:
    """The highest value that must be seen: points, what is foretold, floors; some of the curves."""
    must = [scaled(p.processes, p.high or p.throughput) for p in view.points]
    must += [scaled(t.processes, t.high) for t in view.targets if t.high is not None]
    near = [scaled(count, floor.value) for count, floor in view.limits]
    most = max(must, default=1.0)
    most = max([most, *(value for value in near if value <= FAR * most)])
    curves = [
        value for model in view.models for value in _curve(view, model, scaled) if value is not None
    ]
    return AIR * min(max([most, *curves]), SPREAD * most)


def _curve(view: View, model: Model, scaled: Callable[[float, float], float]) -> list[float | None]:
    pairs = zip(view.along, model.curve, strict=True)
    return [None if value is None else scaled(count, value) for count, value in pairs]


def _kind(model: Model) -> str:
    if model.decides:
        return "model decides"
    return "model" if model.physical else "model odd"


def _line(frame: Frame, along: Sequence[int], values: Sequence[float | None], kind: str) -> str:
    """A curve, cut where it has no value and where it leaves the plot."""
    found = []
    pairs = zip(along, values, strict=True)
    for inside, group in groupby(pairs, lambda p: p[1] is not None and p[1] <= frame.top):
        part = [f"{_n(frame.x(n))} {_n(frame.y(value or 0.0))}" for n, value in group]
        if inside and len(part) > 1:
            found.append("M" + "L".join(part))
    return f'<path class="{kind}" d="{"".join(found)}"/>' if found else ""


def _bars(frame: Frame, view: View, scaled: Callable[[float, float], float]) -> Iterator[str]:
    """The interval of each target, and the value that decides in it."""
    for target in view.targets:
        if target.value is None or target.low is None or target.high is None:
            continue
        x, n = _n(frame.x(target.processes)), target.processes
        low, high = (_n(frame.y(scaled(n, value))) for value in (target.low, target.high))
        yield f'<path class="reach" d="M{x} {low}V{high}"/>'
        yield f'<path class="aim" d="M{x} {_n(frame.y(scaled(n, target.value)))}h0.01"/>'


def _floors(frame: Frame, view: View, scaled: Callable[[float, float], float]) -> Iterator[str]:
    half = SIDE * 0.022
    for count, floor in view.limits:
        value = scaled(count, floor.value)
        if value > frame.top:
            continue
        left, y = frame.x(count) - half, _n(frame.y(value))
        yield f'<path class="floor" d="M{_n(left)} {y}h{_n(2 * half)}"/>'


def _points(frame: Frame, view: View, scaled: Callable[[float, float], float]) -> Iterator[str]:
    for point in view.points:
        n, x = point.processes, _n(frame.x(point.processes))
        if point.low is not None and point.high is not None:
            low, high = (_n(frame.y(scaled(n, end))) for end in (point.low, point.high))
            yield f'<path class="sure" d="M{x} {low}V{high}"/>'
        place = f"M{x} {_n(frame.y(scaled(n, point.throughput)))}h0.01"
        yield f'<path class="dot" d="{place}"/>'
        if point.proves:
            yield f'<path class="hole" d="{place}"/>'


def _counts(frame: Frame, view: View) -> str:
    """Labels below the plot: the measured counts and those asked about."""
    counts = sorted({*(p.processes for p in view.points), *(t.processes for t in view.targets)})
    shown: list[int] = []
    for count in counts:
        if not shown or (frame.x(count) - frame.x(shown[-1])) / 10 >= CLOSE:
            shown.append(count)
    return "".join(f'<text x="{_n(frame.x(n) / 10)}%" y="75%">{n}</text>' for n in shown)


def _names(
    frame: Frame, curves: Sequence[tuple[Model, list[float | None]]], apart: float
) -> Iterator[Name]:
    """Curves' names beside their ends, the highest first, none upon another."""
    ends = []
    for model, curve in curves:
        last = next((value for value in reversed(curve) if value is not None), None)
        if last is not None and curve[-1] is not None:
            ends.append((frame.y(last) / 10, model))
    ends.sort(key=lambda each: each[0])
    places = spaced([y for y, _ in ends], apart)
    for (_, model), y in zip(ends, places, strict=True):
        yield Name(model.name, y, _kind(model))


def spaced(wanted: Sequence[float], apart: float) -> list[float]:
    """*wanted* percents in ascending order, moved down and then up until all are *apart*."""
    found = list(wanted)
    for a, b in pairwise(range(len(found))):
        found[b] = max(found[b], found[a] + apart)
    over = max(0.0, found[-1] - 98.0) if found else 0.0
    if over:
        found[-1] -= over
        for b, a in pairwise(reversed(range(len(found)))):
            found[a] = min(found[a], found[b] - apart)
    return found


def _n(value: float) -> str:
    """A coordinate, as short as it can be."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
