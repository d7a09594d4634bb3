"""Turn results over time into raised and cleared. Pure: time comes from the results alone.

Two machines run over the results of every criterion: `advance` for breaches, `blind` for the loss
of sight. Blindness never ends an alarm, and an alarm never hides blindness. States are plain
documents that survive a restart; while nothing happens they do not change, so nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dvfd.model import Comparison, Verdict

if TYPE_CHECKING:
    from dvfd.model import Result

GAP = 300.0
"""The most seconds that count between two results. Long windows are judged once a minute; five of
those without a result is time that nobody observed, or a clock that was stepped forward."""


class State(StrEnum):
    """Where an alarm stands. PENDING: breached, but not yet for long or often enough."""

    CLEAR = "clear"
    PENDING = "pending"
    RAISED = "raised"


class Transition(StrEnum):
    """What happened to an alarm that people must be told."""

    RAISED = "raised"
    CLEARED = "cleared"


Document = dict[str, Any]
"""Plain values, as they go into the store."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """The breach of one criterion. Times are Unix seconds.

    `since` is when the current (else the last) breach was first seen. `counted` are the observed
    seconds of breach while PENDING, of recovery while RAISED; `last` is the result up to which
    they are counted. `streak` are the failing results, `evidence` the newest sample behind them.
    `problem` says why a stored state could not be restored.
    """

    criterion_id: str
    state: State = State.CLEAR
    since: float | None = None
    raised_at: float | None = None
    cleared_at: float | None = None
    streak: int = 0
    counted: float = 0.0
    last: float | None = None
    evidence: float | None = None
    problem: str = ""

    def began(self, at: float) -> float:
        """When the breach began: at the latest *at*."""
        return _earlier(self.since, at)

    def to_dict(self) -> Document:
        """As a document for the store."""
        return _document(self)

    @classmethod
    def from_dict(cls, criterion_id: str, document: object) -> Alarm:
        """The stored alarm of a criterion; a bad document gives a clear one with a `problem`."""
        try:
            found = _checked(criterion_id, document)
            streak = int(_number(found, "streak") or 0)
            evidence = _number(found, "evidence")
            return cls(**_common(criterion_id, found), streak=streak, evidence=evidence)
        except ValueError as error:
            return cls(criterion_id, problem=f"stored alarm of {criterion_id} is bad: {error}")


@dataclass(frozen=True, slots=True)
class Sight:
    """Whether a criterion that was once known still is. Times are Unix seconds.

    `known` is whether it ever passed or failed; `since` is when sight was lost; `counted` are the
    observed seconds without it.
    """

    criterion_id: str
    state: State = State.CLEAR
    known: bool = False
    since: float | None = None
    raised_at: float | None = None
    cleared_at: float | None = None
    counted: float = 0.0
    last: float | None = None
    problem: str = ""

    def began(self, at: float) -> float:
        """When sight was lost: at the latest *at*."""
        return _earlier(self.since, at)

    def to_dict(self) -> Document:
        """As a document for the store."""
        return _document(self)

    @classmethod
    def from_dict(cls, criterion_id: str, document: object) -> Sight:
        """The stored sight of a criterion; a bad document gives a fresh one with a `problem`."""
        try:
            found = _checked(criterion_id, document)
            return cls(**_common(criterion_id, found), known=found.get("known") is True)
        except ValueError as error:
            return cls(criterion_id, problem=f"stored sight of {criterion_id} is bad: {error}")


# --- Breaches ---------------------------------------------------------------------------------


def advance(alarm: Alarm, result: Result) -> tuple[Alarm, Transition | None]:
    """The alarm after *result*, and what people must be told.

    Raised: by FAIL results over at least `hold` observed seconds and at least `streak` of them on
    new samples, none of them interrupted by a PASS. UNKNOWN neither counts nor interrupts.

    Cleared: by PASS results over at least `recovery` observed seconds, uninterrupted by FAIL, all
    of them inside the limit by (1 - clear) x |limit| (which a limit of 0 and `==` do not have).
    UNKNOWN never clears. A latched alarm clears by `release` only, or when the criterion stops to
    apply or is waived: those clear every alarm at once.
    """
    _same(alarm.criterion_id, result)
    match result.verdict:
        case Verdict.FAIL:
            return _breached(alarm, result)
        case Verdict.PASS:
            return _passed(alarm, result)
        case Verdict.UNKNOWN:
            return replace(alarm, last=None) if alarm.last is not None else alarm, None
        case Verdict.NOT_APPLICABLE | Verdict.WAIVED:
            return release(alarm, result.at)


def release(alarm: Alarm, at: float) -> tuple[Alarm, Transition | None]:
    """Clear *alarm* by an act: its series ended for good, somebody unlatched it."""
    if alarm.state is State.CLEAR:
        return alarm, None
    raised = alarm.state is State.RAISED
    calm = Alarm(
        alarm.criterion_id,
        since=alarm.since,
        raised_at=alarm.raised_at,
        cleared_at=at if raised else alarm.cleared_at,
    )
    return calm, Transition.CLEARED if raised else None


def _breached(alarm: Alarm, result: Result) -> tuple[Alarm, Transition | None]:
    if alarm.state is State.RAISED:
        return _interrupted(alarm), None
    rule, at = result.criterion, result.at
    # Woken by events, a criterion is judged many times on one sample, which counts once.
    evidence = at if result.sampled_at is None else result.sampled_at
    began = at if alarm.state is State.CLEAR else alarm.began(at)
    pending = replace(
        alarm,
        state=State.PENDING,
        since=began,
        streak=alarm.streak + (evidence != alarm.evidence),
        counted=alarm.counted + _elapsed(alarm.last, at),
        last=at,
        evidence=evidence,
    )
    if pending.counted < rule.hold or pending.streak < rule.streak:
        return pending, None
    raised = replace(pending, state=State.RAISED, raised_at=at, counted=0.0, last=None)
    return raised, Transition.RAISED


def _passed(alarm: Alarm, result: Result) -> tuple[Alarm, Transition | None]:
    if alarm.state is not State.RAISED:
        return release(alarm, result.at)
    if result.criterion.latch:
        return alarm, None
    if not _well_inside(result):
        return _interrupted(alarm), None
    counted = alarm.counted + _elapsed(alarm.last, result.at)
    if counted >= result.criterion.recovery:
        return release(alarm, result.at)
    return replace(alarm, counted=counted, last=result.at), None


def _interrupted(alarm: Alarm) -> Alarm:
    """A raised alarm whose recovery, if any had begun, is over."""
    recovering = alarm.counted > 0 or alarm.last is not None
    return replace(alarm, counted=0.0, last=None) if recovering else alarm


def _well_inside(result: Result) -> bool:
    """Whether a PASS is far enough from the limit to end an alarm (hysteresis)."""
    rule = result.criterion
    if rule.comparison is Comparison.EQUAL or result.margin is None or result.limit is None:
        return True
    return result.margin >= max(0.0, 1.0 - rule.clear) * abs(result.limit)


# --- Blindness --------------------------------------------------------------------------------


def blind(sight: Sight, result: Result, *, grace: float) -> tuple[Sight, Transition | None]:
    """The sight after *result*: RAISED once what was known is UNKNOWN for *grace* seconds.

    It is CLEARED by the next verdict that is known. What was never known is never raised. A
    criterion that stops to apply or is waived starts over.
    """
    _same(sight.criterion_id, result)
    if result.verdict in (Verdict.NOT_APPLICABLE, Verdict.WAIVED):
        return forget(sight, result.at)
    if result.verdict is not Verdict.UNKNOWN:
        return _seen(sight, result.at)
    if not sight.known or sight.state is State.RAISED:
        return sight, None
    lost = replace(
        sight,
        state=State.PENDING,
        since=result.at if sight.state is State.CLEAR else sight.since,
        counted=sight.counted + _elapsed(sight.last, result.at),
        last=result.at,
    )
    if lost.counted < grace:
        return lost, None
    since = lost.began(result.at)
    return replace(lost, state=State.RAISED, since=since, raised_at=result.at), Transition.RAISED


def forget(sight: Sight, at: float) -> tuple[Sight, Transition | None]:
    """Start over by an act: the series ended as they should, so nothing is left to see."""
    seen, transition = _seen(sight, at)
    return replace(seen, known=False), transition


def explained(sight: Sight, at: float) -> tuple[Sight, Transition | None]:
    """The sight after a silence whose cause is known: nothing is lost, and any other silence counts
    from here.
    """
    return _seen(sight, at) if sight.known else (sight, None)


def _seen(sight: Sight, at: float) -> tuple[Sight, Transition | None]:
    if sight.known and sight.state is State.CLEAR:
        return sight, None
    raised = sight.state is State.RAISED
    seen = Sight(
        sight.criterion_id,
        known=True,
        since=sight.since,
        raised_at=sight.raised_at,
        cleared_at=at if raised else sight.cleared_at,
    )
    return seen, Transition.CLEARED if raised else None


# --- Storms -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Breaker:
    """Makes one page of a storm: more than `count` newly raised in `window` seconds.

    The first `count` go out alone, for nobody knows yet that more follow. The later ones are
    `held`: they belong into one alert that names them, which lives until the last of them clears.
    `recent` are the times of the newest `count` raisings.
    """

    count: int
    window: float
    recent: tuple[float, ...] = ()
    held: tuple[str, ...] = ()

    def admit(self, now: float, key: str) -> tuple[Breaker, bool]:
        """Whether the alert *key*, newly raised, goes out alone."""
        if key in self.held:
            return self, False
        # A raising that lies ahead, after the clock was stepped back, counts as one of now.
        times = [min(at, now) for at in self.recent if now - at < self.window]
        storm = len(times) >= self.count
        held = (*self.held, key) if storm else self.held
        return replace(self, recent=(*times, now)[-self.count :], held=held), not storm

    def drop(self, key: str) -> Breaker:
        """Without *key*, which has cleared."""
        if key not in self.held:
            return self
        return replace(self, held=tuple(k for k in self.held if k != key))

    def to_dict(self) -> Document:
        """As a document for the store."""
        return {"recent": list(self.recent), "held": list(self.held)}

    @classmethod
    def from_dict(cls, document: object, *, count: int, window: float) -> Breaker:
        """The stored breaker with the numbers now configured; a bad document gives a fresh one."""
        calm = cls(count, window)
        if not isinstance(document, Mapping):
            return calm
        recent, held = document.get("recent"), document.get("held")
        if not isinstance(recent, list) or not all(_is_time(at) for at in recent):
            return calm
        if not isinstance(held, list) or not all(isinstance(key, str) for key in held):
            return calm
        return cls(count, window, tuple(recent)[-count:], tuple(held))


# --- Time and documents -----------------------------------------------------------------------


def _elapsed(last: float | None, at: float) -> float:
    """The observed seconds between two results; none if the clock was stepped back."""
    return 0.0 if last is None else min(max(at - last, 0.0), GAP)


def _earlier(since: float | None, at: float) -> float:
    return at if since is None else min(since, at)


def _same(criterion_id: str, result: Result) -> None:
    if result.criterion.id != criterion_id:
        raise ValueError(f"a result of {result.criterion.id} is none of {criterion_id}")


def _document(state: Alarm | Sight) -> Document:
    document = asdict(state)
    del document["problem"]
    return document


def _checked(criterion_id: str, document: object) -> Mapping[str, Any]:
    """*document* if it is one of this criterion. Raises ValueError."""
    if not isinstance(document, Mapping):
        raise ValueError(f"{document!r} is no document")  # noqa: TRY004  # a bad value among others
    if document.get("criterion_id") != criterion_id:
        raise ValueError(f"it is that of {document.get('criterion_id')!r}")
    return document


def _common(criterion_id: str, document: Mapping[str, Any]) -> Document:
    """The fields that alarms and sights share. Raises ValueError."""
    state = State(str(document.get("state")))
    names = ("since", "raised_at", "cleared_at", "last")
    times = {name: _number(document, name) for name in names}
    if state is not State.CLEAR and times["since"] is None:
        raise ValueError(f"{state.value} since never")
    counted = _number(document, "counted") or 0.0
    return {"criterion_id": criterion_id, "state": state, "counted": counted, **times}


def _number(document: Mapping[str, Any], name: str) -> float | None:
    value = document.get(name)
    if value is None or _is_time(value):
        return value
    raise ValueError(f"{name} {value!r}")


def _is_time(value: object) -> bool:
    """Whether *value* can be Unix seconds, or a number of them: 1e12 is the year 33658."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e12
