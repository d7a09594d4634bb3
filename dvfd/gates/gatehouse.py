"""The gates as they stand at the cluster's lead: decided on the ledger, signed into it, told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.control import Operation
from dvfd.environment import environment_facts, fingerprint
from dvfd.errors import DvfdError, StoreError
from dvfd.gates.decide import Seen, decide
from dvfd.gates.decision import Decision, Kind, Outcome, line_document
from dvfd.gates.programme import Due, dates
from dvfd.gates.proof import Present, number
from dvfd.model import Verdict, worst
from dvfd.people.attestations import NOTE, WORDS, words
from dvfd.query import known

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.control import Peer
    from dvfd.evidence.ledger import Record
    from dvfd.model import Catalogue, Clock, Gate, SummaryRow

    Facts = Callable[[], Mapping[str, str]]

DAY = 86_400.0

KIND = "decision"

RUN = "run"

SAID = ("attestation", "waiver", KIND, "delay", "incident")
"""Kinds of records that decisions rest on beside runs."""

RUNS = 50
"""The newest runs of a check that are looked at: what a test is run again within two weeks."""

STANDS = 60.0
"""Seconds that a decision is shown before it is made anew, though nothing was written down: only
ages move meanwhile.
"""

_BROKEN = (
    "nothing is signed into a ledger that is not as it was written: {}; dvfd evidence verify says "
    "what is wrong, dvfd evidence renew begins a new one"
)

log = structlog.get_logger()


class Ledger(Protocol):
    """What is asked of the ledger of evidence."""

    def append(self, kind: str, subject: str, body: Mapping[str, Any], *, submitted: str) -> Record:
        """Write a record down. Raises StoreError."""
        ...

    def each(
        self, kind: str | None = None, subject: str | None = None, *, last: int | None = None
    ) -> Iterator[Record]:
        """The records, oldest first, the *last* so many. Raises StoreError."""
        ...

    def problems(self) -> list[str]:
        """What is wrong with it."""
        ...

    def stamp(self) -> tuple[int, ...]:
        """Changes when the file does."""
        ...


class Gatehouse:
    """Any thread. On a node that does not lead it says where the gates are, and nothing else."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        evidence: Ledger,
        clock: Clock,
        facts: Facts = environment_facts,
    ) -> None:
        """*facts* are what this node is now, by name."""
        self._config = config
        self._catalogue = catalogue
        self._evidence = evidence
        self._clock = clock
        self._facts = facts
        self._lock = threading.RLock()
        self._stamp: tuple[int, ...] | None = None
        self._records: list[Record] = []
        self._shown: dict[str, Any] = {}
        self._shown_at: tuple[float, tuple[int, ...]] = (-STANDS, ())

    @property
    def elsewhere(self) -> str:
        """The node that decides, if it is not this one."""
        lead = self._config.cluster.lead
        return lead if lead and lead != self._config.node.name else ""

    def document(self) -> dict[str, Any]:
        """Every gate, line by line, and the summary table, as they are now."""
        with self._lock:
            at = self._clock.now()
            found: dict[str, Any] = {
                "at": at,
                "node": self._config.node.name,
                "elsewhere": self.elsewhere,
                "start": str(self._config.programme.start or ""),
                "evidence_days": self._config.programme.evidence_days,
                "overrides": list(self._catalogue.overrides),
                "problems": [],
                "gates": [],
                "table": [],
            }
            if self.elsewhere:
                return found
            seen = self._seen(at)
            decisions = [decide(gate, seen, at) for gate in self._gates]
            due = dates(self._gates, self._config.programme.start, seen.records)
            signed = {gate.id: self._as_signed(gate) for gate in self._gates}
            return found | {
                "problems": list(seen.problems),
                "gates": [_gate(each, due.get(each.gate.id)) for each in decisions],
                "table": [
                    _row(row, decisions, signed, blind=bool(seen.problems))
                    for row in self._catalogue.summary
                ],
            }

    def shown(self) -> dict[str, Any]:
        """The same, at most a minute old: page and status ask again and again."""
        with self._lock:
            stamp, now = self._evidence.stamp(), self._clock.boot()
            if self._shown_at[1] != stamp or not 0 <= now - self._shown_at[0] < STANDS:
                self._shown = self.document()
                self._shown_at = (now, self._evidence.stamp())
            return self._shown

    def sign(self, request: Mapping[str, Any], submitted: str) -> dict[str, Any]:
        """Write down what an authority decided: gate, name, role; note, override (a reason).

        Raises DvfdError with what holds the gate back, StoreError if it was not written down.
        """
        if self.elsewhere:
            raise DvfdError(f"gates are decided at the lead: dvfd sign on {self.elsewhere}")
        gate = self._catalogue.gates[known(request, "gate", self._catalogue.gates)]
        by, role = words(request, "name", WORDS), _role(gate, words(request, "role", WORDS))
        override = words(request, "override", NOTE, empty=True)
        with self._lock:
            at = self._clock.now()
            seen = self._seen(at)
            if seen.problems:
                raise DvfdError(_BROKEN.format("; ".join(seen.problems)))
            decision = decide(gate, seen, at)
            if decision.outcome is not Outcome.GO and not override:
                raise DvfdError(_refusal(decision))
            against = decision.outcome is not Outcome.GO
            body = {
                "outcome": str(decision.outcome),
                "by": by,
                "role": role,
                "note": words(request, "note", NOTE, empty=True),
                "evidence": list(decision.records),
                "lines": [line_document(line) for line in decision.lines],
                "override": override if against else None,
            }
            record = self._evidence.append(KIND, gate.id, body, submitted=submitted)
            missing = decide(gate, self._seen(at), at).authorisation.missing
        log.info("gate signed", gate=gate.id, name=by, role=role, override=bool(body["override"]))
        return {
            "gate": gate.id,
            "title": gate.title,
            "record": record.number,
            "at": record.at,
            **body,
            "authorised": not missing,
            "missing": list(missing),
        }

    # --- What decisions rest on -------------------------------------------------------------------

    @property
    def _gates(self) -> list[Gate]:
        return list(self._catalogue.gates.values())

    def _seen(self, at: float) -> Seen:
        problems = list(self._evidence.problems())
        try:
            records = self._read(at)
        except StoreError as error:
            records, problems = [], problems or [str(error)]
        return Seen(
            catalogue=self._catalogue,
            records=records,
            present=self._present(),
            max_age=self._config.programme.evidence_days * DAY,
            problems=problems,
        )

    def _read(self, at: float) -> list[Record]:
        """The records that decisions may rest on. Of runs that are too old the newest of each test
        is kept, to say that it is.
        """
        stamp = self._evidence.stamp()
        if stamp != self._stamp:
            since = at - self._config.programme.evidence_days * DAY
            found = [record for kind in SAID for record in self._evidence.each(kind)]
            for check in self._catalogue.checks:
                runs = list(self._evidence.each(RUN, check, last=RUNS))
                found += [r for r in runs if _ended(r) >= since or r is runs[-1]]
            self._records = sorted(found, key=lambda record: record.number)
            self._stamp = stamp
        return self._records

    def _present(self) -> Present:
        members = [member.name for member in self._config.cluster.nodes]
        members = members or [self._config.node.name]
        return Present(
            fingerprint=fingerprint(self._facts(), members),
            members=tuple(members),
            profile=self._config.profile_hash,
        )

    def _as_signed(self, gate: Gate) -> Mapping[str, str]:
        """The verdicts of the tests of *gate* as its last authority signed them."""
        signed = [r for r in self._records if r.kind == KIND and r.subject == gate.id]
        lines = signed[-1].body.get("lines") if signed else []
        return {
            str(line.get("id")): str(line.get("verdict"))
            for line in lines or []
            if isinstance(line, Mapping) and line.get("kind") == Kind.TEST
        }


def operations(gatehouse: Gatehouse) -> dict[str, Operation]:
    """What can be asked of a daemon."""
    return {
        "gates": Operation(lambda request, peer: gatehouse.document()),
        "sign": Operation(lambda request, peer: _signed(gatehouse, request, peer), changes=True),
    }


def _signed(gatehouse: Gatehouse, request: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
    return gatehouse.sign(request, peer.name)


def _role(gate: Gate, said: str) -> str:
    """*said* as the gate writes it. Raises DvfdError if no such role decides it."""
    roles = {role.casefold(): role for role in gate.authority}
    if said.casefold() not in roles:
        raise DvfdError(
            f"role {said!r} does not decide {gate.id}: wanted {' or '.join(gate.authority)}"
        )
    return roles[said.casefold()]


def _refusal(decision: Decision) -> str:
    """Why nobody signs it, and what to do."""
    gate, lines = decision.gate.id, decision.open
    first = f"{lines[0].id}: {lines[0].reason}" if lines else "it is not known why"
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return (
        f"{gate} is {decision.outcome}: {first}{more}; dvfd gate {gate} says what is open; "
        "--override --reason TEXT signs all the same, and every later report says so"
    )


def _gate(decision: Decision, due: Due | None) -> dict[str, Any]:
    """A decision with its day."""
    told = asdict(due) if due else None
    return decision.to_document() | {
        "due": told and {**told, "planned": str(told["planned"]), "day": str(told["day"])},
        "due_words": decision.gate.due,
    }


def _row(
    row: SummaryRow,
    decisions: list[Decision],
    signed: Mapping[str, Mapping[str, str]],
    *,
    blind: bool,
) -> dict[str, Any]:
    """A row of the summary table: null where the source has no tick. *blind* where nothing can be
    known: the ledger is not as it was written.
    """
    cells = {each.gate.id: _cell(row, each, signed[each.gate.id]) for each in decisions}
    if blind:
        cells = {gate: cell and str(Verdict.UNKNOWN) for gate, cell in cells.items()}
    ticked = [Verdict(cell) for cell in cells.values() if cell]
    return {"title": row.title, "cells": cells, "verdict": str(worst(ticked))}


def _cell(row: SummaryRow, decision: Decision, signed: Mapping[str, str]) -> str | None:
    """What the tests of *row* are worth in that phase: as it was signed, once it is authorised."""
    granted = decision.authorisation.granted
    if row.gate:
        if row.gate != decision.gate.id:
            return None
        if granted and decision.authorisation.overrides:
            return str(Verdict.WAIVED)
        return str(Verdict.PASS if granted else Verdict.UNKNOWN)
    mine = [name for name in decision.gate.tests if name in row.tests]
    if not mine:
        return None
    now = {line.id: str(line.verdict) for line in decision.lines if line.kind is Kind.TEST}
    told = signed if granted else now
    return str(worst(_verdict(told.get(name)) for name in mine))


def _ended(record: Record) -> float:
    return number(record.body.get("ended")) or 0.0


def _verdict(said: str | None) -> Verdict:
    return Verdict(said) if said in set(Verdict) else Verdict.UNKNOWN
