"""The nouns of a gate's decision: what was found, line by line, with its evidence. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dvfd.model import Verdict, worst

if TYPE_CHECKING:
    from dvfd.gates.proof import Size
    from dvfd.model import Gate

STANDS = frozenset({Verdict.PASS, Verdict.WAIVED})
"""Verdicts of a line that keep nothing back."""

LEDGER, BEFORE, DELAY, INCIDENT = "ledger", "before", "delay", "incidents"
"""Conditions."""


class Outcome(StrEnum):
    """What dvfd recommends."""

    GO = "GO"
    HOLD = "HOLD"
    NO_GO = "NO_GO"


class Kind(StrEnum):
    """What a line of a decision is."""

    VETO = "veto"  # PASS: measured, and false
    GO = "go"
    TEST = "test"  # ticked in the summary table
    CONDITION = "condition"  # of the framework: order, delays, the ledger itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """One thing that a line stands on: what was observed beside what is wanted, and where it is
    written. `age` in seconds; `record` is its number in the ledger, None where there is none.
    """

    what: str
    verdict: Verdict
    reason: str
    todo: str = ""
    record: int | None = None
    report: str = ""  # SHA-256
    where: str = ""
    at: float | None = None
    age: float | None = None
    criterion: str = ""
    observed: float | None = None
    comparison: str = ""
    limit: float | None = None
    margin: float | None = None
    unit: str = ""
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line with its evidence. Of a veto PASS says that it was measured, and is not so."""

    kind: Kind
    id: str
    text: str
    cited: tuple[Cited, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of what it stands on."""
        return worst(each.verdict for each in self.cited)

    @property
    def open(self) -> tuple[Cited, ...]:
        """What keeps it from standing, worst first."""
        found = [each for each in self.cited if each.verdict not in STANDS]
        return tuple(sorted(found, key=lambda each: each.verdict is not Verdict.FAIL))

    @property
    def reason(self) -> str:
        """Of the worst that it stands on, or of the first."""
        return (self.open or self.cited)[0].reason if self.cited else "it stands on nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What an authority decided. `override` is why, where dvfd did not recommend it."""

    record: int
    at: float
    by: str
    role: str
    outcome: str
    note: str = ""
    override: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorisation:
    """Who must sign, who has, and who is missing."""

    signatures: tuple[Signature, ...]
    missing: tuple[str, ...]

    @property
    def granted(self) -> bool:
        """Whether every named authority has signed."""
        return not self.missing

    @property
    def overrides(self) -> tuple[Signature, ...]:
        """Signatures in spite of what dvfd recommended."""
        return tuple(each for each in self.signatures if each.override)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What dvfd recommends at Unix time `at`, and every line's evidence."""

    gate: Gate
    at: float
    size: Size
    lines: tuple[Line, ...]
    authorisation: Authorisation

    @property
    def outcome(self) -> Outcome:
        """GO only if every line stands; a broken ledger proves nothing, not even a NO_GO."""
        by = {kind: [line for line in self.lines if line.kind is kind] for kind in Kind}
        if any(line.id == LEDGER and line.verdict not in STANDS for line in by[Kind.CONDITION]):
            return Outcome.HOLD
        if any(line.verdict is Verdict.FAIL for line in by[Kind.VETO]):
            return Outcome.NO_GO
        if not self.gate.vetoes and any(line.verdict is Verdict.FAIL for line in by[Kind.GO]):
            return Outcome.NO_GO  # reading 18
        sure = all(line.verdict is Verdict.PASS for line in by[Kind.VETO])
        return Outcome.GO if sure and not self.open else Outcome.HOLD

    @property
    def open(self) -> tuple[Line, ...]:
        """The lines that do not stand: No-Go lines that hold, what failed, what is not known."""
        found = [line for line in self.lines if line.verdict not in STANDS]
        return tuple(sorted(found, key=lambda each: urgency(each.kind, each.verdict)))

    @property
    def waived(self) -> tuple[Line, ...]:
        """The lines that stand on somebody's waiver."""
        return tuple(line for line in self.lines if line.verdict is Verdict.WAIVED)

    @property
    def records(self) -> tuple[int, ...]:
        """The records of the ledger that it stands on."""
        found = {each.record for line in self.lines for each in line.cited}
        return tuple(sorted(number for number in found if number is not None))

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "gate": self.gate.id,
            "title": self.gate.title,
            "clause": self.gate.clause,
            "at": self.at,
            "outcome": str(self.outcome),
            "processes": self.size.processes,
            "nodes": self.size.nodes,
            "authority": list(self.gate.authority),
            "authorised": self.authorisation.granted,
            "signatures": [asdict(each) for each in self.authorisation.signatures],
            "missing": list(self.authorisation.missing),
            "lines": [line_document(line) for line in self.lines],
        }


def urgency(kind: str, verdict: str) -> int:
    """In which order what keeps a gate shut is told."""
    if verdict != Verdict.FAIL:
        return 2
    return 0 if kind == Kind.VETO else 1


def line_document(line: Line) -> dict[str, Any]:
    """A line as JSON."""
    return {
        "kind": str(line.kind),
        "id": line.id,
        "text": line.text,
        "verdict": str(line.verdict),
        "reason": line.reason,
        "evidence": [_plain(each) for each in line.cited],
    }


def _plain(cited: Cited) -> dict[str, Any]:
    found = asdict(cited)
    found["verdict"], found["overridden"] = str(cited.verdict), list(cited.overridden)
    return found
