"""`dvfd signoff`: who signs the validation as a whole, and who has not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked
from dvfd.cli.attest import when
from dvfd.cli.common import output_option, show
from dvfd.cli.text import tint, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@click.command(short_help="Sign the validation as a whole, or see who has.")
@click.argument("role", required=False)
@click.option("--name", default="", metavar="NAME", help="Who signs.  [required with ROLE]")
@click.option("--note", default="", metavar="TEXT", help="Words to keep with it.")
@output_option
def signoff(role: str | None, *, name: str, note: str, output: str) -> None:
    """Sign the validation as a whole in a ROLE, or show who has signed it.

    The framework's last section names three roles. A signature goes into the ledger of evidence:
    it can be repeated, not taken back. A phase is authorised by its gate's own authority, not by
    this. For root and the group dvfd. Without a daemon it goes to the ledger on disk.

    Example: dvfd signoff "ML Engineering Lead" --name "Ann Lee"
    """
    if bool(role) != bool(name):
        raise click.UsageError("ROLE and --name NAME go together: who signs does so by name")
    if role:
        request = {"role": role, "name": name, "note": note}
        made = asked("signoff", **request)
        show(made, output, _made)
        return
    answer = asked("signoffs")
    show(answer, output, _listed)


def _made(made: Mapping[str, Any]) -> str:
    words = f"{made['subject']}: signed by {made['body']['by']}, record {made['number']}"
    return "\n".join(wrapped(f"{words} of the ledger of evidence"))


def _listed(document: Mapping[str, Any]) -> str:
    problems = [line for each in document["problems"] for line in wrapped(f"PROBLEM: {each}")]
    return "\n".join([*problems, *(line for row in document["signoffs"] for line in _one(row))])


def _one(row: Mapping[str, Any]) -> Iterator[str]:
    found = row["signed"]
    yield f"{tint('signed', 'green') if found else tint('open  ', 'yellow')}  {row['role']}"
    yield from wrapped(row["text"], 8)
    if found:
        note = f": {found['body']['note']}" if found["body"]["note"] else ""
        yield from wrapped(f"{found['body']['by']} on {when(found['at'])}{note}", 8)
