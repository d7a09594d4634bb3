"""Send a test alert as the daemon sends any, and time it to the receiver.

With --listen, Alertmanager's webhook delivers it to us: it arrived. Without, Alertmanager's own
counters can say that the receiver took a notification since, if they tell receivers apart; else
they say that somebody did, which proves nothing, or nobody, which is a measured no.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvfd.answers import daemon
from dvfd.drills.drill import Fact, Remark
from dvfd.drills.ear import Ear
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Sample
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from dvfd.drills.drill import Task
    from dvfd.drills.monitoring import Ask

TOOK = "monitoring_alert_seconds"

BEYOND = 1.0
"""Seconds that are waited beyond the limit: what is not there then was measured not to be."""

EVERY = 0.2
"""Seconds between two looks: a delay of seconds is told to a fifth of one."""

ENDING = 5.0
"""Seconds in which Alertmanager must know that the test alert is over."""


Counts = Mapping[str, Mapping[str, int]]
"""Of one Alertmanager since it began: notifications `taken` and `failed` by kind, and `taken_by`
receiver.
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What all Alertmanagers say of the test alert at one moment."""

    receivers: tuple[str, ...] = ()
    held: str = ""  # what keeps it from being told
    counts: Mapping[str, Counts] = field(default_factory=dict)  # of each that could be read, by URL
    errors: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Look:
        """As the daemon answers, a row for each Alertmanager."""
        held = [f"{row['state']} by {', '.join(row['by'])}" for row in rows if row["by"]]
        return cls(
            receivers=tuple(sorted({name for row in rows for name in row["receivers"]})),
            held="; ".join(held),
            counts={row["url"]: row for row in rows if "taken" in row and not row["error"]},
            errors=tuple(f"{row['url']}: {row['error']}" for row in rows if row["error"]),
        )

    @property
    def routed(self) -> str:
        """To whom, in words."""
        return ", ".join(self.receivers)

    def grown(self, what: str, before: Look) -> list[str]:
        """What counts more since *before* at an Alertmanager that was read both times."""
        both = self.counts.keys() & before.counts.keys()
        pairs = ((self.counts[url][what], before.counts[url][what]) for url in both)
        return sorted({name for now, old in pairs for name in now if now[name] > old.get(name, 0)})

    def reached(self, before: Look) -> str:
        """Those of its receivers that took a notification since *before*: nobody while it is held,
        then it was another's.
        """
        grown = [] if self.held else self.grown("taken_by", before)
        return ", ".join(name for name in grown if name in self.receivers)


class RoundTrip:
    """monitoring_alert_seconds; of an alert that does not come, how long it was waited for."""

    name = "test alert"
    metrics = (TOOK,)

    def __init__(
        self,
        *,
        ask: Ask = daemon,
        sleep: Callable[[float], None] = time.sleep,
        trial: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._ask = ask
        self._sleep = sleep
        self._trial = trial

    def run(self, task: Task) -> Iterator[Sample | Remark | Fact]:
        """One sample, and what it means. Raises ProbeError where nothing took the alert, or where
        nobody can see what became of it.
        """
        trial, listen = self._trial(), task.options.listen
        with Ear(listen, trial, task.clock) if listen else nullcontext() as ear:
            before = self._look(trial)
            began = task.clock.boot()
            self._send(trial)
            try:
                yield from self._followed(task, trial, ear, before, began)
            finally:
                over = self._over(task, trial)
        if over:
            yield Remark(TOOK, over)

    def _send(self, trial: str, *, over: bool = False) -> None:
        answers = self._ask("alerts_test", trial=trial, over=over)
        if answers is None:
            raise ProbeError("no daemon answers here, wanted one to send the test alert")
        if not answers:
            raise ProbeError(
                'no Alertmanager is named: [alerting] urls = ["http://alertmanager:9093"]'
            )
        if not any(answer["accepted"] for answer in answers):
            said = "; ".join(f"{answer['url']}: {answer['detail']}" for answer in answers)
            raise ProbeError(f"no Alertmanager took the test alert, wanted one to: {said}")

    def _look(self, trial: str) -> Look:
        return Look.of(self._ask("alerts_seen", trial=trial) or ())

    def _followed(
        self, task: Task, trial: str, ear: Ear | None, before: Look, began: float
    ) -> Iterator[Sample | Remark | Fact]:
        """Look until it is there, or longer than it may take."""
        until = began + (task.limit("round_trip") or 0.0) + BEYOND
        routed: float | None = None
        while True:
            look, now = self._look(trial), task.clock.boot()
            if look.receivers and routed is None:
                routed = now - began
                yield Fact("test alert", f"routed to {look.routed} within {seconds(routed)}")
            if ear and ear.arrived is not None:
                yield from _told(task, ear.arrived - began, f"it arrived at {task.options.listen}")
                return
            if ear is None and (reached := look.reached(before)):
                yield from _told(task, now - began, f"its receiver {reached} took a notification")
                return
            if ear is None and routed is not None and (why := _unsure(look, before)):
                raise ProbeError(f"it was routed to {look.routed}, {why}: --listen HOST:PORT sees")
            if now > until and ear is None and (unseen := _errors(look, before)):
                raise ProbeError(f"what became of it cannot be seen: {unseen}")
            if now > until:
                yield from _told(task, now - began, _missing(look, before, ear))
                return
            if look.held:
                before = look  # what was taken until now was another's
            self._sleep(EVERY)

    def _over(self, task: Task, trial: str) -> str:
        """End it; why that did not work, or nothing."""
        until = task.clock.boot() + ENDING
        try:
            self._send(trial, over=True)
            while self._look(trial).receivers:
                if task.clock.boot() > until:
                    return f"it still fires {seconds(ENDING)} after its end was told"
                self._sleep(EVERY)
        except DvfdError as error:
            return f"its end was not told: {error}; it ends by itself within minutes"
        return ""


def _told(task: Task, took: float, how: str) -> Iterator[Sample | Remark]:
    yield Sample(TOOK, took, task.clock.now())
    yield Remark(TOOK, how)


def _unsure(look: Look, before: Look) -> str:
    """Why nobody can say whether it arrived; nothing while that may still be said."""
    if not look.counts.keys() & before.counts.keys():
        why = _errors(look, before) or "no Alertmanager counts its notifications"
        return f"and whether it arrived cannot be seen ({why})"
    kinds = ", ".join(look.grown("taken", before))
    if kinds and not any(counts["taken_by"] for counts in look.counts.values()):
        return f"and a notification by {kinds} was taken since, of this or of another alert"
    return ""


def _missing(look: Look, before: Look, ear: Ear | None) -> str:
    """What is known of an alert that did not come."""
    where = "at --listen" if ear else "by any notification that Alertmanager counts"
    known = [f"it did not arrive {where} in this time"]
    known.append(f"it was routed to {look.routed}" if look.receivers else "no route of it is shown")
    if look.held:
        known.append(look.held)
    if kinds := ", ".join(look.grown("failed", before)):
        known.append(f"notifications by {kinds} failed: see Alertmanager's log")
    return "; ".join([*known, *look.errors])


def _errors(look: Look, before: Look) -> str:
    """What could not be read, now or when counting began."""
    return "; ".join(dict.fromkeys((*look.errors, *before.errors)))
