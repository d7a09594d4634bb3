"""`dvfd stability report` and `judge`: a run's report, and the same made again from its file."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from dvfd.cli.formats import exit_code, junit
from dvfd.cli.text import causes, paint
from dvfd.errors import DvfdError
from dvfd.words import lasting, printable

Document = Mapping[str, Any]

FORMATS = ("text", "html", "json", "junit")

DIFFERENCES = 20
"""Differences that are told before "and more"."""

LETTERS = 80
"""Of each side of a difference."""


def _output(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default=default,
        show_default=True,
        metavar="FORMAT",
        help="Text or html for people; json or junit for programs.",
    )


@click.command("report", short_help="The frozen report of a run that is over.")
@click.argument("run", required=False)
@_output("text")
def report(run: str | None, output: str) -> None:
    """Show the report of RUN, of the newest that has one if none is named; or of a file ID.json.

    A report that is not what was frozen, by the sums beside it, is refused.

    Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown, changed or not there.

    Example: dvfd stability report -o html > report.html
    """
    text = _frozen(_path(run))
    found = json.loads(text)
    _show(found, text, output)
    sys.exit(exit_code(found))


@click.command("judge", short_help="Judge a run again, from its own file alone.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="REPORT",
    help="Say whether that is the report in REPORT, and where it is not.",
)
@_output("json")
def judge(file: Path, against: Path | None, output: str) -> None:
    """Judge the run in FILE again, by this site's catalogue, and print its report.

    The file holds the rows of the run and what it was held against, so that the same file, version
    and catalogue give the same report, byte by byte. Needs no daemon, changes nothing.

    Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown, or not the report in REPORT.

    Example: dvfd stability judge phase1.db --against phase1.json
    """
    from dvfd.runs.report import as_text

    found = _judged(file)
    text = as_text(found)
    if against is None:
        _show(found, text, output)
    else:
        _compare(text, against)
    sys.exit(exit_code(found))


def _judged(file: Path) -> dict[str, Any]:
    from dvfd.catalogue import load as load_catalogue
    from dvfd.config import load as load_config
    from dvfd.runs.freezing import evidence, report_of
    from dvfd.runs.run import Run
    from dvfd.store.run_reading import Reading

    config = load_config()
    catalogue = load_catalogue(config)
    run = Run.from_document(Reading(file).document())
    check = catalogue.checks.get(run.plan.check)
    if check is None or not check.every:
        raise DvfdError(f"{file}: a run of {run.plan.check!r}, which is no stability run here")
    return report_of(evidence(file, check, config=config, catalogue=catalogue))


def _compare(text: str, against: Path) -> None:
    """Say that *against* is the same. Raises DvfdError with what is not."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    before = against.read_bytes()
    if before == text.encode():
        click.echo(f"identical, byte by byte: SHA-256 {sha256}")
        return
    try:
        found = list(differences(json.loads(before), json.loads(text)))
    except ValueError:
        raise DvfdError(f"{against}: no JSON, so no report") from None
    more = [f"and {len(found) - DIFFERENCES} more"] if len(found) > DIFFERENCES else []
    lines = [*found[:DIFFERENCES], *more] or ["only in how it is written"]
    raise DvfdError("\n  ".join([f"{against} is not what its run is judged as now:", *lines]))


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Every place at which two JSON values differ, with both sides."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            where = f"{place}.{key}" if place else key
            yield from differences(before.get(key), now.get(key), where)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{place}.{number}")
    elif before != now:
        yield printable(f"{place}: {_short(before)} there, {_short(now)} now")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"


def _path(run: str | None) -> Path:
    """The report's JSON. Raises DvfdError if there is none."""
    from dvfd.places import state_dir

    directory = state_dir() / "runs"
    if run is None:
        found = sorted(directory.glob("*.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise DvfdError(f"no report lies in {directory}: dvfd stability list shows its runs")
        return found[-1]
    if run.endswith(".json"):
        return Path(run)
    path = directory / f"{run}.json"
    if not path.exists():
        raise DvfdError(
            f"run {run!r} has no report in {directory}: it gets one when it is over; "
            f"dvfd stability status {run} says how it stands"
        )
    return path


def _frozen(path: Path) -> str:
    """The report at *path*. Raises DvfdError if the sums beside it say that it was changed."""
    data = path.read_bytes()
    sums = path.with_suffix(".sha256")
    if sums.exists():
        sha256 = hashlib.sha256(data).hexdigest()
        lines = [line.partition("  ") for line in sums.read_text().splitlines()]
        told = next((sha for sha, _, name in lines if name == path.name), "another file")
        if told != sha256:
            raise DvfdError(
                f"{path}: its SHA-256 is {sha256}, frozen was {told}: it was changed; "
                "dvfd stability judge makes it again from the run's file"
            )
    return data.decode()


def _show(found: Document, text: str, output: str) -> None:
    match output:
        case "json":
            click.echo(text, nl=False)
        case "junit":
            click.echo(junit(found))
        case "html":
            from dvfd.runs.render import html

            click.echo(html(found, hashlib.sha256(text.encode()).hexdigest()), nl=False)
        case _:
            click.echo(in_words(found))


def in_words(found: Document) -> str:
    """A report for people: verdict, whether it counts, every criterion, where time went."""
    times, seen = found["times"], found["observed"]
    counts = "it counts" if found["counts"] else "it does not count"
    lines = [
        f"{found['run']['id']}: {paint(found['verdict'])}, {counts}",
        *(f"does not count: {printable(line)}" for line in found["uncounted"]),
        ", ".join(
            [
                f"{found['title']}: {found['stage']}",
                f"{lasting(times['elapsed'])} of {lasting(times['planned'])}",
                f"{lasting(seen['down'])} down",
                f"{lasting(seen['unseen'])} not observed",
            ]
        ),
        printable(found["headline"]),
        "",
        *causes(map(_harmless, found["results"])),
        *_time(found["goodput"]),
    ]
    return "\n".join(lines)


def _harmless(row: Document) -> Document:
    """A result whose words move no cursor."""
    return {name: printable(v) if isinstance(v, str) else v for name, v in row.items()}


def _time(goodput: Document | None) -> list[str]:
    if goodput is None:
        return []
    parts = [each for each in goodput["parts"] if each["seconds"] >= 1]
    return ["", *(f"{lasting(each['seconds']):>12}  {each['words']}" for each in parts)]
