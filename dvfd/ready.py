"""Whether this node may take a job: what is known of the node itself, of no job on it. Pure.

A job that is not there yet can have no throughput, and one that ended a minute ago says nothing of
the next one. So criteria that require a job are left out here, and no other ones are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from dvfd.judgements import JOB
from dvfd.masking import masked
from dvfd.model import Severity, worst
from dvfd.query import known
from dvfd.store.documents import result_document

if TYPE_CHECKING:
    from dvfd.state import CheckState, Snapshot

SCHEMA = 1
"""Raised when a key changes its meaning or goes."""


def document(
    snapshot: Snapshot, checks: Collection[str] = (), left_out: Collection[str] = ()
) -> dict[str, Any]:
    """The live criteria of the node, and those of *checks* as they were last judged, without those
    *left_out*. The verdict is the worst of any of these checks. Raises DvfdError for unknown names.
    """
    named = [known({"check": name}, "check", snapshot.checks) for name in checks]
    for name in left_out:
        known({"criterion": name}, "criterion", snapshot.results)
    asked = [*snapshot.live, *(snapshot.checks[name] for name in dict.fromkeys(named))]
    states = {state.check.id: _own(state, left_out) for state in asked}
    deciding = [
        worst(r.verdict for r in results if r.criterion.severity is Severity.CRITICAL)
        for results in states.values()
    ]
    found = {
        "schema": SCHEMA,
        "check": "ready",
        "node": snapshot.config.node.name,
        "at": snapshot.at,
        "verdict": str(worst(deciding)),
        "asked": list(states),
        "left_out": sorted(set(left_out)),
        "troubles": list(snapshot.troubles),
        "results": [result_document(r) for results in states.values() for r in results],
    }
    return masked(found)


def _own(state: CheckState, left_out: Collection[str]) -> tuple[Any, ...]:
    """The results of a check that are about the node."""
    return tuple(
        result
        for result in state.results
        if JOB not in result.criterion.requires and result.criterion.id not in left_out
    )


def asked_of(request: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The names that a *request* gives under *key*: a list, or none."""
    given = request.get(key)
    return tuple(map(str, given)) if isinstance(given, list) else ()
