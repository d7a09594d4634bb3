"""A copy of the store that can be trusted, and the way back: checked before and after, never over.

The copy is of one moment, while the daemon writes on: it is read inside one transaction, which
SQLite's WAL keeps still. Without that every commit would send the copy back to its first page.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import StoreError
from dvfd.store.database import claimed, connect_read_only
from dvfd.store.schema import MIGRATIONS, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 600.0
"""Seconds that a copy or a check may take. A year of 300 series takes seconds."""

PAGES = 256
"""Copied in one go: 1 MiB, after which the disk is left to others."""

BREATH = 0.005
"""Seconds between two goes: at most 200 MiB/s."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of linux/fcntl.h and linux/fs.h."""

FAULTS = 10
"""Damages that are named; more say nothing new."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file turned out to be. `faults` is empty if SQLite finds it whole."""

    path: str
    bytes: int
    wal_bytes: int
    schema: int
    rows: dict[str, int]
    oldest: float | None
    newest: float | None
    faults: tuple[str, ...]


def check(path: Path, patience: float = PATIENCE) -> Facts:
    """Read the whole file at *path*. Raises StoreError if it is no store that this dvfd knows."""
    _must_own(path)
    with _reading(path, patience) as connection:
        return _facts(path, connection)


def backup(store: Path, target: Path, patience: float = PATIENCE) -> Facts:
    """Copy the store of this moment to *target*, which must not exist, and read the copy through.

    A daemon may be writing meanwhile, and may die. Raises StoreError, and leaves no *target*.
    """
    _must_own(store)
    if os.path.lexists(target):
        raise StoreError(f"{target}: is there already: name a file that is not")
    with _copied(store, target.parent, f".{target.name}.", patience) as partial:
        facts = _whole(partial, patience)
        _publish(partial, target)
    return replace(facts, path=str(target))


def restore(
    source: Path, store: Path, *, at: float, dry_run: bool = False, patience: float = PATIENCE
) -> tuple[Facts, Path | None]:
    """Put *source* in the place of *store*; what it was, and where the replaced one lies now.

    Raises StoreError, and changes nothing: a daemon runs, *source* is damaged, foreign or newer.
    """
    if source.resolve() == store.resolve():
        raise StoreError(f"{source}: is the store itself")
    _must_own(store if store.exists() else store.parent)
    facts = _whole(source, patience)
    aside = store.with_name(f"{store.name}.replaced-{int(at)}") if store.exists() else None
    if aside and aside.exists():
        raise StoreError(f"{aside}: is there already: wait a second")
    with claimed(store):
        if dry_run:
            _must_fit(source, store.parent)
            return facts, aside
        with _copied(source, store.parent, f".{store.name}.", patience) as partial:
            _whole(partial, patience)
            _inherit(partial, store if aside else store.parent)
            _exchange(partial, store, aside)
    return facts, aside


def _must_own(path: Path) -> None:
    """Only root and the owner: a store tells everything that the logs of jobs told."""
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    if os.geteuid() not in (0, owner):
        raise StoreError(f"{path}: belongs to user {owner}, you are {os.geteuid()}: ask root")


@contextlib.contextmanager
def _reading(path: Path, patience: float) -> Iterator[sqlite3.Connection]:
    """One moment of the file, to read. Raises StoreError for every trouble inside."""
    until = time.monotonic() + patience
    try:
        with contextlib.closing(connect_read_only(path)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until, 100_000)
            connection.execute("BEGIN")
            _must_be_ours(path, connection)
            yield connection
    except (sqlite3.Error, OSError) as error:
        late = f"not done within {patience:g} s" if time.monotonic() > until else str(error)
        raise StoreError(f"{path}: cannot be read: {late}") from None


def _must_be_ours(path: Path, connection: sqlite3.Connection) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: made by a newer dvfd: its schema is {version}, this one knows "
            f"{len(MIGRATIONS)}; use the dvfd that wrote it"
        )
    lacking = _tables_of(version) - _tables(connection)
    if not version or lacking:
        raise StoreError(f"{path}: is no store of dvfd: {', '.join(sorted(lacking)) or 'empty'}")


def _tables_of(version: int) -> set[str]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        migrate(model, MIGRATIONS[:version])
        return _tables(model)


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name for (name,) in found if not name.startswith("sqlite_")}


def _facts(path: Path, connection: sqlite3.Connection) -> Facts:
    said = [row[0] for row in connection.execute(f"PRAGMA integrity_check({FAULTS})")]
    faults = () if said == ["ok"] else tuple(said)
    rows, oldest, newest = ({}, None, None) if faults else _contents(connection)
    wal = path.with_name(path.name + "-wal")
    return Facts(
        path=str(path),
        bytes=path.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
        schema=int(connection.execute("PRAGMA user_version").fetchone()[0]),
        rows=rows,
        oldest=oldest,
        newest=newest,
        faults=faults,
    )


def _contents(
    connection: sqlite3.Connection,
) -> tuple[dict[str, int], float | None, float | None]:
    rows = {
        table: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
        for table in sorted(_tables_of(1))
    }
    newest = connection.execute("SELECT max(at) / 1000.0 FROM samples").fetchone()[0]
    firsts = connection.execute(
        "SELECT min(at) / 1000.0 FROM samples UNION ALL SELECT min(start) FROM hours"
    ).fetchall()
    return rows, min((at for (at,) in firsts if at is not None), default=None), newest


def _whole(path: Path, patience: float) -> Facts:
    with _reading(path, patience) as connection:
        facts = _facts(path, connection)
    if facts.faults:
        raise StoreError(f"{path}: is damaged: {'; '.join(facts.faults)}")
    return facts


@contextlib.contextmanager
def _copied(source: Path, directory: Path, prefix: str, patience: float) -> Iterator[Path]:
    """A copy of *source* under a passing name in *directory*, gone in the end unless moved."""
    _must_fit(source, directory)
    try:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=".partial", dir=directory)  # 0600
    except OSError as error:
        raise StoreError(f"{directory}: cannot be written: {error.strerror}") from None
    partial = Path(name)
    try:
        _copy(source, partial, patience)
        os.fsync(handle)
        yield partial
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)


def _must_fit(source: Path, directory: Path) -> None:
    try:
        wanted, free = source.stat().st_size, shutil.disk_usage(directory).free
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from None
    if free < wanted:
        raise StoreError(f"{directory}: {free} bytes free, the copy needs {wanted}")


def _copy(source: Path, partial: Path, patience: float) -> None:
    until = time.monotonic() + patience

    def breathe(_status: int, _remaining: int, _total: int) -> None:
        if time.monotonic() > until:
            raise StoreError(f"{source}: not copied within {patience:g} s: nothing was kept")
        time.sleep(BREATH)

    with _reading(source, patience) as reader:
        try:
            with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as writer:
                writer.execute("PRAGMA synchronous = OFF")  # synced once, when it is whole
                reader.backup(writer, pages=PAGES, progress=breathe)
                writer.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        except sqlite3.Error as error:
            raise StoreError(f"{source} to {partial.parent}: not copied: {error}") from None
        finally:
            for suffix in ("-journal", "-wal", "-shm"):
                partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def _publish(partial: Path, target: Path) -> None:
    """Give *partial* its name in one step, over nothing that came meanwhile."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise StoreError(f"{target}: is there already: name a file that is not") from None
    except OSError:  # a filesystem without links: the name was free when we began
        partial.rename(target)
    _sync(target.parent)


def _inherit(partial: Path, from_: Path) -> None:
    """Root restores what the daemon's user must be able to write."""
    owner = from_.stat()
    if os.geteuid() == 0:
        os.chown(partial, owner.st_uid, owner.st_gid)
    if from_.is_file():
        partial.chmod(owner.st_mode & 0o777)


def _exchange(partial: Path, store: Path, aside: Path | None) -> None:
    """Put the new one in the place of the old, which goes *aside*. There is a store at every
    moment: who is killed in here leaves the one or the other, and no daemon begins an empty one.
    """
    if aside is None:
        partial.rename(store)
    elif _without_wal(store) and _swapped(partial, store):
        partial.rename(aside)
    else:  # damaged, or a filesystem that knows no exchange; its WAL must never meet another file
        store.rename(aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                store.with_name(store.name + suffix).rename(aside.with_name(aside.name + suffix))
        partial.rename(store)
    _sync(store.parent)


def _without_wal(store: Path) -> bool:
    """See that all of *store* is in the one file; False if it cannot be."""
    try:
        with contextlib.closing(sqlite3.connect(store, timeout=2.0, isolation_level=None)) as held:
            busy = held.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error:
        return False
    return not busy


def _swapped(one: Path, other: Path) -> bool:
    """Exchange two names in one step (renameat2); False if libc or the filesystem cannot."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    names = (ctypes.c_char_p(os.fsencode(each)) for each in (one, other))
    first, second = names
    return not call(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
