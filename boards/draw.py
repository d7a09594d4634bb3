"""Panels as SVG: what Grafana would draw of the same answers, plainly, in our own hand."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from boards import colours
from boards.ask import Look, Series
from boards.units import worded

Panel = Mapping[str, Any]

INK, FAINT, LINE, BACK = "#1B1F24", "#69707A", "#E3E6EA", "#FFFFFF"
GLYPH = 5.6
"""About the width of a letter at 11 px."""

TITLE = 24
AXIS = 58
LEGEND = 18
HOUR, DAY = 3600, 86400


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    w: float
    h: float

    def inside(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Less margins."""
        return Box(self.x + left, self.y + top, self.w - left - right, self.h - top - bottom)


@dataclass(frozen=True, slots=True)
class Said:
    """A value's word and colour."""

    word: str
    colour: str


def panel(of: Panel, series: Sequence[Series], look: Look, box: Box) -> Iterator[str]:
    """A whole panel in its box, frame and title first."""
    yield rect(box, BACK, f'stroke="{LINE}" rx="3"')
    yield text(box.x + 8, box.y + 16, short(of["title"], box.w - 16, bold=True), weight=600)
    body = box.inside(8, TITLE, 8, 6)
    if series:
        yield from DRAWN[of["type"]](of, series, look, body)
    else:
        nothing = of["fieldConfig"]["defaults"]["noValue"]
        yield text(middle(body), body.y + body.h / 2, nothing, colours.UNKNOWN, anchor="middle",
                   weight=600)  # fmt: skip


# --- Kinds of panels ------------------------------------------------------------------------------


def _stat(of: Panel, series: Sequence[Series], _: Look, box: Box) -> Iterator[str]:
    solid = of["options"]["colorMode"] == "background_solid"
    named = of["options"]["textMode"] == "value_and_name"
    width = box.w / len(series)
    for number, one in enumerate(series):
        part = Box(box.x + number * width, box.y, width, box.h)
        found = said(of, one.last)
        size = min(30.0, 1.1 * width / max(4, len(found.word)))
        if solid:
            yield rect(part, found.colour, 'rx="3"')
        ink = on(found.colour) if solid else found.colour
        yield text(middle(part), part.y + part.h / 2 + size / 3, found.word, ink, size,
                   anchor="middle", weight=600)  # fmt: skip
        if named:
            yield text(middle(part), part.y + 10, one.name, FAINT, anchor="middle")


def _bars(of: Panel, series: Sequence[Series], _: Look, box: Box) -> Iterator[str]:
    shown = sorted(series, key=lambda one: -one.last)[: int(box.h // 14)]
    top, height = max(one.last for one in shown) or 1.0, min(26.0, box.h / len(shown))
    left = min(220.0, box.w / 2)
    for number, one in enumerate(shown):
        y, found = box.y + number * height, said(of, one.last)
        width = (box.w - left - 50) * one.last / top
        yield text(box.x, y + height / 2 + 4, short(one.name, left - 8))
        yield rect(Box(box.x + left, y + 2, max(1.0, width), height - 4), found.colour)
        yield text(box.x + left + width + 6, y + height / 2 + 4, found.word, weight=600)


def _table(of: Panel, series: Sequence[Series], _: Look, box: Box) -> Iterator[str]:
    options = of["transformations"][0]["options"]
    columns = sorted(options["renameByName"], key=lambda label: options["indexByName"][label])
    width, fit = box.w / len(columns), int(box.h // 17) - 1
    for number, label in enumerate(columns):
        x = box.x + number * width
        yield text(x, box.y + 11, options["renameByName"][label], FAINT, weight=600)
        for row, one in enumerate(series[: fit - (len(series) > fit)]):
            yield from _cell(of, one, label, Box(x, box.y + 16 + 17 * row, width - 6, 16))
    if len(series) > fit:
        more = f"and {len(series) - fit + 1} more"
        yield text(box.x, box.y + 11 + 17 * fit, more, FAINT)


def _cell(of: Panel, one: Series, label: str, box: Box) -> Iterator[str]:
    value = label == "Value"
    found = said(of, one.last) if value else said(of, one.labels.get(label, ""))
    painted = bool(of["fieldConfig"]["overrides"]) and found.word in colours.VERDICTS
    if painted:
        yield rect(box, found.colour)
    ink = on(found.colour) if painted else INK
    yield text(box.x + 3, box.y + 12, short(found.word, box.w - 6), ink)


def _states(of: Panel, series: Sequence[Series], look: Look, box: Box) -> Iterator[str]:
    plot = box.inside(min(260.0, box.w / 3), 0, 4, 16)
    height, step = min(44.0, plot.h / len(series)), look.step(of.get("interval") or "")
    yield rect(plot, "#F4F5F7")
    for number, one in enumerate(sorted(series, key=lambda one: one.name)):
        y = plot.y + number * height
        size = min(11.0, height)
        yield text(plot.x - 6, y + height / 2 + size / 3, short(one.name, plot.x - box.x - 8, size),
                   size=size, anchor="end")  # fmt: skip
        for value, run in groupby(one.points, key=lambda point: point[1]):
            times, found = [at for at, _ in run], said(of, value)
            x, end = (across(at, look, plot) for at in (times[0], times[-1] + step))
            strip = Box(x, y + height * 0.05, min(end, plot.x + plot.w) - x, height * 0.9)
            yield rect(strip, found.colour)
            if height > 10 and strip.w > GLYPH * len(found.word) + 6:
                yield text(middle(strip), y + height / 2 + 4, found.word, on(found.colour),
                           anchor="middle")  # fmt: skip
    yield from _times(look, plot)


@dataclass(slots=True)
class Plot:
    """Where a chart's values lie, and how high those before are piled."""

    box: Box
    look: Look
    low: float
    high: float
    step: float
    piled: dict[float, float] | None

    def x(self, at: float) -> float:
        """Of a time."""
        return across(at, self.look, self.box)

    def y(self, value: float) -> float:
        """Of a value."""
        share = (min(value, self.high) - self.low) / (self.high - self.low)
        return self.box.y + self.box.h * (1 - share)

    def pile(self, at: float, value: float) -> tuple[float, float]:
        """From where to where a value reaches."""
        if self.piled is None:
            return 0.0, value
        base = self.piled.get(at, 0.0)
        self.piled[at] = base + value
        return base, base + value

    def place(self, at: float, value: float) -> str:
        """Of a point."""
        return f"{self.x(at):.1f},{self.y(value):.1f}"


def _lines(of: Panel, series: Sequence[Series], look: Look, box: Box) -> Iterator[str]:
    custom = of["fieldConfig"]["defaults"]["custom"]
    stacked = "stacking" in custom
    area, step = box.inside(AXIS, 6, 4, 16 + LEGEND), look.step(of.get("interval") or "")
    plot = Plot(area, look, *_range(custom, series, stacked=stacked), step, {} if stacked else None)
    unit = of["fieldConfig"]["defaults"]["unit"]
    for tick in ticks(plot.low, plot.high, binary=unit == "bytes"):
        word, y = worded(tick, unit), plot.y(tick)
        yield line(area.x, y, area.x + area.w, y, LINE)
        yield text(area.x - 6, y + 4, word, FAINT, anchor="end")
    yield from _times(look, area)
    for number, one in enumerate(series):
        looks = appearance(of, series, number)
        if custom.get("drawStyle") == "bars":
            yield from _columns(one, looks, plot)
        else:
            for run in unbroken(one.points, step):
                yield from _course(run, looks, plot)
    yield from _legend(of, series, box)


def _columns(one: Series, looks: Appearance, plot: Plot) -> Iterator[str]:
    width = 0.8 * plot.box.w * plot.step / plot.look.seconds
    for at, value in one.points:
        low, high = plot.pile(at, value)
        start = max(plot.x(at) - width / 2, plot.box.x)
        end = min(plot.x(at) + width / 2, plot.box.x + plot.box.w)
        if end > start:
            yield rect(Box(start, plot.y(high), end - start, plot.y(low) - plot.y(high)),
                       looks.colour)  # fmt: skip


def _course(run: Sequence[tuple[float, float]], looks: Appearance, plot: Plot) -> Iterator[str]:
    reach = [(at, *plot.pile(at, value)) for at, value in run]
    places = [plot.place(at, high) for at, _, high in reach]
    if plot.piled is not None:
        back = [plot.place(at, low) for at, low, _ in reversed(reach)]
        yield f'<polygon points="{" ".join(places + back)}" fill="{looks.colour}" opacity="0.7"/>'
    elif len(places) == 1:
        x, _, y = places[0].partition(",")
        yield f'<circle cx="{x}" cy="{y}" r="2" fill="{looks.colour}"/>'
    dashes = 'stroke-dasharray="6 4"' if looks.dashed else ""
    yield (
        f'<polyline points="{" ".join(places)}" fill="none" stroke="{looks.colour}" '
        f'stroke-width="1.5" {dashes}/>'
    )


def _legend(of: Panel, series: Sequence[Series], box: Box) -> Iterator[str]:
    x, y = box.x, box.y + box.h - 2
    for number, one in enumerate(series):
        width = 18 + 1.3 * GLYPH * len(one.name)
        if x + width > box.x + box.w - 60 and number:
            yield text(x, y, f"and {len(series) - number} more", FAINT)
            return
        yield rect(Box(x, y - 7, 10, 4), appearance(of, series, number).colour)
        yield text(x + 14, y, short(one.name, box.x + box.w - x - 14), FAINT)
        x += width + 10


DRAWN = {
    "stat": _stat,
    "bargauge": _bars,
    "table": _table,
    "state-timeline": _states,
    "timeseries": _lines,
}


# --- Words and colours ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Appearance:
    """How a series looks."""

    colour: str
    dashed: bool


def said(of: Panel, value: float | str) -> Said:
    """By the panel's mappings, else by its unit and thresholds."""
    defaults = of["fieldConfig"]["defaults"]
    key = f"{value:g}" if isinstance(value, float) else value
    for mapping in defaults.get("mappings", []):
        if mapping["type"] == "value" and key in mapping["options"]:
            found = mapping["options"][key]
            return Said(found["text"], found["color"])
    if isinstance(value, str):
        return Said(value, INK)
    reached = [s for s in defaults["thresholds"]["steps"] if s["value"] is None
               or value >= s["value"]]  # fmt: skip
    word = worded(value, defaults.get("unit", "none"), defaults.get("decimals"))
    return Said(word, reached[-1]["color"])


def appearance(of: Panel, series: Sequence[Series], number: int) -> Appearance:
    """By the overrides of its name and of its query; series of one query are shades of a hue."""
    one = series[number]
    colour, dashed = INK, False
    for override in of["fieldConfig"]["overrides"]:
        wanted = {"byName": one.name, "byFrameRefID": chr(ord("A") + one.target)}
        if override["matcher"]["options"] != wanted.get(override["matcher"]["id"]):
            continue
        for found in override["properties"]:
            dashed = dashed or found["id"] == "custom.lineStyle"
            if found["id"] == "color":
                before = sum(other.target == one.target for other in series[:number])
                shade = before if found["value"]["mode"] == "shades" else 0
                colour = lighter(found["value"]["fixedColor"], shade)
    return Appearance(colour, dashed)


def lighter(colour: str, times: int) -> str:
    """A shade: each nearer to white than the one before, over again after four."""
    share = 0.24 * (times % 4)
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(p + (255 - p) * share):02X}" for p in parts)


def on(colour: str) -> str:
    """Ink that can be read on a colour."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return INK if 0.299 * r + 0.587 * g + 0.114 * b > 140 else BACK


# --- Scales ---------------------------------------------------------------------------------------


def across(at: float, look: Look, plot: Box) -> float:
    """Where a time is."""
    share = (at - look.end + look.seconds) / look.seconds
    return plot.x + plot.w * min(1.0, max(0.0, share))


def ticks(low: float, high: float, *, binary: bool = False) -> Iterator[float]:
    """Some round values."""
    size = 2.0 ** math.ceil(math.log2((high - low) / 5)) if binary else step_of(high - low)
    value = math.ceil(low / size - 1e-9) * size
    while value <= high + size * 1e-6:
        yield round(value, 12)
        value += size


def step_of(span: float) -> float:
    """1, 2 or 5 of a power of ten."""
    raw = span / 5
    power: float = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw)


def unbroken(
    points: Iterable[tuple[float, float]], step: float
) -> Iterator[list[tuple[float, float]]]:
    """Runs without a gap, and without what is no number."""
    run: list[tuple[float, float]] = []
    for at, value in points:
        if run and (at - run[-1][0] > 1.5 * step or not math.isfinite(value)):
            yield run
            run = []
        if math.isfinite(value):
            run.append((at, value))
    if run:
        yield run


def _range(
    custom: Mapping[str, Any], series: Sequence[Series], *, stacked: bool
) -> tuple[float, float]:
    totals: dict[float, float] = {}
    every = [point for one in series for point in one.points if math.isfinite(point[1])]
    for at, value in every:
        totals[at] = totals.get(at, 0.0) + value
    piled = stacked
    tops = list(totals.values()) if piled else [value for _, value in every]
    bottom = 0.0 if piled else min(value for _, value in every)
    low = min(bottom, custom.get("axisSoftMin", bottom))
    high = max(*tops, custom.get("axisSoftMax", low))
    if high <= low:
        low, high = (low, low + 1) if low == 0 else (low - abs(low) / 10, high + abs(high) / 10)
    return low, high + (high - low) * 0.04


def _times(look: Look, plot: Box) -> Iterator[str]:
    wanted = look.seconds / max(2, plot.w // 110)
    size = next(
        (
            s
            for s in (60, 120, 300, 900, 1800, HOUR, 3 * HOUR, DAY, 7 * DAY, 14 * DAY)
            if s > wanted
        ),
        30 * DAY,
    )
    at = math.ceil((look.end - look.seconds) / size) * size
    while at <= look.end:
        shape = "%d %b" if size >= DAY else "%H:%M"
        word = time.strftime(shape, time.gmtime(at))
        yield text(across(at, look, plot), plot.y + plot.h + 13, word, FAINT, 10, anchor="middle")
        at += size


# --- Marks ----------------------------------------------------------------------------------------


def rect(box: Box, fill: str, more: str = "") -> str:
    """A filled rectangle."""
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{max(0.0, box.w):.1f}" height="{box.h:.1f}"'
    return f'<rect {place} fill="{fill}" {more}/>'


def line(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    """A hairline."""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}"/>'


def text(
    x: float, y: float, said: str, colour: str = INK, size: float = 11, *, anchor: str = "start",
    weight: int = 400,
) -> str:  # fmt: skip
    """Words at a place."""
    look = f'fill="{colour}" font-size="{size:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(said)}</text>'


def short(said: str, width: float, size: float = 11, *, bold: bool = False) -> str:
    """As much as fits."""
    fit = int(width / (GLYPH * size / 11 * (1.08 if bold else 1.0)))
    return said if len(said) <= fit else said[: max(1, fit - 1)] + "…"


def middle(box: Box) -> float:
    """Between left and right."""
    return box.x + box.w / 2
