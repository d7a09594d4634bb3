"""`dvfd checkpoint`: is it whole, does it load?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dvfd.cli.common import output_option


@click.group()
def checkpoint() -> None:
    """Whether a checkpoint is whole and loads."""


@checkpoint.command("verify", short_help="Verify one: its bytes, and that it loads.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--no-load", is_flag=True, help="Look at the bytes only; needs no torch.")
@click.option("--restore", is_flag=True, help="Bring all of it into memory, as a job that resumes.")
@click.option("--make-manifest", is_flag=True, help="Print a manifest of it, verify nothing.")
@click.option("--trust-pickles", is_flag=True, help="Load pickles too: may run code from it.")
@click.option("--python", default="", help="An interpreter with torch; default this one.")
@output_option
def verify(
    path: Path,
    *,
    no_load: bool,
    restore: bool,
    make_manifest: bool,
    trust_pickles: bool,
    python: str,
    output: str,
) -> None:
    """Verify the checkpoint at PATH, a file or a directory.

    Exit code: 0 whole and loadable, 2 broken or not there, 3 could not tell.

    Example: dvfd checkpoint verify /data/run7/step-5000
    """
    from dvfd.checkpoint_verify import main

    chosen = {
        "--json": output == "json",
        "--no-load": no_load,
        "--restore": restore,
        "--make-manifest": make_manifest,
        "--trust-pickles": trust_pickles,
        f"--python={python}": python,
    }
    sys.exit(main([*(option for option, wanted in chosen.items() if wanted), "--", str(path)]))
