"""What each process count does against one process, and against what was foretold. Judges nothing.

E_n = X_n / (n X_1), weak scaling: the batch of each process is the same (procedures, 8). Never
clamped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.errors import DvfdError
from dvfd.scaling import asked
from dvfd.scaling.frozen import foretold
from dvfd.scaling.points import doubts, of
from dvfd.scaling.series import single

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.drills.drill import Runner
    from dvfd.scaling.asked import Answer, Ends, Target
    from dvfd.scaling.frozen import Frozen
    from dvfd.scaling.points import Point
    from dvfd.scaling.series import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One process count. `lack` says why there is no efficiency, `doubt` why nothing that rests on
    it may pass, `unforetold` why no projection counts.
    """

    point: Point
    single: Point | None = None
    lack: str = ""
    doubt: str = ""
    efficiency: float | None = None
    ends: Ends = None  # its 95 % interval
    foretold: tuple[Frozen, Target] | None = None
    unforetold: str = ""

    @property
    def processes(self) -> int:
        """How many."""
        return self.point.processes

    @property
    def error(self) -> float | None:
        """Measured over foretold, less 1."""
        if self.foretold is None or self.foretold[1].value is None:
            return None
        return self.point.throughput / self.foretold[1].value - 1.0


def rows(
    known: Series,
    points: Sequence[Point],
    frozen: Sequence[Frozen],
    *,
    run: Runner | None = None,
) -> list[Row]:
    """One for each process count of *known*; *points* are all of the ledger. Raises DvfdError."""
    many = [point for point in known.points if point.processes > 1]
    singles = [_single(points, point) for point in many]
    bases = [one for one in dict.fromkeys(singles) if one]
    told = [*many, *bases]
    pairs = [
        (place, told.index(one, len(many))) for place, one in enumerate(singles) if one is not None
    ]
    answer = asked.ask(told, pairs=pairs, run=run) if pairs else None
    return [
        _row(point, one, frozen, _interval(answer, pairs, place))
        for place, (point, one) in enumerate(zip(many, singles, strict=True))
    ]


def _single(points: Sequence[Point], of_run: Point) -> Point | None:
    return single(
        points,
        of_run.configuration,
        began=of_run.began,
        ended=of_run.ended,
        processor=of_run.processor,
    )


def _interval(answer: Answer | None, pairs: Sequence[tuple[int, int]], place: int) -> Ends:
    """Of the ratio of the point at *place* to its baseline."""
    found = [n for n, (over, _) in enumerate(pairs) if over == place]
    return answer.pairs[found[0]] if answer and found else None


def _row(point: Point, one: Point | None, frozen: Sequence[Frozen], ratio: Ends) -> Row:
    before, unforetold = None, ""
    try:
        before = foretold(frozen, point)
    except DvfdError as error:
        unforetold = str(error)
    if one is None:
        lack = (
            f"one process was not measured within a day of {of(point.processes)}, {point.words}: "
            "dvfd scaling measure --processes 1"
        )
        return Row(point=point, lack=lack, foretold=before, unforetold=unforetold)
    efficiency = point.throughput / (point.processes * one.throughput)
    ends = None
    if ratio is not None:
        low, high = (end / point.processes for end in ratio)
        ends = min(low, efficiency), max(high, efficiency)
    return Row(
        point=point,
        single=one,
        doubt=doubts([one, point]),
        efficiency=efficiency,
        ends=ends,
        foretold=before,
        unforetold=unforetold,
    )
