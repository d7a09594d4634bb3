"""How often each collective of a sweep is timed where the time does not suffice for all. Pure.

A bucket takes milliseconds on a fast network and ten seconds on a slow one that many ranks share.
What is left out is said, and by whom it is judged decides what that means.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

TURNS = 10

FEWEST = 5
"""Turns that the smallest and the largest of bound their median with 94 % (the sign test)."""

WARM = 1
"""Iterations before the first that counts, where they are few: lines are open by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One exercise: seconds of an iteration, as a smaller one lets expect, and how many are wanted.

    *group* names those that are compared, and so are timed equally often. What is *needed* is
    given up last.
    """

    seconds: float
    wanted: int
    warm_up: int
    group: Hashable
    needed: bool = False

    @property
    def whole(self) -> float:
        """Seconds of all iterations."""
        return self.seconds * (self.wanted + self.warm_up)


def pace(costs: Sequence[Cost], room: float, longest: float) -> list[int]:
    """Iterations of each: all that are wanted if they fit in *room* seconds; fewer of the costly
    groups if not; 0 of what takes *longest* seconds by itself, or for which there is no room.
    """
    kept = [i for i, cost in enumerate(costs) if cost.seconds < longest]
    found = [cost.wanted if i in kept else 0 for i, cost in enumerate(costs)]
    if sum(costs[i].whole for i in kept) <= room:
        return found
    costly = _costly(costs, kept, room)
    rest = room - sum(costs[i].whole for i in kept if i not in costly)
    for i in sorted(costly, key=lambda i: (not costs[i].needed, costs[i].seconds), reverse=True):
        if costs[i].needed or _seconds(costs, costly) * (FEWEST + WARM) <= rest:
            break
        costly.remove(i)
        found[i] = 0
    for i in costly:
        fit = int(rest / _seconds(costs, costly)) - WARM
        found[i] = min(costs[i].wanted, max(FEWEST, fit))
    return found


def _costly(costs: Sequence[Cost], kept: Sequence[int], room: float) -> list[int]:
    """Those of groups that take more than their share of *room*."""
    groups: dict[Hashable, list[int]] = {}
    for i in kept:
        groups.setdefault(costs[i].group, []).append(i)
    each = room / len(kept)
    return [i for g in groups.values() if sum(costs[i].whole for i in g) > each * len(g) for i in g]


def _seconds(costs: Sequence[Cost], which: Sequence[int]) -> float:
    return sum(costs[i].seconds for i in which)


def turn(iterations: int, number: int) -> int:
    """How many of *iterations* the turn of that number has: where they are few, one or none."""
    first, last = (iterations * n // TURNS for n in (number, number + 1))
    return last - first
