"""`dvfd check` and `dvfd checklist`: judge one check now, by the daemon or on its store."""

from __future__ import annotations

import sys
from typing import Any

import click

from dvfd.cli.common import daemon, judged_option, report_text, show
from dvfd.cli.completion import names
from dvfd.cli.formats import exit_code


@click.command(short_help="Judge one check of the framework now.")
@click.argument("name", shell_complete=names("checks"))
@judged_option
def check(name: str, output: str) -> None:
    """Judge check NAME now, keep the report, and print it.

    Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown. `dvfd status` names the checks.

    Example: dvfd check hardware
    """
    _judge(name, output)


@click.command(short_help="Judge the daily, weekly or monthly list now.")
@click.argument("name", type=click.Choice(["daily", "weekly", "monthly"]))
@judged_option
def checklist(name: str, output: str) -> None:
    """Judge a checklist now, keep the report, and print it.

    It judges its whole period (24 hours for daily): what was not observed in most of it is
    UNKNOWN. Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown.

    Example: dvfd checklist daily
    """
    _judge(name, output)


def _judge(name: str, output: str) -> None:
    answer = daemon("check", check=name)
    where = "the daemon's store"
    if answer is None:
        answer, where = _alone(name)
    show(answer, output, report_text)
    click.echo(f"judged on {where}", err=True)
    sys.exit(exit_code(answer))


def _alone(name: str) -> tuple[Any, str]:
    """Judge without a daemon, on what an earlier one left in the store."""
    from dvfd.alone import judge_alone

    return judge_alone(name)
