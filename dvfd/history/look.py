"""Look at the engine that [history] names: if it answers, how far back, which series there are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.history.engine import Engine
from dvfd.history.past import patterns, where
from dvfd.history.question import HOUR, PREFIX, among

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.config import Config

NEEDED = {
    "job_observed_seconds_total": "uptime",
    "job_up_seconds_total": "uptime",
    "job_throughput_samples_per_second": "trend and efficiency",
    "job_processes": "trend and efficiency",
    "job_hash_comparisons_total": "gradient sync",
    "job_hash_mismatches_total": "gradient sync",
    "job_communication_ratio": "communication",
}
"""What the lists rest on, and which line of them."""

FIRST = ("build_info", "job_observed_seconds_total")
"""What shows that a node was scraped."""

DAYS = 32
"""A month's list reads 31: counters are read from a day before."""

NEWEST = 600.0
"""Seconds back in which the newest sample is looked for."""

WITHIN = 15.0
"""Seconds for all of it."""


@dataclass(frozen=True, slots=True)
class Looked:
    """`ahead` in seconds; `targets` are what the engine calls this node, `since` the first hour and
    `newest` the last moment of which it has samples, `series` how many there are of each metric.
    """

    words: str
    ahead: float
    called: str
    targets: tuple[str, ...] = ()
    since: float | None = None
    newest: float | None = None
    series: Mapping[str, int] | None = None

    @property
    def needed(self) -> Mapping[str, str]:
        """The metrics that the lists rest on, and which line of them."""
        return NEEDED


def look(config: Config, engine: Engine | None = None, *, now: float | None = None) -> Looked:
    """What the engine of *config* shows of this node. Raises HistoryError."""
    asked = engine or Engine(config.history, end=time.monotonic() + WITHIN)
    at = time.time() if now is None else now
    nodes = where(config.history, patterns(config))
    shown = f"{{{named(FIRST)},{nodes.matchers}}}"
    ahead = asked.ahead()
    last = at // HOUR * HOUR
    course = asked.range(
        f"count by ({nodes.node_label}) (last_over_time({shown}[1h]))",
        since=last - DAYS * 24 * HOUR, until=last, step=HOUR,
    )  # fmt: skip
    near = asked.raw(shown, since=at - NEWEST, until=at)
    there = asked.instant(
        f"count by (__name__) (last_over_time({{{named(NEEDED)},{nodes.matchers}}}[1h]))", at=at
    )
    lines = [*course, *near]
    return Looked(
        words=asked.words,
        ahead=ahead,
        called=nodes.matchers,
        targets=tuple(sorted({line.labels.get(nodes.node_label, "") for line in lines})),
        since=min((line.points[0][0] - HOUR for line in course), default=None),
        newest=max((line.points[-1][0] for line in near), default=None),
        series={
            line.labels.get("__name__", "").removeprefix(PREFIX): int(line.points[0][1])
            for line in there
        },
    )


def named(metrics: Mapping[str, str] | tuple[str, ...]) -> str:
    """A matcher for any of *metrics*."""
    return among("__name__", [f"{PREFIX}{metric}" for metric in metrics])
