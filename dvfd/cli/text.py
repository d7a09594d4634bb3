"""Lay words out for a terminal: wrapped where a person reads, one line each where a pipe does."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import click

from dvfd.model import WORST_FIRST, Verdict

NARROWEST = 40
"""Columns below which nothing could be laid out."""

COLOURS = {"PASS": "green", "FAIL": "red", "UNKNOWN": "yellow", "WAIVED": "cyan"}

MARK = len("UNKNOWN") + 2
"""Columns of a verdict and the gap behind it."""


def columns() -> int:
    """The width to wrap at; 0 for a pipe, where a line per thing serves grep best."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return max(NARROWEST, int(asked))
    return max(NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 0


def paint(verdict: str, width: int = 0) -> str:
    """The verdict's word, coloured where a terminal can show it."""
    word = ("N/A" if verdict == Verdict.NOT_APPLICABLE else verdict).ljust(width)
    if verdict in COLOURS and coloured():
        return click.style(word, fg=COLOURS[verdict], bold=verdict == "FAIL")
    return word


def tint(word: str, colour: str) -> str:
    """*word* in *colour* where a terminal can show it."""
    return click.style(word, fg=colour) if coloured() else word


def coloured() -> bool:
    """Whether stdout is a terminal that shows colours, to somebody who wants them."""
    unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not unwanted


def wrapped(text: str, indent: int = 0, width: int | None = None) -> list[str]:
    """*text* in lines of at most *width* columns, all indented; one line for a pipe."""
    width = columns() if width is None else width
    pad = " " * indent
    if not width:
        return [pad + text]
    return textwrap.wrap(
        text,
        width,
        initial_indent=pad,
        subsequent_indent=pad,
        break_on_hyphens=False,
        break_long_words=False,  # a path or a series stays whole: it is there to be copied
    )


def shortened(text: str, width: int) -> str:
    """*text* in one line of *width* columns, an ellipsis where it was cut; whole for a pipe."""
    return text if not width or len(text) <= width else text[: max(0, width - 1)].rstrip() + "…"


def finding(verdict: str, name: str, reason: str) -> list[str]:
    """What was found of something and why: on one line if it fits, else the reason below.

    The reason of what needs no look is cut to its line: `-o json` has it whole.
    """
    width, mark = columns(), paint(verdict, MARK)
    if not width or MARK + len(name) + len(reason) + 2 <= width:
        return [f"{mark}{name}: {reason}"]
    if verdict in {Verdict.FAIL, Verdict.UNKNOWN, Verdict.WAIVED}:
        first, *more = wrapped(name, MARK, width)
        return [mark + first[MARK:], *more, *wrapped(reason, MARK, width)]
    # What was read and wanted matters more than on which series: that part goes first.
    kept = reason.partition("}: ")[2] or reason
    return [mark + shortened(f"{name}: {kept}", width - MARK)]


def causes(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Results worst first, critical before warnings; what shares a reason is told once."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in sorted(results, key=_worst_first):
        mark = "" if row["severity"] == "critical" else f" ({row['severity']})"
        told = (row["verdict"], row["reason"], row.get("remark", ""))
        groups.setdefault(told, []).append(row["criterion"] + mark)
    return [
        line
        for (verdict, reason, remark), names in groups.items()
        for line in (*finding(verdict, ", ".join(names), reason), *_remarks(remark))
    ]


def _remarks(remark: str) -> list[str]:
    """What to do about it, or what a figure cannot say, below what was found."""
    return wrapped(f"> {remark}", MARK) if remark else []


def _worst_first(row: Mapping[str, Any]) -> tuple[int, bool]:
    return (WORST_FIRST.index(row["verdict"]), row["severity"] != "critical")
