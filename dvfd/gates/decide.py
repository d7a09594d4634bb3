"""Decide a gate on what stands in the ledger: GO, NO_GO or HOLD, line by line. Pure.

GO needs every line, every ticked test, and every No-Go line measured and false. What was not
measured, or no longer counts, is HOLD with what to type. dvfd recommends; a named authority signs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dvfd.gates.decision import (
    BEFORE,
    DELAY,
    INCIDENT,
    LEDGER,
    STANDS,
    Authorisation,
    Cited,
    Decision,
    Kind,
    Line,
    Outcome,
    Signature,
)
from dvfd.gates.proof import (
    SKEW,
    Present,
    Proof,
    Row,
    Size,
    Terms,
    Waived,
    chosen,
    number,
    proof,
    shown,
    size,
    standing,
    whole,
)
from dvfd.model import Comparison, Severity, Verdict
from dvfd.people.attestations import HOW, moment

if TYPE_CHECKING:
    from dvfd.evidence.chain import Record
    from dvfd.model import Catalogue, Check, Criterion, Gate, GateLine

NOW = 86_400.0
"""Seconds that a look at the monitoring counts: reading 48 wants it to work now."""

LIVE = 60.0
"""Seconds within which a statement is in the ledger, unless it was entered afterwards."""

SETTLED = frozenset({"resolved"})
"""States of an incident that hold nothing back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that a decision rests on. `problems` are the ledger's; `max_age` in seconds."""

    catalogue: Catalogue
    records: Sequence[Record]
    present: Present
    max_age: float
    problems: Sequence[str] = ()


def decide(gate: Gate, seen: Seen, at: float) -> Decision:
    """Whether *gate* may be passed at Unix time *at*, on what was *seen* alone."""
    desk = _Desk(gate, seen, at)
    return Decision(
        gate=gate,
        at=at,
        size=desk.terms.size,
        lines=(
            *desk.conditions(),
            *(desk.go(line) for line in gate.requires),
            *(desk.veto(criterion) for criterion in gate.vetoes),
            *(desk.test(name) for name in gate.tests),
        ),
        authorisation=authorisation(gate, seen),
    )


def authorisation(gate: Gate, seen: Seen) -> Authorisation:
    """Who has signed *gate*: nobody, in a ledger that is not as it was written. A signature stands
    whatever becomes of its evidence afterwards.
    """
    found: dict[str, Signature] = {}
    for record in seen.records if not seen.problems else ():
        if record.kind == "decision" and record.subject == gate.id:
            signature = _signature(record)
            if signature.role in gate.authority and signature.by and _binding(signature):
                found[signature.role] = signature
    missing = tuple(role for role in gate.authority if role not in found)
    return Authorisation(
        signatures=tuple(sorted(found.values(), key=lambda each: each.record)), missing=missing
    )


def _signature(record: Record) -> Signature:
    body = record.body
    said = {key: str(body.get(key) or "") for key in ("by", "role", "outcome", "note", "override")}
    return Signature(record=record.number, at=record.at, **said)


def _binding(signature: Signature) -> bool:
    return signature.outcome == Outcome.GO or bool(signature.override)


class _Desk:
    """Where the lines of one gate are decided."""

    def __init__(self, gate: Gate, seen: Seen, at: float) -> None:
        self._gate = gate
        self._seen = seen
        self._at = at
        self._catalogue = seen.catalogue
        self.terms = Terms(
            size=size(gate, seen.catalogue),
            present=seen.present,
            max_age=seen.max_age,
            at=at,
            sized=frozenset(gate.tests),  # a projection that 2b looks at is of more processes
            vetoes={veto.like: veto for veto in gate.vetoes},
        )
        self._proofs: dict[str, tuple[Proof | None, str]] = {}

    # --- Lines ----------------------------------------------------------------------------------

    def test(self, name: str) -> Line:
        """A test that the summary table ticks."""
        title = self._catalogue.checks[name].title
        return Line(kind=Kind.TEST, id=name, text=title, cited=(self._check(name),))

    def go(self, line: GateLine) -> Line:
        """A GO line: all that it stands on."""
        return Line(
            kind=Kind.GO,
            id=line.id,
            text=line.text,
            cited=(
                *map(self._check, line.checks),
                *(self._criterion(self._catalogue.criteria[id_]) for id_ in line.criteria),
                *map(self._attested, line.attestations),
            ),
        )

    def veto(self, veto: Criterion) -> Line:
        """A No-Go line, held against the figure of the criterion that it is like."""
        like = self._catalogue.criteria[veto.like]
        row, base, cut = self._row(like)
        if row is None:
            cited = replace(base, what=like.id)
        else:
            verdict, reason = _held(veto, like, row)
            if cut and verdict is Verdict.PASS:
                verdict, reason = Verdict.UNKNOWN, cut
            todo = self._again(self._catalogue.checks[like.check], verdict)
            told = replace(base, what=like.id, verdict=verdict, reason=reason, todo=todo)
            cited = _against(veto, _figures(told, row))
        return Line(kind=Kind.VETO, id=veto.id.partition(".")[2], text=veto.text, cited=(cited,))

    def conditions(self) -> Iterable[Line]:
        """What the framework asks of every phase."""
        problems = list(self._seen.problems)
        yield _condition(
            LEDGER,
            "The ledger of evidence is as it was written",
            f"the ledger is not as it was written: {'; '.join(problems)}" if problems else "",
            "dvfd evidence verify",
        )
        if before := self._before():
            lack = authorisation(before, self._seen).missing
            told = f"{before.id} is not authorised: not signed by {' and '.join(lack)}"
            if problems:
                told = f"whether {before.id} is authorised cannot be known"
            text, todo = f"{before.title} is authorised", f"dvfd gate {before.id}"
            yield _condition(BEFORE, text, told * bool(lack), todo)
        yield from self._delays()
        yield from self._incidents()

    def _before(self) -> Gate | None:
        gates = list(self._catalogue.gates.values())
        place = gates.index(self._gate)
        return gates[place - 1] if place else None

    def _delays(self) -> Iterable[Line]:
        found = [r for r in self._records("delay") if r.subject == self._gate.id]
        ends = [(number(record.body.get("until")) or math.inf, record) for record in found]
        pending = [(until, record) for until, record in ends if until > self._at]
        if pending:
            until, record = max(pending, key=lambda pair: pair[0])
            why = record.body.get("reason") or "nobody said why"
            day = moment(until) if math.isfinite(until) else "nobody said when"
            told = f"the phase is delayed until {day}: {why}"
            yield _condition(DELAY, "No delay is in force", told, "", record=record.number)

    def _incidents(self) -> Iterable[Line]:
        newest = {record.subject: record for record in self._records("incident")}
        for id_, record in newest.items():
            body, state = record.body, str(record.body.get("state"))
            if body.get("phase") == self._gate.id and state.casefold() not in SETTLED:
                told = f"incident {id_} is {state}: {body.get('why') or 'no reason given'}"
                todo = f"dvfd incident show {id_}"
                yield _condition(INCIDENT, "No failure is open", told, todo, record=record.number)

    # --- What lines stand on ----------------------------------------------------------------------

    def _check(self, name: str) -> Cited:
        """The verdict of a whole check, with the criterion that decides it."""
        check = self._catalogue.checks[name]
        found, base = self._run(check)
        if found is None:
            return base
        verdict = whole(check, found, self._waived)
        row, reason = _deciding(check, found.rows, verdict, self._waived)
        if found.cut and verdict is not Verdict.FAIL:
            verdict, reason = Verdict.UNKNOWN, _cut_short(found)
        todo = self._again(check, verdict)
        return _figures(replace(base, verdict=verdict, reason=reason, todo=todo), row)

    def _criterion(self, criterion: Criterion) -> Cited:
        """The verdict of one criterion in the run that decides its check."""
        row, base, cut = self._row(criterion)
        if row is None:
            return replace(base, what=criterion.id)
        verdict, reason = standing(criterion, row, self._waived)
        if verdict is Verdict.NOT_APPLICABLE:
            verdict, reason = Verdict.UNKNOWN, f"not applicable, so nothing is shown: {reason}"
        if cut and verdict is not Verdict.FAIL:
            verdict, reason = Verdict.UNKNOWN, cut
        todo = self._again(self._catalogue.checks[criterion.check], verdict)
        told = replace(base, what=criterion.id, verdict=verdict, reason=reason, todo=todo)
        return _figures(told, row)

    def _row(self, criterion: Criterion) -> tuple[Row | None, Cited, str]:
        """The result of *criterion* in the run that decides, None without one; that run; and why
        it cannot pass, if it cannot.
        """
        found, base = self._run(self._catalogue.checks[criterion.check])
        if found is None:
            return None, base, ""
        return found.rows[criterion.id], base, _cut_short(found) if found.cut else ""

    def _run(self, check: Check) -> tuple[Proof | None, Cited]:
        """The run that decides *check*, cited; without one, why there is none and what to type."""
        if check.id not in self._proofs:
            records = [r for r in self._records("run") if r.subject == check.id]
            terms = self._terms(check)
            self._proofs[check.id] = chosen([proof(check, each, terms) for each in records])
        found, why = self._proofs[check.id]
        if found is None:
            reason = f"{check.id}: {why or 'not run yet'}"
            todo = again(check, self.terms.size)
            return None, Cited(what=check.id, verdict=Verdict.UNKNOWN, reason=reason, todo=todo)
        return found, _cited(check, found)

    def _terms(self, check: Check) -> Terms:
        """Those of the gate; what is of no phase is measured now, after the phase's own run."""
        if check.phase:
            return self.terms
        runs = (self._catalogue.checks[name] for name in self._gate.tests)
        own = [self._run(each)[0] for each in runs if each.every]
        decisive = [found for found in own if found]
        return replace(
            self.terms,
            max_age=min(NOW, self.terms.max_age),
            since=max((found.ended for found in decisive), default=0.0),
            of=frozenset(str(found.record.body.get("run")) for found in decisive),
        )

    def _attested(self, item: str) -> Cited:
        """What people said of *item* last, while it stands."""
        said = last_said(r for r in self._records("attestation") if r.subject == item)
        base = Cited(
            what=item,
            verdict=Verdict.UNKNOWN,
            reason=f"nobody has attested {item}",
            todo=HOW.format(item),
        )
        if said is None:
            return base
        body = said.body
        expires, by, value = number(body.get("expires")), body.get("by"), body.get("value")
        at = number(body.get("at"))
        who = f"{by} ({body.get('role')})"
        base = replace(base, record=said.number, at=at, age=None if at is None else self._at - at)
        if not by or not isinstance(value, bool) or expires is None or at is None:
            return replace(base, reason=f"record {said.number} of {item} is no attestation")
        if at > self._at + SKEW:
            return replace(base, reason=f"{who} said it in the future: a clock was wrong")
        if self._at >= expires:
            return replace(base, reason=f"what {who} said of {item} ended on {moment(expires)}")
        if not value:
            return replace(base, verdict=Verdict.FAIL, reason=f"{who} says no to {item}")
        told = f"{who} says yes to {item}, until {moment(expires)}"
        return replace(base, verdict=Verdict.PASS, reason=told, todo="")

    def _waived(self, criterion: str) -> str:
        """Who waives *criterion* now, until when and why; empty if nobody does."""
        record = self._waivers.get(criterion)
        if record is None or record.at > self._at + SKEW:  # a clock was wrong: not before it is so
            return ""
        body, expires = record.body, number(record.body.get("expires"))
        if expires is None or self._at >= expires:
            return ""
        by, reason = body.get("by"), body.get("reason")
        if not by or not reason:
            return ""
        return f"waived by {by} ({body.get('role')}) until {moment(expires)}: {reason}"

    @cached_property
    def _waivers(self) -> dict[str, Record]:
        return {record.subject: record for record in self._records("waiver")}

    def _again(self, check: Check, verdict: Verdict) -> str:
        return "" if verdict in STANDS else again(check, self.terms.size)

    def _records(self, kind: str) -> list[Record]:
        return [record for record in self._seen.records if record.kind == kind]


def last_said(records: Iterable[Record]) -> Record | None:
    """What was said last: what was written down as it was said is newer than all before it,
    whatever the clock was; what was entered later is as old as it says.
    """
    last: Record | None = None
    for record in records:
        if last is None or record.at - _said_at(record) <= LIVE or _later(record, last):
            last = record
    return last


def _later(record: Record, than: Record) -> bool:
    return _said_at(record) >= _said_at(than)


def _said_at(record: Record) -> float:
    at = number(record.body.get("at"))
    return record.at if at is None else at


def again(check: Check, wanted: Size) -> str:
    """What to type for another run of *check* in a phase of that size."""
    if check.every:
        return f"dvfd stability start {check.phase} -- COMMAND"
    if check.ledger:
        about = f" --processes {wanted.processes}" if wanted.processes in check.counts else ""
        return f"dvfd check {check.id}{about}"
    several = wanted.nodes > 1 and not check.own_size and (check.nodes > 1 or check.processes)
    nodes = f" --nodes {wanted.nodes}, on each node" if several else ""
    return f"dvfd check {check.id}{nodes}"


def _condition(id_: str, text: str, lack: str, todo: str, *, record: int | None = None) -> Line:
    """A condition that holds unless something is lacking."""
    cited = Cited(
        what=id_,
        verdict=Verdict.UNKNOWN if lack else Verdict.PASS,
        reason=lack or text,
        todo=todo if lack else "",
        record=record,
    )
    return Line(kind=Kind.CONDITION, id=id_, text=text, cited=(cited,))


def _held(veto: Criterion, like: Criterion, row: Row) -> tuple[Verdict, str]:
    """FAIL if the veto holds of the figure in *row*, PASS if it was measured and does not."""
    verdict, reason = shown(like, row)
    observed, limit = number(row.get("observed")), veto.limit.value
    wanted = f"{veto.comparison} {limit:g}" if limit is not None else "a limit that is not set"
    if limit is None or observed is None:
        return Verdict.UNKNOWN, f"{like.id} was not measured, and this closes the gate at {wanted}"
    if like.possible is not None and observed not in like.possible:
        return Verdict.UNKNOWN, f"{like.id}: {observed:g} cannot be: not measured"
    sound = verdict in {Verdict.PASS, Verdict.FAIL} or (
        verdict is Verdict.WAIVED and _misses(like, row, observed)  # it was a FAIL
    )
    if not sound and veto.comparison.holds(observed, limit):
        told = f"{observed:g} {veto.unit} would be {wanted}"
        return Verdict.UNKNOWN, f"{told}, and {like.id} is not known: {reason}"
    if not sound:  # nobody waives what was not measured
        return Verdict.UNKNOWN, f"{like.id} is not known: {reason}"
    if veto.comparison.holds(observed, limit):
        return Verdict.FAIL, f"{observed:g} {veto.unit} is {wanted}"
    return Verdict.PASS, f"{observed:g} {veto.unit} is not {wanted}"


def _misses(criterion: Criterion, row: Row, observed: float) -> bool:
    limit = number(row.get("limit"))
    return limit is not None and not criterion.comparison.holds(observed, limit)


def _figures(cited: Cited, row: Row) -> Cited:
    return replace(
        cited,
        criterion=str(row.get("criterion") or cited.criterion),
        observed=number(row.get("observed")),
        comparison=str(row.get("comparison") or ""),
        limit=number(row.get("limit")),
        margin=number(row.get("margin")),
        unit=str(row.get("unit") or ""),
    )


def _deciding(
    check: Check, rows: Mapping[str, Row], verdict: Verdict, waived: Waived
) -> tuple[Row, str]:
    """The row that the verdict is due to, and its reason: of passes the one with the least left."""
    critical = [c for c in check.criteria if c.severity is Severity.CRITICAL]
    told = [(rows[c.id], standing(c, rows[c.id], waived)) for c in critical]
    mine = [(row, reason) for row, (found, reason) in told if found is verdict]
    if not mine:
        return {}, f"{check.id}: its own word is {verdict}"
    return min(mine, key=lambda pair: _left(pair[0])) if verdict is Verdict.PASS else mine[0]


def _cited(check: Check, found: Proof) -> Cited:
    """The run, before its figures are read."""
    report = found.record.body.get("report")
    report = report if isinstance(report, Mapping) else {}
    return Cited(
        what=check.id,
        verdict=Verdict.UNKNOWN,
        reason="",
        record=found.record.number,
        report=str(report.get("sha256") or ""),
        where=str(report.get("where") or ""),
        at=found.ended,
        age=max(0.0, found.age),
        overridden=_overrides(check, found.rows),
    )


def _cut_short(found: Proof) -> str:
    return f"{found.name}: {found.cut}: it can fail, it cannot pass"


def _against(veto: Criterion, cited: Cited) -> Cited:
    """*cited* beside the veto's limit: the margin is positive where the gate stays open."""
    limit, observed = veto.limit.value, cited.observed
    cited = replace(cited, comparison=str(veto.comparison), limit=limit, margin=None)
    if observed is None or limit is None:
        return cited
    far = abs(observed - limit)
    return replace(cited, margin=-far if veto.comparison.holds(observed, limit) else far)


def _left(row: Row) -> float:
    """What is left of a limit, as a share of it; of a limit of zero as it is."""
    margin, limit = number(row.get("margin")), number(row.get("limit"))
    if margin is None or row.get("comparison") == Comparison.EQUAL:  # met, with nothing to spare
        return math.inf
    return abs(margin) / abs(limit or 1.0)


def _overrides(check: Check, rows: Mapping[str, Row]) -> tuple[str, ...]:
    """Which limits of the site's own were in force."""
    mine = {criterion.id for criterion in check.criteria}
    return tuple(
        f"{id_}: {row['overridden']}"
        for id_, row in rows.items()
        if id_ in mine and row.get("overridden")
    )
