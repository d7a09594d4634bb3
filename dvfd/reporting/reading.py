"""Read the past of a job as finely as the store still has each part of it, once.

The store answers a whole window at one resolution: that of its oldest end. Here a week is read by
the hour where only hours are left, by the minute after that; two hours are read look by look.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from dvfd.spent import AHEAD, forward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.model import Labels, Sample
    from dvfd.state import Past, Run

HOUR = 3600.0
MINUTE = 60.0
LOOK = 5.0
"""Seconds between two looks, as a daemon has them unless it is told otherwise."""

MINUTES_KEPT = 47.5 * HOUR
"""Seconds for which the store surely has minutes: it keeps them for 49 h, and answers by them up
to 48 h."""

RAW_KEPT = 25.0 * HOUR
"""Seconds for which it surely has every sample: 26 h, less what a report takes to be made."""

FINE = 2.0 * HOUR
"""Periods up to this long are read sample by sample: 1440 looks of each series."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the period that is read at once."""

    since: float
    until: float
    grain: float  # seconds that a sample of it may stand for


def pieces(since: float, until: float, now: float) -> tuple[Piece, ...]:
    """[since, until] in parts, oldest first, each at the finest that is left of it."""
    if until - since <= FINE and since >= now - RAW_KEPT:
        count = max(1, math.ceil((until - since) / HOUR))
        edges = [since + n * (until - since) / count for n in range(count)] + [until]
        return tuple(Piece(a, b, LOOK) for a, b in pairwise(edges))
    turn = math.ceil((now - MINUTES_KEPT) / HOUR) * HOUR
    old = (Piece(since, min(until, turn), HOUR),) if since < turn else ()
    new = (Piece(max(since, turn), until, MINUTE),) if until > turn else ()
    return old + new


class Fine:
    """A past over one period; each series is read once. Implements dvfd.state.Past."""

    def __init__(
        self, past: Past, *, since: float, until: float, now: float, begins: Sequence[float] = ()
    ) -> None:
        """*begins* are moments at which counters may begin again, and no clock was set back."""
        self._past = past
        self._now = now
        self._begins = sorted(begins)
        self.pieces = pieces(since, until, now)
        self._read: dict[tuple[str, Labels], list[Sample]] = {}
        self._fallen: dict[str, int] = {}

    def set_back(self, metric: str) -> int:
        """Samples of a counter that a clock which was set back left over: it takes several. One or
        two that lie lower are what a daemon that was killed had not written yet.
        """
        fallen = self._fallen.get(metric, 0)
        return fallen if fallen >= AHEAD else 0

    @property
    def grain(self) -> float:
        """Seconds of the coarsest part."""
        return max(piece.grain for piece in self.pieces)

    def latest(self, metric: str) -> Sequence[Sample]:
        """The newest sample of each live series of *metric*, however old."""
        return self._past.latest(metric)

    def reports(self, check_id: str, limit: int) -> Sequence[Run]:
        """The newest kept runs of a check, newest first."""
        return self._past.reports(check_id, limit)

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of one series over the part of [since, until] that is in the period."""
        found = self.whole(metric, labels)
        first = bisect_left(found, since, key=_at)
        return found[first : bisect_right(found, until, key=_at)]

    def whole(self, metric: str, labels: Labels) -> list[Sample]:
        """All of one series."""
        key = (metric, labels)
        if key not in self._read:
            found: dict[float, Sample] = {}
            for piece in self.pieces:
                read = self._past.series(metric, labels, since=piece.since, until=piece.until)
                found.update((s.at, s) for s in read if piece.since <= s.at <= piece.until)
            found |= self._after(metric, labels, max(found, default=0.0))
            rows = [found[at] for at in sorted(found)]
            kept = self._forward(rows) if metric.endswith("_total") else rows
            fallen = len(rows) - len(kept)
            self._fallen[metric] = max(fallen, self._fallen.get(metric, 0))
            self._read[key] = kept
        return self._read[key]

    def _forward(self, rows: Sequence[Sample]) -> list[Sample]:
        edges = [0, *(bisect_left(rows, began, key=_at) for began in self._begins), len(rows)]
        return [sample for a, b in pairwise(edges) for sample in forward(rows[a:b])]

    def _after(self, metric: str, labels: Labels, last: float) -> dict[float, Sample]:
        """What came after the moment *last*: the last minute of a daemon that stopped was never
        folded.
        """
        found: dict[float, Sample] = {}
        newest = self.pieces[-1]
        since, until = max(last, newest.since, self._now - RAW_KEPT), newest.until
        while newest.grain > LOOK and until - since > MINUTE:
            read = self._past.series(metric, labels, since=since, until=min(until, since + HOUR))
            found |= {s.at: s for s in read if last < s.at <= until and not s.span}
            since += HOUR
        return found


def _at(sample: Sample) -> float:
    return sample.at
