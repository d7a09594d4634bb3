"""Who signed the validation as a whole: the three roles of the framework's last section.

A signature is a record of the ledger: it can be repeated, never taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.control import Operation
from dvfd.people.attestations import NOTE, WORDS, words
from dvfd.query import known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.control import Peer
    from dvfd.evidence.ledger import Record
    from dvfd.model import Catalogue

KIND = "signoff"

log = structlog.get_logger()


class Ledger(Protocol):
    """What is asked of the ledger of evidence."""

    def append(self, kind: str, subject: str, body: Mapping[str, Any], *, submitted: str) -> Record:
        """Write a record down. Raises StoreError."""
        ...

    def newest(self, kind: str, subject: str) -> Record | None:
        """The last record of that kind and subject."""
        ...

    def problems(self) -> list[str]:
        """What is wrong with it."""
        ...


class SignOffs:
    """The signatures in the ledger. Any thread."""

    def __init__(self, catalogue: Catalogue, evidence: Ledger) -> None:
        self._wanted = catalogue.signoffs
        self._evidence = evidence

    def sign(self, request: Mapping[str, Any], submitted: str) -> Record:
        """Write down what *request* says: role, name, and a note if there is one.

        Raises DvfdError with what is wrong, StoreError if it could not be written down.
        """
        roles = {signoff.role.casefold(): signoff.role for signoff in self._wanted}
        typed = words(request, "role", WORDS)
        role = known({"role": roles.get(typed.casefold(), typed)}, "role", list(roles.values()))
        by = words(request, "name", WORDS)
        note = words(request, "note", NOTE, empty=True)
        made = self._evidence.append(KIND, role, {"by": by, "note": note}, submitted=submitted)
        log.info("signed off", role=role, name=by, by=submitted)
        return made

    def document(self) -> dict[str, Any]:
        """Each role, what it signs, and who signed; and why none of it counts if so."""
        return {"signoffs": [self._one(each.role) for each in self._wanted]} | {
            "problems": self._evidence.problems()
        }

    def _one(self, role: str) -> dict[str, Any]:
        (wanted,) = (each for each in self._wanted if each.role == role)
        found = self._evidence.newest(KIND, role)
        return {
            "role": role,
            "text": wanted.text,
            "clause": wanted.clause,
            "signed": found.to_document() if found else None,
        }


def operations(signoffs: SignOffs) -> dict[str, Operation]:
    """What can be asked of a daemon."""

    def sign(request: Mapping[str, Any], peer: Peer) -> Any:
        return signoffs.sign(request, peer.name).to_document()

    return {
        "signoff": Operation(sign, changes=True),
        "signoffs": Operation(lambda request, peer: signoffs.document()),
    }
