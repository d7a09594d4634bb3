"""The looks at a job between which its steps are counted, as columns of numbers. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from dvfd.spent import Course

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dvfd.model import Sample

STILL = 1e-9
"""Steps that are none: counters are whole numbers, kept as floats."""


@dataclass(frozen=True, slots=True)
class Stride:
    """The time between two looks, Unix seconds: `steps` of the rank that did least, and the
    seconds they took.
    """

    since: float
    until: float
    steps: float
    stepping: float
    observed: float

    @property
    def whole(self) -> float:
        """Seconds."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Rank:
    """What a rank's series say: counts of steps, and by look the means of a step's sections."""

    rank: int
    steps: Sequence[Sample]
    step: Mapping[float, float] = field(default_factory=dict)
    compute: Mapping[float, float] = field(default_factory=dict)


def by_time(samples: Sequence[Sample]) -> dict[float, float]:
    """Values by when they were taken: those of one look have one moment."""
    return {sample.at: sample.value for sample in samples}


def strides(looks: Sequence[Sample], ranks: Sequence[Rank]) -> Iterator[Stride]:
    """From look to look."""
    observed = Course(looks)
    counts = [_counts(rank.steps, looks) for rank in ranks]
    for place, (before, after) in enumerate(pairwise(looks)):
        a, b = before.at, after.at
        grown = [_grown(column[place], column[place + 1]) for column in counts]
        took = [g * r.step.get(b, 0.0) for g, r in zip(grown, ranks, strict=True)]
        steps = min(grown, default=0.0)
        stepping = min(b - a, min(took, default=0.0)) if steps > STILL else 0.0
        yield Stride(a, b, steps, stepping, min(b - a, observed.grown(a, b)))


def _counts(steps: Sequence[Sample], looks: Sequence[Sample]) -> list[float]:
    """A counter at every look; NaN before it was first told."""
    found, place, value = [], 0, math.nan
    for look in looks:
        while place < len(steps) and steps[place].at <= look.at:
            value = steps[place].value
            place += 1
        found.append(value)
    return found


def _grown(before: float, after: float) -> float:
    """How much a counter grew; one that began again grew by what it is now."""
    if math.isnan(before) or math.isnan(after):
        return 0.0
    return after - before if after >= before else after


def began_again(steps: Sequence[Rank], looks: Sequence[Sample]) -> list[int]:
    """The places of *looks* at which every rank that is known counts from the start again."""
    counts = [_counts(rank.steps, looks) for rank in steps]
    found = []
    for place in range(1, len(looks)):
        both = [(c[place - 1], c[place]) for c in counts]
        known = [(a, b) for a, b in both if not math.isnan(a) and not math.isnan(b)]
        if known and all(b < a for a, b in known):
            found.append(place)
    return found
