"""`dvfd checkpoint`: is it whole, does it load?"""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group()
def checkpoint() -> None:
    """Whether a checkpoint is whole and loads."""


@checkpoint.command("verify", context_settings={"ignore_unknown_options": True})
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def verify(path: Path, options: tuple[str, ...]) -> None:
    """Verify the checkpoint at PATH; exit 0 whole and loadable, 2 broken, 3 could not tell.

    Example: dvfd checkpoint verify /data/run7/step-5000
    """
    from dvfd.checkpoint_verify import main

    sys.exit(main([str(path), *options]))
