"""Read a ledger of scaling out of the document that a daemon, or the disk, gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def known(document: Mapping[str, Any]) -> Known:
    """What `Ledger.document` made. Raises DvfdError."""
    return Known(
        points=tuple(map(Point.from_document, document["points"])),
        frozen=tuple(map(Frozen.from_document, document["projections"])),
        damaged=tuple(map(str, document["damaged"])),
    )
