"""The one thread that writes. When the disk fails it keeps everything, says so, and tries again."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from dvfd.errors import StoreError
from dvfd.store.database import is_corrupt, is_refused, open_database, set_aside
from dvfd.store.operations import CommitTelemetry, Tables
from dvfd.store.pending import LIMITS, TURN
from dvfd.store.retention import PRUNE_EVERY, prune
from dvfd.store.rollups import HOURS, LEVELS, Rollups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dvfd.model import Clock, Metric
    from dvfd.store.database import Database
    from dvfd.store.operations import Operation
    from dvfd.store.pending import Key, Pending
    from dvfd.store.retention import Retention
    from dvfd.store.run_file import RunFile

log = structlog.get_logger()

COMMIT_EVERY = 0.5
"""Seconds that samples wait for company: what a kill -9 may lose of them."""

LINGER = 0.03
"""Seconds that urgent work waits for company: the ranks of a job report at the same moment, which
a busy machine spreads over some tens of milliseconds."""

IDLE = 5.0
"""Seconds between two looks at the clock and the file when nothing happens."""

PATIENCE = (0.5, 30.0)
"""First and longest pause, in seconds, before a failing disk is tried again."""

REFUSALS = (sqlite3.Error, ValueError, TypeError, OverflowError)
"""What applying an operation may raise: SQLite's own, and Python's for a value it cannot bind."""

NOTICE = "notice"
"""The row of `meta` that holds what must be said until a person acknowledges it."""


class Writer:
    """Opens the file, commits what waits, closes rollups and prunes. Never raises to its users."""

    def __init__(
        self,
        path: Path | None,
        pending: Pending,
        *,
        metrics: Mapping[str, Metric],
        clock: Clock,
        retention: Retention,
        opened: Callable[[Database], None],
        afresh: Callable[[], None],
        pacing: Callable[[], float] = time.monotonic,
    ) -> None:
        """*opened* gets the first database that opens; *afresh*: a new file replaced a lost one;
        *pacing* says when chores and new attempts are due.
        """
        self._path = path
        self._pending = pending
        self._clock = clock
        self._retention = retention
        self._opened: Callable[[Database], None] | None = opened
        self._afresh = afresh
        self._rollups = Rollups(metrics)
        self._tables = Tables(self._rollups)
        self._thread = threading.Thread(target=self._run, name="dvfd-writer", daemon=True)
        self._stopping = False
        self._now = pacing
        self._pace = Pace(pacing)
        self._chores: Iterator[None] = iter(())
        self._distrusted: Exception | None = None
        self._replaced = False
        self._saved_notice = ""
        self.database: Database | None = None
        self.trouble = "not started"
        self.notice = ""
        self.last_commit: float | None = None
        self.beat = clock.boot()
        self.refused: Counter[str] = Counter(dict.fromkeys(LIMITS, 0))
        self.recording: RunFile | None = None

    def start(self) -> None:
        """Open here and now, then write in a thread of its own."""
        self.turn()
        if self._replaced:
            self.turn()
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Commit what waits if the disk lets us, and close."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def distrust(self, error: Exception) -> None:
        """A reader met *error*: open anew at the next turn, and look."""
        self._distrusted = error
        self._wake()

    def acknowledge(self) -> None:
        """A person has read the notice."""
        self.notice = ""
        self._pace.chores_at = 0.0
        self._wake()

    @property
    def busy(self) -> bool:
        """Whether more chores are due at once."""
        return self._pace.busy

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _wake(self) -> None:
        with self._pending.changed:
            self._pending.changed.notify_all()

    def _run(self) -> None:
        while not self._stopping:
            self._await_work()
            self.turn()
        self._finish()

    def _await_work(self) -> None:
        latest = time.monotonic() + IDLE
        with self._pending.changed:
            while (seconds := min(self._until_work(), latest - time.monotonic())) > 0:
                self._pending.changed.wait(seconds)
        if self._pending.urgent and not self._stopping:
            time.sleep(LINGER)

    def _until_work(self) -> float:
        """Seconds until there is something to do, if nothing happens before."""
        if self._stopping:
            return 0.0
        now = self._now()
        if self._pace.retry_at > now:
            return self._pace.retry_at - now
        if self._pending.urgent or self._pace.busy or self._distrusted or not self.database:
            return 0.0
        chores = self._pace.chores_at - now
        return min(chores, self._pace.due(now)) if self._pending else chores

    def turn(self) -> None:
        """Open if need be, commit what waits, do one chore that is due: what the thread does over
        and over, and whoever simulates time without it.
        """
        self.beat = self._clock.boot()
        if self._now() < self._pace.retry_at:
            return
        try:
            self._open()
            self._commit()
            self._works()
            self._chore()
        except (sqlite3.Error, OSError, StoreError) as error:
            self._fail(error)

    def _finish(self) -> None:
        """Write the rest, as long as the disk takes it."""
        self._pace.retry_at = 0.0
        left = -1
        while self._pending and self._pending.size != left and not self._pace.retry_at:
            left = self._pending.size
            self.turn()
        self._close()
        self.trouble = self.trouble or "stopped"

    def _open(self) -> None:
        if self._distrusted:
            raise self._distrusted
        if self.database:
            return
        database = open_database(self._path)
        try:
            self._begin(database)
        except BaseException:
            database.close()
            raise
        self.database = database
        self._pace.retry_at = 0.0
        if self._replaced:
            self._replaced = False
            self._afresh()

    def _works(self) -> None:
        """What waited is on the disk: only now, for a full disk opens as well as any."""
        if self.trouble:
            self.trouble = ""
            _say("store opened", path=str(self._path or "memory"))

    def _begin(self, database: Database) -> None:
        """Learn what the file holds."""
        self._rollups.opened(database, self._clock.now())
        self._saved_notice = read_notice(database)
        self.notice = self.notice or self._saved_notice
        if self._opened:
            self._opened(database)
            self._opened = None

    def _close(self) -> None:
        database, self.database = self.database, None
        self._distrusted = None
        self._tables.forget()
        self._chores = iter(())
        self._pace.busy = False
        if database:
            database.close()

    def _fail(self, error: Exception) -> None:
        """Keep everything, say why, try again later; a damaged file is moved aside at once."""
        self._close()
        self._pending.settle(())
        pause = self._pace.failed()
        reason = str(error) or type(error).__name__
        if is_corrupt(error) and self._path:
            reason = self._move_aside(self._path, reason)
        if reason != self.trouble:
            _say("store failing", path=str(self._path), error=reason, retry_seconds=pause)
        self.trouble = reason

    def _move_aside(self, path: Path, reason: str) -> str:
        try:
            aside = set_aside(path, self._clock.now())
        except (OSError, StoreError) as error:
            return f"{path}: corrupt ({reason}) and cannot be moved aside: {error}"
        self._start_afresh(f"{path} was corrupt ({reason}); moved to {aside.name}")
        return f"{path}: corrupt ({reason}); starting afresh"

    def _start_afresh(self, what: str) -> None:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.now()))
        self.notice = (
            f"{what}; a new store began at {when} and knows nothing older "
            "(once read: dvfd store acknowledge)"
        )
        self._replaced = True
        self._pace.retry_at = 0.0

    def _commit(self) -> None:
        turn = self._pending.take()
        if not turn:
            return
        written = self._write(self._recorded(turn))
        self.last_commit = self._clock.now()
        self._pace.worked()
        for operation in written:
            operation.committed()
        self._pending.settle(turn)
        if sum(operation.weight for _, operation in turn) < TURN:
            self._pace.first_waited = 0.0  # else more has waited for as long
        for operation in written:
            operation.tell()

    def _recorded(self, turn: Sequence[tuple[Key, Operation]]) -> list[tuple[Key, Operation]]:
        """Put telemetry of a run into its file, which then is never behind what we acknowledge.

        What that file does not take is not written here either, and not acknowledged: its session
        is refused until the rank connects again, and sends it again.
        """
        file = self.recording
        if file is None or file.closed:
            return list(turn)
        told = (each for _, each in turn if isinstance(each, CommitTelemetry))
        mine = [each for each in told if each.job == file.job]
        # The event of a packet without steps waits in the file, and is written with these.
        if not mine or file.take((o.session, o.sequence, o.rows) for o in mine):
            return list(turn)
        for operation in mine:
            self._pending.refuse(operation.session)
        return [(key, operation) for key, operation in turn if operation not in mine]

    def _write(self, turn: Sequence[tuple[Key, Operation]]) -> list[Operation]:
        """Commit *turn*; what the tables refuse is dropped, counted, and alone in its fate."""
        operations = [operation for _, operation in turn]
        assert self.database
        try:
            with self.database.transaction() as self._tables.connection:
                for operation in operations:
                    operation.apply(self._tables)
        except REFUSALS as error:
            self._tables.forget()
            if not is_refused(error):
                raise
            return self._write_singly(operations)
        return operations

    def _write_singly(self, operations: Sequence[Operation]) -> list[Operation]:
        written = []
        assert self.database
        with self.database.transaction() as connection:
            self._tables.connection = connection
            for operation in operations:
                connection.execute("SAVEPOINT one")
                try:
                    operation.apply(self._tables)
                    written.append(operation)
                except REFUSALS as error:
                    self._refuse(operation, error)
                    connection.execute("ROLLBACK TO one")
                connection.execute("RELEASE one")
        return written

    def _refuse(self, operation: Operation, error: Exception) -> None:
        if not is_refused(error):
            raise error
        self._tables.forget()
        self.refused[operation.kind] += 1
        _say("store refused a row", kind=operation.kind, error=str(error))

    def _chore(self) -> None:
        """One small step of what is due besides committing."""
        now = self._now()
        if not self._pace.busy:
            if now < self._pace.chores_at:
                return
            self._pace.chores_at = now + IDLE
            self._chores = self._round()
        self._pace.busy = next(self._chores, self) is None

    def _round(self) -> Iterator[None]:
        assert self.database
        database, now = self.database, self._clock.now()
        if database.vanished():
            self._start_afresh(f"{self._path} was removed while in use")
            raise StoreError(f"{self._path}: removed while in use")
        if self.notice != self._saved_notice:
            write_notice(database, self.notice)
            self._saved_notice = self.notice
        keep_from = now - self._retention.raw + HOURS.size
        yield from self._rollups.close(database, now, keep_from)
        if self._now() >= self._pace.prune_at:
            rolled_until = min(self._rollups.closed(level) for level in LEVELS)
            yield from prune(database, now, self._retention, rolled_until)
            self._pace.prune_at = self._now() + PRUNE_EVERY


class Pace:
    """When the thread does what, in its own monotonic time: real pacing, not data."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.retry_at = 0.0
        self.pause = 0.0
        self.first_waited = 0.0
        self.chores_at = 0.0
        self.prune_at = 0.0
        self.busy = False

    def due(self, now: float) -> float:
        """Seconds until waiting samples have had company for long enough."""
        self.first_waited = self.first_waited or now
        return max(0.0, self.first_waited + COMMIT_EVERY - now)

    def failed(self) -> float:
        """Wait longer after each failure; return the seconds."""
        first, longest = PATIENCE
        self.pause = min(longest, max(first, 2 * self.pause))
        self.retry_at = self._now() + self.pause
        return self.pause

    def worked(self) -> None:
        """A commit came through (opening says little): the next failure pauses shortly again."""
        self.pause = 0.0


def _say(event: str, **facts: object) -> None:
    """Log an event. The log may lie on the very disk that is full: that must not end the thread."""
    with contextlib.suppress(OSError):
        log.warning(event, **facts)


def read_notice(database: Database) -> str:
    """What a person has not acknowledged yet, or an empty string."""
    found = database.read("SELECT value FROM meta WHERE key = ?", NOTICE)
    return str(found[0][0]) if found else ""


def write_notice(database: Database, text: str) -> None:
    """Keep *text* until it is acknowledged; an empty one removes it."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM meta WHERE key = ?", (NOTICE,))
        if text:
            connection.execute("INSERT INTO meta VALUES (?, ?)", (NOTICE, text))


class Onlooker:
    """What stands in for a writer where nothing is written: a file opened to read only."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._clock = clock
        self.database: Database | None = database
        self.trouble = ""
        self.notice = read_notice(database)
        self.last_commit: float | None = None
        self.alive = True
        self.refused: Counter[str] = Counter()
        self.recording: RunFile | None = None

    @property
    def beat(self) -> float:
        """Now: there is nothing that could be late."""
        return self._clock.boot()

    def start(self) -> None:
        """There is nothing to start."""

    def stop(self, timeout: float) -> None:  # as a writer's
        """Close the file."""
        database, self.database = self.database, None
        if database:
            database.close()

    def distrust(self, error: Exception) -> None:
        """Say what a reader met."""
        self.trouble = str(error)

    def acknowledge(self) -> None:
        """Nothing is written here, so nothing can be acknowledged."""
