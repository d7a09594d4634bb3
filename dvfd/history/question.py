"""Put a question into PromQL: selectors, and what is asked of an hour. Pure.

Every expression here is understood alike by Prometheus from 2.26 on, Mimir, Thanos and
VictoriaMetrics: the tests ask two of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX = "dvfd_"

EXPOSED = {"job": "training_job"}
"""Labels that have another name on /metrics, as dvfd.sinks.prometheus has it."""

HOUR = 3600

LAST = "last_over_time({}[1h])"
"""The newest value of each hour, however long before its end: no staleness cuts it off."""

FRESH = "count_over_time({}[2m])"
"""How many samples the last two minutes before each hour's end have: none, and its newest value is
of a moment that is not known."""

MEDIAN = "quantile_over_time(0.5, {}[1h])"

MEAN = "avg_over_time({}[1h])"

LEAST = "min_over_time({}[1h])"

MOST = "max_over_time({}[1h])"

MINUTES = "count_over_time(count_over_time({}[1m])[1h:1m])"
"""In how many minutes of the hour there was any sample: no lookback and no interval is in it."""

RESETS = "resets({}[%ds])"
"""How often a counter began again over so many seconds, gaps included."""


def selector(metric: str, *matchers: str) -> str:
    """The series of *metric* of ours that match all of *matchers*."""
    return f"{PREFIX}{metric}{{{','.join(filter(None, matchers))}}}"


def exactly(pairs: Mapping[str, str]) -> str:
    """Matchers for labels that have just these values."""
    return ",".join(f"{name}={quoted(value)}" for name, value in pairs.items())


def among(label: str, patterns: Iterable[str]) -> str:
    """A matcher for a label that fully matches one of *patterns* of RE2."""
    return f"{label}=~{quoted('|'.join(patterns))}"


def literal(text: str) -> str:
    """*text* as a pattern that RE2 and Python's re read alike."""
    return re.sub(r"([^A-Za-z0-9_-])", r"\\\1", text)


def quoted(text: str) -> str:
    """*text* as a string of PromQL."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
