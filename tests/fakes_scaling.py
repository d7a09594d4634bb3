"""Ledgers made by hand, and the child that fits, in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dvfd.scaling import fits
from dvfd.scaling.frozen import Frozen
from dvfd.scaling.points import DAY, How, Point
from dvfd.scaling.reading import Known
from dvfd.shell import Output

AT = 1_790_000_000.0
CONFIGURATION = "c0ffee" * 10

SOURCE = {1: 62.5, 4: 270.19, 8: 600.0, 12: 900.0}
"""The source's own series, samples/second."""

SHARES = {4: 0.08, 8: 0.09, 12: 0.10}


class Child:
    """Runs what the child process runs, here; counts how often."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, argv: Sequence[str], *, stdin: bytes = b"", **_: Any) -> Output:
        self.asked += 1
        try:
            said = fits.rounded(fits.answer(json.loads(stdin)))
        except fits.Undetermined as error:
            return Output(1, "", f"{error}\n", 0.0)
        return Output(0, json.dumps(said, allow_nan=False, sort_keys=True), "", 0.0)


def point(processes: int, throughput: float, **more: Any) -> Point:
    """A run of 48 h that ended a day before now; one process was measured the hour before it."""
    alone = processes == 1
    ended = AT - 3 * DAY - 7200.0 if alone else AT - DAY
    given = {
        "how": How.MEASURED if alone else How.RUN,
        "configuration": CONFIGURATION,
        "began": ended - (180.0 if alone else 2 * DAY),
        "ended": ended,
        "by": "Ann Lee",
        "low": throughput * 0.999,
        "high": throughput * 1.001,
        "communication": SHARES.get(processes),
        "name": f"r{processes}",
        **more,
    }
    return Point(processes=processes, throughput=throughput, **given)


def source(counts: Sequence[int] = (1, 4, 8, 12), **more: Any) -> list[Point]:
    """The source's series as if it had been measured."""
    return [point(n, SOURCE[n], **more) for n in counts]


def vague() -> list[Point]:
    """Super-linear, and so unsure that many a fit through it has a pole before 16."""
    made = {1: 62.5, 2: 130.0, 4: 275.0}
    return [point(n, x, low=x * 0.9, high=x * 1.1) for n, x in made.items()]


def frozen(points: Sequence[Point], targets: Sequence[int], **more: Any) -> Frozen:
    """A projection of *points*, frozen before `point`'s runs began, as the store gives it."""
    from dvfd.scaling.asked import ask, plain

    answer = ask(points, fit=range(len(points)), targets=targets, run=Child())
    made = Frozen(
        **{
            "at": AT - 5 * DAY,
            "by": "Ann Lee",
            "submitted": "root",
            "configuration": points[0].configuration,
            "points": tuple(points),
            "said": plain(answer.text)["projection"],
            "number": 1,
            **more,
        }
    )
    return Frozen.from_document(json.loads(json.dumps(made.to_document())))


def known(points: Sequence[Point], *projections: Frozen) -> Known:
    """As the ledger would be read."""
    return Known(tuple(points), projections)
