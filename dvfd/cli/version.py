"""`dvfd version`."""

from __future__ import annotations

import platform

import click

from dvfd import __version__


@click.command()
def version() -> None:
    """Print the versions of dvfd and of Python."""
    click.echo(f"dvfd {__version__} (Python {platform.python_version()})")
