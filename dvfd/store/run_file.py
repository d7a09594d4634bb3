"""The file of one stability run: windows, minutes, events. Written before a rank is told that its
rows are safe, read while it grows, frozen with the run's report.

One thread writes at a time, behind a lock; readers have connections of their own. What the disk
refuses shows in `trouble`; nothing here raises to those who only hand rows over.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from dvfd.errors import StoreError
from dvfd.runs.rows import Event, Minute, Window
from dvfd.store.run_reading import Reading, digest
from dvfd.store.run_tables import COLUMNS, HEARD, connect, made, newest_mark, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dvfd.runs.rows import Row
    from dvfd.runs.run import Axis
    from dvfd.store.folds import StepFold

PATIENCE = 10.0
"""Seconds that a file which is to be frozen waits for those who read it just then."""

MARKED = 5000
"""Minutes and events that get one mark at most: a mark is read whole, and goes over the network."""

WAITING = 200_000
"""Minutes and events that wait for a disk that refuses; above it the oldest are lost, and told."""

SUMS = (
    "nonfinite", "losses", "norms", "computes", "allreduces", "loss", "norm", "compute",
    "communication", "stepping", "allreduce", "moved",
)  # fmt: skip

_EVENT = attrgetter(*(field.name for field in fields(Event)))
_UPSERT = (
    f"INSERT INTO windows ({', '.join(COLUMNS)}, mark)"  # noqa: S608  # names of ours
    f" VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
    " ON CONFLICT (window, node, rank, session) DO UPDATE SET"
    " first_step = min(first_step, excluded.first_step),"
    " last_step = max(last_step, excluded.last_step), steps = steps + excluded.steps,"
    " began = min(began, excluded.began), ended = max(ended, excluded.ended),"
    " samples = CASE WHEN samples IS NULL THEN excluded.samples"
    " ELSE samples + ifnull(excluded.samples, 0) END, "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
    + ", mark = excluded.mark"
)

_REPLACE = _UPSERT.partition(" ON CONFLICT")[0].replace("INSERT", "INSERT OR REPLACE")


class RunFile:
    """One run's file, open to be written. Any thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """See `create` and `open`."""
        self.path = path
        self.job = ""  # the label of the job whose rows belong here
        self.every = 1  # batches in a collection interval
        self.node = ""
        self.trouble = ""
        self.lost = 0
        self._connection: sqlite3.Connection | None = connection
        self._lock = threading.RLock()  # of the connection
        self._queue = threading.Lock()  # of what waits: who adds never waits for the disk
        self._offset = self._floor = 0.0
        self._waiting: list[Minute | Event] = []
        self._heartbeat: tuple[float, float] | None = None
        self._document: str | None = None
        self._series: dict[tuple[str, str, str], int] = {}
        self._sessions: dict[str, int] = {}
        self._inode = path.stat().st_ino
        self._mark = newest_mark(connection)

    # --- Opening and closing --------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, document: Mapping[str, Any]) -> RunFile:
        """A new file that says of what it is. Raises StoreError if that cannot be made."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("xb").close()
        except OSError as error:
            taken = "there is a run of that name already"
            what = taken if path.exists() else f"cannot be created: {error}"
            raise StoreError(f"{path}: {what}") from None
        try:
            return cls(path, made(path, json.dumps(document, sort_keys=True)))
        except (OSError, sqlite3.Error) as error:
            path.unlink(missing_ok=True)  # what is half made would pass for a run
            raise StoreError(f"{path}: cannot be created: {error}") from None

    @classmethod
    def open(cls, path: Path) -> RunFile:
        """The file of a run that goes on. Raises StoreError if it is none, or frozen."""
        if not path.is_file():
            raise StoreError(f"{path}: no such file of a run")
        if not path.stat().st_mode & 0o200:
            raise StoreError(f"{path}: is frozen with its report")
        Reading(path).check()  # before anything is written into what may be somebody else's
        try:
            return cls(path, connect(path))
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: cannot be opened: {error}") from None

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._connection is None

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        self.flush()
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def freeze(self) -> str:
        """Close it for good: one file, read-only; the SHA-256 of its bytes. Raises StoreError."""
        self.flush()
        if self.trouble:
            raise StoreError(f"{self.path}: cannot be frozen: {self.trouble}")
        try:
            self._leave_wal()
            self.close()
            self.path.chmod(0o444)
            return digest(self.path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.path}: cannot be frozen: {error}") from None

    def _leave_wal(self) -> None:
        """Make it one file, which nobody must be reading just then. Raises sqlite3.Error."""
        until = time.monotonic() + PATIENCE
        while True:
            with self._lock:
                if self._connection is None:
                    return
                try:
                    self._connection.execute("PRAGMA journal_mode = DELETE")
                except sqlite3.OperationalError:
                    if time.monotonic() > until:
                        raise
                else:
                    return
            time.sleep(0.05)

    # --- Writing --------------------------------------------------------------------------------

    def set_axis(self, axis: Axis, since: float = 0.0) -> None:
        """How CLOCK_BOOTTIME becomes run seconds from now on; steps before *since* are left out."""
        self._offset, self._floor = axis.offset, since

    def put_document(self, document: Mapping[str, Any]) -> None:
        """Keep what the run is, so that the file explains itself."""
        text = json.dumps(document, sort_keys=True)
        with self._queue:
            self._document = None  # this one is newer
        self._write(lambda connection, _mark: put(connection, "run", text))

    def enter(self, event: Event, document: Mapping[str, Any]) -> None:
        """Take a transition in, and what the run is from then on: both are on the disk or neither,
        as with `add`.
        """
        with self._queue:
            self._waiting.append(event)
            self._document = json.dumps(document, sort_keys=True)

    def add(self, rows: Iterable[Minute | Event]) -> None:
        """Take rows in; they are on the disk after `flush`, which comes about once a second."""
        with self._queue:
            self._waiting.extend(rows)
            if (over := len(self._waiting) - WAITING) > 0:
                del self._waiting[:over]
                self.lost += over

    def heartbeat(self, t: float, at: float) -> None:
        """Somebody looks at the run, at run second *t* and Unix time *at*."""
        with self._queue:
            self._heartbeat = (t, at)

    def flush(self) -> bool:
        """Write what waits; False if it is not on the disk."""
        while self.take(()):
            with self._queue:
                if not self._waiting:
                    return True
        return False

    def take(self, packets: Iterable[tuple[str, int, Sequence[StepFold]]]) -> bool:
        """Add the folds of packets, (session, sequence, folds) each, and what waits: all or none.

        What came before is left out, also where it comes in other packets: see `cursor`. False if
        it is not on the disk.
        """
        given = tuple(packets)
        with self._lock:
            with self._queue:
                rows, beat = self._waiting[:MARKED], self._heartbeat
                run = self._document if len(rows) == len(self._waiting) else None
            if self._connection is None:
                return False
            if not (given or rows or beat):
                return True

            def work(connection: sqlite3.Connection, mark: int) -> None:
                self._insert_folds(connection, given, mark)
                for row in rows:
                    self._insert(connection, row, mark)
                if beat is not None:
                    put(connection, "heartbeat", json.dumps(beat))
                if run is not None:
                    put(connection, "run", run)

            written = self._write(work)
            if written:
                with self._queue:
                    del self._waiting[: len(rows)]
                    if self._heartbeat is beat:
                        self._heartbeat = None
                    if self._document is run:
                        self._document = None
            return written

    def receive(self, node: str, rows: Iterable[Row], heard: Mapping[str, Any]) -> bool:
        """Take rows that *node* recorded, and with them what was *heard* of it so far: all or none,
        so that nothing is asked for twice. A window comes whole each time. False if it is not on
        the disk.
        """
        given, text = tuple(rows), json.dumps(heard)

        def work(connection: sqlite3.Connection, mark: int) -> None:
            windows = [row for row in given if isinstance(row, Window)]
            connection.executemany(_REPLACE, [(*row, mark) for row in windows])
            for row in given:
                if not isinstance(row, Window):
                    self._insert(connection, row, mark)
            put(connection, HEARD.format(node), text)

        return self._write(work)

    def heard(self, node: str) -> dict[str, Any]:
        """What `receive` kept of *node* last. Raises StoreError."""
        return Reading(self.path).heard(node)

    def cursor(self, session: str) -> int | None:
        """The last sequence of *session* that is in here, 0 if none is; None if it cannot be read.

        No fold of *session* may straddle it: its steps would count twice.
        """
        with self._lock:
            if self._connection is None:
                return 0
            try:
                return self._cursor(self._connection, session)
            except sqlite3.Error as error:
                self.trouble = f"{self.path}: {error}"
                return None

    def _write(self, work: Callable[[sqlite3.Connection, int], None]) -> bool:
        """Do *work* whole or not at all; what goes wrong is told in `trouble`, until something
        goes well.
        """
        with self._lock:
            connection = self._connection
            if connection is None:
                return False
            if self._vanished():
                self.trouble = f"{self.path}: removed while in use"
                return False
            mark = self._mark + 1
            try:
                connection.execute("BEGIN IMMEDIATE")
                work(connection, mark)
                connection.execute("COMMIT")
            except (sqlite3.Error, ValueError, OverflowError) as error:
                self.trouble = f"{self.path}: {error}"
                self._series.clear()  # what we believed may have been taken back
                self._sessions.clear()
                with contextlib.suppress(sqlite3.Error):
                    connection.rollback()
                return False
            self._mark = mark  # only now: a reader that saw it before would miss these rows
            self.trouble = ""
            return True

    def _vanished(self) -> bool:
        """Whether the file was removed or replaced: SQLite would write on, into nothing."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def _insert(self, connection: sqlite3.Connection, row: Minute | Event, mark: int) -> None:
        if isinstance(row, Event):
            connection.execute(
                "INSERT OR IGNORE INTO events"
                " (node, t, at, what, rank, step, value, text, origin, mark)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*_EVENT(row), mark),
            )
            return
        series = self._known(connection, row)
        connection.execute(
            "INSERT INTO minutes (series, minute, count, sum, low, high, last, grown, covered,"
            " mark) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (series, row.minute, row.count, row.sum, row.low, row.high, row.last, row.grown,
             row.covered, mark),
        )  # fmt: skip

    def _known(self, connection: sqlite3.Connection, row: Minute) -> int:
        """The number of the row's series, which is made if need be."""
        key = (row.node, row.metric, json.dumps(row.labels))
        if key not in self._series:
            connection.execute(
                "INSERT OR IGNORE INTO series (node, metric, labels) VALUES (?, ?, ?)", key
            )
            found = connection.execute(
                "SELECT id FROM series WHERE node = ? AND metric = ? AND labels = ?", key
            ).fetchone()
            self._series[key] = found[0]
        return self._series[key]

    def _cursor(self, connection: sqlite3.Connection, session: str) -> int:
        if session not in self._sessions:
            found = connection.execute(
                "SELECT sequence FROM sessions WHERE session = ?", (session,)
            ).fetchone()
            self._sessions[session] = found[0] if found else 0
        return self._sessions[session]

    def _insert_folds(
        self,
        connection: sqlite3.Connection,
        packets: Iterable[tuple[str, int, Sequence[StepFold]]],
        mark: int,
    ) -> None:
        """Write what is new of all packets at once, and how far that brings their sessions."""
        windows: list[Window] = []
        reached: dict[str, int] = {}
        for session, sequence, folds in packets:
            before = reached.get(session) or self._cursor(connection, session)
            if sequence > before:
                new = [fold for fold in folds if (fold.sequence or sequence) > before]
                windows += [self._window(session, fold) for fold in new if self._ours(fold)]
                reached[session] = sequence
        connection.executemany(_UPSERT, [(*window, mark) for window in windows])
        connection.executemany(
            "INSERT INTO sessions (session, sequence) VALUES (?, ?)"
            " ON CONFLICT (session) DO UPDATE SET sequence = excluded.sequence",
            reached.items(),
        )
        self._sessions |= reached

    def _ours(self, fold: StepFold) -> bool:
        """Whether it was made since the run was armed."""
        return fold.ended + self._offset >= self._floor

    def _window(self, session: str, fold: StepFold) -> Window:
        return Window(
            node=self.node,
            rank=fold.rank,
            window=(fold.last_step - 1) // self.every,
            session=session,
            first_step=fold.first_step,
            last_step=fold.last_step,
            steps=fold.count,
            began=fold.began + self._offset,
            ended=fold.ended + self._offset,
            samples=fold.samples_sum,
            loss=fold.loss_sum or 0.0,
            losses=fold.loss_count,
            nonfinite=fold.nonfinite,
            norm=fold.norm_sum,
            norms=fold.norm_count,
            compute=fold.compute_sum or 0.0,
            computes=fold.compute_count,
            communication=fold.exposed_sum,
            stepping=fold.stepping_sum,
            allreduce=fold.allreduce_sum,
            allreduces=fold.allreduce_count,
            moved=fold.bytes_sum or 0.0,
        )

    # --- Reading --------------------------------------------------------------------------------

    def last_heartbeat(self) -> tuple[float, float] | None:
        """Run seconds and Unix time at which somebody looked last."""
        return Reading(self.path).last_heartbeat()

    def mark(self) -> int:
        """The newest mark that is on the disk: what is just being written comes after it."""
        return self._mark

    def windows(self, since: int = 0, until: int | None = None) -> Iterator[Window]:
        """See Rows."""
        return Reading(self.path).windows(since, until)

    def minutes(self, since: int = 0, until: int | None = None) -> Iterator[Minute]:
        """See Rows."""
        return Reading(self.path).minutes(since, until)

    def events(self, since: int = 0, until: int | None = None) -> Iterator[Event]:
        """See Rows."""
        return Reading(self.path).events(since, until)
