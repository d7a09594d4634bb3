"""Make a report's page out of its document alone: one file, no script, nothing from outside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.reporting import curves
from dvfd.reporting.compare import figure, side_by_side, size, unit
from dvfd.reporting.document import SHORT, moment, named, over, tenths
from dvfd.reporting.shares import hours, money, shown
from dvfd.runs import charts
from dvfd.runs.render import TEMPLATES as REPORT
from dvfd.runs.report import iso
from dvfd.sinks.chart import SIDE
from dvfd.sinks.page import TEMPLATES as PAGE
from dvfd.sinks.page import number
from dvfd.template import template
from dvfd.words import NONE, duration, lasting, minute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"

NO_BREAK = "\N{NO-BREAK SPACE}"
"""Between a number and its unit in a narrow column."""

SLIVER = 2.0
"""Units that a mark is wide at least, of a thousand: a short one must be seen, too."""


def html(report: Mapping[str, Any], sha256: str) -> str:
    """The report of a job as one page; *sha256* is that of its JSON."""
    parts = shown(report["time"])
    run = _as_run(report)
    along = charts.axis(run)
    drawn = [charts.draw(chart, along, run) for chart in report["series"]]
    return _template("job.html.j2").render(
        r=report,
        sha256=sha256,
        style=_style(),
        title=named(dict(report)),
        parts=parts,
        drawn=[each for each in drawn if each.chart["lines"]],
        blank=[each.chart["title"] for each in drawn if not each.chart["lines"]],
        times=charts.times(along),
        lanes=list(_lanes(report, along)),
    )


def compared(report: Mapping[str, Any]) -> str:
    """The comparison of two runs as one page."""
    a, b = shown(report["time"]["a"]), shown(report["time"]["b"])
    drawn = [curves.draw(curve) for curve in report["curves"]]
    return _template("compare.html.j2").render(
        r=report,
        style=_style(),
        a_parts=a,
        b_parts=b,
        split=side_by_side(report["time"]),
        drawn=[each for each in drawn if each],
    )


def _as_run(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the charts of a run's report need to know of it."""
    return {
        "times": {"began": {"t": 0.0}, "elapsed": report["period"]["seconds"]},
        "events": [{"what": "restart", "t": r["t"]} for r in report["restarts"]["listed"]],
        "observed": {
            "stretches": [
                {"what": "unseen", "since": a, "until": b} for a, b in report["marks"]["gaps"]
            ]
        },
    }


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of marks along the run."""

    name: str
    kind: str
    marks: str
    told: str


def _lanes(report: Mapping[str, Any], along: charts.Axis) -> list[Lane]:
    """Restarts, checkpoints, and what nobody saw."""
    restarts, saves = report["restarts"], report["checkpoints"]
    gaps = report["marks"]["gaps"]
    unseen = sum(until - since for since, until in gaps)
    least = "" if saves["all"] or not saves["seen"] else "at least "
    saved = f"{least}{saves['seen']}" if saves["seen"] else NONE
    saved = saved if saves.get("saved") is None else f"{saves['saved']}"
    return [
        Lane("Restarts", "bad", _spots([r["t"] for r in restarts["listed"]], along),
             f"{restarts['count']}"),
        Lane("Checkpoints saved", "", _spots(report["marks"]["checkpoints"], along),
             saved),
        Lane("Nobody looked", "blind", _stretches(gaps, along), hours(unseen)),
    ]  # fmt: skip


def _spots(times: Sequence[float], along: charts.Axis) -> str:
    places = sorted({round(along.x(t)) for t in times})
    return "".join(f'<path d="M{place} 0h{SLIVER:g}v20h-{SLIVER:g}z"/>' for place in places)


def _stretches(spans: Sequence[Sequence[float]], along: charts.Axis) -> str:
    found = []
    for since, until in spans:
        left, right = along.x(since), along.x(until)
        width = max(right - left, SLIVER)
        found.append(f'<path d="M{left:.1f} 0h{width:.1f}v20h-{width:.1f}z"/>')
    return "".join(found)


@cache
def _template(name: str) -> Template:
    helpers: dict[str, Any] = {
        "number": number,
        "lasting": lasting,
        "duration": duration,
        "hours": hours,
        "money": money,
        "tenths": tenths,
        "minute": minute,
        "iso": iso,
        "over": over,
        "moment": moment,
        "short": SHORT,
        "none_word": NONE,
        "size": lambda row: size(row).replace(" %", f"{NO_BREAK}%"),
        "shown": figure,
        "unit": unit,
        "side": SIDE,
        "kwh": lambda value: NONE if value is None else f"{value:.4g}",
    }
    return template(TEMPLATES / name, helpers)


@cache
def _style() -> str:
    """The page's style sheet, what a run's report has besides, and what is ours."""
    sheets = (PAGE / "page.css", REPORT / "report.css", TEMPLATES / "job.css")
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
