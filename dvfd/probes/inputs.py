"""From what others expose to a site's metrics: which series, in which unit, how many at most."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dvfd.model import Sample, Unseen, labels
from dvfd.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.exposition import Exposed
    from dvfd.model import Labels, Metric

LONGEST = 200
"""Characters of a label's value."""

TOLD = 5
"""Problems of one pass that are told: a broken exporter has thousands of the same."""

SEVERAL = 20
"""Series of a metric that are named as not told; of more, all of the metric counts as such."""

AHEAD = 5.0
"""Seconds that a timestamp may lie ahead of our clock: file systems and exporters round."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One exposed sample: where it stands, and since when it is true in Unix seconds."""

    place: str
    at: float
    found: Exposed


@dataclass(slots=True)
class Taken:
    """What the metrics of an input come to."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    unseen: list[Unseen] = field(default_factory=list)

    def refuse(self, metric: Metric, why: str, known: Labels = ()) -> None:
        """A series that is there, and says nothing that could be taken."""
        self.problems.append(why)
        self.unseen.append(Unseen(metric.name, why, known))


@dataclass(frozen=True, slots=True)
class Admitted:
    """What there was room for, and in words what there was none for."""

    samples: list[Sample]
    beyond: str
    unseen: list[Unseen]


class Allowance:
    """How many series all inputs of a site may bring together. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[tuple[str, Labels]] = set()
        self._lock = threading.Lock()

    def admit(self, samples: Iterable[Sample]) -> Admitted:
        """Those of known series, and of new ones while there is room."""
        admitted: list[Sample] = []
        refused: list[Sample] = []
        with self._lock:
            for sample in samples:
                series = (sample.metric, sample.labels)
                if series in self._known or len(self._known) < self._most:
                    self._known.add(series)
                    admitted.append(sample)
                else:
                    refused.append(sample)
        words = self._words(refused)
        return Admitted(admitted, words, [Unseen(s.metric, words, s.labels) for s in refused])

    def _words(self, refused: Sequence[Sample]) -> str:
        if not refused:
            return ""
        return (
            f"{len(refused)} series beyond the {self._most} of [site] series, such as"
            f" {refused[0].metric}{dict(refused[0].labels)}: choose fewer, or allow more"
        )


def bounded(found: Iterable[Unseen]) -> tuple[Unseen, ...]:
    """*found*, without the names of each where there are many."""
    of: dict[str, list[Unseen]] = defaultdict(list)
    for each in found:
        of[each.metric].append(each)
    return tuple(kept for each in of.values() for kept in _named(each))


def _named(found: Sequence[Unseen]) -> Iterator[Unseen]:
    if len(found) <= SEVERAL:
        yield from found
    else:
        yield Unseen(found[0].metric, f"{found[0].why}, and {len(found) - 1} more")


def take(metrics: Iterable[Metric], seen: Sequence[Seen]) -> Taken:
    """A sample for each series that a metric names. Two of one name and labels are none: nobody
    knows which is true.
    """
    by_name: dict[str, list[Seen]] = defaultdict(list)
    for each in seen:
        by_name[each.found.name].append(each)
    taken = Taken()
    for metric in metrics:
        assert metric.origin
        chosen = [s for s in by_name[metric.origin.series] if _meant(metric, s)]
        if not chosen:
            taken.missing[metric.name] = f"no series {metric.origin.series}{_braces(metric)}"
        _add(metric, chosen, taken)
    if (more := len(taken.problems) - TOLD) > 0:
        taken.problems[TOLD:] = [f"and {more} more"]
    return taken


def _meant(metric: Metric, seen: Seen) -> bool:
    assert metric.origin
    return all(seen.found.labels.get(name) == value for name, value in metric.origin.where)


def _braces(metric: Metric) -> str:
    assert metric.origin
    pairs = ",".join(f"{name}={value}" for name, value in metric.origin.where)
    return f"{{{pairs}}}" if pairs else ""


def _add(metric: Metric, chosen: Sequence[Seen], taken: Taken) -> None:
    assert metric.origin
    series: dict[Labels, list[Seen]] = defaultdict(list)
    for each in chosen:
        lacking = [name for name in metric.labels if name not in each.found.labels]
        value = each.found.value * metric.origin.times
        if lacking:
            taken.refuse(metric, f"{_where(each)}: it has no label {lacking[0]!r}")
        elif not math.isfinite(value):
            why = f"{_where(each)}: is {each.found.value}, wanted a number"
            taken.refuse(metric, why, _labels(metric, each))
        else:
            series[_labels(metric, each)].append(each)
    for known, found in series.items():
        if len(found) > 1:
            why = f"{_where(found[1])}: also in {found[0].place}: which is true?"
            taken.refuse(metric, why, known)
        else:
            value = found[0].found.value * metric.origin.times
            taken.samples.append(Sample(metric.name, value, found[0].at, known))


def _labels(metric: Metric, seen: Seen) -> Labels:
    said = seen.found.labels
    return labels(**{name: printable(said[name])[:LONGEST] for name in metric.labels})


def _where(seen: Seen) -> str:
    return f"{seen.place} line {seen.found.line}: {seen.found.name}"
