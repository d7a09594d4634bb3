"""Whether this node may take a job: what is known of the node itself, of no job on it. Pure.

A job that is not there yet can have no throughput, and one that ended a minute ago says nothing of
the next one. So criteria that require a job are left out here, and no other ones are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dvfd.judgements import JOB
from dvfd.masking import masked
from dvfd.model import Severity, Verdict, worst
from dvfd.query import known
from dvfd.store.documents import result_document
from dvfd.words import duration

if TYPE_CHECKING:
    from dvfd.model import Result
    from dvfd.state import CheckState, Snapshot

SCHEMA = 1
"""Raised when a key changes its meaning or goes."""

SKEW = 5.0
"""Seconds by which a test may end later than it is asked for; more, and a clock was wrong."""

DAY = 86_400.0


def document(
    snapshot: Snapshot,
    checks: Collection[str] = (),
    left_out: Collection[str] = (),
    *,
    booted: float,
) -> dict[str, Any]:
    """The live criteria of the node, and those of *checks* as they were last judged, without those
    *left_out*. The verdict is the worst of any of these checks. Raises DvfdError for unknown names.

    *booted* is when the node was started, in Unix seconds: what was tested before says nothing of
    the node as it is, which may have been repaired meanwhile, and that is why one asks.
    """
    named = [known({"check": name}, "check", snapshot.checks) for name in checks]
    for name in left_out:
        known({"criterion": name}, "criterion", snapshot.results)
    asked = [*snapshot.live, *(snapshot.checks[name] for name in dict.fromkeys(named))]
    stale = {state.check.id: _stale(state, snapshot, booted) for state in asked}
    states = {
        state.check.id: tuple(
            _unless(stale[state.check.id], result) for result in _own(state, left_out)
        )
        for state in asked
    }
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
        "tested": {state.check.id: _ended(state) for state in asked if not state.check.watch},
        "troubles": list(snapshot.troubles),
        "results": [result_document(r) for results in states.values() for r in results],
    }
    return masked(found)


def _ended(state: CheckState) -> float | None:
    """When what was judged was measured: judged anew it would look young."""
    return state.drill.ended if state.drill else state.last_run


def _stale(state: CheckState, snapshot: Snapshot, booted: float) -> str:
    """Why the last test of a check says nothing of the node now; empty if it does.

    What is judged by the calendar lapses by itself.
    """
    if state.drill and state.drill.shortened:
        return f"the test was shortened: {state.drill.shortened}"
    ended = _ended(state)
    if state.check.watch or state.check.schedule or ended is None:
        return ""
    age, oldest = snapshot.at - ended, snapshot.config.programme.evidence_days * DAY
    if age < -SKEW:
        return f"the test ended {duration(-age)} in the future: a clock was wrong"
    if ended < booted:
        return f"the test is {duration(age)} old, and the node was started since"
    return f"the test is {duration(age)} old, wanted at most {duration(oldest)}" * (age > oldest)


def _unless(stale: str, result: Result) -> Result:
    """*result*, but for a pass of a test that is *stale*: a failure stays one."""
    if not stale or result.verdict is not Verdict.PASS:
        return result
    reason = f"{stale}: run `dvfd check {result.criterion.check}`; it was PASS: {result.reason}"
    return replace(result, verdict=Verdict.UNKNOWN, reason=reason)


def _own(state: CheckState, left_out: Collection[str]) -> tuple[Result, ...]:
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
