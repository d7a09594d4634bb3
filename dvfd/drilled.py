"""Keep what drills found: the newest run of each check whole, and its figures as history.

A run's figures are judged as one: what an earlier run measured is never mixed with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from dvfd.drills.findings import Findings, strange
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Catalogue, Sample

KIND = "drill"
"""Kind of the records in the store; their key is the check."""


class Shelf(Protocol):
    """What is asked of the store."""

    def write(self, samples: Iterable[Sample]) -> None:
        """Take samples in."""
        ...

    def put(self, kind: str, key: str, document: Mapping[str, Any] | None) -> None:
        """Keep a document."""
        ...

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """A document."""
        ...


class Drilled:
    """The newest findings of each check."""

    def __init__(self, catalogue: Catalogue, store: Shelf) -> None:
        self._catalogue = catalogue
        self._store = store

    def keep(self, findings: Findings, *, at: float) -> None:
        """Keep *findings* in the place of the run before.

        Raises DvfdError if they are not those of a drill of this catalogue.
        """
        check = self._catalogue.checks.get(findings.check)
        if check is None or not check.drill:
            raise DvfdError(f"{findings.check!r} is no check with a drill")
        if wrong := strange(findings, check, self._catalogue, at=at):
            raise DvfdError(f"findings of {check.id} refused: {'; '.join(wrong[:5])}")
        self._store.put(KIND, check.id, findings.to_dict())
        self._store.write(findings.samples)

    def newest(self, check: str) -> Findings | None:
        """What the newest run found, None if there was none that can be read.

        How long it was to run is what our catalogue says: who ran it may have another.
        """
        document, known = self._store.get(KIND, check), self._catalogue.checks.get(check)
        if not document or known is None:
            return None
        try:
            return replace(Findings.from_dict(document), planned=known.duration)
        except ProbeError:
            return None
