"""`dvfd waive`, `dvfd waivers`: breaches that somebody lets pass, by name and until a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked
from dvfd.cli.attest import after, end, when
from dvfd.cli.common import output_option, show
from dvfd.cli.completion import names
from dvfd.cli.text import tint, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@click.command(short_help="Let a breach pass, by name and with a reason, until a day.")
@click.argument("criterion", shell_complete=names("criteria"))
@click.option("--name", required=True, metavar="NAME", help="Who lets it pass.")
@click.option("--role", required=True, metavar="ROLE", help="In which role.")
@click.option("--reason", required=True, metavar="TEXT", help="Why, and what is being done.")
@click.option("--expires", metavar="DATE", help="The last day it stands, YYYY-MM-DD, or a time.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Days that it stands."
)
@click.option("--end", "ended", is_flag=True, help="End the waiver that stands, now.")
@output_option
def waive(
    criterion: str,
    *,
    name: str,
    role: str,
    reason: str,
    expires: str | None,
    days: float | None,
    ended: bool,
    output: str,
) -> None:
    """Let CRITERION be WAIVED where it fails or cannot be known, until a moment.

    Every report, the page and the alert that ends say who waived it and why, and what it is all
    the same. It is written into the ledger of evidence and can be ended, not taken back. A No-Go
    line of a gate cannot be waived. For root and the group dvfd. Without a daemon it is written
    to the ledger on disk.

    Example: dvfd waive daily.cpu_temperature --name Ann --role CTO --reason "fan due" --days 3
    """
    if sum((expires is not None, days is not None, ended)) != 1:
        raise click.UsageError("say when it ends: one of --expires, --days and --end")
    request: dict[str, Any] = {
        "criterion": criterion,
        "name": name,
        "role": role,
        "reason": reason,
        "end": ended,
    }
    if not ended:
        request["expires"] = end(expires) if expires is not None else after(days)
    answer = asked("waive", **request)
    show(answer, output, _made)


@click.command(short_help="What was waived, by whom, and whether it still counts.")
@click.option("--history", is_flag=True, help="Also those that have ended.")
@output_option
def waivers(*, history: bool, output: str) -> None:
    """Show every waiver that stands: who lets which breach pass, why, until when.

    They count while the ledger of evidence verifies, and this says so where it does not. JSON has
    every waiver that was ever made.

    Example: dvfd waivers --history
    """
    answer = asked("waivers")
    show(answer, output, lambda document: _listed(document, history=history))


def _made(made: Mapping[str, Any]) -> str:
    lines = wrapped(f"{made['criterion']}: {_words(made)}")
    said = f"submitted by {made['submitted']}; record {made['number']} of the ledger of evidence"
    return "\n".join([*lines, *wrapped(said)])


def _listed(document: Mapping[str, Any], *, history: bool) -> str:
    found = [row for row in document["waivers"] if row["stands"] or history]
    head = wrapped(f"NONE OF THEM COUNTS: {document['problem']}") if document["problem"] else []
    lines = [*head, *(line for row in found for line in _one(row))]
    return "\n".join(lines or ["nothing is waived"])


def _one(row: Mapping[str, Any]) -> Iterator[str]:
    mark = tint("WAIVED", "cyan") if row["stands"] else "ended "
    yield f"{mark}  {row['criterion']}"
    yield from wrapped(_words(row), 8)


def _words(row: Mapping[str, Any]) -> str:
    until = f"until {when(row['expires'])}" if row["expires"] > row["at"] else "ended"
    return f"{row['by']} ({row['role']}), {until}: {row['reason']}"
