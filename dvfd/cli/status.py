"""`dvfd status`: what is known now, check by check and probe by probe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from dvfd.cli.common import EXIT, daemon, output_option, paint, show


@click.command()
@output_option
def status(output: str) -> None:
    """Show verdicts, sources, jobs, alerts and the daemon's own health.

    Exits like check: 0 pass, 2 fail, 3 unknown. Example: dvfd status -o json
    """
    answer = daemon("status")
    if answer is None:
        from dvfd.alone import status_alone

        answer = status_alone()
    show(answer, output, _text)
    sys.exit(EXIT[answer["verdict"]])


def _text(answer: Mapping[str, Any]) -> str:
    since = (
        f"running since {_when(answer['started_at'])}" if answer["running"] else "NO DAEMON RUNS"
    )
    store = answer["store"]["path"] or "in memory"
    lines = [f"{answer['node']}: {paint(answer['verdict'])}   {since}   store {store}"]
    lines += [f"  dvfd itself: {trouble}" for trouble in answer["troubles"]]
    lines += [f"  override: {line}" for line in answer["overrides"]]
    lines += _breaches(answer["checks"])
    lines += ["", "CHECK                VERDICT        LAST RUN             LAST PASS"]
    lines += [_check(check) for check in answer["checks"]]
    lines += ["", "PROBE        STATE           LAST RUN   LAST SUCCESS  TOOK      LAST ERROR"]
    lines += [_probe(probe, answer["at"]) for probe in answer["probes"]]
    lines += ["", *_jobs(answer["jobs"])]
    lines += ["", *_alerts(answer)]
    return "\n".join(lines)


def _breaches(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the node is not green: what the live checks hold against it, one line for a reason."""
    rows = [r for c in checks if c["watch"] for r in c["results"]]
    lines = []
    for verdict in ("FAIL", "UNKNOWN"):
        reasons: dict[str, list[str]] = {}
        for row in rows:
            if row["verdict"] == verdict:
                mark = "" if row["severity"] == "critical" else f" ({row['severity']})"
                reasons.setdefault(row["reason"], []).append(row["criterion"] + mark)
        lines += [f"  {paint(verdict, 8)} {', '.join(n)}: {why}" for why, n in reasons.items()]
    return lines


def _check(check: Mapping[str, Any]) -> str:
    return (
        f"{check['id']:<20} {paint(check['verdict'], 14)} {_when(check['last_run']):<20} "
        f"{_when(check['last_pass'])}{'  ' + check['error'] if check['error'] else ''}"
    )


def _probe(probe: Mapping[str, Any], at: float) -> str:
    state = "ok" if probe["up"] else "DOWN"
    if probe["not_applicable"]:
        state = "not applicable"
    if probe["overdue"]:
        state = "OVERDUE"
    took = "-" if probe["duration"] is None else f"{probe['duration'] * 1000:.1f} ms"
    return (
        f"{probe['probe']:<12} {state:<15} {_ago(probe['last_run'], at):<10} "
        f"{_ago(probe['last_success'], at):<13} {took:<9} {probe['error']}"
    ).rstrip()


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not jobs:
        return ["no job has reported"]
    return [f"job {j['job']}: {j['summary']}" for j in jobs]


def _alerts(answer: Mapping[str, Any]) -> list[str]:
    delivery = answer["delivery"]
    waits = " (not delivered yet)" if delivery["peers"] else ""
    raised = [
        f"alert {a['name']} {a['key']} since {_when(a['since'])}"
        + ("" if a["delivered"] else waits)
        for a in answer["alerts"]
    ]
    peers = [
        f"alertmanager {p['url']}: {p['error'] or 'accepting'}" for p in delivery["peers"]
    ] or ["no Alertmanager is configured: breaches go to the log"]
    return [*(raised or ["no alert is firing"]), *peers]


def _when(at: float | None) -> str:
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _ago(at: float | None, now: float) -> str:
    return "never" if at is None else f"{max(0.0, now - at):.0f} s ago"
