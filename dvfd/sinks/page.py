"""Draw the page at /: what a person needs to know now, without a script. Recomputes no verdict."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from dvfd.gates import words as gate_words
from dvfd.model import NONE_YET, WORST_FIRST, Comparison, Severity, Verdict, labels
from dvfd.sinks.chart import draw
from dvfd.sinks.http import SECURITY, Response
from dvfd.state import NoPast, breaches, interval
from dvfd.template import template
from dvfd.words import CALLS, NONE, SOURCES, ago, counted, duration, lasting, source_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Template

    from dvfd.model import ProbeHealth, Result
    from dvfd.sinks.chart import Chart
    from dvfd.state import CheckState, Past, Run, Snapshot

TEMPLATES = Path(__file__).parent / "templates"

WHY = 12
"""Reasons shown at the top before "and more": what fits on one screen."""

MARKS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✕",
    Verdict.UNKNOWN: "?",
    Verdict.WAIVED: "~",
    Verdict.NOT_APPLICABLE: "–",  # noqa: RUF001  # an en dash is meant
}

SIGNS = {Comparison.AT_LEAST: "≥", Comparison.AT_MOST: "≤", Comparison.EQUAL: "="}

WORDS = {Verdict.NOT_APPLICABLE: "N/A"}


HOUR, DAY = 3600.0, 86_400.0
SPANS = {"hour": HOUR, "day": DAY}
"""How far back the charts reach, by the name that the address gives it."""

CHARTED = 4
"""Jobs with charts; a node trains one or two, and the page must stay small whatever reports."""

RUNS = 14
"""Runs shown of a checklist: two weeks of the daily one."""

PRESSING = 6
"""Criteria of a run shown before "and more": those that need a look, worst first."""

REFRESH = 10
"""Seconds until the page asks for a newer one."""


@dataclass(frozen=True, slots=True)
class View:
    """What the visitor asked to see. Its links keep the rest of what was asked for."""

    opened: str = ""
    span: str = "hour"
    hold: bool = False

    @classmethod
    def of(cls, query: str) -> View:
        """Read `check=ID` (or `all`), `span=day` and `hold=1`; anything else is as if not given."""
        given = {name: values[0] for name, values in parse_qs(query).items()}
        span = given.get("span", "")
        return cls(
            opened=given.get("check", ""),
            span=span if span in SPANS else "hour",
            hold=given.get("hold") == "1",
        )

    def link(self, **changes: Any) -> str:
        """The address of this page with *changes*."""
        view = replace(self, **changes)
        pairs = {
            "check": view.opened,
            "span": "" if view.span == "hour" else view.span,
            "hold": "1" if view.hold else "",
        }
        query = urlencode({name: value for name, value in pairs.items() if value})
        return f"/?{query}" if query else "/"


@dataclass(frozen=True, slots=True)
class Topic:
    """A metric of a job that is drawn."""

    metric: str
    title: str
    unit: str = ""


TOPICS = (
    Topic("job_throughput_samples_per_second", "Throughput", "samples/s"),
    Topic("job_loss", "Training loss"),
)


@dataclass(frozen=True, slots=True)
class Course:
    """A chart with its words."""

    topic: Topic
    chart: Chart
    limit: Result | None


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason and all criteria that it explains."""

    verdict: Verdict
    reason: str
    results: tuple[Result, ...]


def response(snapshot: Snapshot, query: str = "", past: Past | None = None) -> Response:
    """The page as an answer. It asks again by a header, which a held page goes without.

    `check=ID` in *query* unfolds one check, `check=all` every one; `span=day` draws a day.
    """
    view = View.of(query)
    if view.opened not in snapshot.checks and view.opened != "all":
        view = replace(view, opened="")
    text = render(snapshot, view, past)
    policy = SECURITY["Content-Security-Policy"] + f"; style-src '{_style()[1]}'"
    headers = {"Content-Security-Policy": policy}
    if not view.hold:
        headers["Refresh"] = f"{REFRESH}; url={view.link()}"
    return Response(HTTPStatus.OK, text.encode(), "text/html; charset=utf-8", headers)


def render(snapshot: Snapshot, view: View | None = None, past: Past | None = None) -> str:
    """The page as HTML."""
    past = past or NoPast()
    view = view or View()
    found = breaches(r for state in snapshot.live for r in state.results)
    if snapshot.verdict is Verdict.FAIL:  # what is broken first; what cannot be known has time
        found = [result for result in found if result.verdict is Verdict.FAIL]
    reasons = causes(found)
    return _template().render(
        s=snapshot,
        view=view,
        style=_style()[0],
        headline=headline(snapshot),
        why=reasons[:WHY],
        pressing=snapshot.run.worst[:PRESSING] if snapshot.run else (),
        more=len(reasons) - WHY,
        checks=sorted(snapshot.checks.values(), key=_place),
        history={c: runs(past, c) for c, state in snapshot.checks.items() if state.check.schedule},
        waived=[r for c in snapshot.checks.values() for r in c.results if r.waived],
        unmeasured=unmeasured(snapshot),
        sources=sources(snapshot),
        gates=[(gate, *gate_words.state(gate)) for gate in snapshot.gates.get("gates", ())],
        jobs=snapshot.jobs,
        courses=courses(snapshot, past, view.span),
        idle=all(job["state"] == "ended" for job in snapshot.jobs),
        raised=sorted(snapshot.raised, key=lambda alert: alert.severity != Severity.CRITICAL),
    )


def courses(snapshot: Snapshot, past: Past, span: str) -> dict[str, list[Course]]:
    """The charts of each job that has not ended."""
    running = [job["job"] for job in snapshot.jobs if job["state"] != "ended"]
    topics = [topic for topic in TOPICS if topic.metric in snapshot.catalogue.metrics]
    return {
        job: [course(snapshot, past, topic, job, SPANS[span]) for topic in topics]
        for job in running[:CHARTED]
    }


def course(snapshot: Snapshot, past: Past, topic: Topic, job: str, span: float) -> Course:
    """One chart of a job, with the limit that a live criterion holds it to."""
    since, until = snapshot.at - span, snapshot.at
    limit = held_to(snapshot, topic.metric)
    chart = draw(
        past.series(topic.metric, labels(job=job), since=since, until=until),
        since=since,
        until=until,
        max_age=snapshot.catalogue.metrics[topic.metric].max_age,
        limit=limit_of(limit) if limit else None,
    )
    return Course(topic, chart, limit)


def held_to(snapshot: Snapshot, metric: str) -> Result | None:
    """The live result whose criterion holds *metric* to a limit, if one does."""
    found = (r for state in snapshot.live for r in state.results if r.criterion.metric == metric)
    return next((r for r in found if limit_of(r) is not None), None)


def limit_of(result: Result) -> float | None:
    """What the criterion wants; known from the catalogue even before it was judged."""
    return result.criterion.limit.value if result.limit is None else result.limit


def runs(past: Past, check: str) -> list[Run]:
    """The last runs of a check, oldest first."""
    return list(past.reports(check, RUNS))[::-1]


def headline(snapshot: Snapshot) -> str:
    """One sentence that says why the verdict is what it is."""
    if not snapshot.live:
        return "Nothing is judged live on this node, so nothing is known."
    results = [r for state in snapshot.live for r in state.results]
    found = counted((r.verdict, r.criterion.severity) for r in results)
    return f"Of {len(results)} live criteria, {found}."


def unmeasured(snapshot: Snapshot) -> int:
    """How many criteria rest on a metric that nothing measures yet."""
    catalogue = snapshot.catalogue
    metrics = (catalogue.metrics.get(c.metric) for c in catalogue.criteria.values())
    return sum(metric is not None and metric.source == NONE_YET for metric in metrics)


def sources(snapshot: Snapshot) -> list[tuple[str, ProbeHealth]]:
    """Every probe with how it is doing, worst first."""
    found = [(_source(health), health) for health in snapshot.probes.values()]
    return sorted(found, key=lambda pair: SOURCES.index(pair[0]))


def causes(results: Iterable[Result]) -> list[Cause]:
    """Results that share verdict and reason told as one: thirty times "no job" is one news."""
    found: dict[tuple[Verdict, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.verdict, result.reason), []).append(result)
    return [Cause(verdict, reason, tuple(rs)) for (verdict, reason), rs in found.items()]


def tally(state: CheckState) -> list[tuple[Verdict, int]]:
    """How many criteria of a check have which verdict, worst first."""
    counts = Counter(r.verdict for r in state.results)
    return [(v, counts[v]) for v in WORST_FIRST if counts[v]]


def ordered(results: Iterable[Result]) -> list[Result]:
    """Results worst first, critical ones before warnings, else in the order of the catalogue."""
    return sorted(results, key=_worst)


def _worst(result: Result) -> tuple[int, bool]:
    return WORST_FIRST.index(result.verdict), result.criterion.severity is not Severity.CRITICAL


def ran(state: CheckState, now: float) -> str:
    """When a check last ran, and when it last passed if that was another time."""
    if state.last_run is None:
        return "never run"
    run = f"run {ago(state.last_run, now)}"
    if state.last_pass == state.last_run:
        return run
    return f"{run}, " + (
        f"passed {ago(state.last_pass, now)}" if state.last_pass else "never passed"
    )


def clock(at: float) -> str:
    """A moment in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(at: float) -> str:
    """The day of a moment, short."""
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d")


def minute(at: float) -> str:
    """The time of day of a moment."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")


def number(value: float | None) -> str:
    """A value with the digits that matter."""
    return NONE if value is None else f"{value:.4g}"


def source_tone(state: str) -> Verdict:
    """The colour that goes with the state of a source: green only if all of it is read."""
    return {
        "up": Verdict.PASS,
        "partly": Verdict.UNKNOWN,
        "not applicable": Verdict.NOT_APPLICABLE,
    }.get(state, Verdict.FAIL)


def job_tone(state: str) -> Verdict:
    """The colour that goes with the state of a job or rank."""
    if state in {"running", "responding"}:
        return Verdict.PASS
    if state in {"not responding", "stalled", "failed"}:
        return Verdict.FAIL
    return Verdict.NOT_APPLICABLE if state in {"ended", "left"} else Verdict.UNKNOWN


def _place(state: CheckState) -> tuple[bool, float, str]:
    """The live check first, then the checklists, the most frequent first, then the tests."""
    check = state.check
    return (not check.watch, interval(check.schedule) if check.schedule else math.inf, check.id)


def _source(health: ProbeHealth) -> str:
    return source_state(
        up=health.up,
        overdue=health.overdue,
        not_applicable=health.not_applicable,
        error=health.error,
    )


@cache
def _template() -> Template:
    helpers: dict[str, Any] = {
        "mark": lambda verdict: MARKS.get(verdict, MARKS[Verdict.UNKNOWN]),
        "word": lambda verdict: WORDS.get(verdict, str(verdict)),
        "sign": lambda comparison: SIGNS.get(comparison, str(comparison)),
        "ago": ago,
        "calls": CALLS,
        "duration": duration,
        "lasting": lasting,
        "clock": clock,
        "day": day,
        "minute": minute,
        "limit_of": limit_of,
        "number": number,
        "job_tone": job_tone,
        "source_tone": source_tone,
        "tally": tally,
        "ordered": ordered,
        "ran": ran,
        "words": gate_words,
    }
    return template(TEMPLATES / "page.html.j2", helpers)


@cache
def _style() -> tuple[str, str]:
    """The style sheet, and its hash for the content security policy."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return style, f"sha256-{digest}"
