"""`dvfd job`: the jobs that this node watches."""

from __future__ import annotations

import click

from dvfd.cli.common import daemon, must, output_option, said
from dvfd.cli.completion import names


@click.group()
def job() -> None:
    """The jobs that this node watches."""


@job.command("forget")
@click.argument("name", shell_complete=names("jobs"))
@output_option
def forget(name: str, output: str) -> None:
    """Stop expecting job NAME: it ended without saying so and is not coming back.

    Example: dvfd job forget gpt-small
    """
    said(must(daemon("forget", job=name), "forgetting a job"), output)
