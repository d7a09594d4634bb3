"""A ledger in which everything stands, for each gate; tests spoil one thing in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from typing import Any

from fakes import FakeClock

from dvfd.catalogue import load
from dvfd.config import Cluster, Config, Member, Node, Profile, Programme
from dvfd.environment import fingerprint
from dvfd.evidence.chain import Record
from dvfd.gates.decide import Seen, decide
from dvfd.gates.decision import Decision
from dvfd.gates.gatehouse import Gatehouse
from dvfd.gates.proof import Present, Size, size
from dvfd.model import Catalogue, Check, Criterion, Gate

AT = 1_800_000_000.0
DAY, HOUR = 86_400.0, 3600.0
MACHINE = {"kernel": "6.8.0-45", "driver": "none", "bios": "F.12"}
FACTS = {"kernel": "6.8.0-45", "BIOS": "F.12"}
NODES = ("n1", "n2", "n3", "n4")
NOW = Present(fingerprint=MACHINE, members=NODES, profile="p")
GATES = ("phase1", "phase2a", "phase2b", "phase2c")


@cache
def catalogue(phase: str = "phase1") -> Catalogue:
    """As a node of that phase has it."""
    nodes = GATES.index(phase) + 1
    return load(Config(profile=Profile(nodes=nodes, expected_throughput=250.0)))


def passing(criterion: Criterion) -> float:
    """A plausible value that satisfies *criterion*, a little inside its limit where it can be."""
    limit = wanted(criterion)
    step = abs(limit) / 100 or 1.0
    return next(v for v in (limit + step, limit - step, limit) if _good(criterion, v))


def failing(criterion: Criterion) -> float:
    """A plausible value that does not."""
    limit = wanted(criterion)
    step = abs(limit) / 100 or 1.0
    return next(v for v in (limit + step, limit - step, limit) if not _good(criterion, v))


def wanted(criterion: Criterion) -> float:
    """Its limit; 1 where another metric gives it."""
    return 1.0 if criterion.limit.value is None else criterion.limit.value


def _good(criterion: Criterion, value: float) -> bool:
    possible = criterion.possible is None or value in criterion.possible
    return possible and criterion.comparison.holds(value, wanted(criterion))


def row(criterion: Criterion, observed: float | None = None, **changes: Any) -> dict[str, Any]:
    """The result of *criterion*: a pass, or what *observed* makes of it."""
    if criterion.inapplicable:
        return _row(criterion, "NOT_APPLICABLE", None) | changes
    value = passing(criterion) if observed is None else observed
    verdict = "PASS" if criterion.comparison.holds(value, wanted(criterion)) else "FAIL"
    return _row(criterion, verdict, value) | changes


def _row(criterion: Criterion, verdict: str, observed: float | None) -> dict[str, Any]:
    limit = wanted(criterion)
    return {
        "criterion": criterion.id,
        "verdict": verdict,
        "observed": observed,
        "comparison": str(criterion.comparison),
        "limit": limit,
        "margin": None if observed is None else abs(observed - limit),
        "unit": criterion.unit,
        "reason": f"{criterion.metric}: read {observed}, wanted {limit:g}",
        "overridden": criterion.overridden,
        "severity": str(criterion.severity),
    }


def run(check: Check, of: Size, *, ended: float = AT - DAY, **changes: Any) -> dict[str, Any]:
    """The body of a run of *check* that passes."""
    return {
        "run": f"{check.id}-1",
        "check": check.id,
        "title": check.title,
        "phase": check.phase,
        "processes": of.processes,
        "nodes": of.nodes,
        "members": list(NODES[: of.nodes]),
        "verdict": "PASS",
        "began": ended - HOUR,
        "ended": ended,
        "shortened": "",
        "planned": check.duration,
        "aborted": "",
        "hashes": {"catalogue": "c", "profile": "p", "environment": "e"},
        "fingerprint": dict(MACHINE),
        "of": {} if check.phase else {phase: f"stability_{phase}-1" for phase in GATES},
        "job_hash": "j",
        "results": [row(criterion.among(of.processes)) for criterion in check.criteria],
        "report": {"where": f"runs/{check.id}-1.json", "sha256": "a" * 64},
    } | changes


def attestation(item: str, **changes: Any) -> dict[str, Any]:
    """The body of a yes to *item*."""
    return {
        "item": item,
        "value": True,
        "by": "Ann Lee",
        "role": "CTO",
        "at": AT - DAY,
        "expires": AT + 80 * DAY,
        "note": "",
        "submitted": "ann",
    } | changes


def signature(role: str, **changes: Any) -> dict[str, Any]:
    """The body of a decision for GO."""
    return {
        "outcome": "GO",
        "by": "Bo",
        "role": role,
        "note": "",
        "evidence": [],
        "lines": [],
        "override": None,
    } | changes


@dataclass
class Book:
    """A ledger that lies in memory, and what is so beside it."""

    gate: Gate
    catalogue: Catalogue
    records: list[Record] = field(default_factory=list)
    present: Present = NOW
    problems: tuple[str, ...] = ()

    def add(self, kind: str, subject: str, body: dict[str, Any], *, at: float = AT - DAY) -> Record:
        """Write a record down."""
        made = Record(
            number=len(self.records) + 1, at=at, kind=kind, subject=subject, body=body,
            node="n1", submitted="ann", previous="0" * 64, sha256="b" * 64,
        )  # fmt: skip
        self.records.append(made)
        return made

    def found(self, kind: str, subject: str) -> int:
        """Where the newest such record is."""
        places = [n for n, r in enumerate(self.records) if (r.kind, r.subject) == (kind, subject)]
        return places[-1]

    def change(self, kind: str, subject: str, **changes: Any) -> None:
        """Put a changed record in the place of the newest one."""
        place = self.found(kind, subject)
        old = self.records[place]
        self.records[place] = replace(old, body={**old.body, **changes})

    def observe(self, criterion_id: str, observed: float | None = None, **changes: Any) -> None:
        """Change what was observed for one criterion, and the verdict with it."""
        criterion = self.catalogue.criteria[criterion_id]
        made = row(criterion.among(size(self.gate, self.catalogue).processes), observed, **changes)
        rows = self.records[self.found("run", criterion.check)].body["results"]
        verdict = made["verdict"] if made["severity"] == "critical" else "PASS"
        self.change("run", criterion.check, results=_exchanged(rows, made), verdict=verdict)

    def remove(self, place: int) -> None:
        """As if that record had never been."""
        del self.records[place]

    @property
    def seen(self) -> Seen:
        """As a decision is given it."""
        return Seen(
            catalogue=self.catalogue,
            records=tuple(self.records),
            present=self.present,
            max_age=14 * DAY,
            problems=self.problems,
        )

    def decide(self, at: float = AT) -> Decision:
        """What dvfd recommends."""
        return decide(self.gate, self.seen, at)


@dataclass
class Ledger:
    """What a gatehouse is given in the place of a file."""

    kept: list[Record] = field(default_factory=list)

    def append(self, kind: str, subject: str, body: Any, *, submitted: str) -> Record:
        made = Record(
            number=len(self.kept) + 1, at=AT, kind=kind, subject=subject, body=body, node="n1",
            submitted=submitted, previous="0" * 64, sha256="b" * 64,
        )  # fmt: skip
        self.kept.append(made)
        return made

    def each(
        self, kind: str | None = None, subject: str | None = None, *, last: int | None = None
    ) -> Iterator[Record]:
        of = [r for r in self.kept if kind in (None, r.kind) and subject in (None, r.subject)]
        return iter(of if last is None else of[-last:])

    def problems(self) -> list[str]:
        return []

    def stamp(self) -> tuple[int, ...]:
        return (len(self.kept),)


def told(*, signed: bool = False) -> dict[str, Any]:
    """The gates as a daemon tells them: phase 1 is GO, a test of 2a failed, the rest is to come."""
    config = Config(
        node=Node(name="n1"),
        profile=Profile(nodes=2, expected_throughput=250.0),
        cluster=Cluster(lead="n1", nodes=tuple(Member(name=n, address=n) for n in NODES[:2])),
        programme=Programme(start=date(2027, 1, 4)),
    )
    ledger = Ledger()
    known = Gatehouse(config, catalogue("phase2a"), ledger, FakeClock(AT), facts=lambda: FACTS)
    for phase in ("phase1", "phase2a"):
        made = book(phase, on="phase2a")
        if phase == "phase2a":
            made.observe("network.speed", 0.8 * 50e9)
            made.records = [r for r in made.records if r.subject not in {"pytorch", "phase1"}]
        for record in made.records:
            body = dict(record.body)
            if record.kind == "run":
                print_ = fingerprint(FACTS, NODES[:2])
                body |= {"fingerprint": print_, "hashes": {"profile": config.profile_hash}}
            ledger.append(record.kind, record.subject, body, submitted="ann")
    if signed:
        who = {"name": "Ann Lee", "role": "VP Engineering", "note": "as agreed on Friday"}
        known.sign({"gate": "phase1", **who}, "ann")
    return known.document()


def _exchanged(rows: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    return [new if old["criterion"] == new["criterion"] else old for old in rows]


def book(phase: str, *, on: str = "") -> Book:
    """A ledger on which that gate is GO, and nothing in it that is not needed; with nodes as in the
    phase *on*, by default its own.
    """
    known = catalogue(on or phase)
    gate = known.gates[phase]
    made = Book(gate, known)
    for earlier in GATES[: GATES.index(phase)][-1:]:
        for role in known.gates[earlier].authority:
            made.add("decision", earlier, signature(role))
    needed = [*gate.tests, *(name for line in gate.requires for name in line.checks)]
    needed += [c.partition(".")[0] for line in gate.requires for c in line.criteria]
    for name in dict.fromkeys(needed):
        check = known.checks[name]
        ended = AT - DAY if check.phase else AT - HOUR
        made.add("run", name, run(check, size(gate, known), ended=ended))
    for item in (item for line in gate.requires for item in line.attestations):
        made.add("attestation", item, attestation(item))
    return made
