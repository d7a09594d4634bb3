"""Seconds in which a job was seen to be up, beside the seconds in which that could be seen.

Two looks make a span. It counts as up if the job was well at both ends and no rank came back in
between; as unobserved if either end was unknown or the looks are too far apart: nobody knows what
happened while dvfd was away. Blind time is in neither counter, so it can never look like uptime.
"""

from __future__ import annotations

from dataclasses import dataclass

LATE_LOOKS = 3.0
"""Intervals between two looks beyond which the time between them is unobserved: the sampler calls
a probe late after as many."""


@dataclass(slots=True)
class Tally:
    """The counters of one job. Times are CLOCK_BOOTTIME seconds: a suspended machine is a gap."""

    up: float = 0.0
    observed: float = 0.0
    samples: float = 0.0
    at: float | None = None
    well: bool | None = None
    restarts: int = 0

    def look(self, *, well: bool | None, restarts: int, now: float, interval: float) -> None:
        """Count the span since the last look. *well* is None while it cannot be said."""
        span = None if self.at is None else now - self.at
        seen = self.well is not None and well is not None
        if span is not None and seen and 0.0 < span <= LATE_LOOKS * interval:
            self.observed += span
            if self.well and well and restarts == self.restarts:
                self.up += span
        self.at, self.well, self.restarts = now, well, restarts
