"""The last ten minutes of every live series, in memory. Knows nothing of the disk.

Two doubles a sample in flat arrays: 100 series of 120 samples take a quarter of a MiB, where
Sample objects would take three.

Samples bear the time of day, and silence is time that passed. A wall clock that is set back would
make a silent series young again, so each series also knows by the boot clock when it last spoke.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING

from dvfd.model import Labels, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dvfd.model import Clock

RECENT = 600.0
"""Seconds that the ring answers for without SQL."""

KEPT = RECENT + 60.0
"""Seconds kept behind the newest sample: a pass judges a little after its `at`."""

CROWD = 2048
"""Samples kept of one series: 600 s at the fastest interval, 0.5 s, and half as many again."""

SERIES_LIMIT = 10_000
"""Live series: 16 jobs of 64 ranks with 8 series each, and room. Beyond it, refused and counted."""

SLACK = 32
"""Old samples that may gather before they are cut off, so that a cut is rare."""

AHEAD = 1.0
"""Seconds that a sample may lie ahead of the clock; more is the future of a clock set back."""

UNDATED = 700_000.0
"""Seconds of age of what the disk has from the future: more than any `max_age`, which is a week."""


class Track:
    """One live series. The newest sample always stays, however old."""

    __slots__ = ("ats", "bounds", "heard", "labels", "lead", "metric", "values")

    def __init__(self, metric: str, labels: Labels) -> None:
        self.metric = metric
        self.labels = labels
        self.ats = array("d")
        self.values = array("d")
        self.bounds: dict[float, tuple[float | None, float | None]] = {}
        self.heard = 0.0  # boot time at which the newest sample came
        self.lead = 0.0  # how far that lay ahead of the wall clock then; negative if behind

    def add(self, sample: Sample, now: float, boot: float) -> None:
        """Put a sample in its place by time; the later word on the same instant counts."""
        at = sample.at
        if self.ats and at <= self.ats[-1]:
            self._make_way(at, now)
        place = bisect_left(self.ats, at)
        self.ats.insert(place, at)
        self.values.insert(place, sample.value)
        if sample.low is not None or sample.high is not None:
            self.bounds[at] = (sample.low, sample.high)
        if place == len(self.ats) - 1:
            self.heard, self.lead = boot, at - now
        self._trim()

    def set_back(self, now: float, boot: float) -> Sample | None:
        """The newest sample, as old as it is by the boot clock, if the wall clock was set back
        since it came; else None. What came before it has no place in today's time.
        """
        latest = self.lead + now - (boot - self.heard)
        return replace(self._sample(-1), at=latest) if self.ats[-1] > latest + AHEAD else None

    def between(self, since: float, until: float) -> list[Sample]:
        """The samples of [since, until], oldest first, and the last one before: after a silence
        it is what a counter has grown from.
        """
        first, last = bisect_left(self.ats, since), bisect_right(self.ats, until)
        return [self._sample(i) for i in range(max(0, first - 1), last)]

    def newest(self, until: float) -> Sample:
        """The newest sample not after *until*; if all are, the newest there is."""
        return self._sample(max(0, bisect_right(self.ats, until)) - 1)

    def _sample(self, index: int) -> Sample:
        at = self.ats[index]
        low, high = self.bounds.get(at, (None, None)) if self.bounds else (None, None)
        return Sample(self.metric, self.values[index], at, self.labels, low, high)

    def _make_way(self, at: float, now: float) -> None:
        """Drop what lies ahead of the clock, and the old word on the same instant."""
        if self.ats[-1] > now + AHEAD:
            self._cut(bisect_right(self.ats, now + AHEAD), len(self.ats))
        same = bisect_left(self.ats, at)
        if same < len(self.ats) and self.ats[same] == at:
            self._cut(same, same + 1)

    def _trim(self) -> None:
        if len(self.ats) > CROWD:
            self._cut(0, len(self.ats) - CROWD + SLACK)
        elif len(self.ats) > SLACK and self.ats[SLACK] < self.ats[-1] - KEPT:
            self._cut(0, bisect_left(self.ats, self.ats[-1] - KEPT) - 1)

    def _cut(self, first: int, last: int) -> None:
        if self.bounds:
            for at in self.ats[first:last]:
                self.bounds.pop(at, None)
        del self.ats[first:last]
        del self.values[first:last]


class Recent:
    """All live series by metric. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tracks: dict[str, dict[Labels, Track]] = {}
        self._count = 0

    def add(self, samples: Iterable[Sample]) -> int:
        """Take finite *samples* in; return how many found no room."""
        now, boot = self._clock.now(), self._clock.boot()
        refused = 0
        with self._lock:
            for s in samples:
                track = self._track(s.metric, s.labels)
                if track is None:
                    refused += 1
                else:
                    track.add(s, now, boot)
        return refused

    def remember(self, samples: Sequence[Sample]) -> None:
        """Take in what the disk has of one series, oldest first. If it ends in the future, nobody
        knows when it was.
        """
        self.add(samples)
        track = self._track(samples[-1].metric, samples[-1].labels) if samples else None
        if track is not None and track.lead > AHEAD:
            track.lead = -UNDATED

    def window(
        self, metric: str, since: float, until: float, where: Labels = ()
    ) -> list[tuple[Labels, list[Sample], float]]:
        """For each live series: its labels, its samples of [since, until], and its first `at`.

        A series without any in there gives its newest sample, and so does one that has not spoken
        since the clock was set back.
        """
        now, boot = self._clock.now(), self._clock.boot()
        with self._lock:
            return [
                (t.labels, [last], last.at)
                if (last := t.set_back(now, boot))
                else (t.labels, t.between(since, until) or [t.newest(until)], t.ats[0])
                for t in self._tracks.get(metric, {}).values()
                if matches(t.labels, where)
            ]

    def newest(self, metric: str, until: float = float("inf")) -> list[Sample]:
        """The newest sample of each live series, not after *until* where there is one."""
        now, boot = self._clock.now(), self._clock.boot()
        with self._lock:
            tracks = self._tracks.get(metric, {}).values()
            return [t.set_back(now, boot) or t.newest(until) for t in tracks]

    def metrics(self) -> list[str]:
        """The metrics that have live series."""
        with self._lock:
            return [metric for metric, tracks in self._tracks.items() if tracks]

    def end(self, where: Mapping[str, str], metric: str = "") -> None:
        """Forget the series that have all the labels of *where*; of *metric* alone, if given."""
        wanted = tuple(where.items())
        with self._lock:
            chosen = [self._tracks.get(metric, {})] if metric else self._tracks.values()
            for tracks in chosen:
                for labels in [known for known in tracks if matches(known, wanted)]:
                    del tracks[labels]
                    self._count -= 1

    def has(self, metric: str, labels: Labels) -> bool:
        """Whether this series is live."""
        with self._lock:
            return labels in self._tracks.get(metric, {})

    def dated(self, metric: str, labels: Labels) -> bool:
        """Whether this series is live, and the clock was not set back since it spoke: its samples
        lie where they are looked for.
        """
        now, boot = self._clock.now(), self._clock.boot()
        with self._lock:
            track = self._tracks.get(metric, {}).get(labels)
            return track is not None and track.set_back(now, boot) is None

    def __len__(self) -> int:
        return self._count

    def _track(self, metric: str, labels: Labels) -> Track | None:
        tracks = self._tracks.setdefault(metric, {})
        track = tracks.get(labels)
        if track is None and self._count < SERIES_LIMIT:
            track = tracks[labels] = Track(metric, labels)
            self._count += 1
        return track


def matches(labels: Labels, where: Labels) -> bool:
    """Whether *labels* has every pair of *where*."""
    return not where or set(where) <= set(labels)
