"""What people ask of the ledger of evidence: its records, one of them, whether it is whole."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from dvfd.control import Operation
from dvfd.errors import DvfdError
from dvfd.evidence import bundle
from dvfd.people.attestations import NOTE, WORDS, words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dvfd.control import Peer
    from dvfd.evidence.bundle import Checked
    from dvfd.evidence.ledger import Evidence

LISTED = 500
"""Records of one list at most, the newest: more is what an export is for."""


class Shown:
    """The read side of the ledger of a state directory. Any thread."""

    def __init__(self, evidence: Evidence, state: Path) -> None:
        self._evidence = evidence
        self._state = state

    def listed(self, kind: str | None, subject: str | None) -> dict[str, Any]:
        """The newest records of that kind and subject, oldest first, without their long parts."""
        of = (kind or None, subject or None)
        return {
            "cluster": self._evidence.cluster,
            "count": self._evidence.count(*of),
            "records": [bundle.row(record) for record in self._evidence.each(*of, last=LISTED)],
            "problems": self._evidence.problems(),
            "notices": self._evidence.notices(),
        }

    def one(self, number: int) -> dict[str, Any]:
        """A record whole. Raises DvfdError if there is none of that number."""
        for record in self._evidence.each():
            if record.number == number:
                return record.to_document()
        raise DvfdError(f"no record {number} can be read: dvfd evidence list")

    def verified(self, head: str = "", cluster: str = "") -> Checked:
        """The ledger read anew, held against the store and the reports that it names."""
        where = str(self._evidence.path)
        held = self._evidence.held()
        lines = self._evidence.lines()
        return self._noticed(
            bundle.checked(lines, self.fetch, where=where, head=head, cluster=cluster, held=held)
        )

    def export(self, path: Path) -> Checked:
        """Everything as one file. Raises StoreError."""
        held = self._evidence.held()
        lines = list(self._evidence.lines())
        if not lines:
            raise DvfdError(f"{self._evidence.path}: there is no evidence yet: nothing to export")
        return self._noticed(bundle.write(path, lines, self.fetch, held))

    def _noticed(self, found: Checked) -> Checked:
        return replace(found, notices=tuple(self._evidence.notices()))

    def renew(self, request: Mapping[str, Any], submitted: str) -> dict[str, Any]:
        """Found the ledger anew, as the one in *request* says: name, role, reason.

        Raises DvfdError, also if nothing is wrong with the one that there is; StoreError.
        """
        body = {"by": words(request, "name", WORDS), "role": words(request, "role", WORDS)}
        body["reason"] = words(request, "reason", NOTE)
        problems = self._evidence.verify()
        if not problems:
            raise DvfdError("the ledger is whole: it is never founded anew without need")
        aside = self._evidence.renew(body | {"problems": problems}, submitted=submitted)
        return {"aside": str(aside), "cluster": self._evidence.cluster, "problems": problems}

    def fetch(self, where: str) -> bytes | None:
        """A report below the state directory, None if it cannot be read."""
        try:
            return (self._state / where).read_bytes()
        except OSError:
            return None


def document(found: Checked) -> dict[str, Any]:
    """As JSON."""
    return asdict(found)


def operations(shown: Shown) -> dict[str, Operation]:
    """What can be asked of a daemon."""

    def listed(request: Mapping[str, Any], peer: Peer) -> Any:
        return shown.listed(request.get("kind"), request.get("subject"))

    def one(request: Mapping[str, Any], peer: Peer) -> Any:
        return shown.one(int(request.get("number") or 0))

    def verify(request: Mapping[str, Any], peer: Peer) -> Any:
        head, cluster = str(request.get("head") or ""), str(request.get("cluster") or "")
        return document(shown.verified(head, cluster))

    def renew(request: Mapping[str, Any], peer: Peer) -> Any:
        return shown.renew(request, peer.name)

    return {
        "evidence_renew": Operation(renew, changes=True),
        "evidence": Operation(listed),
        "evidence_record": Operation(one),
        "evidence_verify": Operation(verify),
    }
