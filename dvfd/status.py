"""A snapshot as one versioned document: what `dvfd status -o json` and its text print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dvfd.gates.words import lacking
from dvfd.masking import masked
from dvfd.state import CheckState, Snapshot
from dvfd.store.documents import result_document, run_document

SCHEMA = 1
"""Raised when a key changes its meaning or goes."""


def document(snapshot: Snapshot, *, running: bool) -> dict[str, Any]:
    """Everything that *snapshot* knows, as plain JSON values; *running*: a daemon stands behind."""
    found = {
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
        "notices": list(snapshot.notices),
        "overrides": list(snapshot.catalogue.overrides),
        "readings": snapshot.config.readings,
        "checks": [check_document(state) for state in snapshot.checks.values()],
        "probes": [asdict(health) for health in snapshot.probes.values()],
        "loops": {
            name: {**asdict(loop), "late": loop.late} for name, loop in snapshot.loops.items()
        },
        "gates": [brief(gate) for gate in snapshot.gates.get("gates", ())],
        "jobs": [dict(job) for job in snapshot.jobs],
        "log_lines": [dict(line) for line in snapshot.log_lines],
        "incidents": [dict(incident) for incident in snapshot.failures.on],
        "alerts": [asdict(alert) for alert in snapshot.raised],
        "delivery": {
            "mode": snapshot.delivery.mode,
            "waiting": snapshot.delivery.waiting,
            "outcomes": dict(snapshot.delivery.outcomes),
            "peers": [asdict(peer) for peer in snapshot.delivery.peers],
        },
        "ingest": dict(snapshot.ingest),
        "scraped_at": snapshot.scraped_at,
        "store": {
            "ok": snapshot.store.ok,
            "reason": snapshot.store.reason,
            "queue": snapshot.store.queue,
            "last_commit": snapshot.store.last_commit,
            "path": str(snapshot.store.path),
        },
    }
    return masked(found)


def brief(gate: Mapping[str, Any]) -> dict[str, Any]:
    """A gate in a line: what dvfd recommends, how much is open, who has yet to sign."""
    open_ = lacking(gate["lines"])
    return {
        "gate": gate["gate"],
        "title": gate["title"],
        "outcome": gate["outcome"],
        "authorised": gate["authorised"],
        "missing": gate["missing"],
        "due": gate["due"]["day"] if gate["due"] else "",
        "lines": len(gate["lines"]),
        "open": len(open_),
        "failed": sum(line["verdict"] == "FAIL" for line in open_),
        "first": f"{open_[0]['id']}: {open_[0]['reason']}" if open_ else "",
        "overridden": any(each["override"] for each in gate["signatures"]),
    }


def check_document(state: CheckState) -> dict[str, Any]:
    """A check with all its results."""
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
        "drill": None if state.drill is None else run_document(state.drill),
        "results": [result_document(result) for result in state.results],
    }
