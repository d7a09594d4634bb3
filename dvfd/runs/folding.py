"""Series of samples folded into minutes of a run. Knows no job and reads no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.model import Kind
from dvfd.runs.rows import Minute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.model import Labels, Metric
    from dvfd.runs.rows import Pen

MINUTE = 60.0

FLOWS = frozenset({"joules"})
"""Units of counters that grow evenly: of a gap only the share that samples stand for counts, for
what is made of them is a rate. A counter of events counts whatever happened in a gap."""


@dataclass(slots=True)
class Piece:
    """A minute of one series so far, or a part of it."""

    minute: int
    count: int = 0
    sum: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    grown: float = 0.0
    covered: float = 0.0


class Track:
    """One series: its newest value, and the minute under way."""

    def __init__(self, metric: Metric) -> None:
        self.piece = Piece(0)
        self.value: float | None = None
        self.t: float | None = None  # run second of the newest sample; None before the first
        self._counts = metric.kind is Kind.COUNTER
        self._flows = metric.unit in FLOWS
        self._max_age = metric.max_age

    def add(self, value: float, t: float) -> float:
        """Take the next sample; how much the counter grew with it."""
        piece = self.piece
        since = math.inf if self.t is None else max(0.0, t - self.t)
        covered = self._stands(since) if self.t is not None else 0.0
        grown = self._grown(value, since)
        piece.covered += covered
        piece.grown += grown
        piece.count += 1
        piece.sum += value
        piece.low, piece.high = min(piece.low, value), max(piece.high, value)
        self.value, self.t = value, t if self.t is None else max(t, self.t)
        return grown

    def _grown(self, value: float, since: float) -> float:
        """Growth since the last value; a drop is a reset to 0 before it."""
        if not self._counts or self.value is None:
            return 0.0
        grown = value - self.value if value >= self.value else value
        if self._flows and since > 0:
            return grown * self._stands(since) / since if math.isfinite(since) else 0.0
        return grown

    def close(self, t: float) -> None:
        """Nothing follows: the newest sample stands until *t*, or until it is too old."""
        if self.t is not None:
            self.piece.covered += self._stands(max(0.0, t - self.t))

    def _stands(self, seconds: float) -> float:
        return min(seconds, self._max_age)


class Folds:
    """Every series that a run needs, written minute by minute.

    `covered` and `grown` of the time between two samples belong to the minute of the second one,
    so that a growth and the seconds in which it happened are never in two minutes.
    """

    def __init__(self, node: str, metrics: Mapping[str, Metric], pen: Pen) -> None:
        self._node = node
        self._metrics = metrics
        self._pen = pen
        self._tracks: dict[tuple[str, Labels], Track] = {}

    def seed(self, metric: str, own: Labels, value: float) -> None:
        """What a counter of events stood at before the next sample."""
        known = self._metrics.get(metric)
        if known and known.kind is Kind.COUNTER and known.unit not in FLOWS:
            self._track(metric, own).value = value

    def add(self, metric: str, own: Labels, value: float, t: float) -> float:
        """Take a sample at run second *t*; how much its counter grew. NaN is no sample: the time
        in which there is nothing else is not covered.
        """
        if not math.isfinite(value):
            return 0.0
        track = self._track(metric, own)
        minute = math.floor(t / MINUTE)
        if track.piece.minute != minute:
            self._put(metric, own, track, minute)
        return track.add(value, t)

    def fresh(self, metric: str, own: Labels) -> bool:
        """Whether no sample of the series came yet."""
        track = self._tracks.get((metric, own))
        return track is None or track.t is None

    def flush(self, before: int | None = None) -> None:
        """Write what is open of the minutes before *before*, or of all."""
        for (metric, own), track in self._tracks.items():
            if before is None or track.piece.minute < before:
                self._put(metric, own, track, track.piece.minute)

    def write(self, metric: str, own: Labels) -> None:
        """Write what is open of one series: what it tells must not be lost with the daemon."""
        track = self._track(metric, own)
        self._put(metric, own, track, track.piece.minute)

    def close(self, t: float) -> None:
        """Write everything: the run ended at run second *t*."""
        for track in self._tracks.values():
            track.close(t)
        self.flush()

    def _track(self, metric: str, own: Labels) -> Track:
        track = self._tracks.get((metric, own))
        if track is None:
            track = self._tracks[metric, own] = Track(self._metrics[metric])
        return track

    def _put(self, metric: str, own: Labels, track: Track, following: int) -> None:
        piece, track.piece = track.piece, Piece(following)
        if track.value is None or not (piece.count or piece.covered):
            return
        if not piece.count:  # the time after a sample that is written already
            piece = Piece(piece.minute, 0, 0.0, track.value, track.value, 0.0, piece.covered)
        self._pen.add([
            Minute(
                node=self._node, metric=metric, labels=own, minute=piece.minute, count=piece.count,
                sum=piece.sum, low=piece.low, high=piece.high, last=track.value,
                grown=piece.grown, covered=piece.covered,
            )
        ])  # fmt: skip
