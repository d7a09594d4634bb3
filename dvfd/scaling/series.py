"""Which measurements belong together: those of one configuration, one for each process count. Pure.

Of several the strongest stands, a run before minutes before a typed figure, then the newest. For
one process it is the median of its day: no repeat until it pleases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.scaling.points import DAY, How, Point, of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STRENGTH = tuple(How)


@dataclass(frozen=True, slots=True)
class Series:
    """The points of one configuration by process count, and what was left out and why."""

    configuration: str
    points: tuple[Point, ...]
    left_out: tuple[str, ...] = ()

    def of(self, processes: int) -> Point | None:
        """The point with that many processes."""
        return next((p for p in self.points if p.processes == processes), None)

    def smaller(self, processes: int) -> Point | None:
        """The one with the next smaller count of more than one process."""
        found = [p for p in self.points if 1 < p.processes < processes]
        return max(found, key=lambda point: point.processes, default=None)


def configuration(points: Iterable[Point], processes: int = 0) -> str:
    """The configuration that is asked about where nobody names one: of the newest run with
    *processes*, else of the newest run, else of the newest point; empty if there is none.
    """

    def rank(point: Point) -> tuple[bool, bool, float]:
        run = point.how is How.RUN
        return run and point.processes == processes, run, point.ended

    newest = max(points, key=rank, default=None)
    return newest.configuration if newest else ""


def series(points: Iterable[Point], wanted: str) -> Series:
    """The points of configuration *wanted*; those of another processor than the newest are out."""
    mine = [point for point in points if point.configuration == wanted]
    newest = max((p for p in mine if p.processor), key=lambda p: p.ended, default=None)
    processor = newest.processor if newest else ""
    same = [p for p in mine if p.processor in ("", processor)]
    out = [
        f"{of(p.processes)}, {p.words}: on {p.processor}, not on {processor}"
        for p in mine
        if p not in same
    ]
    counts = sorted({point.processes for point in same})
    return Series(wanted, tuple(_standing(same, count) for count in counts), tuple(out))


def _standing(points: Sequence[Point], processes: int) -> Point:
    found = [point for point in points if point.processes == processes]
    first = min(found, key=lambda p: (STRENGTH.index(p.how), -p.ended))
    if processes == 1 and first.how is How.MEASURED:
        return median(
            [p for p in found if p.how is first.how and _day(p, first.ended, first.ended)]
        )
    return first


def single(
    points: Iterable[Point], configuration: str, *, began: float, ended: float, processor: str = ""
) -> Point | None:
    """What one process made within a day of a run (reading 14), on the same configuration and
    processor: the median of what was measured, else what a person entered.
    """
    found = [
        p
        for p in points
        if p.processes == 1
        and p.configuration == configuration
        and _day(p, began, ended)
        and (not p.processor or not processor or p.processor == processor)
    ]
    for how in STRENGTH:
        if alike := [p for p in found if p.how is how]:
            return median(alike)
    return None


def _day(point: Point, began: float, ended: float) -> bool:
    return began - DAY <= point.ended and point.began <= ended + DAY


def median(points: Sequence[Point]) -> Point:
    """The one in the middle by throughput, of an even number the higher: the harder baseline."""
    ordered = sorted(points, key=lambda point: (point.throughput, point.ended))
    return ordered[len(ordered) // 2]
