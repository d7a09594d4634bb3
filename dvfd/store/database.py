"""One open file: who may write it, how it is opened, and what its errors mean."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from dvfd.errors import StoreError
from dvfd.store.schema import MIGRATIONS, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CACHE_KIB = 512
"""Page cache of each connection: SQLite's own default, 2 MiB, is a thirtieth of our budget."""

WAL_BYTES = 8 << 20
"""To which the WAL is cut after a checkpoint."""

CHECKPOINT = 4 << 20
"""Bytes of WAL after which its pages are taken into the file."""

PAGE = 1024
"""Bytes of a page of a new file; an older one keeps its 4096. Samples lie by series and come by
time, so every commit writes one page of each series, whole: small ones are a third of the bytes.
"""

ASIDE_LIMIT = 5
"""Corrupt files kept. More than this is a dying disk, and starting afresh again hides it."""

CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
REFUSED = {
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_TOOBIG,
}


def is_corrupt(error: Exception) -> bool:
    """Whether SQLite says that the file itself is damaged, or is no database."""
    return _primary(error) in CORRUPT


def is_refused(error: Exception) -> bool:
    """Whether the data is at fault, not the disk: trying again is of no use."""
    if isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode"):
        return _primary(error) in REFUSED
    return not isinstance(error, OSError)


def _primary(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class Database:
    """Two connections: one for the writing thread, one, behind a lock, for everyone who reads."""

    def __init__(
        self, path: Path | None, writer: sqlite3.Connection, reader: sqlite3.Connection, lock: int
    ) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader
        self._lock = lock
        self._inode = os.stat(path).st_ino if path else 0  # noqa: PTH116  # hot: every few seconds
        self._reading = threading.RLock()

    def read(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query, from any thread. Raises sqlite3.Error."""
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is written, or nothing. For the writing thread only."""
        shared = self._reading if self._writer is self._reader else contextlib.nullcontext()
        with shared:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")

    def vanished(self) -> bool:
        """Whether the file was removed or replaced: SQLite would write on, into nothing."""
        if self.path is None:
            return False
        try:
            return os.stat(self.path).st_ino != self._inode  # noqa: PTH116
        except OSError:
            return True

    def close(self) -> None:
        """Let go of the file and of the lock."""
        with self._reading, contextlib.suppress(sqlite3.Error):
            self._reader.close()
        with contextlib.suppress(sqlite3.Error):
            self._writer.close()
        if self._lock >= 0:
            os.close(self._lock)


def open_database(path: Path | None) -> Database:
    """Open for writing, alone; None is a database in memory.

    Raises StoreError: cannot be created, locked by another daemon, made by a newer dvfd. Raises
    sqlite3.DatabaseError if the file is damaged (`is_corrupt`) or the disk is in trouble.
    """
    if path is None:
        connection = _connect(":memory:")
        migrate(connection)
        return Database(None, connection, connection, -1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _claim(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened: {error.strerror or error}") from None
    try:
        return _open_both(path, lock)
    except BaseException:
        os.close(lock)
        raise


def open_read_only(path: Path) -> Database:
    """Open for reading, beside a daemon that writes or without one. Raises StoreError."""
    try:
        return _open_read_only(path)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection to a file of any schema, to read only. Raises OSError or sqlite3.Error."""
    path.stat()
    reader = _connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        reader.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        # In a directory that we may not write SQLite cannot make the WAL's index. Without a WAL
        # nobody is writing, and the file may be read as it lies.
        reader.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        reader = _connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)
    return reader


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Nobody else writes the file meanwhile. Raises StoreError if a daemon holds it."""
    try:
        lock = _claim(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be locked: {error.strerror}") from None
    try:
        if os.geteuid() == 0:  # a lock that root made must serve the daemon's user too
            owner = path.parent.stat()
            os.fchown(lock, owner.st_uid, owner.st_gid)
        yield
    finally:
        os.close(lock)


def set_aside(path: Path, at: float) -> Path:
    """Move a damaged file, with its WAL, out of the way. Raises StoreError once there are many."""
    kept = sorted(path.parent.glob(f"{path.name}.corrupt-*[0-9]"))
    if len(kept) >= ASIDE_LIMIT:
        raise StoreError(
            f"{path}: corrupt, and {len(kept)} corrupt ones were moved aside already: "
            f"check the disk, then remove {path.name}.corrupt-*"
        )
    aside = path.with_name(f"{path.name}.corrupt-{int(at)}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _connect(target: str, *, uri: bool = False) -> sqlite3.Connection:
    # A reader of ours never holds the file for long; 2 s is for a person's sqlite3 shell.
    connection = sqlite3.connect(
        target, timeout=2.0, isolation_level=None, check_same_thread=False, uri=uri
    )
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _open_both(path: Path, lock: int) -> Database:
    writer = _connect(str(path))
    try:
        # NORMAL: a kill -9 loses nothing committed; a power cut may lose the last commits.
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute(f"PRAGMA page_size = {PAGE}")
        writer.execute("PRAGMA journal_mode = WAL")
        page = int(writer.execute("PRAGMA page_size").fetchone()[0])
        writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT // page}")
        writer.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        try:
            migrate(writer)
        except StoreError as error:
            raise StoreError(f"{path}: {error}") from None
        reader = _connect(str(path))
        reader.execute("PRAGMA query_only = ON")
    except BaseException:
        writer.close()
        raise
    return Database(path, writer, reader, lock)


def _open_read_only(path: Path) -> Database:
    reader = connect_read_only(path)
    version = int(reader.execute("PRAGMA user_version").fetchone()[0])
    if version != len(MIGRATIONS):
        reader.close()
        raise StoreError(
            f"{path}: its schema is {version}, this dvfd reads {len(MIGRATIONS)}; "
            "use the dvfd that wrote it, or let this one's daemon migrate it"
        )
    return Database(path, reader, reader, -1)


def _claim(path: Path) -> int:
    """Take the lock beside the file and write our pid into it. Raises StoreError if it is held."""
    lock = os.open(
        path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        pid = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise StoreError(f"{path}: locked by another dvfd, pid {pid}") from None
    except OSError:
        os.close(lock)
        raise
    return lock
