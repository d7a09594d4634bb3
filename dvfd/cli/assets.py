"""`dvfd assets`: the files that people install beside the daemon."""

from __future__ import annotations

import sys
from pathlib import Path

import click

KINDS = ("systemd", "alert_rules", "dashboards", "job")
"""As in dvfd.assets, which is loaded only when something is exported."""


@click.group()
def assets() -> None:
    """Units, alert rules, dashboards, an example configuration, files for a job."""


@assets.command("export", short_help="Write them out of the package, sparing changed files.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--only", type=click.Choice(KINDS), metavar="KIND", help=f"One of {', '.join(KINDS)}."
)
@click.option("--force", is_flag=True, help="Overwrite files that were changed there, too.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, write nothing.")
def export(directory: Path, *, only: str | None, force: bool, dry_run: bool) -> None:
    """Write units, alert rules, dashboards, an example configuration, and the reporter with the
    integrations for jobs that have no dvfd, below DIRECTORY.

    Run it again after an upgrade: files that are as they were written follow the package. A file
    that somebody changed is kept and named, and the exit code is then 1.

    Example: dvfd assets export --only job image/
    """
    from dvfd.assets import Action, carry_out, packaged, plan

    chosen = {n: f for n, f in packaged().items() if only in {None, n.partition("/")[0]}}
    steps = plan(directory, chosen, force=force)
    if not dry_run:
        carry_out(directory, steps)
    for step in steps:
        if step.action is not Action.NOTHING:
            click.echo(f"{'would ' if dry_run else ''}{step.action} {directory / step.name}")
    kept = sum(step.action is Action.KEEP for step in steps)
    same = sum(step.action is Action.NOTHING for step in steps)
    click.echo(f"{len(steps)} files, {same} of them unchanged", err=True)
    if kept:
        click.echo(f"{kept} differ from the package and were kept: --force overwrites", err=True)
        sys.exit(1)
