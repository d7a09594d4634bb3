"""`dvfd incident`: failed phase tests on their way to their end: look, find, decide."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked
from dvfd.cli.common import output_option, show
from dvfd.cli.completion import names
from dvfd.cli.text import tint, wrapped
from dvfd.errors import DvfdError
from dvfd.words import CALLS, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COLOURS = {"open": "red", "investigating": "red", "decision": "yellow", "resolved": "green"}

MARK = len("INVESTIGATING") + 2
"""Columns of a state and the gap behind it."""

ATTACHED = 1 << 20
"""Bytes of an attached file at most (dvfd.incidents.protocol.ATTACHED)."""


@click.group(short_help="Failed phase tests: what is known, what is to be done, by when.")
def incident() -> None:
    """Failed phase tests on their way to their end.

    A test of a phase that fails opens one. For an hour it calls the team lead alone; until the 24th
    hour somebody names the cause; then the suite is run again, or infrastructure is told, and a
    test that still fails delays its phase. docs/failures.md has all of it.
    """


@incident.command("list", short_help="Every incident, those that are not over first.")
@output_option
def listed(output: str) -> None:
    """List the incidents of this node: state, age, what comes next and when.

    Those that are not over come first. Without a daemon they are as the last one left them, moved
    on by the time that passed; nobody is called then.

    Exit code: 0, also where some are open; 3 if nothing can be read.

    Example: dvfd incident list
    """
    answer = asked("incidents")
    show(answer, output, _listed)


@incident.command("show", short_help="All that is known of one.")
@click.argument("id_", metavar="ID", shell_complete=names("incidents"))
@output_option
def shown(id_: str, output: str) -> None:
    """Show incident ID: its failures, what was preserved and stopped, its journal.

    Once the cause is said to be fixed also what of the phase's suite is still to pass after that.

    Example: dvfd incident show stability_phase1-41
    """
    answer = asked("incident", id=id_)
    show(answer, output, _shown)


@incident.command("update", short_help="Say what was found, and what the cause is.")
@click.argument("id_", metavar="ID", shell_complete=names("incidents"))
@click.option("--by", "name", required=True, metavar="NAME", help="Whose word it is.")
@click.option("--finding", default="", metavar="TEXT", help="What was found, or looked at.")
@click.option(
    "--attach",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file to keep with it, at most 1 MiB.",
)
@click.option(
    "--cause",
    type=click.Choice(["fixed", "unknown"]),
    help="Found and fixed, or not to be found; with --finding.",
)
@click.option(
    "--delay", type=click.IntRange(1, 2), metavar="WEEKS", help="Delay the phase, 1 or 2 weeks."
)
@output_option
def update(
    id_: str,
    *,
    name: str,
    finding: str,
    attach: Path | None,
    cause: str | None,
    delay: int | None,
    output: str,
) -> None:
    """Say something of incident ID, by name; it stands in its journal for good.

    --cause fixed is the decision to run the whole suite of the phase again: what is still to pass
    is tracked from the ledger, and the incident is resolved once all of it did. A further failure
    takes the fix back. --cause unknown calls infrastructure, in the first hour once that is over.
    For root and the group dvfd.

    Example: dvfd incident update stability_phase1-41 --cause fixed --finding "a fan" --by "Ann Lee"
    """
    request: dict[str, Any] = {"id": id_, "name": name, "finding": finding}
    request |= {"cause": cause, "delay": delay}
    if attach is not None:
        request |= _file(attach)
    answer = asked("incident_update", **request)
    show(answer, output, _shown)


def _file(path: Path) -> dict[str, str]:
    """Raises DvfdError, OSError."""
    if (size := path.stat().st_size) > ATTACHED:
        limit = f"wanted at most {ATTACHED}: put it where it stays, and name it in --finding"
        raise DvfdError(f"{path}: {size} bytes, {limit}")
    return {"file": path.name, "content": base64.b64encode(path.read_bytes()).decode()}


# --- As text --------------------------------------------------------------------------------------


def _listed(document: Mapping[str, Any]) -> str:
    trouble = [f"incidents do not move on: {document['trouble']}"] if document["trouble"] else []
    if not document["incidents"]:
        return "\n".join([*trouble, "no test of a phase failed here"])
    found = (line for each in document["incidents"] for line in _lines(each))
    return "\n".join([*trouble, *found])


def _lines(each: Mapping[str, Any]) -> Iterator[str]:
    state = each["state"]
    yield tint(state.upper().ljust(MARK), COLOURS[state]) + f"{each['id']} ({each['phase']})"
    yield from wrapped(f"{each['title']}: {each['why']}", MARK)
    if state == "resolved":
        yield from wrapped(
            f"opened {_when(each['opened_at'])}, resolved {_when(each['resolved_at'])}", MARK
        )
        return
    yield from wrapped(
        f"for {duration(each['age'])}; calls {CALLS[each['escalation']]}{_due(each)}", MARK
    )
    if each["delayed_until"]:
        yield from wrapped(f"{each['phase']} is delayed until {_when(each['delayed_until'])}", MARK)
    yield from wrapped(f"> {each['next']}", MARK)


def _due(each: Mapping[str, Any]) -> str:
    due = each["due"]
    return f"; {_when(due['at'])}: {due['what']}" if due else ""


def _shown(each: Mapping[str, Any]) -> str:
    lines = [*_lines(each), ""]
    for run in (*each["failures"], *each["reruns"]):
        lines.append(f"record {run['number']}  {run['verdict'].ljust(8)} {run['run']}")
        for reason in run["reasons"]:
            lines += wrapped(reason, 4)
    if each["fixed_at"]:
        lines += ["", "to pass after the fix:", *_suite(each)]
    lines += ["", *_preserved(each)]
    lines += ["", "journal:"]
    for entry in each["journal"]:
        lines.append(f"  {_when(entry['at'])}  {entry['who']}: {entry['what']}")
        lines += wrapped(entry["why"], 4)
        lines += wrapped(entry["attached"], 4) if entry["attached"] else []
    return "\n".join(lines)


def _suite(each: Mapping[str, Any]) -> Iterator[str]:
    needs = {need["check"]: need["why"] for need in each["needs"]}
    for check in each["suite"]:
        why = needs.get(check)
        mark = tint("passed ", "green") if why is None else tint("missing", "yellow")
        yield f"  {mark}  {check}" + (f": {why}" if why else "")


def _preserved(each: Mapping[str, Any]) -> Iterator[str]:
    bundle, action = each["bundle"], each["action"]
    if bundle is None:
        yield "evidence is being preserved"
        return
    if bundle.get("path"):
        yield f"sealed evidence: {bundle['path']}, {bundle['bytes']} bytes"
        yield f"  sha256 {bundle['sha256']}"
    for missing in bundle.get("missing", ()):
        yield from wrapped(f"missing: {missing}", 2)
    yield from wrapped(f"{action['action'] or 'nothing'}: {action['words']}")


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
