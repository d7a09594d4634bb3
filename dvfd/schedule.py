"""Run checks at their calendar times. The only importer of APScheduler; it judges nothing.

Cron in one declared time zone, delayed by an offset that is a node's own, so that a fleet does
not wake at once. A run missed while the daemon was down is caught up once and marked late.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from dvfd.errors import ConfigError
from dvfd.model import Clock

BEAT = 15.0
"""Seconds between proofs that the scheduler's thread still runs jobs."""

STEP = 5.0
"""A difference between wall and boot clock that grew by more seconds than this is a clock step."""

GRACE = 6 * 3600
"""Seconds that a run may start late: APScheduler's own default of 1 s drops late runs silently."""

THREADS = 4
"""A list may take ten minutes, for it restores a checkpoint: one for each, and one for the beat."""

LEAP = datetime(2024, 1, 1, tzinfo=UTC)
"""The beginning of a year that has every day there is."""

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

Run = Callable[[str, float], None]
"""Called with the check's id and the Unix time for which it was scheduled."""


def cron(expression: str, zone: ZoneInfo) -> CronTrigger:
    """A trigger for five-field cron: minute hour day month weekday, Sunday = 0 or 7.

    Raises ConfigError. APScheduler's own reader counts weekdays from Monday, so they are named.
    """
    fields = expression.split()
    if len(fields) != 5:
        raise ConfigError([f"schedule {expression!r}: {len(fields)} fields, wanted 5"])
    minute, hour, day, month, weekday = fields
    try:
        trigger = CronTrigger(
            minute=minute,
            hour=hour,
            day=day,
            month=month,
            day_of_week=_weekdays(weekday),
            timezone=zone,
        )
    except ValueError as error:
        raise ConfigError([f"schedule {expression!r}: {error}"]) from None
    if trigger.get_next_fire_time(None, LEAP) is None:
        raise ConfigError([f"schedule {expression!r}: there is no such day in any year"])
    return trigger


def _weekdays(field: str) -> str:
    """The weekday field with its numbers and ranges spelled as a list of names."""
    if field == "*":
        return field
    names: list[str] = []
    for part in field.lower().split(","):
        match = re.fullmatch(r"(\w+)(?:-(\w+))?(?:/(\d+))?|\*/(\d+)", part)
        if match is None:
            raise ValueError(f"weekday {part!r} is not understood")
        first, last, step, star = match.groups()
        low = 0 if star else _weekday(first)
        high = 6 if star else _weekday(last) if last else low
        span = range(low, (high if high >= low else high + 7) + 1, int(step or star or 1))
        names += [WEEKDAYS[number % 7] for number in span]
    return ",".join(dict.fromkeys(names))


def _weekday(text: str) -> int:
    if text.isdigit() and int(text) <= 7:
        return int(text)
    if text[:3] in WEEKDAYS:
        return WEEKDAYS.index(text[:3])
    raise ValueError(f"weekday {text!r} is not 0-7 or a name")


def offset(node: str, check: str, jitter: float) -> float:
    """The node's own delay in seconds for one check: uniform over [0, jitter), always the same.

    Anything else that a fleet must not do at once may be named instead of a check.
    """
    digest = hashlib.sha256(f"{node}/{check}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * jitter


class Delayed(BaseTrigger):  # type: ignore[misc]  # APScheduler publishes no types
    """A cron trigger's times, each later by the same number of seconds.

    A local time that the clocks repeat in autumn is taken once.
    """

    def __init__(self, trigger: BaseTrigger, seconds: float) -> None:
        self._trigger = trigger
        self._delay = timedelta(seconds=seconds)

    def get_next_fire_time(
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime | None:
        """The first time after *now*, in APScheduler's protocol."""
        before = previous_fire_time - self._delay if previous_fire_time else None
        following = self._trigger.get_next_fire_time(before, now - self._delay)
        while following is not None and following.fold:
            following = self._trigger.get_next_fire_time(following, following)
        return following + self._delay if following else None


def missed(trigger: BaseTrigger, since: float, now: float) -> float | None:
    """The newest time in (since, now] at which *trigger* was due, in Unix seconds, or None."""
    newest = None
    moment = datetime.fromtimestamp(max(since, now - 400 * 86400), UTC)
    end = datetime.fromtimestamp(now, UTC)
    for _ in range(100_000):  # every minute for 69 days; a schedule of ours is daily at most
        due = trigger.get_next_fire_time(None, moment + timedelta(microseconds=1))
        if due is None or due > end:
            break
        newest = due.timestamp()
        moment = due
    return newest


class Schedule:
    """The calendar of one node."""

    def __init__(
        self,
        crons: Mapping[str, str],
        *,
        zone: ZoneInfo,
        node: str,
        jitter: float,
        run: Run,
        clock: Clock,
    ) -> None:
        self._run = run
        self._clock = clock
        self._triggers = {
            check: Delayed(cron(text, zone), offset(node, check, jitter))
            for check, text in crons.items()
        }
        self._beat = 0.0
        self._drift = 0.0
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(THREADS)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": GRACE},
        )

    def start(self, last_runs: Mapping[str, float | None]) -> None:
        """Start, and run at once what was due since its last run while nobody was there."""
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._beat = self._clock.boot()
        self._drift = self._clock.now() - self._clock.boot()
        self._scheduler.start()
        self._arm()
        for check, last in last_runs.items():
            if last is not None and check in self._triggers:
                self._catch_up(check, last)

    def stop(self) -> None:
        """Run nothing more. A check that is being judged is not waited for.

        Not `shutdown`: it clears the job store under the feet of a thread that is processing it,
        which then dies with a JobLookupError (seen with 3.11.3). The thread is a daemon.
        """
        if self._scheduler.running:
            self._scheduler.pause()

    def beat(self) -> float:
        """Boot time at which the scheduler last ran a job of its own."""
        return self._beat

    def next_runs(self) -> dict[str, float]:
        """When each check is due next, in Unix seconds."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        due = {c: t.get_next_fire_time(None, now) for c, t in self._triggers.items()}
        return {check: at.timestamp() for check, at in due.items() if at}

    def tick(self) -> bool:
        """Compare the clocks; after a step of the wall clock plan anew. Whether there was one."""
        drift = self._clock.now() - self._clock.boot()
        if abs(drift - self._drift) <= STEP:
            return False
        self._drift = drift
        self._arm()
        return True

    def _arm(self) -> None:
        self._add("beat", IntervalTrigger(seconds=BEAT), self._prove, ())
        for check, trigger in self._triggers.items():
            self._add(check, trigger, self._due, (check,))

    def _add(self, name: str, trigger: BaseTrigger, call: Callable[..., Any], args: Any) -> None:
        self._scheduler.add_job(call, trigger, args=args, id=name, replace_existing=True)

    def _prove(self) -> None:
        self._beat = self._clock.boot()

    def _due(self, check: str) -> None:
        now = self._clock.now()
        scheduled = missed(self._triggers[check], now - GRACE, now)
        self._run(check, now if scheduled is None else scheduled)

    def _catch_up(self, check: str, last: float) -> None:
        due = missed(self._triggers[check], last, self._clock.now())
        if due is not None:
            self._scheduler.add_job(self._run, args=(check, due), id=f"{check}:late")
