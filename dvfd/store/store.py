"""The one door to what is remembered: samples, telemetry, reports, alarms, states, records.

Writing never blocks on the disk and never raises; reading never blames the reader for the disk.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dvfd.errors import StoreError
from dvfd.store import states
from dvfd.store.database import open_read_only
from dvfd.store.documents import StoredReport, stored, to_text, verdicts
from dvfd.store.measurements import Measurements
from dvfd.store.operations import CommitTelemetry, KeepReport, Move
from dvfd.store.pending import Pending
from dvfd.store.records import Records
from dvfd.store.retention import IN_MEMORY, Retention
from dvfd.store.writer import Onlooker, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dvfd.model import Clock, Criterion, Labels, Metric, Report, Sample
    from dvfd.store.database import Database
    from dvfd.store.folds import StepFold
    from dvfd.store.operations import Operation
    from dvfd.store.run_file import RunFile

    T = TypeVar("T")

LOSS_SHOWN = 60.0
"""Seconds that a loss makes the store unwell: long enough for a scrape to see it."""

WATCH_EVERY = 3600.0
"""Seconds after which a check that is judged all the time is kept again without news."""

SESSIONS = 4096
"""Cursors held in memory; more than 16 jobs of 64 ranks, each restarted three times, a day."""

IN_FLIGHT = 5.0
"""Seconds that a session's cursor waits for a commit under way. A disk that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """How the store is doing. `reason` may be told while it is ok: a notice nobody acknowledged.

    `queue` counts what waits for the disk; `dropped`, `nonfinite` and `refused` what never will
    be there, by bound, by nature and by the tables.
    """

    ok: bool
    reason: str
    queue: int
    last_commit: float | None
    path: str
    dropped: int = 0
    nonfinite: int = 0
    refused: int = 0
    series: int = 0


class Store:
    """All that dvfd remembers. Any thread; constructing one touches nothing."""

    def __init__(
        self,
        path: Path | None,
        *,
        metrics: Mapping[str, Metric],
        clock: Clock,
        retention: Retention | None = None,
        pacing: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep everything in the file *path*, or, if None, for as long as this object lives.

        *pacing*, in seconds, says when the writer's chores are due.
        """
        chosen = retention or (Retention() if path else IN_MEMORY)
        self._path = path
        self._clock = clock
        self._pending = Pending()
        self._records = Records()
        self._cursors: dict[str, int] = {}
        self._kept: dict[str, tuple[tuple[tuple[str, str], ...], float]] = {}
        self._lock = threading.Lock()
        self._measurements = Measurements(
            ask=self._ask, pending=self._pending, metrics=metrics, clock=clock, retention=chosen
        )
        self._writer: Writer | Onlooker = Writer(
            path,
            self._pending,
            metrics=metrics,
            clock=clock,
            retention=chosen,
            opened=self._load,
            afresh=self._tell_all,
            pacing=pacing,
        )

    @classmethod
    def read_only(cls, path: Path, metrics: Mapping[str, Metric], clock: Clock) -> Store:
        """The store at *path*, to read only; a daemon may be writing it. Raises StoreError."""
        store = cls(path, metrics=metrics, clock=clock)
        database = open_read_only(path)
        store._writer = Onlooker(database, clock)
        try:
            store._measurements.load(database)
            store._records.load(database)
        except sqlite3.Error as error:
            database.close()
            raise StoreError(f"{path}: cannot be read: {error}") from None
        return store

    def start(self) -> None:
        """Open the file and begin to write. A failure shows in `health`, and is tried again."""
        self._writer.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Write what waits, as far as the disk takes it within *timeout* seconds, and close."""
        self._writer.stop(timeout)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was written is on the disk; False if it is not within *timeout*."""
        return self._pending.await_written(timeout)

    def health(self) -> StoreHealth:
        """How it is doing, now."""
        writer, dropped = self._writer, self._measurements.dropped
        dead = "" if writer.trouble or writer.alive else "the writing thread died: see the log"
        losing = time.monotonic() - self._pending.lost_at < LOSS_SHOWN
        lost = f"queue full: {_counts(self._pending.lost)} lost" if losing else ""
        troubles = [text for text in (writer.trouble, dead, lost) if text]
        return StoreHealth(
            ok=not troubles,
            reason="; ".join([*troubles, *([writer.notice] if writer.notice else [])]),
            queue=self._pending.size,
            last_commit=writer.last_commit,
            path=str(self._path or "memory"),
            dropped=sum(self._pending.lost.values()) + dropped["series"],
            nonfinite=dropped["nonfinite"],
            refused=sum(writer.refused.values()),
            series=self._measurements.live,
        )

    @property
    def known(self) -> bool:
        """Whether what an earlier daemon kept has been read: before that nothing is missing, it is
        only not known.
        """
        return self._records.loaded

    def beat(self) -> float:
        """Boot time at which the writing thread last went round; it does every 5 s at least."""
        return self._writer.beat

    def acknowledge(self) -> None:
        """A person has read what `health` says of a lost file: say it no more."""
        self._writer.acknowledge()

    # --- Samples ------------------------------------------------------------------------------

    def write(self, samples: Iterable[Sample], *, looked: bool = False) -> None:
        """Take samples in; the next `samples` sees them. What is not finite is counted instead.

        *looked* says that they are from a look around, beside which a series may have ended: one
        that ended after it is left so.
        """
        self._check_writable()
        self._measurements.write(samples, looked=looked)

    def samples(self, criterion: Criterion, *, until: float) -> list[Sample]:
        """What to judge *criterion* on at Unix time *until*.

        For each live series the samples of `window` plus `max_age` seconds, at the resolution that
        the window's length allows, and always its newest sample; the newest of its limit's metric.
        """
        return self._measurements.samples(criterion, until)

    def latest(self, metric: str) -> list[Sample]:
        """The newest sample of each live series, however old."""
        return self._measurements.latest(metric)

    def series(self, metric: str, labels: Labels, *, since: float, until: float) -> list[Sample]:
        """The course of one series, live or ended; a gauge's rollups as means, a counter's last."""
        return self._measurements.series(metric, labels, since, until)

    def medians(self, metric: str, labels: Labels, *, since: float, until: float) -> list[Sample]:
        """The course of one gauge; the rollups of hours as their medians."""
        return self._measurements.series(metric, labels, since, until, "median")

    def lived(self, since: float) -> list[tuple[str, Labels]]:
        """Metric and labels of every series that had not ended at Unix time *since*."""
        none: list[tuple[str, Labels]] = []
        return self._ask(lambda db: _lived(db, since), none)

    def end_series(self, where: Mapping[str, str], at: float, metric: str = "") -> None:
        """The series that have these labels, of *metric* alone if given, are over at *at*; a later
        sample revives one.
        """
        self._check_writable()
        self._measurements.end(where, at, metric)

    # --- Telemetry ----------------------------------------------------------------------------

    def commit_telemetry(
        self,
        session: str,
        sequence: int,
        rows: Sequence[StepFold],
        done: Callable[[int], None],
        *,
        job: str = "",
    ) -> None:
        """Make *rows*, or an event, of *job* durable, once: a *sequence* not above the session's
        cursor is ignored.

        *done* gets the committed sequence, in the writing thread, after the commit; it must not
        raise. If the disk fails it is not called, and the job keeps its ring.
        """
        self._check_writable()
        self._pending.add_telemetry(
            CommitTelemetry(session, sequence, rows, self._clock.now(), done, self._cursors, job)
        )

    def record(self, file: RunFile | None) -> None:
        """Put the telemetry of a run's job also into *file*, before it is acknowledged; None ends
        that.
        """
        self._check_writable()
        assert isinstance(self._writer, Writer)
        self._writer.recording = file

    def cursor(self, session: str) -> int:
        """The last committed sequence, 0 if there is none: where the job is to send from.

        What of the session waits uncommitted is withdrawn, since the job sends it again. While
        the file cannot be read, or that of a run, the answer is 0, and what comes is not taken
        until it is asked again: taken blindly, it could be counted twice.
        """
        if not self._pending.resume(session, IN_FLIGHT):
            return 0
        if session not in self._cursors:
            found = self._ask(lambda db: _cursor(db, session), None)
            if found is None:
                self._pending.refuse(session)
                return 0
            self._remember(session, found)
        file = self._writer.recording
        if file is not None and file.cursor(session) is None:
            self._pending.refuse(session)
            return 0
        return self._cursors[session]

    def steps_after(self, session: str, sequence: int) -> int | None:
        """Committed steps of a session beyond *sequence*, which no fold may straddle; None where
        no fold of it is kept any more.
        """
        return self._ask(lambda db: _steps_after(db, session, sequence), None)

    def recorded(self, session: str) -> int:
        """The last sequence that the file of a run has, 0 if there is none. A daemon that was
        killed between the two commits left it ahead of `cursor`: no fold may straddle it.
        """
        file = self._writer.recording
        return 0 if file is None else file.cursor(session) or 0

    def _remember(self, session: str, sequence: int) -> None:
        with self._lock:
            while len(self._cursors) >= SESSIONS:
                del self._cursors[next(iter(self._cursors))]
            self._cursors.setdefault(session, sequence)

    # --- Reports ------------------------------------------------------------------------------

    def keep(self, report: Report, *, scheduled: float | None = None) -> None:
        """Record a run of a check; *scheduled* is when it was due, Unix seconds.

        A check that is judged all the time is kept when a verdict changed, else once an hour.
        """
        self._check_writable()
        if not report.check.watch or self._is_news(report):
            self._pending.add(KeepReport(stored(report, scheduled), report.check.watch))

    def last_report(self, check_id: str) -> StoredReport | None:
        """The newest kept run of a check."""
        return next(iter(self.reports(check_id, 1)), None)

    def reports(self, check_id: str, limit: int) -> list[StoredReport]:
        """The newest kept runs of a check, newest first."""
        waiting = [o.report for o in self._pending.of(KeepReport) if o.report.check_id == check_id]
        none: list[StoredReport] = []
        known = self._ask(lambda db: _reports(db, check_id, limit), none)
        found = {report.at: report for report in (*known, *waiting)}
        return [found[at] for at in sorted(found, reverse=True)][:limit]

    def last_run(self, check_id: str) -> float | None:
        """When the last kept run of a check was due, or was made if it was not scheduled."""
        last = self.last_report(check_id)
        return None if last is None else last.at if last.scheduled is None else last.scheduled

    def _is_news(self, report: Report) -> bool:
        check = report.check.id
        now = tuple((r.criterion.id, r.verdict.value) for r in report.results)
        if check not in self._kept and (last := self.last_report(check)):
            self._kept[check] = (verdicts(last.document), last.at)
        known, at = self._kept.get(check, ((), 0.0))
        if known == now and at <= report.at < at + WATCH_EVERY:
            return False
        self._kept[check] = (now, report.at)
        return True

    # --- States, alarms, outbox, records ------------------------------------------------------

    def transition(self, subject: str, state: str, at: float) -> None:
        """*subject* is in *state* from *at* on; the same state again is no news."""
        self._add(self._records.move(subject, state, at))

    def transitions(self, subject: str, since: float, until: float) -> list[states.Interval]:
        """The states of *subject* over [since, until], without a hole: unseen is "unobserved"."""
        none: list[tuple[float, str]] = []
        known = self._ask(lambda db: states.rows(db, subject, since, until), none)
        waiting = [(o.at, o.state) for o in self._pending.of(Move) if o.subject == subject]
        return states.intervals(subject, dict([*known, *waiting]).items(), since, until)

    def save_alarms(self, alarms: Mapping[str, dict[str, Any]]) -> None:
        """Keep the state of alarms by key; those that did not change cost nothing."""
        for key, document in alarms.items():
            self._add(self._records.save_alarm(key, to_text(document)))

    def load_alarms(self) -> dict[str, dict[str, Any]]:
        """All alarms by key."""
        return self._records.alarms()

    def outbox_put(self, key: str, alert: dict[str, Any], alarm: dict[str, Any]) -> None:
        """Keep an alert until `outbox_done`, and its alarm's state: both or neither.

        There is one alert by key; a later one takes its place.
        """
        self._add(self._records.put_alert(key, to_text(alert), to_text(alarm)))

    def outbox(self) -> list[dict[str, Any]]:
        """The alerts that wait, as they were put, oldest first."""
        return self._records.outbox()

    def outbox_done(self, key: str) -> None:
        """An alert needs no more telling."""
        self._add(self._records.alert_done(key))

    def put(
        self, kind: str, key: str, document: Mapping[str, Any] | None, *, urgent: bool = False
    ) -> None:
        """Keep a small JSON document by kind and key; None deletes it. An *urgent* one is written
        at once.
        """
        text = None if document is None else to_text(document)
        self._add(self._records.put(kind, key, text, urgent=urgent))

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """One document."""
        return self._records.get(kind, key)

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """The documents of a kind by key."""
        return self._records.all(kind)

    def forget(self, kind: str, key: str) -> None:
        """Delete a document."""
        self._add(self._records.put(kind, key, None))

    # --- Inside -------------------------------------------------------------------------------

    def _add(self, operation: Operation | None) -> None:
        self._check_writable()
        if operation is not None:
            self._pending.add(operation)

    def _check_writable(self) -> None:
        if isinstance(self._writer, Onlooker):
            raise StoreError(f"{self._path}: opened to read only")

    def _ask(self, question: Callable[[Database], T], otherwise: T) -> T:
        """The answer of the database, or *otherwise*: its trouble is the writer's business."""
        writer = self._writer
        database = writer.database
        if database is None:
            return otherwise
        try:
            return question(database)
        except sqlite3.Error as error:
            if writer.database is database:  # else it was closed while we asked
                writer.distrust(error)
            return otherwise

    def _load(self, database: Database) -> None:
        """Remember what an earlier daemon knew."""
        ours = self._records.states()
        last_seen = self._measurements.load(database)
        self._records.load(database)
        theirs = {s: v for s, v in self._records.states().items() if s not in ours}
        for move in states.unseen(theirs.items(), last_seen):
            self._records.move(move.subject, move.state, move.at)
            self._pending.add(move)

    def _tell_all(self) -> None:
        """Write into a new file what a lost one knew and we still know."""
        for operation in self._records.everything():
            self._pending.add(operation)
        for session, sequence in dict(self._cursors).items():
            self.commit_telemetry(session, sequence, (), lambda _sequence: None)
        self._measurements.rewrite()


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _lived(database: Database, since: float) -> list[tuple[str, Labels]]:
    rows = database.read(
        "SELECT metric, labels FROM series WHERE ended_at IS NULL OR ended_at >= ?"
        " ORDER BY metric, labels",
        since,
    )
    return [(metric, tuple(sorted(json.loads(text).items()))) for metric, text in rows]


def _cursor(database: Database, session: str) -> int:
    found = database.read("SELECT sequence FROM sessions WHERE session = ?", session)
    return int(found[0][0]) if found else 0


def _steps_after(database: Database, session: str, sequence: int) -> int | None:
    found = database.read(
        "SELECT sum(count * (f.sequence > ?)) FROM folds f JOIN sessions s ON f.session = s.id"
        " WHERE s.session = ?",
        sequence, session,
    )  # fmt: skip
    return None if found[0][0] is None else int(found[0][0])


def _reports(database: Database, check_id: str, limit: int) -> list[StoredReport]:
    rows = database.read(
        "SELECT check_id, at, verdict, late, scheduled, document FROM reports"
        " WHERE check_id = ? ORDER BY at DESC, id DESC LIMIT ?",
        check_id, limit,
    )  # fmt: skip
    return [StoredReport(*row) for row in rows]
