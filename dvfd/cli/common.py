"""What commands share: output formats, the daemon or the store behind it, and words for both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from dvfd.cli.formats import LEVELS, rendered
from dvfd.cli.text import causes, columns, paint, wrapped
from dvfd.errors import DvfdError
from dvfd.model import Severity, Verdict, worst
from dvfd.places import control_path
from dvfd.words import counted, printable


def outputs(*more: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option `-o`: text, JSON, and *more* of the formats of dvfd.cli.formats."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json", *more]),
        default="text",
        show_default=True,
        metavar="FORMAT",
        help=f"Text for people; for programs {', '.join(('json', *more))}.",
    )


output_option = outputs()

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, change nothing."
)

judged_option = outputs("jsonl", "junit", "nagios")


def fail_on(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option `--fail-on`: which verdicts make the exit code other than 0."""
    return click.option(
        "--fail-on",
        type=click.Choice(list(LEVELS)),
        default=default,
        show_default=True,
        metavar="LEVEL",
        help="What makes the exit code other than 0: a breached warning, unknown, or only fail.",
    )


fail_on_option = fail_on("warning")


def must(answer: Any, doing: str) -> Any:
    """*answer*, unless no daemon gave one. Raises DvfdError."""
    if answer is None:
        raise DvfdError(f"no daemon answers on {control_path()}: {doing} needs `dvfd run`")
    return answer


def say_on_a_terminal(line: str) -> None:
    """A line of progress, for a person who waits; nothing in a pipe or a log."""
    if sys.stderr.isatty():
        click.echo(printable(line), err=True)


def show(document: Any, output: str, text: Callable[[Any], str]) -> None:
    """Print *document* in the format *output*, or what *text* makes of it."""
    click.echo(rendered(document, output, text))


def said(answer: str, output: str) -> None:
    """Print an answer that is one sentence."""
    show({"answer": answer}, output, lambda document: document["answer"])


def report_text(report: Mapping[str, Any]) -> str:
    """A report, or several: how many of what, every criterion with its reason, worst first."""
    if "reports" in report:
        return "\n\n".join(map(report_text, report["reports"]))
    rows, run = report["results"], report.get("drill")
    found = counted((row["verdict"], row["severity"]) for row in rows)
    cut = f" (shortened: {run['shortened']})" if run and run["shortened"] else ""
    head = f"{report['title']}: {paint(report['verdict'])}{cut}"
    lines = [head, f"Of {len(rows)} criteria, {found}."]
    if report.get("late"):
        lines.append(f"judged {report['late']:.0f} s late")
    if run:
        lines += ["", *_items(rows)]
    lines += ["", *causes(rows)]
    return "\n".join([*lines, *_facts(run)])


def _items(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The lines of the source with the verdict of each, which its critical criteria decide."""
    items: dict[str, list[str]] = {}
    for row in rows:
        if row["severity"] == Severity.CRITICAL:
            items.setdefault(row["item"], []).append(row["verdict"])
    widest = max(map(len, items), default=0)
    return [f"{item.ljust(widest)}  {paint(_of_item(found))}" for item, found in items.items()]


def _of_item(found: Iterable[str]) -> str:
    """The worst of an item; one of which nothing applies does not apply."""
    verdicts = {Verdict(verdict) for verdict in found}
    if verdicts == {Verdict.NOT_APPLICABLE}:
        return Verdict.NOT_APPLICABLE
    return worst(verdicts)


def _facts(run: Mapping[str, Any] | None) -> list[str]:
    """What the test tells besides."""
    if not run or not run["facts"]:
        return []
    width = columns()
    told = [wrapped(f"{fact['name']}: {fact['text']}", 0, width) for fact in run["facts"]]
    return ["", *(line for lines in told for line in lines)]
