"""Hashes of the same step on several nodes, compared: what each node's daemon cannot do. Pure.

A node compares its own ranks. That two nodes agree within themselves says nothing of their link: a
sum that one of them received wrong is the same wrong one on all its ranks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from dvfd.runs.rows import Event

TOGETHER = 2.0
"""Seconds within which nodes make the same step: synchronous ones do within milliseconds, and a
restart, after which steps are made again, takes longer."""

WAITING = 20_000
"""Hashes that wait for those of other nodes: some hours of a node that is silent."""

Place = tuple[str, int]
"""A kind of hash, and a step."""


class Crossed:
    """Comparisons between *nodes* nodes. Events may come in any order."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._open: OrderedDict[Place, list[dict[str, Event]]] = OrderedDict()
        self._t = array("d")  # of those that all nodes told, in order of time
        self._differed = array("i")

    def add(self, event: Event) -> None:
        """Take a hash that a node told: `text` is its kind and value, `step` its step."""
        kind, _, _ = event.text.partition(" ")
        place = (kind, event.step or 0)
        attempts = self._open.setdefault(place, [])
        for told in attempts:
            if event.node not in told and all(
                abs(o.t - event.t) <= TOGETHER for o in told.values()
            ):
                told[event.node] = event
                break
        else:
            attempts.append(told := {event.node: event})
        if len(told) == self._nodes:
            attempts.remove(told)
            self._keep(list(told.values()))
            if not attempts:
                del self._open[place]
        while len(self._open) > WAITING:
            self._open.popitem(last=False)

    def _keep(self, told: list[Event]) -> None:
        t = min(event.t for event in told)
        at = bisect_right(self._t, t)
        self._t.insert(at, t)
        self._differed.insert(at, _odd(told))

    def count(self, since: float, until: float) -> tuple[int, int]:
        """Nodes compared with others between two run seconds, and how many of them differed."""
        part = slice(bisect_left(self._t, since), bisect_right(self._t, until))
        some = [told for attempts in self._open.values() for told in attempts if len(told) > 1]
        odd = sum(
            _odd(told.values())
            for told in some
            if since <= min(e.t for e in told.values()) <= until
        )
        return (self._nodes - 1) * len(self._t[part]), sum(self._differed[part]) + odd

    @property
    def moments(self) -> array[float]:
        """Run seconds of the comparisons."""
        return self._t


def _odd(told: Collection[Event]) -> int:
    """How many nodes have another hash than most of them."""
    return len(told) - Counter(event.text for event in told).most_common(1)[0][1]
