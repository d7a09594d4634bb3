"""The ledger of evidence: what was run, said and decided, only ever added to.

One file, one record a line, each with the hash of the one before. Where it ends stands in the store
as well, so that a tail that was cut off is missed.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from dvfd.errors import StoreError
from dvfd.evidence.chain import FOUNDED, ORIGIN, RECORD, Chain, Record, read, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from io import BufferedReader
    from pathlib import Path

    from dvfd.model import Clock

__all__ = ["Evidence", "Record"]

FILE = "ledger.jsonl"

TORN = "ledger.torn"
"""Where the piece of a record lies that a crash cut off; nobody was told that it was safe."""

LOCK = "ledger.lock"
"""What a writer locks. Nobody but dvfd's user may open it: who may read the ledger cannot keep
anybody from writing to it.
"""

FOUNDING = ".ledger.founding"
"""Where a ledger that is founded anew is written, until it takes the place of the other."""

PATIENCE, POLL = 10.0, 0.01
"""Seconds that a record waits for its turn, and between two looks."""

FORMAT = 1

LINE = 2 * RECORD
"""Bytes of a line at most, with room for its hash."""

KIND, HEAD = "evidence", "head"
"""Kind and key of the store's record of where the ledger ends."""

NEXT = "next"
"""In that record: where one begins that is about to take the ledger's place."""

log = structlog.get_logger()


class Kept(Protocol):
    """What is asked of the store."""

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep a record."""
        ...

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """One record."""
        ...

    def flush(self) -> bool:
        """Wait until what was put is on the disk; False if it is not."""
        ...


class Place(NamedTuple):
    """Where a record lies in the file, and what of it is asked for."""

    offset: int
    length: int
    kind: str
    subject: str

    def of(self, kind: str | None, subject: str | None) -> bool:
        """Whether it is of that kind and subject, None being any."""
        return kind in (None, self.kind) and subject in (None, self.subject)


class Evidence:
    """The ledger in a directory, for any thread and beside other processes. Building one touches
    nothing; the first record founds the ledger.

    Who reads never waits for a record that is being written: until it is safe, it is not there.
    """

    def __init__(
        self, directory: Path, clock: Clock, *, node: str = "", store: Kept | None = None
    ) -> None:
        """*store* keeps where the ledger ends; without one a cut tail is not missed."""
        self._directory = directory
        self._path = directory / FILE
        self._clock = clock
        self._node = node
        self._store = store
        self._lock = threading.RLock()  # of what is known of the file; never held for a disk's sake
        self._turn = threading.Lock()  # of who writes
        self._writing: float | None = None  # since when on the monotonic clock somebody does
        self._listeners: list[Callable[[Record], None]] = []
        self._chain = Chain()
        self._places: list[Place] = []
        self._hashes: set[str] = set()
        self._seen: tuple[int, ...] = ()
        self._end = 0
        self._torn = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def cluster(self) -> str:
        """The id that the ledger was founded with; empty before its first record."""
        with self._lock:
            self._look()
            return self._chain.cluster

    def stamp(self) -> tuple[int, ...]:
        """What of the file changes when somebody writes to it; empty where there is none. Cheap."""
        with self._lock:
            if self._writing is not None:
                return self._seen
            try:
                return _signature(self._path.stat())
            except OSError:
                return ()

    def append(self, kind: str, subject: str, body: Mapping[str, Any], *, submitted: str) -> Record:
        """Write a record down, safe from a power cut, then tell the listeners.

        Raises StoreError if that could not be done; then nothing was recorded.
        """
        with self._alone() as file:
            self._set_aside(file)
            if not self._places and not self._head().get("number"):
                cluster = uuid.uuid4().hex
                self._write(file, FOUNDED, cluster, {"format": FORMAT}, submitted)
                settle(self._directory)
            record = self._write(file, kind, subject, body, submitted)
        log.info("evidence", number=record.number, kind=kind, subject=subject, by=submitted)
        for listener in tuple(self._listeners):
            try:
                listener(record)
            except Exception:  # the record is safe; who listens answers for himself
                log.exception("listener of the ledger crashed", number=record.number)
        return record

    def renew(self, body: Mapping[str, Any], *, submitted: str) -> Path:
        """Move the ledger aside and found another, whose first record says *body* and what the
        one before it ended with. The file that it is kept in. Raises StoreError.

        The new one takes the old one's name in one step, and the store knows of it before: whoever
        is killed in here leaves a ledger that is whole.
        """
        with self._alone():
            former = dict(self._head()) or {
                "number": self._chain.number,
                "sha256": self._chain.sha256,
                "cluster": self._chain.cluster,
            }
            aside = self._path.with_name(f"ledger.until-{int(self._clock.now())}.jsonl")
            told = {"format": FORMAT, "former": {**former, "file": aside.name}, **body}
            first, line = self._sealed(FOUNDED, uuid.uuid4().hex, told, submitted, (0, ORIGIN))
            self._announce(first)
            beside = self._directory / FOUNDING
            try:
                os.link(self._path, aside)
                with beside.open("wb") as fresh:
                    fresh.write(line)
                    fresh.flush()
                    os.fsync(fresh.fileno())
                leave(self._directory, beside)
                beside.replace(self._path)
                settle(self._directory)
            except OSError as error:
                raise self._refused(error) from None
            self._is_known(_end_of(first, first.subject))
        log.warning("ledger of evidence founded anew", former=str(aside), by=submitted)
        return aside

    def listen(self, listener: Callable[[Record], None]) -> None:
        """Have *listener* told of each record that this object appends, in the appending thread."""
        self._listeners.append(listener)

    def records(self, kind: str | None = None, subject: str | None = None) -> list[Record]:
        """Every record that is as it was written, of that kind and subject, oldest first."""
        return list(self.each(kind, subject))

    def each(
        self, kind: str | None = None, subject: str | None = None, *, last: int | None = None
    ) -> Iterator[Record]:
        """The same one by one, the *last* so many: the bodies of all may not fit in memory."""
        with self._lock:
            self._look()
            found = [place for place in self._places if place.of(kind, subject)]
        return self._bodies(found if last is None else found[-last:])

    def count(self, kind: str | None = None, subject: str | None = None) -> int:
        """How many there are."""
        with self._lock:
            self._look()
            return sum(place.of(kind, subject) for place in self._places)

    def newest(self, kind: str, subject: str) -> Record | None:
        """The last record of that kind and subject."""
        with self._lock:
            self._look()
            wanted = (kind, subject)
            places = (p for p in reversed(self._places) if (p.kind, p.subject) == wanted)
            found = next(places, None)
        return next(self._bodies([found]), None) if found else None

    def lines(self) -> Iterator[bytes]:
        """The whole lines of the file as they lie there. Raises StoreError if it cannot be read."""
        try:
            with self._path.open("rb") as file:
                yield from (line for line in file if line.endswith(b"\n"))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be read: {error.strerror}") from None

    def problems(self) -> list[str]:
        """What is wrong with the ledger, in words; cheap unless the file was touched meanwhile."""
        held = self.held()
        with self._lock:
            try:
                self._look()
            except StoreError as error:
                return [str(error)]
            chain = self._chain
            return [*chain.problems, *held(chain.cluster, chain.number, self._hashes)]

    def verify(self) -> list[str]:
        """The same, of a file that is read anew."""
        with self._lock:
            self._seen = ()
            return self.problems()

    def notices(self) -> list[str]:
        """What a person should know and no evidence is lost by. Cheap."""
        since = self._writing
        aside, torn = self._directory / TORN, self._cut_off() if since is None else 0
        late = 0.0 if since is None else time.monotonic() - since
        slow = f"{self._path}: a record is not on the disk after {late:.0f} s"
        return [
            *([slow] * (late > PATIENCE)),
            *([f"{self._path}: {torn} bytes of a record that a crash cut off"] if torn else []),
            *([f"{aside}: what a crash cut off: read it, then remove it"] * _exists(aside)),
        ]

    def _cut_off(self) -> int:
        """Bytes after the last newline."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 1))
                if file.read() in {b"", b"\n"}:
                    return 0
                file.seek(max(0, size - LINE))
                return len(file.read().rpartition(b"\n")[2])
        except OSError:
            return 0

    # --- Inside -------------------------------------------------------------------------------

    def _head(self) -> Mapping[str, Any]:
        """Where the ledger ends, as the store says; empty if it does not know."""
        return _standing(self._told(), self._chain.cluster)

    def _told(self) -> Mapping[str, Any]:
        return (self._store.get(KIND, HEAD) if self._store else None) or {}

    def _is_known(self, head: Mapping[str, Any]) -> None:
        if self._store:
            self._store.put(KIND, HEAD, head)

    def _announce(self, first: Record) -> None:
        """Have the store know of a ledger that is about to be founded. Raises StoreError."""
        self._is_known({**self._told(), NEXT: _end_of(first, first.subject)})
        if self._store and not self._store.flush():
            raise StoreError(
                f"{self._path}: not founded anew: the store cannot write down where it begins: "
                "see that the disk is well, then do it again"
            )

    def held(self) -> Callable[[str, int, Container[str]], list[str]]:
        """What the store knows at this moment. Asked with the cluster, the last number and the
        hashes of a ledger that was read since, it says what that one lacks.
        """
        return partial(_lacks, self._path, self._told())

    def _look(self, file: BufferedReader | None = None) -> None:
        """Read the file again if it is not as we left it. Raises StoreError if it cannot be."""
        if self._writing is not None:
            return  # it is not as we left it, by our own hand
        try:
            if file is not None:
                self._take(file)
                return
            with self._path.open("rb") as opened:
                self._take(opened)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be read: {error.strerror}") from None

    def _take(self, file: BufferedReader) -> None:
        if self._seen == _signature(os.fstat(file.fileno())):
            return
        self._forget()
        seen = _signature(os.fstat(file.fileno()))
        file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                self._torn = len(line)
                break
            record = self._chain.take(line[:-1])
            if record is not None:
                self._place(record, len(line))
            self._end += len(line)
        self._seen = seen

    def _forget(self) -> None:
        self._chain, self._places, self._seen = Chain(), [], ()
        self._hashes = set()
        self._end = self._torn = 0

    def _place(self, record: Record, length: int) -> None:
        # Kinds are few and subjects come again and again: one string of each.
        kind, subject = intern(record.kind), intern(record.subject)
        self._places.append(Place(self._end, length, kind, subject))
        self._hashes.add(record.sha256)

    def _bodies(self, places: Sequence[Place]) -> Iterator[Record]:
        if not places:
            return
        try:
            with self._path.open("rb") as file:
                for place in places:
                    yield read(_at(file, place))
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be read: {error.strerror}") from None

    @contextmanager
    def _alone(self) -> Iterator[BufferedReader]:
        """The file as it is, ours alone until the end; who reads sees it as it was until then.

        Raises StoreError that says what to do.
        """
        until = time.monotonic() + PATIENCE
        if not self._turn.acquire(timeout=PATIENCE):
            raise self._late()
        try:
            with self._open(self._directory / LOCK, 0o600) as lock:
                self._locked(lock, until)
                with self._opened() as file:
                    with self._lock:
                        self._look(file)
                        self._writing = time.monotonic()
                    try:
                        yield file
                    finally:
                        with self._lock:
                            self._writing = None
        finally:
            self._turn.release()

    def _locked(self, lock: BufferedReader, until: float) -> None:
        """*lock* is ours until it is closed. Raises StoreError if others have it too long."""
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise self._late() from None
                time.sleep(POLL)
            except OSError as error:
                raise self._refused(error) from None
            else:
                return

    def _late(self) -> StoreError:
        return StoreError(
            f"{self._path}: nothing was recorded: something else has been written there for "
            f"{PATIENCE:.0f} s: see that the disk is well, then do it again"
        )

    def _opened(self) -> BufferedReader:
        return self._open(self._path, 0o644)

    def _open(self, path: Path, mode: int) -> BufferedReader:
        """A file of ours, made if it is not there. Raises StoreError that says what to do."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
            leave(self._directory, path)
        except OSError as error:
            raise self._refused(error) from None
        return os.fdopen(descriptor, "rb")

    def _set_aside(self, file: BufferedReader) -> None:
        """Move what a crash cut off out of the way."""
        if not self._torn:
            return
        try:
            file.seek(self._end)
            with (self._directory / TORN).open("ab") as aside:
                aside.write(file.read() + b"\n")
                os.fsync(aside.fileno())
            os.ftruncate(file.fileno(), self._end)
        except OSError as error:
            raise self._refused(error) from None
        log.warning("a record was cut off by a crash", bytes=self._torn, kept=TORN)
        self._torn = 0

    def _write(
        self,
        file: BufferedReader,
        kind: str,
        subject: str,
        body: Mapping[str, Any],
        submitted: str,
    ) -> Record:
        head = self._head()
        known = not _lacks(self._path, head, self._chain.cluster, self._chain.number, self._hashes)
        record, line = self._sealed(kind, subject, body, submitted, self._last(head))
        self._put(file.fileno(), line)
        with self._lock:
            self._chain.take(line[:-1])
            self._place(record, len(line))
            self._end += len(line)
            self._seen = _signature(os.fstat(file.fileno()))
        if known:  # what the store misses stays missed: it goes no further
            self._is_known(_end_of(record, head.get("cluster") or self._chain.cluster))
        return record

    def _sealed(
        self,
        kind: str,
        subject: str,
        body: Mapping[str, Any],
        submitted: str,
        last: tuple[int, str],
    ) -> tuple[Record, bytes]:
        """A record that follows the *last* one, by its number and hash, and its line."""
        return sealed(
            {
                "number": last[0] + 1,
                "at": self._clock.now(),
                "kind": kind,
                "subject": subject,
                "body": body,
                "node": self._node,
                "submitted": submitted,
                "previous": last[1],
            }
        )

    def _last(self, head: Mapping[str, Any]) -> tuple[int, str]:
        """Number and hash of what the next record follows. A tail that was cut off stays missed:
        the next one follows what the store knows of.
        """
        if head.get("number", 0) > self._chain.number:
            return int(head["number"]), str(head["sha256"])
        return self._chain.number, self._chain.sha256

    def _put(self, descriptor: int, line: bytes) -> None:
        """*line* at the end of the file, or the file as it was. Raises StoreError."""
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(descriptor, line[done:], self._end + done)
            os.fsync(descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, self._end)
                os.fsync(descriptor)
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path}: nothing was recorded: {error.strerror}: make room or give "
            "dvfd's user the right to write there, then do it again"
        )


def _lacks(
    path: Path, head: Mapping[str, Any], cluster: str, number: int, hashes: Container[str]
) -> list[str]:
    """What the ledger at *path* lacks of where it ended, which is *head*."""
    head = _standing(head, cluster)
    if not head:
        return []
    there, known, of = head["number"], head["sha256"], head["cluster"]
    found = ""
    if cluster and cluster != of:
        found = f"of cluster {cluster}, the store is of {of}"
    elif there > number:
        found = f"ends with record {number}, the store knows of {there}: cut off"
    elif known not in hashes:
        found = (
            f"no record has the hash {known[:12]}, which the store has for record {there}: that "
            "one was exchanged or removed"
        )
    return [f"{path}: {found}"] if found else []


def _end_of(record: Record, cluster: str) -> dict[str, Any]:
    """Where a ledger ends, as the store keeps it."""
    return {"number": record.number, "sha256": record.sha256, "cluster": cluster}


def _standing(head: Mapping[str, Any], cluster: str) -> Mapping[str, Any]:
    """Where the ledger of *cluster* ends: one that was announced stands once it is there."""
    coming: Mapping[str, Any] = head.get(NEXT) or {}
    return coming if cluster and coming.get("cluster") == cluster else head


def leave(*paths: Path) -> None:
    """Leave what root made to who owns the state directory, of which *paths* are parts, from above
    to below: the daemon has a user of its own.
    """
    if os.geteuid() == 0:
        owner = paths[0].parent.stat()
        for path in paths:
            found = path.stat()  # a change of nothing would look like a hand on the file
            if (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid):
                os.chown(path, owner.st_uid, owner.st_gid)


def settle(directory: Path) -> None:
    """See that new files in *directory* have their names through a power cut. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: Path) -> bool:
    """Whether it does, as far as can be seen."""
    with suppress(OSError):
        return path.exists()
    return False


def _at(file: BufferedReader, place: Place) -> bytes:
    file.seek(place.offset)
    return file.read(place.length)[:-1]


def _signature(found: os.stat_result) -> tuple[int, ...]:
    # The time of change as well: anybody who may write can put the time of writing back.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
