"""`dvfd version`."""

from __future__ import annotations

import platform

import click

from dvfd import __version__
from dvfd.cli.common import output_option, show


@click.command()
@output_option
def version(output: str) -> None:
    """Print the versions of dvfd and of Python.

    Name both when you report a mistake of dvfd.

    Example: dvfd version -o json
    """
    versions = {"dvfd": __version__, "python": platform.python_version()}
    show(versions, output, lambda v: f"dvfd {v['dvfd']} (Python {v['python']})")
