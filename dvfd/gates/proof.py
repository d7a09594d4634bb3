"""What a run in the ledger is worth for a phase today. Pure.

A run of other nodes, of another size, of a machine or a framework that is no more, or of too long
ago says nothing of here and now. One that was cut short can fail; it cannot pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvfd.model import Severity, Verdict, worst
from dvfd.words import duration

if TYPE_CHECKING:
    from dvfd.evidence.chain import Record
    from dvfd.model import Catalogue, Check, Criterion, Gate

SKEW = 5.0
"""Seconds that a run may end in the future: clocks of several nodes are set one by one."""

Row = Mapping[str, Any]
"""A criterion's result as a record has it."""

Waived = Callable[[str], str]
"""Who waives a criterion and why, by its id; empty if nobody does."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many processes and nodes a phase is of; 0 where the gate has no run that says it."""

    processes: int = 0
    nodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is so now: a run from before a change of it says nothing of this cluster."""

    fingerprint: Mapping[str, str] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    profile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms a run counts: of which size, at most how old, beside what is so now."""

    size: Size
    present: Present
    max_age: float
    at: float
    since: float = 0.0  # what ended before it says nothing
    of: frozenset[str] = frozenset()  # the stability runs that it must speak of
    sized: frozenset[str] = frozenset()  # checks that are of the phase's own size
    vetoes: Mapping[str, Criterion] = field(default_factory=dict)  # No-Go lines, by the criterion


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A run of the ledger: why it says nothing, if so; why it can only fail, if so."""

    record: Record
    ended: float
    age: float
    foreign: str = ""
    changed: str = ""  # the same, of these nodes: the machine, the profile or a limit was another
    cut: str = ""
    failed: bool = False  # something was measured that must not be
    rows: Mapping[str, Row] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As people are told of it."""
        return f"record {self.record.number}"


def size(gate: Gate, catalogue: Catalogue) -> Size:
    """The processes and nodes of *gate*'s phase: those of its stability run."""
    tests = (catalogue.checks.get(name) for name in gate.tests)
    run = next((check for check in tests if check and check.every), None)
    return Size(run.processes, run.nodes) if run else Size()


def proof(check: Check, record: Record, terms: Terms) -> Proof:
    """What *record*, a run of *check*, is worth on these *terms*."""
    body = record.body
    ended = number(body.get("ended"))
    age = math.nan if ended is None else terms.at - ended
    rows = {str(row.get("criterion")): row for row in listed(body.get("results"))}
    return Proof(
        record=record,
        ended=math.nan if ended is None else ended,
        age=age,
        foreign=_foreign(check, record, terms, age),
        changed=_changed(body, terms.present) or _other_terms(check, body),
        cut=_cut(check, body),
        failed=any(
            _failed(criterion, rows.get(criterion.id, {}), terms.vetoes)
            for criterion in check.criteria
        ),
        rows=rows,
    )


def _failed(criterion: Criterion, row: Row, vetoes: Mapping[str, Criterion]) -> bool:
    """Whether *row* must not be: judged so, or its figure, sure or not, is one of a No-Go line."""
    veto = vetoes.get(criterion.id)
    if row.get("verdict") == Verdict.FAIL:
        return criterion.severity is Severity.CRITICAL or veto is not None
    observed = number(row.get("observed"))
    if veto is None or veto.limit.value is None or observed is None:
        return False
    possible = criterion.possible is None or observed in criterion.possible
    return possible and veto.comparison.holds(observed, veto.limit.value)


def chosen(proofs: Sequence[Proof]) -> tuple[Proof | None, str]:
    """The run that decides among those of one check; else why there is none.

    It is the one that ended last of those that say something: a run that was cut short only where
    it failed. One that failed before a change says nothing of now, and no older one speaks past it:
    to change a profile and change it back undoes no failure. The order of the ledger is that in
    which they were handed in.
    """
    known = sorted(proofs, key=lambda each: -math.inf if math.isnan(each.ended) else each.ended)
    for found in reversed(known):
        if found.foreign or (found.changed and not found.failed):
            continue
        if found.changed:
            return None, f"{found.name} failed, and does not count: {found.changed}"
        if not found.cut or found.failed:
            return found, ""
    if not known:
        return None, ""
    last = known[-1]
    return None, f"{last.name} does not count: {last.foreign or last.changed or last.cut}"


def number(value: object) -> float | None:
    """*value* if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number beyond any float
        return None
    return found if math.isfinite(found) else None


def listed(value: object) -> list[Row]:
    """The tables in a list; nothing where there is none."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


# --- Why it says nothing ------------------------------------------------------------------------


def _foreign(check: Check, record: Record, terms: Terms, age: float) -> str:
    body, present = record.body, terms.present
    return (
        _of_another(check, body, terms.size if check.id in terms.sized else Size())
        or _when(age, terms)
        or _of_other_runs(body, terms.of)
        or _elsewhere(body, present)
    )


def _of_another(check: Check, body: Row, wanted: Size) -> str:
    """Why the run is not one of this phase's size."""
    if body.get("check") != check.id:
        return f"it is a run of {body.get('check')!r:.40}"
    if check.own_size:
        return ""
    if wanted.processes and check.processes and body.get("processes") != wanted.processes:
        return f"of {body.get('processes')} processes, this phase is of {wanted.processes}"
    if wanted.nodes and not check.ledger and body.get("nodes") != wanted.nodes:
        return f"of {body.get('nodes')} nodes, this phase is of {wanted.nodes}"
    return ""


def _when(age: float, terms: Terms) -> str:
    if math.isnan(age):
        return "it does not say when it ended"
    if age < -SKEW:
        return f"it ended {duration(-age)} in the future: a clock was wrong"
    if terms.at - age < terms.since:
        return "it is from before the end of the run that it must speak of"
    if age > terms.max_age:
        return f"it is {duration(age)} old, at most {duration(terms.max_age)} counts"
    return ""


def _of_other_runs(body: Row, wanted: frozenset[str]) -> str:
    told = body.get("of")
    spoken = {str(run) for run in told.values()} if isinstance(told, Mapping) else set()
    if not wanted - spoken:
        return ""
    about = f"it speaks of {', '.join(sorted(spoken))}" if spoken else "it speaks of no run"
    return f"{about}, not of {', '.join(sorted(wanted - spoken))}"


def _elsewhere(body: Row, present: Present) -> str:
    members = body.get("members")
    if not isinstance(members, list) or not members:
        return "it does not say on which nodes"
    strange = sorted({str(name) for name in members} - set(present.members))
    return f"{', '.join(strange)} is no node of this cluster" if strange else ""


APART = frozenset({"dvfd", "membership"})
"""Of a fingerprint: dvfd's own version undoes nothing, since limits are compared one by one; who
took part is held against the nodes there are, and their number against the phase's.
"""


def _changed(body: Row, present: Present) -> str:
    """What is not as it was then: kernel, driver, BIOS, membership, profile."""
    then = body.get("fingerprint")
    if not isinstance(then, Mapping) or not then:
        return "it does not say on what machine"
    names = sorted({*then, *present.fingerprint})
    told = [
        f"{name} was {then.get(name) or 'not told'}, is {present.fingerprint.get(name) or 'gone'}"
        for name in names
        if name not in APART and then.get(name) != present.fingerprint.get(name)
    ]
    hashes = body.get("hashes")
    profile = hashes.get("profile") if isinstance(hashes, Mapping) else None
    if present.profile and profile != present.profile:
        told.append("the profile or an override in the configuration is another")
    return f"the cluster changed since: {'; '.join(told)}" if told else ""


OWN = frozenset({"injection", "job"})
"""What is not the profile's to take away, but a run's own: nobody disturbed it, say."""


def _other_terms(check: Check, body: Row) -> str:
    """Why the run was not held against what is wanted today; limits decide, not the catalogue's
    every word.
    """
    rows = {str(row.get("criterion")): row for row in listed(body.get("results"))}
    processes = int(number(body.get("processes")) or 0)
    for criterion in (each.among(processes) for each in check.criteria):
        row = rows.get(criterion.id)
        if row is None:
            return f"{criterion.id} was not judged in it"
        if why := _moved(criterion, row):
            return f"{criterion.id} {why}"
    return ""


def _moved(criterion: Criterion, row: Row) -> str:
    """How the terms of *row* differ from *criterion*'s; only what was judged has any."""
    if criterion.inapplicable:
        return ""
    if row.get("verdict") == Verdict.NOT_APPLICABLE:
        return "" if OWN & set(criterion.requires) else "was not applicable then, and is now"
    if row.get("comparison") != str(criterion.comparison):
        return f"was held to {row.get('comparison')}, now {criterion.comparison} is wanted"
    then, now = number(row.get("limit")), criterion.limit.value
    if now is None or then is None:  # another metric, or nobody, says it
        return ""
    if not math.isclose(then, now):
        return f"was held to {row.get('comparison')} {then:g}, now {now:g} is wanted"
    return ""


def _cut(check: Check, body: Row) -> str:
    """Why a run of *check* cannot pass."""
    for key in ("aborted", "shortened"):
        found = body.get(key)
        if found is None:
            return f"it does not say whether it was {key}"
        if found:
            return f"it was {key}" + (f": {found}" if isinstance(found, str) else "")
    planned = number(body.get("planned"))
    if check.duration and planned is None:
        return "it does not say how long it was to run"
    if planned is not None and planned < check.duration:
        return f"it was to run for {duration(planned)}, wanted {duration(check.duration)}"
    return ""


# --- What it shows ------------------------------------------------------------------------------


def shown(criterion: Criterion, row: Row) -> tuple[Verdict, str]:
    """The verdict of *row* and its reason; UNKNOWN where its figures do not bear its PASS out."""
    reason = str(row.get("reason") or "")
    try:
        verdict = Verdict(str(row.get("verdict")))
    except ValueError:
        return Verdict.UNKNOWN, f"{criterion.id}: {row.get('verdict')!r:.40} is no verdict"
    if verdict is not Verdict.PASS:
        return verdict, reason
    observed, limit = number(row.get("observed")), number(row.get("limit"))
    if observed is None or limit is None:
        return Verdict.UNKNOWN, f"{criterion.id}: it says PASS without a figure"
    if criterion.possible is not None and observed not in criterion.possible:
        low, high = criterion.possible.low, criterion.possible.high
        return Verdict.UNKNOWN, f"{criterion.id}: {observed:g} is not within {low:g} to {high:g}"
    if not criterion.comparison.holds(observed, limit):
        return Verdict.UNKNOWN, f"{criterion.id}: it says PASS of {observed:g}, limit {limit:g}"
    return verdict, reason


def whole(check: Check, found: Proof, waived: Waived) -> Verdict:
    """The worst verdict of the critical criteria of *check*, no better than the run's own word. A
    run that counts has judged every one of them.
    """
    rows = [(c, found.rows[c.id]) for c in check.criteria if c.severity is Severity.CRITICAL]
    raw = worst(shown(criterion, row)[0] for criterion, row in rows)
    verdict = worst(standing(criterion, row, waived)[0] for criterion, row in rows)
    said = str(found.record.body.get("verdict"))
    if said == raw:
        return verdict
    return worst([verdict, Verdict(said) if said in set(Verdict) else Verdict.UNKNOWN])


def standing(criterion: Criterion, row: Row, waived: Waived) -> tuple[Verdict, str]:
    """What *row* shows, under the waivers of today: one that ended takes its WAIVED away."""
    verdict, reason = shown(criterion, row)
    if verdict not in {Verdict.FAIL, Verdict.UNKNOWN, Verdict.WAIVED}:
        return verdict, reason
    if words := waived(criterion.id):
        return Verdict.WAIVED, f"{words}; without it {reason}"
    if verdict is Verdict.WAIVED:
        return Verdict.UNKNOWN, f"{criterion.id} was waived then, and no waiver stands: {reason}"
    return verdict, reason
