"""Read the ledger: the daemon's, or the one in the store where none lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.cli.common import asked
from dvfd.scaling.frozen import Frozen
from dvfd.scaling.points import Point

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger holds, oldest first, and what of it cannot be read."""

    points: tuple[Point, ...] = ()
    frozen: tuple[Frozen, ...] = ()
    damaged: tuple[str, ...] = ()


def read() -> Known:
    """The ledger of this node. Raises DvfdError if there is one and it cannot be read."""
    return known(asked("scaling"))


def known(document: Mapping[str, Any]) -> Known:
    """What `Ledger.document` made. Raises DvfdError."""
    return Known(
        points=tuple(map(Point.from_document, document["points"])),
        frozen=tuple(map(Frozen.from_document, document["projections"])),
        damaged=tuple(map(str, document["damaged"])),
    )
