"""A report as a JSON document, schema version 1, complete enough to be judged by a stranger."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvfd.model import Report, Result, Run

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A kept run of a check. `late` in seconds; `scheduled` is when it was due, if it was."""

    check_id: str
    at: float
    verdict: str
    late: float
    scheduled: float | None
    text: str

    @property
    def document(self) -> dict[str, Any]:
        """The report's JSON document, see `report_document`."""
        loaded: dict[str, Any] = json.loads(self.text)
        return loaded


def report_document(report: Report) -> dict[str, Any]:
    """Everything a report says, as JSON types. A value that is not finite is null."""
    return {
        "schema": SCHEMA,
        "check": report.check.id,
        "title": report.check.title,
        "clause": report.check.clause,
        "phase": report.check.phase,
        "at": report.at,
        "late": report.late,
        "node": report.node,
        "verdict": report.verdict.value,
        "hashes": {
            "catalogue": report.catalogue_hash,
            "profile": report.profile_hash,
            "environment": report.environment_hash,
        },
        "drill": None if report.run is None else run_document(report.run),
        "results": [result_document(result) for result in report.results],
    }


def run_document(run: Run) -> dict[str, Any]:
    """Of the drill whose figures were judged."""
    return {
        "began": run.began,
        "ended": run.ended,
        "shortened": run.shortened,
        "by": run.by,
        "processes": run.processes,
        "facts": [{"name": name, "text": text} for name, text in run.facts],
    }


def result_document(result: Result) -> dict[str, Any]:
    """One criterion's verdict with its evidence, and both sides of the comparison."""
    criterion = result.criterion
    return {
        "criterion": criterion.id,
        "item": criterion.item,
        "clause": criterion.clause,
        "text": criterion.text,
        "metric": criterion.metric,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "observed": _finite(result.observed),
        "comparison": criterion.comparison.value,
        "limit": _finite(result.limit),
        "margin": _finite(result.margin),
        "unit": criterion.unit,
        "coverage": _finite(result.coverage),
        "samples": result.samples,
        "sampled_at": result.sampled_at,
        "severity": criterion.severity.value,
        "labels": dict(result.labels),
        "remark": result.note,
        "note": "; ".join(note for note in (result.note, criterion.note) if note),
        "overridden": criterion.overridden,
        **({"waived": asdict(result.waived)} if result.waived else {}),
        "at": result.at,
    }


def to_text(document: object) -> str:
    """JSON as stored. A value that JSON has no word for is written as its string."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, default=str)


def stored(report: Report, scheduled: float | None) -> StoredReport:
    """*report* as it is kept."""
    return StoredReport(
        report.check.id,
        report.at,
        report.verdict.value,
        report.late,
        scheduled,
        to_text(report_document(report)),
    )


def verdicts(document: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Which criterion has which verdict: what decides whether a report says anything new."""
    return tuple((r["criterion"], r["verdict"]) for r in document.get("results", ()))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
