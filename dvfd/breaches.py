"""Results over time become alerts: a Sink that feeds the pager. Judges nothing, sends nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

import structlog

from dvfd.alarm import (
    Alarm,
    Breaker,
    Sight,
    State,
    Transition,
    advance,
    blind,
    explained,
    forget,
    release,
)
from dvfd.config import Config
from dvfd.incidents.incident import Escalation
from dvfd.model import Catalogue, Clock, Labels, Report, Result, Severity, Verdict
from dvfd.sinks.alert import blind_alert, criterion_alert, storm_alert
from dvfd.sinks.pager import Pager

log = structlog.get_logger()

GRACE = 15.0
"""Seconds without sight before people are told: as long as a sample stands, and longer than ranks
take to connect again to a restarted daemon."""

REWORD = 60.0
"""Seconds between updates of a firing alert's words: what is resent shows a value of this minute,
and a long breach does not write to the disk with every pass."""

TEAM_LEAD = str(Escalation.TEAM_LEAD)
"""Whom a criterion of a stability run calls: that is a phase's test, and its incident escalates."""

STORM = "storm"
BLIND = "blind:"
SIGHT = "sight:"


class Alarms(Protocol):
    """What is kept in the store: small documents by key, alarms by their criterion's id."""

    def save_alarms(self, alarms: Mapping[str, dict[str, Any]]) -> None:
        """Keep states that changed."""
        ...

    def load_alarms(self) -> dict[str, dict[str, Any]]:
        """Every state kept."""
        ...


class Breaches:
    """One alarm for every criterion that is judged by itself, one sight for every live one."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        pager: Pager,
        store: Alarms,
        *,
        clock: Clock,
        mute: Callable[[str, Mapping[str, str]], bool] = lambda _metric, _labels: False,
    ) -> None:
        """*mute* says of a metric and a series' labels whether a known death explains its silence:
        what then stays UNKNOWN calls nobody, as the death has.
        """
        self._criteria = catalogue.criteria
        self._held = frozenset(check.id for check in catalogue.checks.values() if check.every)
        self._pager = pager
        self._store = store
        self._clock = clock
        self._mute = mute
        self._breaker = Breaker(config.alerting.storm_count, config.alerting.storm_window)
        self._alarms: dict[str, Alarm] = {}
        self._sights: dict[str, Sight] = {}
        self._judged: dict[str, float] = {}
        self._worded: dict[str, float] = {}
        self._lock = threading.Lock()

    def load(self) -> None:
        """Go on where an earlier daemon stopped; what nothing stands behind any more is cleared."""
        self._pager.load()
        documents = self._store.load_alarms()
        for name in self._criteria:
            if name in documents:
                self._alarms[name] = _checked(Alarm.from_dict(name, documents[name]))
            if SIGHT + name in documents:
                self._sights[name] = _checked(Sight.from_dict(name, documents[SIGHT + name]))
        self._breaker = Breaker.from_dict(
            documents.get(STORM), count=self._breaker.count, window=self._breaker.window
        )
        for name in self._breaker.held:  # of a criterion that is gone nobody tells the end
            if not self._raised(name):
                self._breaker = self._breaker.drop(name)
        ours = {key for key in self._pager.firing() if ":" not in key or key.startswith(BLIND)}
        for key in ours - self._backed():  # what others raised, others look after
            log.warning("alert without a breach cleared", subject=key)
            self._pager.clear_alert(key, self._clock.now(), {})

    def tell(self, report: Report) -> None:
        """Take what is new in *report*. A run that a person asked for calls nobody: it only ends
        what a scheduled one has raised.
        """
        asked = report.scheduled is None and not report.check.watch
        with self._lock:
            for result in report.results:
                name = result.criterion.id
                # Equal times only: after a step back of the clock there are results all the same.
                if result.at == self._judged.get(name) or (asked and not self._raised(name)):
                    continue
                self._judged[name] = result.at
                self._breach(result)
                if report.check.watch:
                    self._see(result)

    def _raised(self, name: str) -> bool:
        return name in self._alarms and self._alarms[name].state is State.RAISED

    def _backed(self) -> set[str]:
        """The keys of alerts that some state stands behind."""
        raised = {name for name in self._alarms if self._raised(name)}
        storm = {STORM} if self._breaker.held else set()
        blind_sources = {self._criteria[name].source for name in self._lost()}
        return raised - set(self._breaker.held) | storm | {BLIND + s for s in blind_sources}

    # --- Breaches -------------------------------------------------------------------------------

    def _breach(self, result: Result) -> None:
        name = result.criterion.id
        old = self._alarms.get(name, Alarm(name))
        new, transition = release(old, result.at) if result.absent else advance(old, result)
        self._alarms[name] = new
        loud = result.criterion.severity is not Severity.INFO
        if loud and transition is Transition.RAISED:
            self._raise(result, new)
        elif loud and transition is Transition.CLEARED:
            self._clear(result, new)
        elif loud and new.state is State.RAISED:
            self._reword(result, new)
        if new != old:
            self._store.save_alarms({name: new.to_dict()})

    def _raise(self, result: Result, alarm: Alarm) -> None:
        if result.criterion.check in self._held:  # the team lead's, however many; no storm calls
            self._page(result, alarm)
            return
        self._breaker, alone = self._breaker.admit(self._clock.now(), alarm.criterion_id)
        self._store.save_alarms({STORM: self._breaker.to_dict()})
        if alone:
            self._page(result, alarm)
        else:
            self._storm(result.at)

    def _page(self, result: Result, alarm: Alarm) -> None:
        self._worded[alarm.criterion_id] = self._clock.boot()
        held = result.criterion.check in self._held
        alert = criterion_alert(result, alarm.began(result.at), TEAM_LEAD if held else "")
        self._pager.raise_alert(alert, alarm.to_dict())

    def _reword(self, result: Result, alarm: Alarm) -> None:
        """Keep a firing alert's words current, while there is something to see."""
        name = alarm.criterion_id
        due = self._clock.boot() - self._worded.get(name, 0.0) >= REWORD
        if due and result.verdict is Verdict.FAIL and name not in self._breaker.held:
            self._page(result, alarm)

    def _clear(self, result: Result, alarm: Alarm) -> None:
        name = alarm.criterion_id
        if name not in self._breaker.held:
            if result.waived:  # it ends with the words of who waived it
                self._page(result, alarm)
            self._pager.clear_alert(name, result.at, alarm.to_dict())
            return
        self._breaker = self._breaker.drop(name)
        self._storm(result.at)

    def _storm(self, at: float) -> None:
        """Tell the held breaches as one, or that the last of them is over."""
        document, held = self._breaker.to_dict(), self._breaker.held
        if held:
            since = min(self._alarms[name].began(at) for name in held)
            alert = storm_alert(held, since, self._breaker.window)
            self._pager.raise_alert(alert, document)
        else:
            self._pager.clear_alert(STORM, at, document)

    # --- Blindness ------------------------------------------------------------------------------

    def _see(self, result: Result) -> None:
        name = result.criterion.id
        old = self._sights.get(name, Sight(name))
        if result.absent:
            new, transition = forget(old, result.at)
        elif self._explained(result, but=result.began if old.state is not State.RAISED else ()):
            new, transition = explained(old, result.at)
        else:
            new, transition = blind(old, result, grace=GRACE)
        self._sights[name] = new
        if new != old:
            self._store.save_alarms({SIGHT + name: new.to_dict()})
        if transition is not None:
            self._tell_blind(result)

    def _explained(self, result: Result, *, but: Collection[Labels]) -> bool:
        """Whether every series that is not known, *but* those that have just begun and were never
        seen, has died, as somebody was told.
        """
        metric, unseen = result.criterion.metric, set(result.unseen)
        return bool(unseen) and all(self._mute(metric, dict(s)) for s in unseen.difference(but))

    def _lost(self) -> list[str]:
        """The criteria that were known and are not any more."""
        return [name for name, sight in self._sights.items() if sight.state is State.RAISED]

    def _tell_blind(self, result: Result) -> None:
        """One alert for a source, however many criteria rest on it."""
        source = result.criterion.source
        lost = [name for name in self._lost() if self._criteria[name].source == source]
        if not lost:
            self._pager.clear_alert(BLIND + source, result.at, {})
            return
        known_by = f"UNKNOWN now: {', '.join(sorted(lost))}. {result.reason}"
        severities = {self._criteria[name].severity for name in lost}
        severity = Severity.CRITICAL if Severity.CRITICAL in severities else Severity.WARNING
        since = min(self._sights[name].began(result.at) for name in lost)
        self._pager.raise_alert(blind_alert(source, since, known_by, severity=severity), {})


Restored = TypeVar("Restored", Alarm, Sight)


def _checked(state: Restored) -> Restored:
    if state.problem:
        log.error("stored alarm not restored", problem=state.problem)
    return state
