"""`dvfd site`: the series that this site's own checks expect."""

from __future__ import annotations

import click

from dvfd.answers import daemon
from dvfd.cli.common import dry_run_option, must, output_option, said
from dvfd.cli.completion import names


@click.group()
def site() -> None:
    """The series that this site's own checks expect.

    The page has the verdicts on them, as LIST.site.ID, and `dvfd history METRIC` the values.
    """


@site.command("forget", short_help="Stop expecting a series that is not coming back.")
@click.argument("metric", shell_complete=names("metrics"))
@click.argument("labels", nargs=-1, metavar="LABEL=VALUE...")
@dry_run_option
@output_option
def forget(metric: str, labels: tuple[str, ...], *, dry_run: bool, output: str) -> None:
    """Stop expecting the series of METRIC with these labels: what it measured was taken away.

    Until then its silence is UNKNOWN. A series that speaks again is watched again.

    Exit code: 0 forgotten, 3 there is no such series or no daemon.

    Example: dvfd site forget site_raid_disks_missing array=md2
    """
    where = dict(_pair(label) for label in labels)
    doing = "forgetting a series"
    if dry_run:
        over = must(daemon("site_series", metric=metric, where=where), doing)
        said(f"would forget {len(over)} series of {metric}", output)
    else:
        said(must(daemon("forget_series", metric=metric, where=where), doing), output)


def _pair(label: str) -> tuple[str, str]:
    name, sign, value = label.partition("=")
    if not sign or not name:
        raise click.UsageError(f"{label!r}: wanted LABEL=VALUE, such as array=md2")
    return name, value
