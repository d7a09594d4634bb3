"""Collectives between nodes: what the ranks are asked to time, and what their answer says.

What is timed and how stands in `dvfd.drills.workers.fleet_collectives`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.drills import collectives, fleet
from dvfd.drills.collectives import measured
from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from dvfd.drills.collectives import Measured
    from dvfd.drills.drill import Task

WORKER = "dvfd.drills.workers.fleet_collectives"

TIMEOUT = 15.0
"""Seconds of one collective: 4 ranks of a node exchange a bucket with 4 of another in 0.8 on a link
of 1 Gbit/s. After it a rank that is missing is looked for, as long again: torchrun gives the ranks
of a node that lost one 30 in all."""

LONGEST = 900.0
"""Seconds of a whole sweep: 100 or 200 on two busy cores."""

ROOM, LEAST_ROOM = 600.0, 60.0
"""Seconds for the timing in it, and in a test however short: the patterns and the estimates before
it take a minute on two busy cores."""

HALF = "half"
"""The team that is the first half of each node's ranks, as the worker calls it."""


Asked = tuple[str, str, str, str]
"""An operation, an algorithm, a message and a team."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What came of a sweep. `whole` is the fewest shares of an all-gather that any rank found right
    and in their places; `graphs` are NCCL's own."""

    ranks: int
    measured: tuple[Measured, ...]
    shortened: Mapping[Asked, str]  # what was timed less often than asked, or not at all, and why
    whole: int | None
    graphs: tuple[str, ...]
    addresses: Mapping[str, tuple[str, ...]]  # that each node's ranks listened on

    def of(self, operation: str, algorithm: str, message: str, team: str = "all") -> Measured:
        """One of the measured. Raises ProbeError if it is none of them."""
        wanted = (operation, algorithm, message, team)
        for each in self.measured:
            if (each.operation, each.algorithm, each.message, each.team) == wanted:
                return each
        why = self.shortened.get(wanted, "nobody was asked to")
        raise ProbeError(f"{operation} by {algorithm} of {message} was not timed: {why}")

    def untimed(self, message: str) -> dict[str, str]:
        """The algorithms by which an all-reduce of *message* was asked for and not timed, and
        why."""
        timed = {each.algorithm for each in self.all_reduces(message)}
        return {
            algorithm: why
            for (operation, algorithm, about, team), why in self.shortened.items()
            if (operation, about, team) == ("all_reduce", message, "all") and algorithm not in timed
        }

    def all_reduces(self, message: str) -> list[Measured]:
        """Every algorithm's of one message over all ranks, the fastest first."""
        wanted = ("all_reduce", message, "all")
        found = [m for m in self.measured if (m.operation, m.message, m.team) == wanted]
        return sorted(found, key=lambda each: each.median)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Collectives by message, in the order in which they take their turns."""

    name: str
    rows: tuple[tuple[str, Mapping[str, Any]], ...]

    def exercise(self, task: Task) -> fleet.Exercise:
        """What the ranks are told."""
        options = {
            "backend": task.config.profile.backend,
            "timeout": TIMEOUT,
            "room": room(task),
            "exercises": [dict(row) for _, row in self.rows],
        }
        return fleet.Exercise(name=self.name, module=WORKER, seconds=LONGEST, options=options)

    def read(self, task: Task) -> Swept:
        """What the ranks say. Raises ProbeError in their words where one of them failed."""
        found = fleet.answer(task)
        heard = found.of(self.name)
        if heard.failures:
            raise ProbeError(heard.why)
        try:
            return self._swept(heard.values, found.nodes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProbeError(f"answer of the ranks: {error}: wanted what they write") from None

    def _swept(self, values: Mapping[int, Any], nodes: Sequence[fleet.Met]) -> Swept:
        """Raises KeyError, TypeError, ValueError, AttributeError if they say something else."""
        size, first = sum(len(node.ranks) for node in nodes), values[0]
        worlds = {said["world"] for said in values.values()}
        if worlds != {size}:
            raise ValueError(f"worlds of {worlds} ranks, not {size}")
        rows = [
            (row, asked, message, _often(row, asked))
            for row, (message, asked) in zip(first["exercises"], self.rows, strict=True)
        ]
        return Swept(
            size,
            tuple(
                measured(row, asked, message, _ranks(asked, nodes), often=often)
                for row, asked, message, often in rows
                if often != 0
            ),
            {
                (asked["operation"], asked["algorithm"], message, asked["team"]): _why(row, asked)
                for row, asked, message, often in rows
                if often is not None
            },
            _whole(values.values()),
            tuple(str(line) for line in first["graphs"]),
            {node.name: _listened(values, node.ranks) for node in nodes},
        )


def room(task: Task) -> float:
    """Seconds for all timing: in a shortened test as much less as it is shorter."""
    share = task.planned / task.check.duration if task.check.duration else 1.0
    return max(LEAST_ROOM, ROOM * min(1.0, share))


def row(message: str, **about: Any) -> tuple[str, Mapping[str, Any]]:
    """One collective of a sweep: `collectives.exercise` with its message's name."""
    return message, collectives.exercise(message, **about)


def _often(row: Mapping[str, Any], asked: Mapping[str, Any]) -> int | None:
    """How often the ranks timed what they had no time for; None where they had."""
    if row["paced"] is None:
        return None
    often = collectives.count(row["paced"]["iterations"])
    if often >= asked["iterations"]:
        raise ValueError(f"{often} times are no fewer than {asked['iterations']}")
    return often


def _why(row: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """In words why something was timed less often than was asked."""
    often, seconds = row["paced"]["iterations"], float(row["paced"]["seconds"])
    each = f"a part of it lets expect {seconds:.3g} s each"
    if often:
        return f"{often} times instead of {asked['iterations']}, for {each}"
    if seconds >= TIMEOUT / 2:
        return f"{each}; {TIMEOUT / 2:g} s are the most"
    return f"{each}, for which there is no time: see --duration"


def _ranks(asked: Mapping[str, Any], nodes: Sequence[fleet.Met]) -> int:
    """How many ranks an exercise has."""
    part = 2 if asked["team"] == HALF else 1
    return sum(len(node.ranks) // part for node in nodes)


def _whole(said: Any) -> int | None:
    """The fewest of all ranks and messages; None where nothing was gathered."""
    counts = [collectives.count(n) for each in said for n in each["whole"].values()]
    return min(counts, default=None)


def _listened(values: Mapping[int, Any], ranks: Sequence[int]) -> tuple[str, ...]:
    return tuple(sorted({str(place) for rank in ranks for place in values[rank]["addresses"]}))


def ratio(one: Measured, other: Measured) -> tuple[float, float, float]:
    """The first time over the second, and an interval of it.

    Taken turn by turn: what disturbs the node for some seconds disturbs both. Their median, and the
    second smallest and second largest of ten, which bound it with 98 % confidence (the sign test);
    of fewer than nine the smallest and the largest, with 94 % if there are five.
    """
    ratios = sorted(a / b for a, b in zip(one.turns, other.turns, strict=True))
    beside = 1 if len(ratios) >= 9 else 0  # 96 % by the second ones of nine
    return statistics.median(ratios), ratios[beside], ratios[-1 - beside]


def crossover(points: Sequence[tuple[int, float]]) -> float | None:
    """The bytes at which the ratio of two times becomes 1, between the sizes that were tried.

    *points* are bytes and ratios, by bytes; on straight lines between their logarithms. The last
    such place counts; None where there is none.
    """
    found = None
    for (small, before), (large, after) in itertools.pairwise(points):
        if (before < 1) != (after < 1):
            part = math.log(before) / (math.log(before) - math.log(after))
            found = small * (large / small) ** part
    return found
