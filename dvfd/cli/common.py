"""What commands share: output formats, the daemon or the store behind it, and words for both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from dvfd.config import runtime_dir
from dvfd.control import ask
from dvfd.errors import DvfdError

EXIT = {"PASS": 0, "WAIVED": 0, "FAIL": 2, "UNKNOWN": 3, "NOT_APPLICABLE": 3}

COLOURS = {"PASS": "green", "FAIL": "red", "UNKNOWN": "yellow", "WAIVED": "cyan"}

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for people, JSON (one document, versioned) for programs.",
)


def daemon(op: str, **arguments: Any) -> Any:
    """The daemon's answer, or None where none lives on this node."""
    return ask(control_path(), op, **arguments)


def control_path() -> Path:
    """Where the daemon's control socket is."""
    return runtime_dir() / "control.sock"


def must(answer: Any, doing: str) -> Any:
    """*answer*, unless no daemon gave one. Raises DvfdError."""
    if answer is None:
        raise DvfdError(f"no daemon answers on {control_path()}: {doing} needs `dvfd run`")
    return answer


def show(document: Any, output: str, text: Callable[[Any], str]) -> None:
    """Print *document* as it is, or what *text* makes of it."""
    click.echo(json.dumps(document, indent=2) if output == "json" else text(document))


def paint(verdict: str, width: int = 0) -> str:
    """The verdict's word, coloured where a terminal can show it."""
    word = verdict.replace("_", " ").ljust(width)
    if verdict in COLOURS and sys.stdout.isatty():
        return click.style(word, fg=COLOURS[verdict], bold=verdict == "FAIL")
    return word


def report_text(report: Mapping[str, Any]) -> str:
    """A report as a table of criteria, worst first, each with its reason."""
    order = ["FAIL", "UNKNOWN", "WAIVED", "PASS", "NOT_APPLICABLE"]
    rows = sorted(report["results"], key=lambda r: order.index(r["verdict"]))
    width = max((len(row["criterion"]) for row in rows), default=0)
    lines = [f"{report['title']}: {paint(report['verdict'])}"]
    if report.get("late"):
        lines.append(f"judged {report['late']:.0f} s late")
    for row in rows:
        mark = "" if row["severity"] == "critical" else f" ({row['severity']})"
        lines.append(
            f"  {paint(row['verdict'], 14)} {row['criterion'].ljust(width)}  {row['reason']}{mark}"
        )
    return "\n".join(lines)


def exit_code(report: Mapping[str, Any]) -> int:
    """0 pass, 1 pass with a breached warning, 2 fail, 3 unknown."""
    code = EXIT[report["verdict"]]
    breached = any(r["verdict"] == "FAIL" for r in report["results"])
    return 1 if code == 0 and breached else code
