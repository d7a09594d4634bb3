"""What an engine has of the days of every node of a cluster: all of them at once, or one by one.

Judges nothing. Where something of one node cannot be believed that node alone is blind, and
says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dvfd.errors import HistoryError
from dvfd.history.course import Period as Stretch
from dvfd.history.course import Reading
from dvfd.history.past import EnginePast, patterns, where
from dvfd.reviews.period import Period
from dvfd.reviews.review import (
    AVAILABILITY,
    BEFORE,
    OBSERVED,
    SYNC,
    TREND,
    Wanted,
    agreement,
    job_of,
)
from dvfd.words import printable

if TYPE_CHECKING:
    from dvfd.config import Config, Member
    from dvfd.fleet import Seen
    from dvfd.history.engine import Engine
    from dvfd.model import Catalogue, Check, Criterion
    from dvfd.reviews.period import Days, Job

MADE = frozenset({AVAILABILITY, TREND, SYNC})
"""Figures that are made of an engine's series; all others are the nodes' own words."""

Months = dict[str, list["Job"]]
"""The live jobs of a node, by the name of each period."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node: as it is seen now, and what an engine has of its days, or why that is nothing."""

    seen: Seen
    jobs: Months = field(default_factory=dict)
    past: Days | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """Of the cluster."""
        return self.seen.node


def gathered(
    engine: Engine, config: Config, catalogue: Catalogue, check: Check, nodes: Sequence[Seen], *,
    at: float,
) -> list[Node]:  # fmt: skip
    """The live jobs of each of *nodes* over the periods of *check* that end at *at*.

    All are asked for at once. Where something cannot be believed each is asked for alone, so that
    one blinds no other.
    """
    desk = _Gathering(engine, config, catalogue, check, at)
    try:
        reading = desk.reading(config.cluster.nodes)
        return [desk.node(node, reading) for node in nodes]
    except HistoryError:
        return [desk.alone(node) for node in nodes]


@dataclass(frozen=True, slots=True)
class _Gathering:
    """What is asked of an engine for one list."""

    engine: Engine
    config: Config
    catalogue: Catalogue
    check: Check
    at: float

    @property
    def periods(self) -> list[Period]:
        """Those that its figures are about."""
        return [Period.ending(name, self.at) for name in Wanted(made(self.check)).periods]

    def reading(self, members: Iterable[Member]) -> Reading:
        """What the engine has of *members*, asked when it is needed."""
        since = min((period.since for period in self.periods), default=self.at) - BEFORE
        called = [name for member in members for name in patterns(self.config, member)]
        place = where(self.config.engine, called)
        return Reading(self.engine, self.catalogue.metrics, place, Stretch(since, self.at))

    def alone(self, node: Seen) -> Node:
        """One node, or why nothing of it can be believed."""
        try:
            self.engine.in_time()
            return self.node(node, self.reading([self._member(node)]))
        except HistoryError as error:
            return Node(node, why=printable(str(error)))

    def node(self, node: Seen, reading: Reading) -> Node:
        """One node of a reading. Raises HistoryError."""
        called = patterns(self.config, self._member(node))
        past = EnginePast(reading, self.catalogue.metrics, node.node, called)
        jobs = {
            period.name: [job_of(past, newest, period) for newest in past.latest(OBSERVED)]
            for period in self.periods
        }
        if any(criterion.metric == SYNC for criterion in made(self.check)):
            for period in self.periods:  # read here, where what cannot be believed is caught
                for job in jobs[period.name]:
                    list(agreement(past, job, period, 0.0))
        return Node(node, jobs, past)

    def _member(self, node: Seen) -> Member:
        return next(each for each in self.config.cluster.nodes if each.name == node.node)


def made(check: Check) -> list[Criterion]:
    """The criteria of *check* whose figures an engine's series make."""
    return [c for c in check.criteria if c.metric in MADE and not c.inapplicable]
