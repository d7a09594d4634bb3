"""What a review is about: days, a job over them, and the past that is asked for both."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dvfd.errors import DvfdError
from dvfd.model import Sample, labels
from dvfd.reviews.uptime import HOUR
from dvfd.state import Past as Everything

if TYPE_CHECKING:
    from dvfd.model import Labels

DAY = 86_400.0

PERIOD = re.compile(r"(\d+)d")


class Days(Protocol):
    """What the figures of one job are made of: the store's, or an engine's."""

    def latest(self, metric: str) -> Sequence[Sample]:
        """The newest sample of each live series of *metric*."""
        ...

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of one series over [since, until], oldest first."""
        ...

    def medians(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of a gauge, whole hours as their medians."""
        ...


class Past(Everything, Days, Protocol):
    """What is asked of the store."""


@dataclass(frozen=True, slots=True)
class Period:
    """The days that a list is about; `name` as in the catalogue, like `7d`. It begins at a whole
    hour, so it is up to an hour longer than its name says.
    """

    name: str
    since: float
    until: float

    @classmethod
    def ending(cls, name: str, until: float) -> Period:
        """The one that ends at *until*."""
        days = PERIOD.fullmatch(name)
        if days is None:
            raise DvfdError(f"period {name!r}: wanted a number of days, like 7d")
        return cls(name, math.floor((until - int(days[1]) * DAY) / HOUR) * HOUR, until)

    @property
    def hours(self) -> int:
        """Whole hours in it."""
        return int((self.until - self.since) // HOUR)

    @property
    def length(self) -> float:
        """Seconds that its name says."""
        return int(self.name.removesuffix("d")) * DAY


@dataclass(frozen=True, slots=True)
class Job:
    """One live job over a period."""

    name: str
    up: Sequence[Sample]
    observed: Sequence[Sample]
    processes: int
    pace: Mapping[int, float]  # median throughput by hour, on as many processes as now

    @property
    def labels(self) -> Labels:
        """Of its own series."""
        return labels(job=self.name)
