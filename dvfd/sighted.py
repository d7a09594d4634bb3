"""See every node of the cluster as one engine has scraped it, in its own labels and at one moment.

What an engine does not say, or cannot be believed of, is a node that is not seen, with the reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.errors import HistoryError
from dvfd.fleet import Seen, seen
from dvfd.history.past import patterns, where
from dvfd.history.question import quoted
from dvfd.scraped import LONGEST, WANTED, Series
from dvfd.sighting import place, targets
from dvfd.words import printable

if TYPE_CHECKING:
    from dvfd.config import Config, Member
    from dvfd.history.answer import Line
    from dvfd.history.engine import Engine

TOGETHER = 64
"""Nodes of one question: of each about 60 series come, and an answer may have 20,000."""

FIRST = 'job="dvfd"'
"""What the rules and dashboards call the scrape job: other exporters of a node have another."""


def by_engine(engine: Engine, config: Config, checks: Iterable[str], *, at: float) -> list[Seen]:
    """Each node of *config* at Unix time *at*; of *checks* the criteria too."""
    members, found, named = config.cluster.nodes, [], sorted(checks)
    try:
        engine.in_time()
        for first in range(0, len(members), TOGETHER):
            some = members[first : first + TOGETHER]
            found += _Looking(engine, config, at).at(some, named)
    except HistoryError as error:
        why = f"the engine: {printable(str(error))}"[:LONGEST]
        return [Seen(node=member.name, why=why) for member in members]
    return found


@dataclass(frozen=True, slots=True)
class _Looking:
    """Questions about nodes at one moment."""

    engine: Engine
    config: Config
    moment: float

    def at(self, members: Sequence[Member], checks: Sequence[str]) -> list[Seen]:
        """Each of *members* out of what the engine has of all."""
        settings = self.config.engine
        called = [name for member in members for name in patterns(self.config, member)]
        own = where(settings, called).matchers
        if "job" not in settings.matchers:
            own = f"{FIRST},{own}"
        up = self._by_node(self._ask(f"up{{{own}}}"))
        waits = self._by_node(self._ask(f"timestamp(up{{{own}}})"))
        names = "|".join(sorted(WANTED - {"dvfd_criterion_verdict"}))
        some = f"check=~{quoted('|'.join(checks) or 'none')}"
        told = self._ask(f"{{__name__=~{quoted(names)},{own}}}")
        told += self._ask(f"dvfd_criterion_verdict{{{own},{some}}}")
        series = self._by_node(told)
        return [self._scraped(member, up, waits, series) for member in members]

    def _ask(self, question: str) -> list[Line]:
        return self.engine.instant(question, at=self.moment)

    def _by_node(self, lines: Iterable[Line]) -> dict[str, list[Series]]:
        found: dict[str, list[Series]] = defaultdict(list)
        for line in lines:
            labels = {name: printable(text)[:LONGEST] for name, text in line.labels.items()}
            node = labels.get(self.config.engine.node_label, "")
            _, value = line.points[-1]
            found[node].append(Series(labels.pop("__name__", ""), value, labels))
        return found

    def _scraped(
        self,
        member: Member,
        up: Mapping[str, Sequence[Series]],
        waits: Mapping[str, Sequence[Series]],
        series: Mapping[str, Sequence[Series]],
    ) -> Seen:
        mine = targets(member, up)
        if len(mine) != 1:
            wanted = (
                f"wanted 1 as {self.config.engine.node_label}={place(member)}: "
                "[history] node_label, or url and address in [[cluster.nodes]]"
            )
            some = f"{len(mine)} targets are its own ({', '.join(mine)})"
            none = "no target of the engine is its own"
            return Seen(node=member.name, why=f"{some if mine else none}, {wanted}")
        [name] = mine
        if all(each.value != 1 for each in up[name]):  # of two that scrape it one is enough
            return Seen(node=member.name, why=f"the engine gets no answer of {name}")
        if name not in waits:
            return Seen(node=member.name, why=f"the engine does not say when it scraped {name}")
        age = self.moment - max(each.value for each in waits[name])
        return seen(member.name, series.get(name, ()), at=self.moment, age=age)
