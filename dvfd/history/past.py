"""The past of one node out of an engine, in the shape in which the lists ask the store for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dvfd.errors import HistoryError
from dvfd.history.course import Courses, Where
from dvfd.history.question import HOUR, MEAN, MEDIAN, among, exactly, literal
from dvfd.model import Kind
from dvfd.sighting import place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dvfd.config import Config, History, Member
    from dvfd.history.course import Reading
    from dvfd.model import Labels, Metric, Sample
    from dvfd.state import Run


class EnginePast:
    """One node's past over one period. Raises HistoryError for what cannot be believed."""

    def __init__(
        self, reading: Reading, metrics: Mapping[str, Metric], node: str, patterns: Iterable[str]
    ) -> None:
        """*node* is called like one of *patterns* in *reading*, which may be of many nodes."""
        self._reading = reading
        self._metrics = metrics
        self._node = node
        self._called = re.compile("|".join(patterns))

    def latest(self, metric: str) -> Sequence[Sample]:
        """The newest sample of each series that was there in the last hour of the period."""
        end = self._reading.period.until - HOUR
        counts = self._metrics[metric].kind is Kind.COUNTER
        # A gauge's newest is the same whatever is asked of its hours: the lists ask for medians.
        mine = self._mine(self._all(metric) if counts else self._reading.gauge(metric, MEDIAN))
        found = [samples[-1] for samples in mine.values() if samples]
        return [sample for sample in found if sample.at > end]

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of one series in [since, until]: a counter's values, a gauge's means."""
        return self._cut(self._all(metric), labels, since, until)

    def medians(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of a gauge, whole hours as their medians."""
        return self._cut(self._reading.gauge(metric, MEDIAN), labels, since, until)

    def all(self, metric: str) -> list[Sample]:
        """Every series of *metric* in the whole period."""
        mine = self._mine(self._all(metric))
        self._one({key.node for key in mine})
        return [sample for samples in mine.values() for sample in samples]

    def reports(self, check_id: str, limit: int) -> Sequence[Run]:
        """None: an engine keeps no reports."""
        return ()

    @property
    def newest(self) -> float | None:
        """When the newest sample was taken of whatever was asked for so far."""
        return self._reading.newest

    def _all(self, metric: str) -> Courses:
        if self._metrics[metric].kind is Kind.COUNTER:
            return self._reading.counter(metric)
        return self._reading.gauge(metric, MEAN)

    def _one(self, nodes: Collection[str]) -> None:
        """Raises HistoryError if several targets are the one node."""
        if len(nodes) > 1:
            raise HistoryError(
                f"{len(nodes)} targets are {self._node} ({', '.join(sorted(nodes))}), wanted 1: "
                "[history] node, or matchers"
            )

    def _mine(self, courses: Courses) -> Courses:
        called = self._called.fullmatch
        return {key: samples for key, samples in courses.items() if called(key.node)}

    def _cut(self, courses: Courses, labels: Labels, since: float, until: float) -> list[Sample]:
        period = self._reading.period
        if since < period.since or until > period.until:
            raise HistoryError(
                f"{since:.0f} to {until:.0f} was asked for, {period.since:.0f} to "
                f"{period.until:.0f} was read"
            )
        mine = {k.node: found for k, found in self._mine(courses).items() if k.labels == labels}
        self._one(mine)
        found = next(iter(mine.values()), [])
        return [sample for sample in found if since <= sample.at <= until]


def where(settings: History, nodes: Iterable[str]) -> Where:
    """The matchers of a question about *nodes*, given as patterns."""
    own = among(settings.node_label, nodes)
    return Where(",".join(filter(None, (exactly(settings.matchers), own))), settings.node_label)


def patterns(config: Config, member: Member | None = None) -> tuple[str, ...]:
    """What the engine may call *member*, or this node: as RE2 and Python's re read it alike."""
    settings, own = config.history, config.cluster.named(config.node.name)
    if settings.node and (member is None or member == own):
        return (literal(settings.node),)
    who = member or own
    names = (who.name, who.address) if who else (config.node.name,)
    places = [place(who)] if who and who.url else []
    return tuple(
        dict.fromkeys([*map(literal, places), *(rf"{literal(name)}(:[0-9]+)?" for name in names)])
    )
