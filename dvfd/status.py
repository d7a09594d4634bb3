"""A snapshot as one versioned document: what `dvfd status -o json` and its text print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dvfd.model import Result
from dvfd.state import CheckState, Snapshot

SCHEMA = 1
"""Raised when a key changes its meaning or goes."""


def document(snapshot: Snapshot, *, running: bool) -> dict[str, Any]:
    """Everything that *snapshot* knows, as plain JSON values; *running*: a daemon stands behind."""
    return {
        "schema": SCHEMA,
        "running": running,
        "node": snapshot.config.node.name,
        "version": snapshot.version,
        "catalogue": snapshot.catalogue.hash,
        "profile": snapshot.config.profile_hash,
        "at": snapshot.at,
        "started_at": snapshot.started_at,
        "verdict": str(snapshot.verdict),
        "troubles": list(snapshot.troubles),
        "overrides": list(snapshot.catalogue.overrides),
        "readings": snapshot.config.readings,
        "checks": [_check(state) for state in snapshot.checks.values()],
        "probes": [asdict(health) for health in snapshot.probes.values()],
        "loops": {
            name: {"age": loop.age, "limit": loop.limit, "late": loop.late}
            for name, loop in snapshot.loops.items()
        },
        "jobs": [dict(job) for job in snapshot.jobs],
        "alerts": [asdict(alert) for alert in snapshot.raised],
        "delivery": {
            "mode": snapshot.delivery.mode,
            "waiting": snapshot.delivery.waiting,
            "outcomes": dict(snapshot.delivery.outcomes),
            "peers": [asdict(peer) for peer in snapshot.delivery.peers],
        },
        "ingest": dict(snapshot.ingest),
        "store": {
            "ok": snapshot.store.ok,
            "reason": snapshot.store.reason,
            "queue": snapshot.store.queue,
            "last_commit": snapshot.store.last_commit,
            "path": str(snapshot.store.path),
        },
    }


def _check(state: CheckState) -> dict[str, Any]:
    return {
        "id": state.check.id,
        "title": state.check.title,
        "clause": state.check.clause,
        "watch": state.check.watch,
        "verdict": str(state.verdict),
        "last_run": state.last_run,
        "last_pass": state.last_pass,
        "duration": state.duration,
        "error": state.error,
        "results": [result_document(result) for result in state.results],
    }


def result_document(result: Result) -> dict[str, Any]:
    """A result with all that a reader needs to check it: both sides, and what it rests on."""
    criterion = result.criterion
    return {
        "criterion": criterion.id,
        "item": criterion.item,
        "clause": criterion.clause,
        "text": criterion.text,
        "verdict": str(result.verdict),
        "severity": str(criterion.severity),
        "reason": result.reason,
        "observed": result.observed,
        "comparison": str(criterion.comparison),
        "limit": result.limit,
        "unit": criterion.unit,
        "margin": result.margin,
        "coverage": result.coverage,
        "samples": result.samples,
        "sampled_at": result.sampled_at,
        "labels": dict(result.labels),
        "at": result.at,
        "note": result.note,
        "overridden": criterion.overridden,
        "source": criterion.source,
    }


def report_summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """The few keys of a stored report that a history shows."""
    return {key: document[key] for key in ("check", "verdict", "at", "late")}
