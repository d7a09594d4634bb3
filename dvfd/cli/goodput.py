"""`dvfd goodput`: where the time of a job or of a stability run went, the worst loss first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked, daemon
from dvfd.cli.common import output_option, show
from dvfd.cli.completion import names
from dvfd.cli.text import columns, wrapped
from dvfd.places import state_dir
from dvfd.words import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BAR = 24
"""Columns of a whole bar."""

WIDE = 74
"""Columns from which bars fit beside the table."""


@click.command(short_help="Where the time of a job or a run went.")
@click.option("--job", metavar="NAME", shell_complete=names("jobs"), help="This job only.")
@click.option("--run", metavar="ID", help="A stability run, from its own file.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24,
    show_default=True,
    metavar="N",
    help="How far back, for jobs.",
)
@output_option
def goodput(job: str | None, run: str | None, hours: float, output: str) -> None:
    """Split the time of a job, or of a stability run, into productive steps and losses.

    Every second is in one part and in no other; what could not be told apart is said below the
    table. A job that ran several times is told run by run, the newest ten; without --job the newest
    run of each that goes on. A stability run tells more than the store keeps of other jobs. Works
    with a daemon and without.

    Example: dvfd goodput --job gpt-small --hours 8
    """
    if run is not None and job is not None:
        raise click.UsageError("--run and --job: give one of them")
    answer = {"jobs": [_of_run(run)]} if run is not None else _of_jobs(job or "", hours)
    show(answer, output, _text)


def _of_jobs(job: str, hours: float) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = asked("goodput", job=job, hours=hours)
    return answer


def _of_run(run_id: str) -> dict[str, Any]:
    """Of a run: what it is from the daemon or from its file, its rows from its file."""
    from dvfd.runs import shelf
    from dvfd.runs.run import Run
    from dvfd.spent import of_run
    from dvfd.store.run_reading import Reading

    status = daemon("status")
    state = state_dir() if status is None else Path(status["store"]["path"]).parent
    answer = daemon("stability_status", id=run_id)
    run = Run.from_document((answer or shelf.answer(state / "runs", run_id))["run"])
    return of_run(run, Reading(state / "runs" / f"{run.id}.db")).to_document()


def _text(answer: Mapping[str, Any]) -> str:
    return "\n\n".join("\n".join(_account(each)) for each in answer["jobs"])


def _account(found: Mapping[str, Any]) -> Iterator[str]:
    whole = found["seconds"]
    yield from wrapped(_head(found))
    wide = not 0 < columns() < WIDE
    for part in found["parts"]:
        share = part["seconds"] / whole if whole else 0.0
        if part["seconds"] < 1e-3 and part["part"] != "productive":
            continue
        bar = ("█" * round(share * BAR)).ljust(BAR) + " " if wide else ""
        line = f"  {part['words']:<19} {bar}{share:>7.2%} {_seconds(part['seconds']):>12}"
        yield line
    for note in found["notes"]:
        yield from wrapped(f"> {note}", 2)


def _head(found: Mapping[str, Any]) -> str:
    low, high = found["goodput"], found["goodput_at_most"]
    name = f"run {found['run']}, job {found['job']}" if found["run"] else f"job {found['job']}"
    if found.get("of", 1) > 1:
        name += f", run {found['number']} of {found['of']}"
    if low is None:
        return f"{name}: no time has passed"
    ratio = f"{low:.2%}" if high - low < 5e-5 else f"{low:.2%} to {high:.2%}"
    over = f"{duration(found['seconds'])}"
    if not found["run"]:
        over += f" from {_when(found['since'])} to {_when(found['until'])}"
    again = f", {found['steps_again']} again" if found["steps_again"] else ""
    return f"{name}: goodput {ratio} of {over}; {found['steps']} steps{again}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
