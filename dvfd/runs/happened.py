"""What happened in a run, as a report tells it: counts, marks, a list that is bounded. Pure."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from dvfd.masking import redacted
from dvfd.runs.availability import stretches, total
from dvfd.runs.rows import What

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dvfd.runs.rows import Event
    from dvfd.runs.run import Run

ROUTINE = frozenset({What.UP, What.BEGUN, What.SAVED, What.VERIFIED, What.PROBED, What.HASHED})
"""Events that a healthy run has by the thousand: counted, and not listed."""

FIRST, LAST = 300, 100
"""Events that are listed of a run with more of them: how it began to go wrong, and how it ended."""

STRETCHES = 200
"""Stretches that are listed: the longest; all of them are in the totals."""

TEXT = 500
"""Letters kept of what an event says: a whole traceback explains no more."""

LANES = {
    "checkpoints saved": frozenset({What.SAVED}),
    "checkpoints failed or damaged": frozenset({What.FAILED, What.DAMAGED, What.UNVERIFIED}),
    "restarts": frozenset({What.RESTART}),
    "failures": frozenset({What.FAILURE}),
    "injected faults": frozenset({What.INJECTED, What.PLANNED}),
    "synchronisation issues": frozenset({What.ISSUE}),
    "daemon, clock and silent nodes": frozenset(
        {What.DAEMON, What.CLOCK, What.SUSPENDED, What.SILENT}
    ),
}
"""What is marked on the time axis, and as what."""

MARKS = 240
"""Places on that axis."""


def happened(run: Run, events: Iterable[Event], until: float) -> dict[str, Any]:
    """Everything that the events of *run* tell, up to run second *until*."""
    found = sorted(events, key=_order)
    since = run.began_t or 0.0
    until = max(until, since)
    return {
        "observed": _observed(run, found, since, until),
        "checkpoints": _checkpoints(found),
        "marks": _marks(found, since, until),
        **_listed([e for e in found if e.what not in ROUTINE]),
    }


def _order(event: Event) -> tuple[Any, ...]:
    """By time; the rest only so that equal times have one order."""
    rank = -1 if event.rank is None else event.rank
    step = -1 if event.step is None else event.step
    return event.t, event.at, event.node, event.what, rank, step, event.text


def _observed(run: Run, events: Sequence[Event], since: float, until: float) -> dict[str, Any]:
    found = stretches(events, nodes=run.plan.nodes, since=since, until=until)
    amiss = [each for each in found if each.what is not What.UP]
    kept = sorted(amiss, key=lambda s: (-s.length, s.since))[:STRETCHES]
    length = max(until - since, 1e-9)
    unseen = total(found, What.UNSEEN)
    return {
        "seconds": until - since,
        "up": total(found, What.UP),
        "down": total(found, What.DOWN),
        "unseen": unseen,
        "coverage": 1.0 - unseen / length if found else None,
        "stretches": [
            {"what": s.what.value, "since": s.since, "until": s.until, "text": _text(s.text)}
            for s in sorted(kept, key=lambda s: s.since)
        ],
        "stretches_left_out": len(amiss) - len(kept),
    }


def _checkpoints(events: Sequence[Event]) -> dict[str, Any]:
    """Counts by how it went, and how long a save took."""
    counts = Counter(event.what for event in events)
    took = [e.value for e in events if e.what is What.SAVED and e.value is not None]
    names = {
        "begun": What.BEGUN, "saved": What.SAVED, "failed": What.FAILED, "verified": What.VERIFIED,
        "damaged": What.DAMAGED, "unverified": What.UNVERIFIED,
    }  # fmt: skip
    return {
        **{name: counts[what] for name, what in names.items()},
        "save_seconds_mean": math.fsum(took) / len(took) if took else None,
        "save_seconds_longest": max(took, default=None),
    }


def _marks(events: Sequence[Event], since: float, until: float) -> list[dict[str, Any]]:
    """For each lane, how many there were at which place of MARKS along the run."""
    span = max(until - since, 1e-9)
    found = []
    for name, kinds in LANES.items():
        inside = [e.t for e in events if e.what in kinds and since <= e.t <= until]
        places = Counter(min(MARKS - 1, int((t - since) / span * MARKS)) for t in inside)
        found.append({
            "lane": name,
            "count": len(inside),
            "places": [[place, places[place]] for place in sorted(places)],
        })  # fmt: skip
    return found


def _listed(events: Sequence[Event]) -> dict[str, Any]:
    left_out = max(0, len(events) - FIRST - LAST)
    kept = [*events[:FIRST], *events[FIRST + left_out :]]
    return {"events": [_event(e) for e in kept], "events_left_out": left_out}


def _event(event: Event) -> dict[str, Any]:
    return {
        "t": event.t, "at": event.at, "node": event.node, "what": event.what.value,
        "rank": event.rank, "step": event.step, "value": event.value, "text": _text(event.text),
    }  # fmt: skip


def _text(text: str) -> str:
    """Without secrets, and not endless."""
    short = redacted(text)
    return short if len(short) <= TEXT else f"{short[:TEXT]}… ({len(text)} letters)"
