"""`dvfd job`: the jobs that this node watches."""

from __future__ import annotations

import click

from dvfd.answers import daemon
from dvfd.cli.common import dry_run_option, must, output_option, said
from dvfd.cli.completion import names
from dvfd.errors import DvfdError


@click.group()
def job() -> None:
    """The jobs that this node watches."""


@job.command("forget", short_help="Stop expecting a job that is not coming back.")
@click.argument("name", required=False, default="", shell_complete=names("jobs"))
@click.option(
    "--run",
    default="",
    metavar="ID",
    help="Whatever job is on its run ID, as a scheduler's epilog knows it; none is no mistake.",
)
@dry_run_option
@output_option
def forget(name: str, run: str, *, dry_run: bool, output: str) -> None:
    """Stop expecting job NAME: it ended without saying so and is not coming back.

    Until then its silence is a failure. A job that reports again is watched again.

    Exit code: 0 forgotten, 3 there is no such job or no daemon.

    Example: dvfd job forget gpt-small
    """
    doing = "forgetting a job"
    if bool(name) == bool(run):
        raise click.UsageError("give the NAME of a job, or --run with the id of its run")
    if run:
        said(_forgotten(run, must(daemon("status"), doing)["jobs"], dry_run=dry_run), output)
    elif dry_run:
        said(_would_forget(name, must(daemon("status"), doing)["jobs"]), output)
    else:
        said(must(daemon("forget", job=name), doing), output)


def _would_forget(name: str, jobs: list[dict[str, str]]) -> str:
    for known in jobs:
        if known["job"] == name:
            return f"would forget job {name}: {known['summary']}"
    raise DvfdError(f"no job {name!r} is known here; `dvfd status` lists them")


def _forgotten(run: str, jobs: list[dict[str, str]], *, dry_run: bool) -> str:
    """Forget the jobs on that *run* which have not said that they ended; what was done."""
    over = [job["job"] for job in jobs if job["run"] == run and job["state"] != "ended"]
    if dry_run:
        return f"run {run}: would forget {', '.join(over) or 'nothing'}"
    told = [str(must(daemon("forget", job=job), "forgetting a job")) for job in over]
    return "; ".join(told) or f"run {run}: nothing of it is expected here"
