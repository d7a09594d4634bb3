"""`dvfd ready`: whether this node may take a job, said at once from what the daemon knows."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from dvfd.answers import daemon
from dvfd.cli.common import fail_on, judged_option, show
from dvfd.cli.completion import names
from dvfd.cli.formats import SCHEMA, exit_code, loudest_first
from dvfd.cli.text import causes, paint, wrapped
from dvfd.errors import NoAnswer
from dvfd.places import control_path
from dvfd.words import counted, duration

UNKNOWN = 3

PATIENCE = 5.0
"""Seconds: a prolog must end within Slurm's MessageTimeout, which is 10 s as delivered."""


@click.command(short_help="Whether this node may take a job, for a scheduler's prolog.")
@click.argument("checks", metavar="[CHECK]...", nargs=-1, shell_complete=names("checks"))
@click.option(
    "--leave-out",
    multiple=True,
    metavar="CRITERION",
    shell_complete=names("criteria"),
    help="Do not count this one, as live.log_errors where logs of jobs are watched. Repeatable.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=600),
    default=PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the daemon's answer.",
)
@judged_option
@fail_on("unknown")
def ready(
    checks: tuple[str, ...], leave_out: tuple[str, ...], timeout: float, output: str, fail_on: str
) -> None:
    """Say whether this node may take a job: its live criteria but those of jobs, and each CHECK as
    it was last judged, also without those of jobs.

    Nothing is run or judged anew. A test that was shortened, is older than evidence_days of
    [programme] or than the node's last boot is UNKNOWN. A daemon that is not there, or does not
    answer in time, knows of nothing: UNKNOWN. The first line of the text is the reason, fit for a
    scheduler.

    Exit code: 0 ready, 2 fail, 3 unknown; with --fail-on warning 1 for a breached warning.

    Example: dvfd ready hardware
    """
    asked = {"checks": list(checks), "left_out": list(leave_out)}
    try:
        answer = daemon("ready", timeout=timeout, **asked)
        if doubt := _doubt(answer, checks):
            answer = _blind(f"{doubt} on {control_path()}", asked)
    except NoAnswer as error:
        answer = _blind(str(error), asked)
    show(answer, output, text)
    sys.exit(exit_code(answer, fail_on))


def _doubt(answer: Any, checks: Sequence[str]) -> str:
    """Why *answer* says nothing of this node; empty if it may be believed.

    A daemon that does not know this question yet, or what is none, must not let a job start.
    """
    match answer:
        case None:
            return "no daemon answers"
        case {
            "check": "ready", "verdict": str(verdict), "asked": list(asked), "results": list(rows),
            "left_out": list(), "troubles": list(),
        }:  # fmt: skip
            if missing := [name for name in checks if name not in asked]:
                return f"{', '.join(missing)} was asked for and is not in the answer"
            if verdict == "PASS" and not any(row["severity"] == "critical" for row in rows):
                return "a PASS without a critical criterion is what answers"
            return ""
    return f"what answers is no judgement of a node: {answer!r:.80},"


def _blind(why: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The document where there is no answer: nothing is known of the node."""
    return {
        "schema": SCHEMA,
        "check": "ready",
        "node": socket.gethostname(),
        "at": time.time(),
        "verdict": "UNKNOWN",
        "asked": asked["checks"],
        "left_out": asked["left_out"],
        "troubles": [why],
        "results": [],
    }


def text(answer: Mapping[str, Any]) -> str:
    """For people, and for the reason a scheduler keeps: what decides, then all that is amiss."""
    amiss = loudest_first(answer)
    verdict = "UNKNOWN" if exit_code(answer) == UNKNOWN else answer["verdict"]
    left = answer["left_out"]
    out = wrapped(f"left out: {', '.join(left)}") if left else []
    return "\n".join([f"{paint(verdict)}: {_why(answer, amiss)}", *out, *causes(_more(amiss))])


def _more(amiss: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What the first line does not say already: it has the loudest, if that decides."""
    return amiss[1:] if amiss and amiss[0]["severity"] == "critical" else amiss


def _tested(answer: Mapping[str, Any]) -> Iterator[str]:
    """How old each test is that was asked for."""
    for check, ended in answer.get("tested", {}).items():
        if ended is not None:
            yield f"; {check} tested {duration(max(0.0, answer['at'] - ended))} ago"


def _why(answer: Mapping[str, Any], amiss: Sequence[Mapping[str, Any]]) -> str:
    """What decides the verdict, and how many more would; how many criteria passed, where none."""
    deciding = [row for row in amiss if row["severity"] == "critical"]
    if not deciding:
        rows = answer["results"]
        return (
            f"of {len(rows)} criteria of the node, "
            + counted((row["verdict"], row["severity"]) for row in rows)
            + "".join(_tested(answer))
        )
    more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
    return f"{deciding[0]['criterion']}: {deciding[0]['reason']}{more}"
