"""Read dvfd's series again: from a node's /metrics, or from what a Prometheus answers. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dvfd.errors import ProbeError
from dvfd.words import printable

LONGEST = 200
"""Characters of a label's value: the longest of ours are names of jobs."""

WANTED = frozenset(
    {
        "dvfd_build_info",
        "dvfd_check_verdict",
        "dvfd_criterion_verdict",
        "dvfd_loop_late",
        "dvfd_store_ok",
        "dvfd_job_throughput_samples_per_second",
        "dvfd_rank_compute_seconds",
        "dvfd_probe_last_success_timestamp_seconds",
    }
)
"""What the view of all nodes rests on: a fraction of what a node exposes."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series and its newest value."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def exposed(text: bytes) -> list[Series]:
    """The wanted series of a node's /metrics. Raises ProbeError for what is no exposition."""
    try:
        families = list(text_string_to_metric_families(text.decode()))
    except (ValueError, KeyError, IndexError) as error:  # UnicodeDecodeError is a ValueError
        raise ProbeError(f"its /metrics cannot be read: {error!r:.120}") from None
    found = [
        Series(sample.name, float(sample.value), _plain(sample.labels))
        for family in families
        for sample in family.samples
        if sample.name in WANTED and math.isfinite(sample.value)
    ]
    if not any(series.name == "dvfd_build_info" for series in found):
        raise ProbeError("its /metrics has no dvfd_build_info: it is no dvfd, or is starting")
    return found


def answered(body: bytes) -> list[Series]:
    """The series of a Prometheus' answer to an instant query. Raises ProbeError with its words."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProbeError(f"answers no JSON: {error}") from None
    match document:
        case {"status": "success", "data": {"resultType": "vector", "result": list(rows)}}:
            return list(_rows(rows))
        case {"status": "error", "error": str(why)}:
            raise ProbeError(f"refuses: {why:.200}")
    raise ProbeError(f"answers like no Prometheus: {document!r:.80}")


def _rows(rows: Iterable[Any]) -> Iterable[Series]:
    for row in rows:
        match row:
            case {"metric": dict(labels), "value": [_, str(text)]}:
                named = _plain(labels)
                try:
                    value = float(text)
                except ValueError:
                    continue
                if math.isfinite(value):
                    yield Series(named.pop("__name__", ""), value, named)


def _plain(labels: Mapping[Any, Any]) -> dict[str, str]:
    """Labels as a terminal may show them: whatever a node says moves no cursor, fills no page."""
    return {str(key): printable(str(value))[:LONGEST] for key, value in labels.items()}
