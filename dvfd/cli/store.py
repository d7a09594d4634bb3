"""`dvfd store`: what the daemon's store has to say to a person."""

from __future__ import annotations

import click

from dvfd.cli.common import daemon, must


@click.group()
def store() -> None:
    """Look after the daemon's store."""


@store.command("acknowledge")
def acknowledge() -> None:
    """Say that you have read of a store that was lost: status and page mention it no more.

    Example: dvfd store acknowledge
    """
    click.echo(must(daemon("acknowledge"), "acknowledging"))
