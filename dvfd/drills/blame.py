"""Who is slow: a node, a link between two, or one direction of it. Pure, from figures to words.

A pair alone says nothing of which end is at fault. Only what its ends do with others does: a node
is blamed where it is slow with everybody, while those are well among themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Rates = Mapping[tuple[str, str], float | None]
"""Bytes a second by sender and receiver; None where nothing came through."""


class What(StrEnum):
    """What is at fault."""

    ALL = "all"
    NODE = "node"
    SENDING = "sending"
    RECEIVING = "receiving"
    LINK = "link"
    DIRECTION = "direction"


@dataclass(frozen=True, slots=True)
class Blame:
    """One culprit, in words for a person; *nodes* are those that it is about."""

    what: What
    nodes: tuple[str, ...]
    text: str


def blame(rates: Rates, wanted: float) -> list[Blame]:
    """Who explains that pairs are below *wanted* bytes a second: each slow pair is of one."""
    slow = {pair for pair, rate in rates.items() if rate is None or rate < wanted}
    names = list(dict.fromkeys(name for pair in rates for name in pair))
    if not slow:
        return []
    if len(names) > 2 and slow == set(rates):
        text = f"every pair is slow ({_span(rates, slow)}): what all share, or the limit"
        return [Blame(What.ALL, tuple(names), text)]
    found = list(_ends(rates, slow, names)) if len(names) > 2 else []
    explained = {pair for each in found for pair in slow if _explains(each, pair)}
    return found + list(_pairs(rates, slow - explained, two=len(names) == 2))


def _ends(rates: Rates, slow: set[tuple[str, str]], names: Sequence[str]) -> Iterator[Blame]:
    """Nodes that are slow with all of at least two others."""
    for name in names:
        out = {pair for pair in rates if pair[0] == name}
        into = {pair for pair in rates if pair[1] == name}
        sends, receives = (len(way) > 1 and way <= slow for way in (out, into))
        partners = f"all {len(names) - 1} others, which are well without it"
        if sends and receives:
            text = f"node {name}: slow with {partners} ({_span(rates, out | into)})"
            yield Blame(What.NODE, (name,), text)
        elif sends:
            text = f"node {name} sends slowly to {partners} ({_span(rates, out)})"
            yield Blame(What.SENDING, (name,), text)
        elif receives:
            text = f"node {name} receives slowly from {partners} ({_span(rates, into)})"
            yield Blame(What.RECEIVING, (name,), text)


def _explains(each: Blame, pair: tuple[str, str]) -> bool:
    name = each.nodes[0]
    sends = each.what in {What.NODE, What.SENDING} and pair[0] == name
    return sends or (each.what in {What.NODE, What.RECEIVING} and pair[1] == name)


def _pairs(rates: Rates, slow: set[tuple[str, str]], *, two: bool) -> Iterator[Blame]:
    """What is left: links that are slow both ways, and single directions."""
    place = {pair: number for number, pair in enumerate(rates)}
    for a, b in (pair for pair in rates if pair in slow):
        if (b, a) not in slow:
            ends = f": {a} as a sender, {b} as a receiver, or the way between" if two else ""
            text = f"direction {a} -> {b}{ends} ({_span(rates, {(a, b)})})"
            yield Blame(What.DIRECTION, (a, b), text)
        elif place[a, b] < place[b, a]:
            ends = " or either end" if two else ""
            text = f"the link {a}-{b}{ends} ({_span(rates, {(a, b), (b, a)})})"
            yield Blame(What.LINK, (a, b), text)


def _span(rates: Rates, pairs: set[tuple[str, str]]) -> str:
    """The slowest and the fastest of *pairs*."""
    found = [rates[pair] for pair in pairs]
    known = sorted(rate for rate in found if rate is not None)
    if not known:
        return "nothing came through"
    low, high = gbps(known[0]), gbps(known[-1])
    text = low if low == high else f"{low} to {high}"
    return f"{text}; in part nothing came through" if len(known) < len(found) else text


def gbps(rate: float) -> str:
    """Bytes a second as a person knows links: `372 Gbps`."""
    return f"{rate * 8 / 1e9:.3g} Gbps"
