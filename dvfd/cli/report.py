"""`dvfd report`: what a job's owner sends on, and two runs held together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from dvfd.cli.common import daemon
from dvfd.cli.completion import names

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


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """*value* as Unix seconds."""
    for shape in SHAPES if value is not None else ():
        try:
            return datetime.strptime(str(value), shape).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    if value is None:
        return None
    raise click.BadParameter(f"{value!r}: wanted 2026-07-01 or 2026-07-01T13:30, in UTC")


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


@report.command("job", short_help="One run of a job, as one page.")
@click.argument("job", required=False, shell_complete=names("jobs"))
@click.option("--run", metavar="N", type=int, help="Of several runs in the period; the newest.")
@_period
@output_option
def job_report(job: str | None, run: int | None, output: str, **period: float | None) -> None:
    """Where the hours of JOB went, what held it up, its restarts, energy and cost.

    Every second is in one part and in no other, and so is its price. What is not known is said, and
    never counted as nothing. Works with a daemon and without.

    Exit code: 0 told, 3 there is nothing to tell.

    Example: dvfd report job gpt-small --since 2026-07-01 -o html > report.html
    """
    found = _asked({"job": job or "", "number": run, **period})
    click.echo(_job(found, output), nl=output == "text")


def _asked(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The daemon's answer, or that of the store on disk."""
    from dvfd.reporting.asked import PATIENCE

    answer: Mapping[str, Any] | None = daemon("job_report", timeout=PATIENCE, request=dict(request))
    if answer is None:
        from dvfd.alone import job_report_alone

        answer = job_report_alone(request)
    return answer


def as_json(found: Mapping[str, Any]) -> str:
    """Byte by byte the same for the same report."""
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _job(found: Mapping[str, Any], output: str) -> str:
    whole = as_json(found)
    sha256 = hashlib.sha256(whole.encode()).hexdigest()
    match output:
        case "json":
            return whole
        case "html":
            from dvfd.reporting.render import html

            return html(found, sha256)
        case "markdown":
            from dvfd.reporting.plain import markdown

            return markdown(found, sha256)
        case _:
            from dvfd.reporting.plain import text

            return text(found)
