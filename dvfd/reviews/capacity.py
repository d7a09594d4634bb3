"""How far the training would scale, from the ledger: a projection, and never more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvfd.drills.drill import Fact
from dvfd.errors import DvfdError
from dvfd.scaling.reading import Known
from dvfd.scaling.series import configuration
from dvfd.scaling.view import view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.model import Catalogue
    from dvfd.scaling.ledger import Ledger
    from dvfd.scaling.view import Aim

BEYOND = (32, 64)
"""Processes that the monthly list's last line asks about: 32 and more."""

EXTRAPOLATION = "extrapolation, {:.3g} times the largest measured count"


def capacity(ledger: Ledger, catalogue: Catalogue) -> Iterator[Fact]:
    """What the ledger foretells of more processes, and what speaks against believing it."""
    points = tuple(ledger.points())
    which = configuration(points)
    if not which:
        yield Fact("capacity", "the ledger is empty: dvfd scaling measure, dvfd stability accept")
        return
    try:
        seen = view(Known(points), which, BEYOND, catalogue)
    except DvfdError as error:
        yield Fact("capacity", str(error))
        return
    largest = max(point.processes for point in seen.points)
    for aim in seen.targets:
        yield Fact(f"capacity at {aim.processes}", _words(aim, aim.processes / largest))


def _words(aim: Aim, reach: float) -> str:
    label = [EXTRAPOLATION.format(reach)] if reach > 1.0 else []
    return "; ".join([*label, aim.words, *aim.against])
