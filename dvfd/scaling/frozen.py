"""A projection as it was frozen in the ledger: what was known, what was foretold, when, by whom.

Only one that was frozen before a run began says anything about it (reading 39).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.people.attestations import moment
from dvfd.scaling import asked
from dvfd.scaling.points import Point, of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dvfd.scaling.asked import Projection, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What somebody froze. `said` is the fits' own answer, `sha256` that of all the rest."""

    at: float
    by: str
    submitted: str
    configuration: str
    points: tuple[Point, ...]
    said: Mapping[str, Any]
    note: str = ""
    number: int = 0
    sha256: str = ""

    @property
    def projection(self) -> Projection:
        """What it foretold."""
        return asked.projection(self.said)

    @property
    def words(self) -> str:
        """Which one it is."""
        counts = ", ".join(str(point.processes) for point in self.points)
        return f"projection {self.number}, frozen by {self.by} on {moment(self.at)} from {counts}"

    def to_document(self) -> dict[str, Any]:
        """As JSON, with its hash."""
        document = self._document()
        return document | {"sha256": digest(document)}

    def _document(self) -> dict[str, Any]:
        found = {**asdict(self), "points": [point.to_document() for point in self.points]}
        found.pop("sha256")
        plain: dict[str, Any] = json.loads(json.dumps(found))  # as it comes back from the store
        return plain

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Frozen:
        """Of what `to_document` made. Raises DvfdError if it was changed or is none."""
        rest = {key: value for key, value in document.items() if key != "sha256"}
        number = document.get("number")
        if digest(rest) != document.get("sha256"):
            raise DvfdError(f"projection {number}: its hash is not the one it was frozen with")
        try:
            found = cls(
                **{
                    **document,
                    "points": tuple(map(Point.from_document, document["points"])),
                }
            )
            assert found.projection
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DvfdError(f"projection {number}: cannot be read: {error!r:.200}") from None
        return found


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of *document* as JSON with its keys in order."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def foretold(frozen: Iterable[Frozen], point: Point) -> tuple[Frozen, Target]:
    """The newest projection of *point* that was frozen before it began. Raises DvfdError with why
    there is none.
    """
    about = [f for f in frozen if f.configuration == point.configuration and _tells(f, point)]
    before = [f for f in about if f.at <= point.began]
    if before:
        chosen = max(before, key=lambda each: (each.at, each.number))
        target = chosen.projection.of(point.processes)
        assert target is not None
        return chosen, target
    late = f"; {about[-1].words}, after it began: that foretells nothing" if about else ""
    raise DvfdError(
        f"no projection of {of(point.processes)} was frozen before {point.words} began on "
        f"{moment(point.began)}{late}: dvfd scaling project --processes {point.processes} --freeze"
    )


def _tells(frozen: Frozen, point: Point) -> bool:
    """Whether it foretells that count, and was not shown it."""
    target = frozen.projection.of(point.processes)
    shown = any(p.processes == point.processes for p in frozen.points)
    return target is not None and target.value is not None and not shown
