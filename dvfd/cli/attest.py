"""`dvfd attest`, `dvfd attestations`: what people vouch for because nothing can measure it."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked
from dvfd.cli.common import output_option, show
from dvfd.cli.completion import names
from dvfd.cli.text import tint, wrapped
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COLOURS = {"yes": "green", "no": "red", "expired": "yellow", "nobody": "yellow"}

ORDER = ("no", "expired", "nobody", "yes")
"""How items are listed: what must be looked at first."""

DAY = 86_400.0


@click.command(short_help="State what nothing can measure, by name, until a day.")
@click.argument("item", shell_complete=names("items"))
@click.option("--yes/--no", "value", default=None, help="Whether it is so.  [required]")
@click.option("--name", required=True, metavar="NAME", help="Who vouches for it.")
@click.option("--role", required=True, metavar="ROLE", help="In which role.")
@click.option("--note", default="", metavar="TEXT", help="What it rests on.")
@click.option("--expires", metavar="DATE", help="The last day it stands, YYYY-MM-DD, or a time.")
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Days that it stands; 90 without --expires.",
)
@output_option
def attest(
    item: str,
    *,
    value: bool | None,
    name: str,
    role: str,
    note: str,
    expires: str | None,
    days: float | None,
    output: str,
) -> None:
    """State that ITEM is so, or is not: as a named person, in a role, until a day.

    Criteria and gates that ask for ITEM rest on the newest statement until it expires, and name
    who made it; earlier ones stay readable. For root and the group dvfd; who typed it is kept.
    Without a daemon it is written to the store.

    Example: dvfd attest team_trained --yes --name "Ann Lee" --role CTO --days 30
    """
    if value is None:
        raise click.UsageError("say whether it is so: --yes or --no")
    if expires is not None and days is not None:
        raise click.UsageError("--expires and --days say the same: give one of them")
    request = {"item": item, "value": value, "name": name, "role": role, "note": note}
    until = end(expires) if expires is not None else after(days)
    if until is not None:
        request["expires"] = until
    answer = asked("attest", **request)
    show(answer, output, _made)


@click.command(short_help="What people stated, and what nobody has yet.")
@click.option("--history", is_flag=True, help="Earlier statements as well.")
@output_option
def attestations(*, history: bool, output: str) -> None:
    """Show every item that the framework asks people about: who said what, until when.

    What must be looked at comes first: denied, expired, said by nobody. JSON has every statement.

    Example: dvfd attestations --history
    """
    answer = asked("attestations")
    show(answer, output, lambda document: _listed(document, history=history))


def end(text: str) -> float:
    """Unix seconds: the end of a day here, or a time. Raises DvfdError."""
    try:
        found = datetime.fromisoformat(text)
        if len(text) <= len("2026-01-31"):
            found += timedelta(days=1)
        return found.timestamp()
    except (ValueError, OverflowError):
        raise DvfdError(f"--expires {text!r}: a day like 2027-01-31 wanted") from None


def after(days: float | None) -> float | None:
    """Unix seconds in so many days."""
    return None if days is None else time.time() + days * DAY


def _made(said: Mapping[str, Any]) -> str:
    return "\n".join([*wrapped(f"{said['item']}: {_statement(said)}"), *_by(said)])


def _listed(document: Mapping[str, Any], *, history: bool) -> str:
    items = sorted(document["items"], key=lambda item: ORDER.index(item["state"]))
    return "\n".join(line for item in items for line in _item(item, history=history))


def _item(item: Mapping[str, Any], *, history: bool) -> Iterator[str]:
    state, said = item["state"], item["history"]
    newest = _statement(said[-1]) if said else "nobody has attested it"
    mark = tint(state.upper().ljust(9), COLOURS[state])
    yield mark + item["item"]
    yield from wrapped(newest, 9)
    yield from wrapped(f"for {', '.join(item['answers'])}", 9)
    if item["lack"] and said:
        yield from wrapped(item["lack"], 9)
    for earlier in reversed(said[:-1] if history else []):
        yield from wrapped(f"before: {_statement(earlier)}", 9)


def _statement(said: Mapping[str, Any]) -> str:
    answer = "yes" if said["value"] else "no"
    note = f": {said['note']}" if said["note"] else ""
    made, until = when(said["at"]), when(said["expires"])
    return f"{said['by']} ({said['role']}) said {answer} on {made}, until {until}{note}"


def _by(said: Mapping[str, Any]) -> list[str]:
    return wrapped(f"submitted by {said['submitted']}; dvfd attestations lists what stands")


def when(at: float) -> str:
    """A moment on this node's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
