"""`dvfd history`: what the store remembers of a metric or of a check."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from dvfd.answers import asked
from dvfd.cli.common import outputs, show
from dvfd.cli.completion import names
from dvfd.cli.text import paint
from dvfd.errors import DvfdError


@click.command(short_help="The last values of a metric, or reports of a check.")
@click.argument("name", shell_complete=names("metrics", "checks"))
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=1,
    show_default=True,
    metavar="N",
    help="How far back.",
)
@click.option(
    "--engine",
    is_flag=True,
    help="Ask the engine of [history] for this node: whole hours, then sample by sample.",
)
@outputs("jsonl")
def history(name: str, hours: float, engine: bool, output: str) -> None:
    """Print the last values of metric NAME, or the last reports of check NAME, oldest first.

    The reasons in `dvfd status` begin with a metric's name.

    Example: dvfd history job_loss --hours 24
    """
    answer = _of_engine(name, hours) if engine else asked("history", name=name, hours=hours)
    if not answer["rows"]:
        raise DvfdError(f"{name}: nothing in the last {hours:g} h")
    show(answer, output, _text)


def _of_engine(name: str, hours: float) -> dict[str, Any]:
    from dvfd.history import asked as engine

    return engine.asked(name, hours)


def _text(answer: Mapping[str, Any]) -> str:
    return "\n".join(_line(row) for row in answer["rows"])


def _line(row: Mapping[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
    if "verdict" in row:
        return f"{when}  {paint(row['verdict'], 8)} {row['check']}"
    pairs = ",".join(f"{key}={value}" for key, value in row["labels"].items())
    return f"{when}  {row['value']:<12.6g} {pairs}"
