"""What the front page shows of all figures: a handful that decide, and how many are outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench import reasons
from bench.record import number

FIRST = (
    ("daemon", "rss"),
    ("daemon", "cpu"),
    ("daemon", "cpu_training"),
    ("reporter", "dvfd"),
    ("overhead", "dvfd_share"),
    ("detection", "kill_beyond"),
    ("detection", "stop_beyond"),
    ("detection", "nan_beyond"),
    ("detection", "ratio_15s"),
    ("detection", "missed"),
    ("ingest_killed", "lost"),
    ("crash", "faults"),
    ("fuzz", "crashes"),
    ("mutes", "seen"),
    ("soak", "false_alarms"),
    ("soak", "unresolved"),
    ("history", "size"),
    ("history", "month_criterion"),
    ("lists", "monthly"),
    ("page", "page_day_4_p99"),
)
"""Measurement and figure of each row, in order. Edit freely: a name that is not in bench/results
shows as not measured, and the check says so.
"""

REACHED = {True: "within", False: "**outside**", None: "not known"}


def table(documents: Sequence[dict[str, Any]]) -> str:
    """How all figures with a limit stand, those that come first, and where the others are."""
    wanted = [f for document in documents for f in document["figures"] if f["wanted"]]
    missed = [f for f in wanted if f["reached"] is False]
    unclear = [f for f in wanted if f["reached"] is None]
    return (
        f"{_first(documents)}\n\nOf {len(wanted)} figures that have a limit "
        f"{len(wanted) - len(missed) - len(unclear)} are within it, {len(missed)} are "
        f"**outside**, and of {len(unclear)} it is not known: intervals lie on both sides. All of "
        "them, with the reason of each that is not reached and what it would take: "
        f"[bench/RESULTS.md](bench/RESULTS.md).\n\n{_missed(documents)}"
    )


def _first(documents: Sequence[dict[str, Any]]) -> str:
    figures = {(d["bench"], f["name"]): f for d in documents for f in d["figures"]}
    rows = [_row(figures.get(key), key) for key in FIRST]
    return "\n".join(["| measured | value | wanted | |", "|---|---:|---|---|", *rows])


def _row(figure: dict[str, Any] | None, key: tuple[str, str]) -> str:
    if figure is None:
        return f"| {'.'.join(key)} | **not measured** | | |"
    return (
        f"| {figure['text']} | {number(figure['value'])} {figure['unit']} "
        f"| {figure['wanted'].partition(';')[0]} | {REACHED[figure['reached']]} |"
    )


def _missed(documents: Sequence[dict[str, Any]]) -> str:
    """Which measurements have figures that are not reached, each with its link."""
    links = [
        f"[{document['bench']}](bench/RESULTS.md#{document['bench']}) ({count})"
        for document in documents
        if (count := len(reasons.missed(document)))
    ]
    return f"Not reached, or not known: {', '.join(links)}." if links else ""


def problems(documents: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Rows of the front page that nothing stands behind."""
    known = {(d["bench"], f["name"]) for d in documents for f in d["figures"]}
    for bench, figure in FIRST:
        if (bench, figure) not in known:
            yield f"bench/front.py: {bench}.{figure} is in no file of bench/results"
