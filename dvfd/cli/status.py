"""`dvfd status`: what is known now, why, and what to do next. Worst first."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import Any

import click

from dvfd.answers import asked
from dvfd.cli.common import fail_on_option, judged_option, show
from dvfd.cli.formats import criteria, exit_code
from dvfd.cli.text import MARK, causes, columns, paint, wrapped
from dvfd.words import CALLS, SOURCES, ago, counted, duration, source_state

LINES = 5
"""Log lines that are shown; `-o json` has up to fifty."""

TABLE = 68
"""Columns below which the tables of checks and sources become lines."""


@click.command(short_help="Verdict, reasons, alerts, jobs, sources: what is known now.")
@judged_option
@fail_on_option
def status(output: str, fail_on: str) -> None:
    """Show the node's verdict and why, alerts, jobs, checks, sources and dvfd's own health.

    Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown. Without a daemon it shows
    what the last one left behind. While dvfd itself is in trouble a pass is unknown.

    Example: dvfd status -o json
    """
    answer = asked("status")
    show(answer, output, text)
    sys.exit(exit_code(answer, fail_on))


def text(answer: Mapping[str, Any]) -> str:
    """The status document for people."""
    blocks = (
        _head(answer),
        *_middle(answer),
        _checks(answer["checks"], answer["at"]),
        _sources(answer["probes"], answer["at"]),
        wrapped(f"next: {_next(answer)}"),
    )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _middle(answer: Mapping[str, Any]) -> list[list[str]]:
    """Reasons and what goes on. What cannot be known waits while something is broken."""
    failing, unknown = (
        causes(r for r in criteria(answer) if r["verdict"] == verdict)
        for verdict in ("FAIL", "UNKNOWN")
    )
    events = [
        _incidents(answer),
        _alerts(answer),
        _jobs(answer["jobs"]),
        _log_lines(answer["log_lines"], answer["at"]),
    ]
    if answer["verdict"] == "FAIL":
        return [failing, *events, unknown]
    return [failing + unknown, *events]


def _head(answer: Mapping[str, Any]) -> list[str]:
    up = f"watched for {duration(answer['at'] - answer['started_at'])}"
    rows = criteria(answer)
    found = counted((row["verdict"], row["severity"]) for row in rows)
    name, seen = f"{answer['node']}: {paint(answer['verdict'])}", _when(answer["at"])
    seen += f"   {up if answer['running'] else 'NO DAEMON RUNS HERE'}"
    return [
        *([name, *wrapped(seen)] if 0 < columns() < TABLE else [f"{name}   {seen}"]),
        *wrapped(f"Of {len(rows)} live criteria, {found}."),
        *(line for t in answer["troubles"] for line in wrapped(f"dvfd itself: {t}")),
        *(line for n in answer["notices"] for line in wrapped(f"notice: {n}")),
        *(line for o in answer["overrides"] for line in wrapped(f"override: {o}")),
        *_waived(answer["checks"]),
        *_gates(answer.get("gates", ())),
        *wrapped(f"store: {answer['store']['path'] or 'in memory only'}"),
    ]


def _gates(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the gates stand; one that was signed in spite of something says so."""
    told = [f"{gate['gate']} {_standing(gate)}" for gate in gates]
    return wrapped(f"gates: {', '.join(told)}") if told else []


def _standing(gate: Mapping[str, Any]) -> str:
    spite = " in spite of what was open" if gate["overridden"] else ""
    return f"signed{spite}" if gate["authorised"] else f"{gate['outcome']}, {gate['open']} open"


def _waived(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [row for check in checks for row in check["results"] if row.get("waived")]
    return [line for r in rows for line in wrapped(f"waived: {r['criterion']}: {r['reason']}")]


def _incidents(answer: Mapping[str, Any]) -> list[str]:
    """Failed phase tests that are not over. A daemon of before may not know of any."""
    lines: list[str] = []
    for each in answer.get("incidents", ()):
        calls = f"calls {CALLS[each['escalation']]}, for {duration(each['age'])}"
        lines += wrapped(f"INCIDENT {each['id']} is {each['state']} ({each['phase']}); {calls}")
        lines += wrapped(each["why"], 4)
        lines += wrapped(f"> {each['next']}", 4)
    return lines


def _alerts(answer: Mapping[str, Any]) -> list[str]:
    delivery = answer["delivery"]
    lines = []
    for alert in sorted(answer["alerts"], key=lambda a: a["severity"] != "critical"):
        waits = " (not delivered yet)" if delivery["peers"] and not alert["delivered"] else ""
        lasts = duration(max(0.0, answer["at"] - alert["since"]))
        lines.append(f"alert {alert['severity']}: {alert['key']}, for {lasts}{waits}")
    if not lines:
        lines = ["no alert is firing"]
    if delivery["mode"] == "rules":
        return [*lines, "dvfd pushes nothing: alerting is left to Prometheus' rules"]
    peers = [f"alertmanager {p['url']}: {p['error'] or 'accepting'}" for p in delivery["peers"]]
    nobody = ["no Alertmanager is configured ([alerting] urls): breaches go to the log"]
    return [part for line in [*lines, *(peers or nobody)] for part in wrapped(line)]


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not jobs:
        return ["no job has reported"]
    return [line for job in jobs for line in wrapped(f"job {job['job']}: {job['summary']}")]


def _log_lines(rows: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """The last lines of watched logs that counted, newest first."""
    lines = []
    for row in list(rows)[: -LINES - 1 : -1]:
        note = f" ({row['note']})" if row["note"] else ""
        what = f"{row['log']}, {ago(row['at'], now)}, {row['severity']} {row['pattern']}{note}"
        lines += [what, *wrapped(row["line"], 2)]
    return ["LOG LINES THAT COUNTED", *lines] if lines else []


def _checks(checks: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """A row for each check that ran or is watched; the names of the others."""
    ran = [c for c in checks if c["watch"] or c["last_run"] is not None or c["error"]]
    never = [c["id"] for c in checks if c not in ran]
    narrow = 0 < columns() < TABLE
    lines = ["CHECKS" if narrow else "CHECK                VERDICT  LAST RUN     LAST PASS    TOOK"]
    for check in ran:
        told = {key: ago(check[key], now) for key in ("last_run", "last_pass")}
        took = duration(check["duration"] or None)
        if narrow:
            lines.append(f"{paint(check['verdict'], MARK)}{check['id']}")
            lines += wrapped(f"run {told['last_run']}, passed {told['last_pass']}", MARK)
        else:
            lines.append(
                f"{check['id']:<20} {paint(check['verdict'], 8)} {told['last_run']:<12} "
                f"{told['last_pass']:<12} {took}"
            )
        lines += wrapped(f"crashed: {check['error']}", 2) if check["error"] else []
    return lines + (wrapped(f"never run, so UNKNOWN: {', '.join(never)}") if never else [])


def _sources(probes: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    width = columns()
    if 0 < width < TABLE:
        return _narrow_sources(probes, now)
    lines = ["SOURCE       STATE           LAST RUN     LAST SUCCESS TOOK"] if probes else []
    for probe in sorted(probes, key=lambda p: SOURCES.index(_state(p))):
        state = _state(probe)
        state = state.upper() if state in {"overdue", "down"} else state
        row = (
            f"{probe['probe']:<12} {state:<15} {ago(probe['last_run'], now):<12} "
            f"{ago(probe['last_success'], now):<12} {duration(probe['duration']):<8}"
        )
        if not probe["error"]:
            lines.append(row.rstrip())
        elif width:
            lines += [row.rstrip(), *wrapped(probe["error"], 13, width)]
        else:
            lines.append(f"{row} {probe['error']}")
    return lines


def _narrow_sources(probes: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """The sources on a terminal that no table fits on."""
    lines = ["SOURCES"] if probes else []
    for probe in sorted(probes, key=lambda p: SOURCES.index(_state(p))):
        state = _state(probe)
        state = state.upper() if state in {"overdue", "down"} else state
        lines += wrapped(
            f"{probe['probe']} {state}, last success {ago(probe['last_success'], now)}"
        )
        lines += wrapped(probe["error"], 2) if probe["error"] else []
    return lines


def _state(probe: Mapping[str, Any]) -> str:
    asked = ("up", "overdue", "not_applicable", "error")
    return source_state(**{key: probe[key] for key in asked})


def _next(answer: Mapping[str, Any]) -> str:
    """The one thing to do first, for whoever sees this for the first time."""
    if not answer["running"]:
        return "start the daemon (dvfd run, scripts/start); the above is what the last one left"
    if answer["troubles"]:
        return "dvfd itself is in trouble: mend that first; its log has more"
    failing = [r for r in criteria(answer) if r["verdict"] == "FAIL"]
    failing.sort(key=lambda r: r["severity"] != "critical")
    if failing and (answer["verdict"] != "UNKNOWN" or failing[0]["severity"] == "critical"):
        return _first(failing[0], answer["jobs"])
    if all(job["state"] == "ended" for job in answer["jobs"]):
        return 'no job runs here now: start one, or see README, "Watch your own job"'
    if answer["verdict"] == "UNKNOWN":
        return "UNKNOWN is not measured, never well: each reason above says what is missing"
    return "nothing: what is watched is well"


def _first(breach: Mapping[str, Any], jobs: Iterable[Mapping[str, Any]]) -> str:
    """Where to look after a breach: at a job that lost a rank, which breaks other criteria too."""
    lost = next((job["job"] for job in jobs if _lost(job)), None)
    if lost is not None:
        return f"the log of job {lost} says why; over for good: dvfd job forget {quote(lost)}"
    return f"dvfd history {breach['metric']} shows how {breach['criterion']} came to fail"


def _lost(job: Mapping[str, Any]) -> bool:
    """Whether a rank of *job* died or failed. A daemon of before does not say."""
    return any(rank.get("lost") for rank in job.get("ranks", ()))


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
