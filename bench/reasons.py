"""Why a figure is outside of its limit, or not known: a person wrote it, in bench/reasons.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("reasons.toml")


@dataclass(frozen=True, slots=True)
class Reason:
    """Of one figure: what is known of why it is not reached, and what reaching it would take."""

    bench: str
    figure: str
    why: str
    takes: str


def load(text: str) -> list[Reason]:
    """Those of the file. Raises TypeError where one lacks a word, or has one too many."""
    return [Reason(**each) for each in tomllib.loads(text).get("reason", [])]


def missed(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of which something is wanted that was not reached, or is not known to be."""
    return [f for f in document["figures"] if f["wanted"] and f["reached"] is not True]


def under(document: dict[str, Any], reasons: Sequence[Reason]) -> str:
    """What stands under the table of a measurement; empty where all was reached."""
    known = {r.figure: r for r in reasons if r.bench == document["bench"]}
    told = [(f, known[f["name"]]) for f in missed(document) if f["name"] in known]
    return "".join(
        f"\n{'Not reached' if f['reached'] is False else 'Not known'}: {f['text']}. {r.why} "
        f"It would take: {r.takes}\n"
        for f, r in told
    )


def problems(documents: Sequence[dict[str, Any]], reasons: Sequence[Reason]) -> Iterator[str]:
    """A figure without its reason, and a reason without its figure."""
    wanted = {(d["bench"], f["name"]): f for d in documents for f in missed(d)}
    given = [(reason.bench, reason.figure) for reason in reasons]
    for bench, figure in sorted(wanted.keys() - set(given)):
        what = wanted[bench, figure]
        yield (
            f"bench/reasons.toml: {bench}.{figure} ({what['text']}) is not reached, or not known "
            "to be: say why, and what it would take"
        )
    for bench, figure in sorted(set(given) - wanted.keys()):
        yield f"bench/reasons.toml: {bench}.{figure} is reached, or no figure: take the reason out"
    for bench, figure in sorted({each for each in given if given.count(each) > 1}):
        yield f"bench/reasons.toml: {bench}.{figure} has two reasons"
