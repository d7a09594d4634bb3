"""Up, down and unseen time of a run's workers, from the transitions in its file. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.runs.rows import What

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dvfd.runs.rows import Event

STATES = {What.UP: 2, What.UNSEEN: 1, What.DOWN: 0}
"""The worst of all nodes counts: a job is down with any of its workers."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which the job was in one state; run seconds."""

    what: What
    since: float
    until: float
    text: str = ""

    @property
    def length(self) -> float:
        """Seconds."""
        return self.until - self.since


def stretches(events: Iterable[Event], *, nodes: int, since: float, until: float) -> list[Stretch]:
    """Cover [since, until] without a hole. A node that said nothing yet was not seen."""
    moves = sorted((e for e in events if e.what in STATES), key=lambda e: (e.t, STATES[e.what]))
    now: dict[str, tuple[What, str]] = {}
    found: list[Stretch] = []
    at = since
    for event in moves:
        if event.t > at:
            _extend(found, _worst(now, nodes), at, min(event.t, until))
            at = max(at, min(event.t, until))
        now[event.node] = (event.what, event.text)
    _extend(found, _worst(now, nodes), at, until)
    return found


def _worst(now: dict[str, tuple[What, str]], nodes: int) -> tuple[What, str]:
    silent = nodes - len(now)
    states = list(now.values())
    if silent > 0:
        states.append((What.UNSEEN, f"{silent} of {nodes} nodes said nothing yet"))
    return min(states, key=lambda each: (STATES[each[0]], each[1]))


def _extend(found: list[Stretch], state: tuple[What, str], since: float, until: float) -> None:
    if until <= since:
        return
    what, text = state
    last = found[-1] if found else None
    if last and last.what is what and last.text == text and last.until == since:
        found[-1] = Stretch(what, last.since, until, text)
    else:
        found.append(Stretch(what, since, until, text))


def total(found: Sequence[Stretch], what: What) -> float:
    """Seconds in one state."""
    return sum((each.length for each in found if each.what is what), 0.0)
