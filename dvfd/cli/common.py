"""What commands share: output formats, the daemon or the store behind it, and words for both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from dvfd.cli.text import causes, paint
from dvfd.config import runtime_dir
from dvfd.control import ask
from dvfd.errors import DvfdError
from dvfd.words import counted

NODES_RUNTIME = Path("/run/dvfd")

EXIT = {"PASS": 0, "WAIVED": 0, "FAIL": 2, "UNKNOWN": 3, "NOT_APPLICABLE": 3}

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
    """Where the daemon's control socket is: the user's own, else the node's, which all may ask."""
    own, nodes = runtime_dir() / "control.sock", NODES_RUNTIME / "control.sock"
    return nodes if nodes.exists() and not own.exists() else own


def must(answer: Any, doing: str) -> Any:
    """*answer*, unless no daemon gave one. Raises DvfdError."""
    if answer is None:
        raise DvfdError(f"no daemon answers on {control_path()}: {doing} needs `dvfd run`")
    return answer


def show(document: Any, output: str, text: Callable[[Any], str]) -> None:
    """Print *document* as it is, or what *text* makes of it."""
    click.echo(json.dumps(document, indent=2) if output == "json" else text(document))


def report_text(report: Mapping[str, Any]) -> str:
    """A report: how many of what, then every criterion with its reason, worst first."""
    rows = report["results"]
    found = counted((row["verdict"], row["severity"]) for row in rows)
    lines = [f"{report['title']}: {paint(report['verdict'])}", f"Of {len(rows)} criteria, {found}."]
    if report.get("late"):
        lines.append(f"judged {report['late']:.0f} s late")
    return "\n".join([*lines, "", *causes(rows)])


def exit_code(report: Mapping[str, Any]) -> int:
    """0 pass, 1 pass with a breached warning, 2 fail, 3 unknown."""
    code = EXIT[report["verdict"]]
    breached = any(r["verdict"] == "FAIL" for r in report["results"])
    return 1 if code == 0 and breached else code
