"""Breaches that a named person lets pass until a moment: what was found stays to be seen.

They stand in the ledger alone. While that does not verify, none of them counts.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.control import Operation
from dvfd.errors import DvfdError, StoreError
from dvfd.evidence.chain import is_moment
from dvfd.model import Verdict, Waived
from dvfd.people.attestations import NOTE, WORDS, expiry, moment, roles, words
from dvfd.query import known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dvfd.control import Peer
    from dvfd.evidence.ledger import Record
    from dvfd.model import Catalogue, Clock, Result

KIND = "waiver"

SKEW = 5.0
"""Seconds by which a waiver may be younger than the moment that it is asked for: one that is still
younger was written under a wrong clock."""

WAIVABLE = (Verdict.FAIL, Verdict.UNKNOWN)
"""What a waiver takes the place of."""

log = structlog.get_logger()


class Ledger(Protocol):
    """What is asked of the ledger of evidence."""

    def append(self, kind: str, subject: str, body: Mapping[str, Any], *, submitted: str) -> Record:
        """Write a record down. Raises StoreError."""
        ...

    def records(self, kind: str | None = None, subject: str | None = None) -> list[Record]:
        """The records of a kind, oldest first."""
        ...

    def problems(self) -> list[str]:
        """What is wrong with it."""
        ...

    def stamp(self) -> tuple[int, ...]:
        """Changes when the file does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """Who lets a breach of `criterion` pass, in which role, why and until when."""

    criterion: str
    by: str
    role: str
    reason: str
    at: float
    expires: float  # 0 ended it
    submitted: str
    number: int  # of its record

    def counts(self, at: float) -> bool:
        """Whether it stands at Unix time *at*."""
        return self.at <= at + SKEW and at < self.expires

    @property
    def words(self) -> str:
        """As reasons have it."""
        return f"waived by {self.by} ({self.role}) until {moment(self.expires)}: {self.reason}"


class Waivers:
    """Every waiver in the ledger. Any thread."""

    def __init__(self, catalogue: Catalogue, evidence: Ledger, clock: Clock) -> None:
        self._criteria = catalogue.criteria
        self._vetoes = {veto.id for gate in catalogue.gates.values() for veto in gate.vetoes}
        self._roles = roles(catalogue)
        self._evidence = evidence
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._newest: dict[str, Waiver] = {}
        self._problem = ""

    def waive(self, request: Mapping[str, Any], submitted: str) -> Waiver:
        """Write down what *request* says: criterion, name, role, reason, expires; or, with `end`
        in the place of expires, that the waiver which stands ends now.

        Raises DvfdError with what is wrong, StoreError if it could not be written down.
        """
        now = self._clock.now()
        criterion = self._waivable(request)
        by, role = words(request, "name", WORDS), words(request, "role", WORDS)
        body = {
            "by": by,
            "role": self._roles.get(role.casefold(), role),
            "reason": words(request, "reason", NOTE),
            "expires": 0.0 if request.get("end") else self._end(request, now),
        }
        if request.get("end") and self.standing(criterion, now) is None:
            raise DvfdError(f"no waiver of {criterion} stands: there is nothing to end")
        made = _made(self._evidence.append(KIND, criterion, body, submitted=submitted))
        log.info("waived", criterion=criterion, name=by, expires=made.expires, by=submitted)
        return made

    def standing(self, criterion: str, at: float) -> Waiver | None:
        """The waiver of *criterion* that counts at Unix time *at*."""
        found = None if self._looked() else self._newest.get(criterion)
        return found if found and found.counts(at) else None

    def applied(self, result: Result, at: float) -> Result:
        """*result* as it counts at *at*: WAIVED in the place of a FAIL or UNKNOWN that is."""
        if result.verdict not in WAIVABLE:
            return result
        problem = self._looked()
        found = self._newest.get(result.criterion.id)
        if found is None or not found.counts(at):
            return result
        if problem:
            reason = f"{result.reason}; {found.words}, which does not count: {problem}"
            return replace(result, reason=reason)
        waived = Waived(
            verdict=result.verdict,
            found=result.reason,
            by=found.by,
            role=found.role,
            reason=found.reason,
            expires=found.expires,
            record=found.number,
        )
        reason = f"{found.words}; it is {result.verdict}: {result.reason}"
        return replace(result, verdict=Verdict.WAIVED, reason=reason, waived=waived)

    def stand(self, at: float) -> list[str]:
        """The criteria of which a waiver counts at *at*."""
        problem = self._looked()
        return [c for c, found in self._newest.items() if found.counts(at) and not problem]

    def document(self) -> dict[str, Any]:
        """Every waiver ever made, what stands first, and why none of them counts if so."""
        at, problem = self._clock.now(), self._looked()
        every = filter(None, map(_waiver, self._evidence.records(KIND)))
        rows = [asdict(each) | {"stands": self._stands(each, at)} for each in every]
        return {"at": at, "problem": problem, "waivers": rows}

    def _stands(self, waiver: Waiver, at: float) -> bool:
        return self.standing(waiver.criterion, at) == waiver

    def _waivable(self, request: Mapping[str, Any]) -> str:
        if (name := str(request.get("criterion"))) in self._vetoes:
            raise DvfdError(
                f"{name} is a No-Go line, which nobody waives: who decides in spite of it says so "
                "with dvfd sign --override"
            )
        return known(request, "criterion", list(self._criteria))

    @staticmethod
    def _end(request: Mapping[str, Any], now: float) -> float:
        if request.get("expires") is None:
            raise DvfdError("expires: missing: a waiver ends, at the latest when it is fixed")
        return expiry(request["expires"], now)

    def _looked(self) -> str:
        """Why no waiver counts, empty if they do; what stands is then known as the file has it."""
        stamp = self._evidence.stamp()
        with self._lock:
            if stamp != self._stamp:
                problems = self._read() or self._evidence.problems()
                self._problem = f"the ledger does not verify: {problems[0]}" if problems else ""
                self._stamp = None if problems else stamp  # what was amiss may pass by itself
            return self._problem

    def _read(self) -> list[str]:
        """Read the waivers. What went wrong; then they are as they were."""
        try:
            records = self._evidence.records(KIND)
        except StoreError as error:
            return [str(error)]
        newest = {record.subject: _waiver(record) for record in records}
        self._newest = {name: made for name, made in newest.items() if made}
        return []


def operations(waivers: Waivers, changed: Callable[[str], object]) -> dict[str, Operation]:
    """What can be asked of a daemon; *changed* has the criterion judged anew."""

    def waive(request: Mapping[str, Any], peer: Peer) -> Any:
        made = waivers.waive(request, peer.name)
        changed(made.criterion)
        return asdict(made)

    return {
        "waive": Operation(waive, changes=True),
        "waivers": Operation(lambda request, peer: waivers.document()),
    }


def _waiver(record: Record) -> Waiver | None:
    """The waiver that *record* is; None, and said in the log, if it is none that dvfd wrote: then
    none stands, for an older one was meant to end.
    """
    words = (record.body.get(key) for key in ("by", "role", "reason"))
    if all(isinstance(each, str) for each in words) and is_moment(record.body.get("expires")):
        return _made(record)
    log.warning("a waiver that says too little counts for nothing", record=record.number)
    return None


def _made(record: Record) -> Waiver:
    body = record.body
    return Waiver(
        criterion=record.subject,
        by=str(body["by"]),
        role=str(body["role"]),
        reason=str(body["reason"]),
        at=record.at,
        expires=float(body["expires"]),
        submitted=record.submitted,
        number=record.number,
    )
