"""A failed phase test on its way to its end: open, investigated, decided, resolved. Pure: it is
told the time, what the ledger recorded and what people said, and does nothing itself.

Its first hour belongs to the team lead. Until the 24th hour somebody finds the cause; then it is
decided: fixed, so that the whole suite of the phase is run again; unknown, so that infrastructure
looks; still failing, so that the phase is delayed (the source's "Test Failure Protocols").
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HOUR, DAY = 3600.0, 86_400.0

HELD = HOUR
"""Seconds for which nobody but the team lead is told ("No escalation for 1 hour")."""

DECIDED = DAY
"""Seconds after which it is decided ("24 hour mark")."""

WEEK = 7 * DAY

WEEKS = (1, 2)
"""How long a phase is delayed ("Delay phase advance 1-2 weeks"): first the one, then the other."""

DVFD = "dvfd"
"""Who did what nobody did."""

GOOD = frozenset({"PASS", "WAIVED"})
"""Verdicts of a re-run that count: a waiver has a name, a reason and an expiry."""


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    INVESTIGATING = "investigating"
    DECISION = "decision"
    RESOLVED = "resolved"


class Cause(StrEnum):
    """What people say of the cause."""

    UNSAID = ""
    FIXED = "fixed"
    UNKNOWN = "unknown"


class Escalation(StrEnum):
    """Whom the alert calls, as the value of its label."""

    TEAM_LEAD = "team_lead"
    TEAM = "team"
    INFRASTRUCTURE = "infrastructure"
    AUTHORITY = "authority"  # of the gate: for a delayed phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now, by all the clocks that there are: Unix seconds, CLOCK_BOOTTIME, and which boot."""

    wall: float
    boot: float
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """So many seconds had passed at that moment."""

    elapsed: float
    wall: float
    boot: float
    boot_id: str

    def until(self, now: Moment) -> float:
        """Seconds that have passed by *now*: by CLOCK_BOOTTIME within a boot, which no step of the
        wall clock moves; by the wall clock after a reboot, never backwards.
        """
        same = bool(self.boot_id) and self.boot_id == now.boot_id
        passed = now.boot - self.boot if same else now.wall - self.wall
        return self.elapsed + max(0.0, passed)

    def moved(self, now: Moment) -> Mark:
        """The same by *now*: the wall clock that a reboot would be measured by is a fresh one."""
        return Mark(elapsed=self.until(now), wall=now.wall, boot=now.boot, boot_id=now.boot_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the journal: when (Unix seconds, and seconds after the opening), who, what, why."""

    at: float
    elapsed: float
    state: str
    who: str
    what: str
    why: str
    attached: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A recorded run of a test: its number in which ledger, and what matters of it here."""

    number: int
    at: float
    run: str
    check: str
    title: str
    phase: str
    verdict: str
    began: float
    ended: float
    processes: int = 0  # 0: it has none
    shortened: str = ""
    reasons: tuple[str, ...] = ()
    ledger: str = ""

    def after(self, other: Ran) -> bool:
        """Whether it was recorded later. Numbers begin anew with a ledger."""
        if self.ledger == other.ledger:
            return self.number > other.number
        return self.at > other.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """The phase waits: for how many weeks from when (Unix seconds), until when."""

    weeks: int
    until: float
    after: float  # seconds of the incident's life at which it began
    why: str
    by: str = DVFD


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A test of the suite that is still to pass after the fix, and why it does not count yet."""

    check: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One failing check of one phase. `failures` and `reruns` are recorded runs of that check."""

    id: str
    check: str
    title: str
    phase: str
    node: str
    state: State
    opened_at: float
    mark: Mark
    failures: tuple[Ran, ...]
    reruns: tuple[Ran, ...] = ()
    cause: Cause = Cause.UNSAID
    fixed_at: float | None = None
    fixed_after: int = 0  # the last record of the ledger when it was said to be fixed
    delay: Delay | None = None
    resolved_at: float | None = None
    journal: tuple[Entry, ...] = ()
    bundle: Mapping[str, Any] | None = None  # what was preserved, as the one who did it tells
    action: Mapping[str, Any] | None = None  # what was stopped, or why nothing was

    @property
    def over(self) -> bool:
        """Whether it is resolved."""
        return self.state is State.RESOLVED

    @property
    def still_failing(self) -> bool:
        """Whether the test failed again after the opening, and has not passed since: whole, and
        with as many processes as failed.
        """
        again = self.failures[1:]
        passed = [run for run in self.reruns if run.verdict in GOOD and not run.shortened]
        return bool(again) and not any(
            run.after(again[-1]) and not 0 < run.processes < again[-1].processes for run in passed
        )

    @property
    def escalation(self) -> Escalation:
        """Whom it calls now."""
        if self.state is State.OPEN:
            return Escalation.TEAM_LEAD
        if self.state is State.DECISION and self.cause is not Cause.FIXED:
            return Escalation.INFRASTRUCTURE
        return Escalation.TEAM

    @property
    def moved_at(self) -> float:
        """Unix seconds at which it came into its state, or was decided otherwise in it."""
        before, at = None, self.opened_at
        for entry in self.journal:
            if entry.state != before:
                before, at = entry.state, entry.at
        return at

    def elapsed(self, now: Moment) -> float:
        """Seconds since it was opened."""
        return self.mark.until(now)

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Incident:
        """Of what `to_document` made. Raises DvfdError on what is none of ours."""
        try:
            found = dict(document)
            delay = found.pop("delay")
            return cls(
                state=State(found.pop("state")),
                cause=Cause(found.pop("cause")),
                mark=Mark(**found.pop("mark")),
                failures=_runs(found.pop("failures")),
                reruns=_runs(found.pop("reruns")),
                journal=tuple(Entry(**entry) for entry in found.pop("journal")),
                delay=Delay(**delay) if delay else None,
                **found,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DvfdError(f"no incident of ours: {error!r}") from None


def _runs(documents: Iterable[Mapping[str, Any]]) -> tuple[Ran, ...]:
    return tuple(Ran(**{**each, "reasons": tuple(each["reasons"])}) for each in documents)


# --- What happens to one ------------------------------------------------------------------------


def opened(run: Ran, *, incident_id: str, node: str, now: Moment) -> Incident:
    """The incident that the failed *run* opens, in the hour of the team lead. What was recorded
    while nobody listened has been open since then.
    """
    passed = max(0.0, now.wall - run.at)
    found = Incident(
        id=incident_id,
        check=run.check,
        title=run.title,
        phase=run.phase,
        node=node,
        state=State.OPEN,
        opened_at=run.at,
        mark=Mark(elapsed=passed, wall=now.wall, boot=now.boot, boot_id=now.boot_id),
        failures=(run,),
    )
    return noted(found, now, DVFD, "opened", f"{_told(run)}: the team lead's for one hour")


def attached(incident: Incident, run: Ran, now: Moment) -> Incident:
    """*incident* with a further *run* of its check. One that failed takes the fix back."""
    if any(not run.after(known) for known in (*incident.failures, *incident.reruns)):
        return incident
    if run.verdict != "FAIL":
        after = replace(incident, reruns=(*incident.reruns, run))
        return noted(after, now, DVFD, "re-run attached", _told(run))
    after = replace(incident, failures=(*incident.failures, run))
    after = noted(after, now, DVFD, "failure attached", _told(run))
    if incident.cause is not Cause.FIXED:
        return after
    after = replace(after, cause=Cause.UNSAID, fixed_at=None)
    if after.elapsed(now) < DECIDED:
        after = replace(after, state=State.INVESTIGATING)
    return noted(after, now, DVFD, "fix taken back", f"the test failed again: {_told(run)}")


def advance(incident: Incident, now: Moment) -> Incident:
    """*incident* in the state that the time has brought; the same object if that is the one it is
    in. One step only: call it again until it is the same.
    """
    elapsed = incident.elapsed(now)
    if incident.over:
        return incident
    if incident.state is State.OPEN and (elapsed >= HELD or incident.cause is Cause.FIXED):
        why = "one hour is over" if elapsed >= HELD else "the cause is said to be fixed"
        return _moved(incident, State.INVESTIGATING, now, f"{why}: the team is told")
    if incident.state is State.INVESTIGATING and (said := _decided(incident, elapsed)):
        return _moved(incident, State.DECISION, now, said)
    if incident.state is State.DECISION:
        return _delayed(incident, now)
    return incident


def _decided(incident: Incident, elapsed: float) -> str:
    """Why it is decided now, and what; nothing while it is not."""
    if incident.cause is Cause.FIXED:
        return "the cause was found and fixed: the whole suite of the phase is to be run again"
    if incident.cause is Cause.UNKNOWN:
        return "the cause is said to be unknown: infrastructure is told"
    if elapsed >= DECIDED:
        return "24 hours are over and nobody named the cause: infrastructure is told"
    return ""


def _delayed(incident: Incident, now: Moment) -> Incident:
    """With the delay that a test which fails again after 24 hours brings, and its second week."""
    elapsed, delay = incident.elapsed(now), incident.delay
    if elapsed < DECIDED or not incident.still_failing or incident.cause is Cause.FIXED:
        return incident
    if delay is None:
        why = "the test still fails 24 hours after it was opened"
        return delayed(incident, WEEKS[0], now, who=DVFD, why=why)
    if delay.weeks < WEEKS[-1] and elapsed >= delay.after + delay.weeks * WEEK:
        why = f"the test still fails after {delay.weeks} week"
        return delayed(incident, WEEKS[-1], now, who=DVFD, why=why)
    return incident


def delayed(incident: Incident, weeks: int, now: Moment, *, who: str, why: str) -> Incident:
    """*incident* with its phase delayed by *weeks* from the first delay on, never by fewer than it
    is. Raises DvfdError.
    """
    if isinstance(weeks, bool) or weeks not in WEEKS:
        raise DvfdError(f"delay: {weeks!r} weeks, wanted {' or '.join(map(str, WEEKS))}")
    before = incident.delay
    if before and weeks < before.weeks:
        raise DvfdError(f"delay: it is one of {before.weeks} weeks already, which none shortens")
    after = before.after if before else incident.elapsed(now)
    until = now.wall + after + weeks * WEEK - incident.elapsed(now)
    made = replace(incident, delay=Delay(weeks=weeks, until=until, after=after, why=why, by=who))
    plural = "s" if weeks > 1 else ""
    return noted(made, now, who, f"phase delayed by {weeks} week{plural}", why)


def caused(
    incident: Incident, cause: Cause, now: Moment, *, who: str, why: str, newest: int
) -> Incident:
    """*incident* with what *who* says of its cause; *newest* is the last record of the ledger: only
    later runs show that a fix holds. Who takes a fix back has it investigated again.
    """
    _not_over(incident)
    if cause is Cause.FIXED:
        after = replace(incident, cause=cause, fixed_at=now.wall, fixed_after=newest)
    else:
        after = replace(incident, cause=cause, fixed_at=None, fixed_after=0)
    return noted(after, now, who, f"cause {cause}", why)


def found(incident: Incident, text: str, now: Moment, *, who: str, attached: str = "") -> Incident:
    """*incident* with a finding, or with a file whose name, size and hash are *attached*."""
    _not_over(incident)
    return noted(incident, now, who, "attached" if attached else "finding", text, attached=attached)


def settled(incident: Incident, needs: Sequence[Need], now: Moment) -> Incident:
    """*incident* resolved, if its cause was fixed and nothing of the suite is still to pass."""
    if incident.state is not State.DECISION or incident.cause is not Cause.FIXED or needs:
        return incident
    why = "the whole suite of the phase was run again after the fix, and passed"
    after = _moved(incident, State.RESOLVED, now, why)
    return replace(after, resolved_at=now.wall)


def needed(
    incident: Incident, suite: Sequence[str], runs: Sequence[Ran], *, processes: int = 0
) -> tuple[Need, ...]:
    """What of *suite*, its phase's checks, has not passed since the fix, by recorded *runs*. One of
    fewer than *processes* does not count, where it has processes at all.
    """
    if incident.fixed_at is None:
        return tuple(Need(check=check, why="the cause is not fixed yet") for check in suite)
    counted = [run for run in runs if not 0 < run.processes < processes]
    found = ((check, _lack(incident, check, counted)) for check in suite)
    return tuple(Need(check=check, why=why) for check, why in found if why)


def _lack(incident: Incident, check: str, runs: Sequence[Ran]) -> str:
    """Why the newest run of *check* does not count; nothing if it does."""
    ours = [run for run in runs if run.check == check and run.phase in ("", incident.phase)]
    later = [run for run in ours if run.number > incident.fixed_after]
    if not later:
        return "not run since the fix"
    newest = later[-1]
    if incident.fixed_at is not None and newest.began < incident.fixed_at:
        return f"record {newest.number}: it began before the fix"
    if newest.verdict not in GOOD:
        short = f" (shortened: {newest.shortened})" if newest.shortened else ""
        return f"record {newest.number}: {newest.verdict}{short}"
    return f"record {newest.number}: shortened, {newest.shortened}" if newest.shortened else ""


def noted(
    incident: Incident, now: Moment, who: str, what: str, why: str, *, attached: str = ""
) -> Incident:
    """*incident* with a line more in its journal."""
    entry = Entry(
        at=now.wall,
        elapsed=incident.elapsed(now),
        state=incident.state,
        who=who,
        what=what,
        why=why,
        attached=attached,
    )
    return replace(incident, journal=(*incident.journal, entry))


def _moved(incident: Incident, state: State, now: Moment, why: str) -> Incident:
    after = replace(incident, state=state)
    return noted(after, now, DVFD, f"{incident.state} -> {state}", why)


def _not_over(incident: Incident) -> None:
    if incident.over:
        raise DvfdError(f"incident {incident.id} is resolved: a further failure opens another")


def _told(run: Ran) -> str:
    reasons = f": {run.reasons[0]}" if run.reasons else ""
    more = f" (and {len(run.reasons) - 1} more)" if len(run.reasons) > 1 else ""
    return f"run {run.run} of {run.check} (record {run.number}) is {run.verdict}{reasons}{more}"


# --- What they say ------------------------------------------------------------------------------


def due(incident: Incident) -> tuple[str, float] | None:
    """What comes next by itself, and at which second of the incident's life; None if nothing."""
    match incident.state:
        case State.OPEN:
            return "the team is told", HELD
        case State.INVESTIGATING:
            return "it is decided", DECIDED
        case State.DECISION if incident.delay is not None:
            return "the delay is over", incident.delay.after + incident.delay.weeks * WEEK
    return None


def next_step(incident: Incident, needs: Sequence[Need]) -> str:
    """What a person does next, with the line to type."""
    update = f"dvfd incident update {incident.id}"
    if incident.over:
        return "nothing: it is resolved"
    if incident.cause is Cause.FIXED:
        left = f"{len(needs)} test{'s' * (len(needs) != 1)} still to pass after the fix"
        return f"run the suite of {incident.phase} again, {left}: dvfd incident show {incident.id}"
    if incident.state is State.DECISION:
        who = "infrastructure looks for the cause; once it is fixed"
        return f"{who}: {update} --cause fixed --finding WHAT --by NAME"
    return (
        f"find the cause: dvfd incident show {incident.id}; then "
        f"{update} --cause fixed (or unknown) --finding WHAT --by NAME"
    )
