"""Checkpoints of a run: how many were owed, begun, saved and verified. Pure.

A checkpoint is owed at every multiple of the plan's interval that the steps passed, and wherever
one was begun besides. Those of one multiple are one, whichever rank tells of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.runs.answers import ANSWERS, verdicts
from dvfd.runs.rows import What

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dvfd.runs.rows import Event

SAVING = 600.0
"""Seconds in which a checkpoint that was begun may still be saved; twice what a large one takes,
and the verifier's own limit."""

GRACE = 0.02
"""Share of the batches between two checkpoints in which a job may begin the one that is due."""

LATE = 0.25
"""Share of that interval by which a checkpoint may lie beside its multiple and stand for it."""


@dataclass(frozen=True, slots=True)
class Owed:
    """Counts, and of how many of the saved and the verified the answer has not come yet."""

    expected: int
    attempted: int
    saved: int
    verified: int
    saving: int
    verifying: int


def owed(
    events: Mapping[What, Sequence[Event]], *, every: int, first: int, reached: int, until: float
) -> Owed:
    """What *events* say, if steps *first* to *reached* were made up to run second *until*."""
    grace = max(2, round(GRACE * every))

    def steps(*whats: What) -> set[int]:
        told = (event.step for what in whats for event in events.get(what, ()))
        return {_place(step, every) for step in told if step is not None}

    saved, failed = steps(What.SAVED), steps(What.FAILED)
    begun = steps(What.BEGUN) | saved | failed
    answers = verdicts(sorted(_told(events), key=_order))
    found = {_place(step, every): what for step, what in answers.items() if step is not None}
    verified = {step for step, what in found.items() if what is What.VERIFIED}
    damaged = {step for step, what in found.items() if what is What.DAMAGED}
    again = sum(
        event.step is not None and _place(event.step, every) in saved
        for event in events.get(What.FAILED, ())
    )  # a save that failed is one, also where the next try made up for it
    late = {_place(step, every) for step in _recent(events.get(What.BEGUN, ()), until)}
    return Owed(
        expected=_due(begun, every, grace, first, reached) + again,
        attempted=len(begun) + again,
        saved=len(saved),
        verified=len(verified),
        saving=len((late & begun) - saved - failed),
        verifying=len(saved - verified - damaged),
    )


def _told(events: Mapping[What, Sequence[Event]]) -> Iterable[Event]:
    return (event for what in (What.SAVED, *ANSWERS) for event in events.get(what, ()))


def _order(event: Event) -> tuple[float, bool, str, str]:
    """By time; an answer after the save that it may be on."""
    return (event.t, event.what in ANSWERS, event.what, event.text)


def _place(step: int, every: int) -> int:
    """The multiple of the interval that *step* stands for, else the step itself."""
    nearest = round(step / every) * every
    return nearest if nearest > 0 and abs(step - nearest) <= LATE * every else step


def _recent(events: Iterable[Event], until: float) -> Iterable[int]:
    return (e.step for e in events if e.step is not None and until - e.t < SAVING)


def _due(begun: set[int], every: int, grace: int, first: int, reached: int) -> int:
    """How many multiples were passed or begun; the newest not yet while hardly a step has followed.

    Counted and never listed: a rank may say that it made 10^18 steps.
    """
    last = reached // every
    if last * every not in begun and reached - last * every <= grace:
        last -= 1
    passed = range((first - 1) // every + 1, last + 1)
    others = sum(step % every != 0 or step // every not in passed for step in begun)
    return len(passed) + others
