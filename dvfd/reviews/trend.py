"""The hours of a series, and what the child process that does the statistics says of them."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd import shell
from dvfd.errors import ProbeError, ToolError
from dvfd.reviews.uptime import HOUR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dvfd.drills.drill import Runner
    from dvfd.model import Sample

COMPUTING = 60.0
"""Seconds: it takes less than one."""

HALF = HOUR / 2
"""Seconds of an hour that must have been observed for its median to stand for it."""


@dataclass(frozen=True, slots=True)
class Ends:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Ends:
        """All three by a *factor* above 0."""
        return Ends(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Trend:
    """`slope` an hour as a share of `level`, the median; of `count` hours only `effective` tell
    something of their own.
    """

    slope: Ends
    level: Ends
    count: int
    effective: float


def by_hour(samples: Iterable[Sample]) -> dict[int, float]:
    """The rollups among *samples* that stand for at least half an hour, by the number of it."""
    return {
        int(s.at // HOUR) - 1: s.value for s in samples if s.span >= HALF and s.at % HOUR == 0.0
    }


def ask(series: Sequence[Mapping[int, float]], *, run: Runner | None = None) -> list[Trend | str]:
    """The trend of each of *series*, hour to median, or why there is none.

    Raises ToolError if the child fails, ProbeError if its answer is none.
    """
    asked = [
        {"hours": sorted(hours), "values": [hours[hour] for hour in sorted(hours)]}
        for hours in series
    ]
    argv = [sys.executable, "-P", "-m", "dvfd.reviews.slopes"]
    done = (run or shell.run)(argv, timeout=COMPUTING, stdin=json.dumps(asked).encode())
    if done.code:
        said = done.stderr.strip().splitlines() or [f"exit code {done.code}"]
        raise ToolError(f"dvfd.reviews.slopes: {said[-1][:300]}")
    try:
        found = [_read(row) for row in json.loads(done.stdout)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeError(
            f"dvfd.reviews.slopes: its answer cannot be read: {error!r:.200}"
        ) from None
    if len(found) != len(series):
        raise ProbeError(f"dvfd.reviews.slopes: {len(found)} answers to {len(series)} questions")
    return found


def _read(row: Mapping[str, Any]) -> Trend | str:
    if "trouble" in row:
        return str(row["trouble"])
    return Trend(_ends(row["slope"]), _ends(row["level"]), int(row["count"]), _n(row["effective"]))


def _ends(row: Mapping[str, Any]) -> Ends:
    value, low, high = (_n(row[key]) for key in ("value", "low", "high"))
    if not low <= value <= high:
        raise ValueError(f"{value} is not within {low} to {high}")
    return Ends(value, low, high)


def _n(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no finite number")
    return float(value)
