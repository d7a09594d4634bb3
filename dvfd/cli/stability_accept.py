"""`dvfd stability accept`, `accepted`: which runs later ones are compared with, and who said so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked
from dvfd.cli.common import output_option, show
from dvfd.cli.text import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@click.command("accept", short_help="Have later runs compared with this one.")
@click.argument("run")
@click.option("--by", "name", required=True, metavar="NAME", help="Who accepts it.")
@click.option("--note", default="", metavar="TEXT", help="Words to keep with it.")
@click.option("--replace", default="", metavar="RUN", help="The accepted run that it replaces.")
@click.option("--override", is_flag=True, help="Although it failed or does not count.")
@click.option("--reason", default="", metavar="TEXT", help="Why, with --override.")
@output_option
def accept(
    run: str, *, name: str, note: str, replace: str, override: bool, reason: str, output: str
) -> None:
    """Accept RUN, which is over, counts and passed: later runs are compared with what it measured.

    That is its throughput, efficiency, communication and loss curve. There is one for each check;
    another takes its place only with --replace and its name, and what was accepted before stays on
    record. A run accepted with --override says so wherever it is compared with. For root and the
    group dvfd.

    Example: dvfd stability accept phase1_20261102T081500Z_1a2b --by "Ann Lee"
    """
    if override != bool(reason.strip()):
        raise click.UsageError("--override and --reason TEXT go together")
    request = {"id": run, "name": name, "note": note, "replaces": replace, "override": reason}
    answer = asked("stability_accept", **request)
    show(answer, output, lambda found: "\n".join(_lines(found)))


@click.command("accepted", short_help="The runs that later ones are compared with.")
@output_option
def accepted(output: str) -> None:
    """Show the accepted run of each check: what it measured, who accepted it, and when.

    JSON has every acceptance that came before as well.

    Example: dvfd stability accepted -o json
    """
    answer = asked("stability_accepted")
    show(answer, output, _text)


def _text(answer: Mapping[str, Any]) -> str:
    if not answer["accepted"]:
        return "no run is accepted: dvfd stability accept RUN --by NAME"
    return "\n".join(line for found in answer["accepted"] for line in _lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["at"]))
    note = f": {found['note']}" if found["note"] else ""
    yield f"{found['check']}, {found['processes']} processes: {found['run']}"
    yield from wrapped(f"accepted by {found['by']} on {when}{note}", 2)
    yield from wrapped(_measured(found["measured"]), 2)
    if found["override"]:
        spite = "; ".join(found["reasons"])
        yield from wrapped(f"IN SPITE OF: {spite}; reason given: {found['override']}", 2)
    if found["replaces"]:
        yield from wrapped(f"in the place of {found['replaces']}", 2)


def _measured(measured: Mapping[str, Any]) -> str:
    """What there is of it."""
    told = {
        "throughput": _rate(measured),
        "efficiency": _share(measured["efficiency"]),
        "communication": _share(measured["communication"]),
    }
    curve = measured["curve"]
    points = curve if isinstance(curve, int) else len(curve)
    said = [f"{name} {value}" for name, value in told.items() if value]
    return "; ".join([*said, f"loss curve of {points} points"])


def _rate(measured: Mapping[str, Any]) -> str:
    if measured["throughput"] is None:
        return ""
    bounds = (
        "" if measured["low"] is None else f" ({measured['low']:.5g} to {measured['high']:.5g})"
    )
    return f"{measured['throughput']:.5g}{bounds} samples/s"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
