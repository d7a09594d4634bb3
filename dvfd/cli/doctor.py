"""`dvfd doctor`: what works here, what does not, and the line to type."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dvfd.answers import daemon
from dvfd.cli.common import output_option, show
from dvfd.cli.config import path_option
from dvfd.cli.text import columns, tint, wrapped
from dvfd.places import control_path

MARKS = {"ok": "green", "improve": "yellow", "broken": "red", "unknown": "yellow"}
WIDTH = 9


@click.command(short_help="What works here, what does not, the line to type.")
@path_option
@output_option
def doctor(path: Path | None, output: str) -> None:
    """Look at configuration, daemon, sources, paths, jobs, alerting and tools; change nothing.

    With -c it looks with a configuration that is not in force yet.

    Exit code: 0 all is well, 1 something could be better, 2 something is broken, 3 something
    could not be told.

    Example: dvfd doctor
    """
    from dvfd.doctor import document, examine, exit_code

    findings = examine(_world(path))
    show(document(findings), output, text)
    sys.exit(exit_code(findings))


def text(found: Mapping[str, Any]) -> str:
    """The findings for people, by section; what is to be done on a line of its own."""
    lines: list[str] = []
    section = ""
    for row in found["findings"]:
        if row["section"] != section:
            section = row["section"]
            lines += ["", section.upper()]
        mark, *more = wrapped(f"{row['subject']}: {row['text']}", WIDTH, columns())
        lines += [tint(row["mark"].ljust(WIDTH), MARKS[row["mark"]]) + mark[WIDTH:], *more]
        lines += wrapped(f"do: {row['do']}", WIDTH, columns()) if row["do"] else []
    return "\n".join(lines[1:])


def _world(path: Path | None) -> Any:
    from dvfd import config
    from dvfd.catalogue import load as load_catalogue
    from dvfd.doctor import World
    from dvfd.errors import ConfigError, DvfdError

    settings, status, silence = None, None, ""
    problems: tuple[str, ...] = ()
    try:
        loaded = config.load(path)
        load_catalogue(loaded)
        settings = loaded
    except ConfigError as error:
        problems = error.problems
    try:
        status = daemon("status")
    except DvfdError as error:
        silence = str(error)
    return World(
        config=settings,
        problems=problems,
        status=status,
        silence=silence,
        state=config.state_dir(),
        socket=Path(os.environ.get("DVFD_SOCKET") or control_path().parent / "ingest.sock"),
        user=os.getuid(),
    )
