"""Fold values over stretches of time into the columns of a chart. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dvfd.reporting.story import Line
from dvfd.runs.courses import Course

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dvfd.reporting.story import Span

POINTS = 240
"""Columns of a course at most: one each three pixels of a page's width."""

LEAST = 1.0
"""Seconds of a column at least."""


class Columns:
    """The columns over one run of *whole* seconds."""

    def __init__(self, whole: float) -> None:
        self.whole = max(whole, LEAST)
        self.step = LEAST * math.ceil(self.whole / POINTS / LEAST)

    def line(
        self, name: str, title: str, unit: str, values: Iterable[tuple[float, float, float]]
    ) -> Line:
        """A line of *values*: from and until, in seconds of the run, and how much."""
        course = Course(0.0, self.whole, self.step)
        for began, ended, value in values:
            course.add(began, ended, value, value, value)
        found = course.to_document(name)
        return Line(
            id=name,
            title=title,
            unit=unit,
            step=self.step,
            mean=tuple(found["mean"]),
            low=tuple(found["low"]),
            high=tuple(found["high"]),
        )


def thinned(
    points: Iterable[tuple[float, float]], count: int = POINTS
) -> tuple[tuple[float, float], ...]:
    """*points* by x in at most *count* means of equal width."""
    found = sorted(point for point in points if all(map(math.isfinite, point)))
    if len(found) <= count:
        return tuple(found)
    low, high = found[0][0], found[-1][0]
    width = (high - low) / count or 1.0
    cells: dict[int, list[tuple[float, float]]] = {}
    for x, y in found:
        cells.setdefault(min(count - 1, int((x - low) / width)), []).append((x, y))
    return tuple(_mean(cells[place]) for place in sorted(cells))


def _mean(cell: list[tuple[float, float]]) -> Span:
    return (
        math.fsum(x for x, _ in cell) / len(cell),
        math.fsum(y for _, y in cell) / len(cell),
    )
