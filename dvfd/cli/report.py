"""`dvfd report`: what a job's owner sends on, and two runs held together."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dvfd.answers import asked
from dvfd.cli.completion import names
from dvfd.errors import DvfdError

FORMATS = ("text", "html", "json", "markdown")

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="Text, html or markdown for people; json for programs.",
)


SHAPES = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ")
"""How people write a moment in UTC."""


def moment(value: str | None) -> float | None:
    """*value* as Unix seconds. Raises BadParameter."""
    for shape in SHAPES if value is not None else ():
        try:
            return datetime.strptime(str(value), shape).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    if value is None:
        return None
    raise click.BadParameter(f"{value!r}: wanted 2026-07-01 or 2026-07-01T13:30, in UTC")


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    return moment(value)


def _period(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which part of the past."""
    options = (
        click.option("--hours", type=click.FloatRange(min=0, min_open=True), metavar="N",
                     help="How far back; 168 unless --since is given."),
        click.option("--since", callback=_moment, metavar="UTC", help="From when on."),
        click.option("--until", callback=_moment, metavar="UTC", help="Until when; now."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group("report", short_help="A job's hours, energy and cost, for its owner.")
def report() -> None:
    """Tell a job's owner where its hours, energy and money went; hold two runs together.

    Example: dvfd report job gpt-small -o html > report.html
    """


NAMED = re.compile(
    r"(?P<job>.+?)(?::(?P<number>\d+))?(?:@(?P<since>[\dT:Z-]+)\.\.(?P<until>[\dT:Z-]+))?",
    re.DOTALL,
)
"""A run as `compare` is told of it: a job, which of its runs, in which period."""


RUN = re.compile(r"[\w.-]+_\d{8}T\d{6}Z_[0-9a-f]{4}")
"""The name of a stability run: its check, when it was ordered, and four letters."""


@report.command("job", short_help="One run of a job, as one page.")
@click.argument("job", required=False, shell_complete=names("jobs"))
@click.option("--run", metavar="N|ID", help="Of several runs, or a stability run; the newest.")
@_period
@output_option
def job_report(job: str | None, run: str | None, output: str, **period: float | None) -> None:
    """Where the hours of JOB went, what held it up, its restarts, energy and cost.

    Of a stability run its own file tells more: checkpoints, steps done again, all its nodes.
    Every second is in one part and in no other, and so is its price. What is not known is said, and
    never counted as nothing. Works with a daemon and without.

    Exit code: 0 told, 3 there is nothing to tell.

    Example: dvfd report job gpt-small --since 2026-07-01 -o html > report.html
    """
    found = _asked({"job": job or "", **which(run), **period})
    click.echo(_job(found, output), nl=output == "text")


def which(run: str | None) -> dict[str, Any]:
    """A run by its number in the period, or a stability run by its name."""
    if run is None:
        return {}
    return {"number": int(run)} if run.isdecimal() else {"run": run}


def _asked(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The daemon's answer, or that of the store on disk."""
    from dvfd.reporting.asked import PATIENCE, QUEUE

    found: Mapping[str, Any] = asked("job_report", timeout=PATIENCE + QUEUE, request=dict(request))
    return found


def as_json(found: Mapping[str, Any]) -> str:
    """Byte by byte the same for the same report."""
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _job(found: Mapping[str, Any], output: str) -> str:
    sha256 = _sum(found)
    match output:
        case "json":
            return as_json(found)
        case "html":
            from dvfd.reporting.render import html

            return html(found, sha256)
        case "markdown":
            from dvfd.reporting.plain import markdown

            return markdown(found, sha256)
        case _:
            from dvfd.reporting.plain import text

            return text(found)


@report.command("compare", short_help="Two runs, or two periods of one, held together.")
@click.argument("a")
@click.argument("b")
@_period
@output_option
def compare(a: str, b: str, output: str, **period: float | None) -> None:
    """What differs between A and B, by how much, and what speaks against holding them together.

    Each is the name of a job, NAME:2 for the second of its runs in the period, NAME@SINCE..UNTIL
    for a period of its own, the name of a stability run, or a file that `dvfd report job -o json`
    made, here or on another node.

    Exit code: 0 told, 3 there is nothing to tell of one of them.

    Example: dvfd report compare gpt-small:1 gpt-small:2 -o html > compared.html
    """
    from dvfd.reporting.compare import comparison

    first, second = (_named(each, period) for each in (a, b))
    found = comparison(first, second, sums=(_sum(first), _sum(second)))
    click.echo(_compared(found, output), nl=output == "text")


def _named(name: str, period: Mapping[str, float | None]) -> Mapping[str, Any]:
    """The report of one side."""
    if name.endswith(".json"):
        return _read(Path(name))
    if RUN.fullmatch(name):
        return _asked({"run": name})
    match = NAMED.fullmatch(name)
    if match is None:
        raise click.UsageError(f"{name!r}: wanted JOB, JOB:2, JOB@SINCE..UNTIL or FILE.json")
    own = {key: moment(match[key]) for key in ("since", "until")}
    spans = own if match["since"] else period
    number = int(match["number"]) if match["number"] else None
    return _asked({"job": match["job"], "number": number, **spans})


def _read(path: Path) -> Mapping[str, Any]:
    """A report that was made earlier. Raises DvfdError if it is none."""
    from dvfd.reporting.document import SCHEMA

    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    match found:
        case {"kind": "job report", "schema": schema} if schema == SCHEMA:
            return dict(found)
        case {"kind": "job report", "schema": schema}:
            raise DvfdError(f"{path}: its schema is {schema}, this dvfd knows {SCHEMA}")
    raise DvfdError(f"{path}: no report of a job: dvfd report job NAME -o json makes one")


def _sum(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(as_json(found).encode()).hexdigest()


def _compared(found: Mapping[str, Any], output: str) -> str:
    match output:
        case "json":
            return as_json(found)
        case "html":
            from dvfd.reporting.render import compared

            return compared(found)
        case "markdown":
            from dvfd.reporting.plain import compared_markdown

            return compared_markdown(found)
        case _:
            from dvfd.reporting.plain import compared as in_words

            return in_words(found)
