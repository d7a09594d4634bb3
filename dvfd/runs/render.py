"""Make a report's page out of its document alone: one file, no script, nothing from outside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.runs import charts
from dvfd.runs.happened import MARKS
from dvfd.runs.report import iso
from dvfd.sinks.page import MARKS as SYMBOLS
from dvfd.sinks.page import SIGNS, WORDS, number
from dvfd.sinks.page import TEMPLATES as PAGE
from dvfd.template import template
from dvfd.words import NONE, lasting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"

WHY = 8
"""Reasons on the first screen before "and more"."""

TROUBLE = frozenset({"checkpoints failed or damaged", "failures", "restarts",
                     "synchronisation issues"})  # fmt: skip
"""Lanes whose marks are bad news."""


def html(report: Mapping[str, Any], sha256: str) -> str:
    """The report as one page; *sha256* is that of its JSON."""
    along = charts.axis(report)
    drawn = [charts.draw(chart, along, report) for chart in report["series"]]
    reasons = why(report)
    counts = {mark["lane"]: mark["count"] for mark in report["marks"]}
    return _template().render(
        r=report,
        sha256=sha256,
        style=_style(),
        why=reasons[:WHY],
        more=max(0, len(reasons) - WHY),
        drawn=[each for each in drawn if each.chart["lines"]],
        blank=[each.chart["title"] for each in drawn if not each.chart["lines"]],
        states=charts.states(report, along),
        lanes=[(m, charts.lane(m["places"], MARKS)) for m in report["marks"]],
        times=charts.times(along),
        since=along.since,
        restarts=counts["restarts"],
        failures=counts["failures"],
        parts=spent(report["goodput"]),
    )


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason and all criteria that it explains."""

    verdict: str
    reason: str
    rows: tuple[Mapping[str, Any], ...]


def why(report: Mapping[str, Any]) -> list[Cause]:
    """What fails, then what cannot be known, critical ones first: "no job" is one news."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    amiss = [row for row in report["results"] if row["verdict"] in {"FAIL", "UNKNOWN"}]
    for row in sorted(amiss, key=lambda r: (r["verdict"], r["severity"] != "critical")):
        found.setdefault((row["verdict"], _because(row, report)), []).append(row)
    return [Cause(verdict, reason, tuple(rows)) for (verdict, reason), rows in found.items()]


def _because(row: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The row's reason; one for all rows that only the run itself keeps from a verdict."""
    against = "; ".join(report["uncounted"])
    if row["verdict"] == "UNKNOWN" and row["so_far"] == "PASS" and against:
        return f"What was measured passes, which does not count: {against}"
    if row["verdict"] == "UNKNOWN" and report["times"]["began"] is None and against:
        return f"The run made no step with all its ranks: {against}"
    return str(row["reason"])


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the run's time: seconds, its share, and the share that lies before it."""

    part: str
    words: str
    seconds: float
    share: float
    before: float


def spent(goodput: Mapping[str, Any] | None) -> list[Part]:
    """Where time went, in the order of goodput; those below a second are left out."""
    found: list[Part] = []
    whole = goodput["seconds"] if goodput else 0.0
    for each in goodput["parts"] if goodput and whole > 0 else ():
        if each["seconds"] >= 1:
            before = found[-1].before + found[-1].share if found else 0.0
            share = each["seconds"] / whole
            found.append(Part(each["part"], each["words"], each["seconds"], share, before))
    return found


def percent(share: float | None) -> str:
    """A share as people read it; never rounded up to all of it."""
    if share is None:
        return NONE
    hundredths = round(10_000 * share)
    return f"{(min(hundredths, 9_999) if share < 1 else hundredths) / 100:g} %"


def moment(t: float, report: Mapping[str, Any]) -> str:
    """Run second *t* as the time of day in UTC, with the date."""
    return iso(report["times"]["armed"]["at"] + t)[:16].replace("T", " ")


@cache
def _template() -> Template:
    helpers: dict[str, Any] = {
        "mark": lambda verdict: SYMBOLS.get(verdict, "?"),
        "word": lambda verdict: WORDS.get(verdict, verdict),
        "sign": lambda comparison: SIGNS.get(comparison, comparison),
        "number": number,
        "lasting": lasting,
        "percent": percent,
        "moment": moment,
        "after": charts.after,
        "iso": iso,
        "bad": TROUBLE,
    }
    return template(TEMPLATES / "report.html.j2", helpers)


@cache
def _style() -> str:
    """The page's style sheet, and what a report has besides."""
    page = (PAGE / "page.css").read_text(encoding="utf-8")
    own = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return page + own
