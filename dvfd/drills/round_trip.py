"""Send a test alert as the daemon sends any, and time it to the receiver.

Two things can be seen. With --listen, Alertmanager's webhook delivers it to us: it arrived.
Without, Alertmanager's own counters say that a notification was taken after it was routed: of which
alert they do not say. Which of the two was measured stands beside the figure.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvfd.cli.common import daemon
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


@dataclass(frozen=True, slots=True)
class Look:
    """What all Alertmanagers say of the test alert at one moment."""

    receivers: tuple[str, ...] = ()
    held: str = ""  # what keeps it from being told
    made: Mapping[str, float] = field(default_factory=dict)  # tries to notify, by kind
    failed: Mapping[str, float] = field(default_factory=dict)
    counted: bool = False  # whether any Alertmanager tells these two
    errors: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Look:
        """As the daemon answers, a row for each Alertmanager."""
        held = [f"{row['state']} by {', '.join(row['by'])}" for row in rows if row["by"]]
        return cls(
            receivers=tuple(sorted({name for row in rows for name in row["receivers"]})),
            held="; ".join(held),
            made=_sums(row.get("made", {}) for row in rows),
            failed=_sums(row.get("failed", {}) for row in rows),
            counted=any("made" in row for row in rows),
            errors=tuple(f"{row['url']}: {row['error']}" for row in rows if row["error"]),
        )

    def delivered(self, before: Look) -> str:
        """The kinds of receiver that took a notification since *before*."""
        return ", ".join(
            kind
            for kind in sorted(self.made)
            if _gain(self.made, before.made, kind) > _gain(self.failed, before.failed, kind)
        )

    def broken(self, before: Look) -> str:
        """The kinds of receiver that refused one since."""
        return ", ".join(k for k in sorted(self.failed) if _gain(self.failed, before.failed, k) > 0)


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
                names = ", ".join(look.receivers)
                yield Fact("test alert", f"routed to {names} within {seconds(routed)}")
            if ear and ear.arrived is not None:
                yield from _told(task, ear.arrived - began, f"it arrived at {task.options.listen}")
                return
            taken, refused = look.delivered(before), look.broken(before)
            if ear is None and routed is not None and taken and not refused:
                yield from _told(task, now - began, _counted(taken))
                return
            blind = ear is None and not look.counted
            if (blind and routed is not None) or (now > until and (blind or (taken and refused))):
                raise ProbeError(_unseen(look, taken, refused))
            if now > until:
                yield from _told(task, now - began, _missing(look, before, ear, routed))
                return
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


def _counted(kinds: str) -> str:
    return (
        f"Alertmanager counts a notification by {kinds} that was taken, and does not say of which "
        "alert: --listen HOST:PORT sees the alert itself arrive"
    )


def _unseen(look: Look, taken: str, refused: str) -> str:
    """Why nobody can say whether it arrived."""
    routed = f"it was routed to {', '.join(look.receivers)}" if look.receivers else "it was taken"
    why = "; ".join(look.errors) or "no Alertmanager counts its notifications"
    if taken and refused:
        why = f"of notifications by {taken} some were taken and some failed"
    return f"{routed}, and whether it arrived cannot be seen: {why}; use --listen HOST:PORT"


def _missing(look: Look, before: Look, ear: Ear | None, routed: float | None) -> str:
    """What is known of an alert that did not come."""
    where = "at --listen" if ear else "by any notification that Alertmanager counts"
    known = [f"it did not arrive {where} in this time"]
    if routed is None:
        known.append("it was taken, and Alertmanager shows no route of it")
    elif not look.receivers:
        known.append("Alertmanager has forgotten it")
    else:
        known.append(f"it was routed to {', '.join(look.receivers)}")
    if look.held:
        known.append(look.held)
    if kinds := look.broken(before):
        known.append(f"notifications by {kinds} failed: see Alertmanager's log")
    known += look.errors
    return "; ".join(known)


def _sums(rows: Iterator[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        for kind, count in row.items():
            found[kind] = found.get(kind, 0.0) + count
    return found


def _gain(now: Mapping[str, float], before: Mapping[str, float], kind: str) -> float:
    return now.get(kind, 0.0) - before.get(kind, 0.0)
