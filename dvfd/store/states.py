"""States over time: rows say when a subject changed; what nobody saw is a state of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from dvfd.store.operations import Move

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dvfd.store.database import Database

UNOBSERVED = "unobserved"
"""The state of everything while no daemon looked."""


@dataclass(frozen=True, slots=True)
class Interval:
    """*subject* was in *state* from `since` to `until`, Unix seconds."""

    subject: str
    state: str
    since: float
    until: float

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.until - self.since


def rows(database: Database, subject: str, since: float, until: float) -> list[tuple[float, str]]:
    """The changes of [since, until], and the one before them. Raises sqlite3.Error."""
    before = database.read(
        "SELECT at, state FROM transitions WHERE subject = ? AND at < ? ORDER BY at DESC LIMIT 1",
        subject, since,
    )  # fmt: skip
    inside = database.read(
        "SELECT at, state FROM transitions WHERE subject = ? AND at BETWEEN ? AND ? ORDER BY at",
        subject, since, until,
    )  # fmt: skip
    return [(at, state) for at, state in (*before, *inside)]


def intervals(
    subject: str, changes: Iterable[tuple[float, str]], since: float, until: float
) -> list[Interval]:
    """Cover [since, until] without a hole; before the first change nothing was observed."""
    found: list[Interval] = []
    points = [(since, UNOBSERVED), *sorted(c for c in changes if c[0] <= until), (until, "")]
    for (at, state), (end, _) in pairwise(points):
        start = max(at, since)
        if end <= start:
            continue
        if found and found[-1].state == state:
            found[-1] = Interval(subject, state, found[-1].since, end)
        else:
            found.append(Interval(subject, state, start, end))
    return found


def unseen(
    states: Iterable[tuple[str, tuple[str, float]]], last_seen: float | None
) -> Iterator[Move]:
    """After a restart: from the last sample of the old daemon on, nobody looked. A change that came
    after that stands beside it: of the same moment there is one row.
    """
    for subject, (state, at) in states:
        if state != UNOBSERVED:
            after = math.nextafter(at, math.inf)
            yield Move(subject, UNOBSERVED, after if last_seen is None else max(after, last_seen))
