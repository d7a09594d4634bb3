"""`dvfd job`: the jobs that this node watches."""

from __future__ import annotations

import click

from dvfd.cli.common import daemon, dry_run_option, must, output_option, said
from dvfd.cli.completion import names
from dvfd.errors import DvfdError


@click.group()
def job() -> None:
    """The jobs that this node watches."""


@job.command("forget", short_help="Stop expecting a job that is not coming back.")
@click.argument("name", shell_complete=names("jobs"))
@dry_run_option
@output_option
def forget(name: str, *, dry_run: bool, output: str) -> None:
    """Stop expecting job NAME: it ended without saying so and is not coming back.

    Until then its silence is a failure. A job that reports again is watched again.

    Exit code: 0 forgotten, 3 there is no such job or no daemon.

    Example: dvfd job forget gpt-small
    """
    doing = "forgetting a job"
    if dry_run:
        said(_would_forget(name, must(daemon("status"), doing)["jobs"]), output)
    else:
        said(must(daemon("forget", job=name), doing), output)


def _would_forget(name: str, jobs: list[dict[str, str]]) -> str:
    for known in jobs:
        if known["job"] == name:
            return f"would forget job {name}: {known['summary']}"
    raise DvfdError(f"no job {name!r} is known here; `dvfd status` lists them")
