"""Take what ranks report: one thread, one epoll, nothing that blocks, nothing trusted.

A packet moves the book first, since watching goes on in memory whatever the disk does; then the
store, whose commit alone is what a rank is told.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.errors import WireError
from dvfd.telemetry import chronicle, endpoint, wire
from dvfd.telemetry.fold import Before, folds
from dvfd.telemetry.jobs import DEAF
from dvfd.telemetry.line import TURN, Line, Silent, buffer
from dvfd.telemetry.processes import Processes
from dvfd.telemetry.rank import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from socket import socket

    from dvfd.model import Clock, Sample
    from dvfd.store.folds import StepFold
    from dvfd.telemetry.jobs import JobBook, News

log = structlog.get_logger()

TICK = 1.0
"""Seconds between looks at the ranks' processes, since one that is stopped shows at no line, and at
lines that owe a hello or wait for the store."""

GATHER = 0.02
"""Seconds in which other ranks' packets gather before any is read: 16 ranks report at the same
moments, and waking, committing and answering are what costs. It is the most that a death or a NaN
waits."""

QUIET = 0.2
"""Seconds after which a line is taken to have said one thing and no more."""

ACCEPTS = 64
"""Lines taken at one turn, before those that are open have theirs."""

HELLO_LIMIT = 10.0
"""Seconds that a line may be silent before it says who it is."""

CATCH_UP = 5.0
"""Seconds after a gap in which lines that always wait do not count as read. Then they do: who
floods a line must not keep a hang from being seen."""

MALFORMED_LIMIT = 100
"""Malformed packets after which a line is closed."""

LOG_EVERY = 60.0
SENDERS = 1024
"""A sender's malformed packets make one log line a minute; so many senders are told apart."""

STUCK = 10.0
"""Seconds that a working store may owe a commit. It has then refused the packet while it was
degraded: a new line makes the rank send again from what is committed."""

USER_SHARE = 4
"""Jobs of the largest size that one user's lines may fill, of jobs.limit."""


class Keeper(Protocol):
    """What the receiver needs of the store."""

    def write(self, samples: Iterable[Sample]) -> None:
        """Take samples."""
        ...

    def commit_telemetry(
        self,
        session: str,
        sequence: int,
        rows: Sequence[StepFold],
        done: Callable[[int], None],
        *,
        job: str = "",
    ) -> None:
        """Keep folds for good, at most once; *done* is called once they are."""
        ...

    def cursor(self, session: str) -> int:
        """The last sequence of a session that is committed."""
        ...

    def steps_after(self, session: str, sequence: int) -> int | None:
        """Committed steps of a session beyond *sequence*; None where none of it are kept now."""
        ...

    def recorded(self, session: str) -> int:
        """The last sequence that the file of a run has, which may be ahead of that."""
        ...

    def put(self, kind: str, key: str, document: dict[str, Any] | None) -> None:
        """Keep a small document; None deletes it."""
        ...

    def all(self, kind: str) -> Mapping[str, dict[str, Any]]:
        """Every document of a kind."""
        ...

    def health(self) -> Any:
        """Something with `ok`: whether commits reach the disk."""
        ...


class Receiver:
    """The daemon's end of every reporter."""

    def __init__(
        self,
        path: Path,
        book: JobBook,
        store: Keeper,
        clock: Clock,
        wake: Callable[[Iterable[str]], None],
        *,
        group: str = "",
        lines: int = 1024,
        lines_per_user: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        """*wake* gets the names of metrics that must be judged now; their samples are written."""
        self._path, self._group = path, group
        self._book, self._store, self._clock, self._wake = book, store, clock, wake
        self._limit = lines
        self._user_limit = lines_per_user or max(1, lines // USER_SHARE)
        self._processes = processes or Processes()
        self._lines: dict[int, Line] = {}  # by descriptor, of the socket and of the process
        self._paused: set[Line] = set()
        self._users: Counter[int] = Counter()
        self._counts = Counter(dict.fromkeys(COUNTS, 0))
        self._logged: dict[tuple[int, int], float] = {}
        self._buffer = buffer()
        self._done: deque[tuple[Line, int]] = deque()
        self._stopping = False
        self._ticked = self._beat = self._passed = 0.0
        self._woke = -CATCH_UP
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._listener: socket | None = None
        self._signal = -1
        self._epoll: select.epoll | None = None

    # --- From outside ---------------------------------------------------------------------------

    def start(self) -> None:
        """Bring the book back from the store, listen, and begin. Raises OSError if it cannot."""
        self._book.restore(*(self._store.all(kind) for kind in ("job", "rank", chronicle.KIND)))
        self._listener = endpoint.listen(self._path, group=self._group)
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._signal, select.EPOLLIN)
        self._beat = self._passed = self._clock.boot()
        self._book.listened(self._beat)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close every line; ranks will come again."""
        if self._listener is None or self._epoll is None:
            return
        self._stopping = True
        os.eventfd_write(self._signal, 1)
        self._thread.join(5)
        for line in set(self._lines.values()):
            line.close()
        endpoint.withdraw(self._listener, self._path)
        self._epoll.close()
        self._listener = None

    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def beat(self) -> float:
        """Boot time of the loop's last progress."""
        return self._beat

    def counters(self) -> dict[str, int]:
        """What came in and what was refused, by name, since the start."""
        return {**self._counts, **self._book.counters()}

    def forget(self, job: str) -> bool:
        """Stop expecting *job*; False if there is none."""
        news = self._book.forget(job)
        if news is not None:
            self.publish(news)
        return news is not None

    # --- The loop -------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._epoll
        while not self._stopping:
            waited = self._epoll.poll(0)
            events = waited or self._epoll.poll(TICK)
            if any(descriptor != self._signal for descriptor, _ in events):
                time.sleep(GATHER)  # a commit answers all of them already
                events = self._epoll.poll(0)
            self._beat = self._clock.boot()
            for descriptor, _ in events:
                self._serve(descriptor)
            if self._beat - self._ticked >= TICK:
                self._ticked = self._beat
                self._tick()
            self._tell_listened(all_read=not waited)

    def _tell_listened(self, *, all_read: bool) -> None:
        """Tell the book that the lines were read; after a gap only once none waited any more."""
        woke = self._beat - self._passed > DEAF
        self._passed = self._beat
        if woke:
            self._woke = self._beat
        elif all_read or self._beat - self._woke >= CATCH_UP or not self._book.deaf():
            self._book.listened(self._beat)

    def _serve(self, descriptor: int) -> None:
        if self._listener and descriptor == self._listener.fileno():
            for _ in range(ACCEPTS):
                if not self._accept(self._listener):
                    break
        elif descriptor == self._signal:
            os.eventfd_read(self._signal)
            self._acknowledge()
        elif line := self._lines.get(descriptor):
            if descriptor == line.pidfd:
                self._bury(line)
            else:
                self._read(line)

    def _tick(self) -> None:
        """Look after processes, and lines that are quiet: paused, no hello, owed a commit."""
        assert self._epoll
        for line in self._paused:
            if line.open:
                self._epoll.register(line.socket, select.EPOLLIN)
        self._paused.clear()
        if self._listener:
            self._epoll.modify(self._listener, select.EPOLLIN)
        for news in self._book.look():
            self.publish(news)
        now, works = self._beat, self._store.health().ok
        for line in {line for line in self._lines.values() if line.open}:
            if line.seat is None and now - line.since > HELLO_LIMIT:
                self._counts["silent"] += 1
                self._hang_up(line)
            elif works and line.waiting is not None and now - line.waiting > STUCK:
                self._counts["resent"] += 1
                self._hang_up(line)

    # --- Lines ----------------------------------------------------------------------------------

    def _accept(self, listener: socket) -> bool:
        """Take one line; whether there may be another."""
        assert self._epoll
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return False
        except OSError:
            # Out of descriptors, mostly: asking again at once would only burn the processor.
            self._counts["lines_refused"] += 1
            self._epoll.modify(listener, 0)
            return False
        line = Line(connection, self._processes, self._beat)
        sockets = sum(self._users.values())
        if sockets >= self._limit or self._users[line.peer.uid] >= self._user_limit:
            self._counts["lines_refused"] += 1
            self._complain(line, f"more than {self._limit} lines, or {self._user_limit} of a user")
            line.close()
            return True
        self._users[line.peer.uid] += 1
        self._counts["lines"] += 1
        self._lines[connection.fileno()] = line
        self._epoll.register(connection, select.EPOLLIN)
        pidfd = line.watch()
        if pidfd is not None:
            self._lines[pidfd] = line
            self._epoll.register(pidfd, select.EPOLLIN)
        return True

    def _read(self, line: Line) -> None:
        try:
            # One packet is the rule: looking for a second one costs as much as reading it.
            quiet = self._beat - line.heard > QUIET
            line.heard = self._beat
            for packet in line.packets(self._buffer, 1 if quiet else TURN):
                self._take(line, packet)
                if not line.open:
                    return
                if line.too_fast(self._beat):
                    self._pause(line)
                    return
        except Silent:
            self._leave(line)

    def _pause(self, line: Line) -> None:
        """Leave the line unread until the next tick: its sender is told to wait by the kernel."""
        assert self._epoll
        self._counts["throttled"] += 1
        self._epoll.unregister(line.socket)
        self._paused.add(line)

    def _bury(self, line: Line) -> None:
        """The process died: hear what it still said, then say so."""
        try:
            for packet in line.packets(self._buffer, limit=1000) if line.open else ():
                self._take(line, packet)
                if not line.open:
                    return
        except Silent:
            pass
        if line.seat:
            self.publish(self._book.died(line.seat))
        self._drop(line)

    def _leave(self, line: Line) -> None:
        """The other end closed. If it did so without an end, its process is watched on."""
        if line.seat:
            self.publish(self._book.left(line.seat))
        if line.seat and line.seat.rank.link is Link.LEFT and line.pidfd is not None:
            self._lines.pop(line.socket.fileno(), None)
            self._paused.discard(line)
            line.socket.close()
        else:
            self._drop(line)

    def _hang_up(self, line: Line) -> None:
        if line.seat:
            self._book.hung_up(line.seat)
        self._drop(line)

    def _drop(self, line: Line) -> None:
        for descriptor in (line.socket.fileno(), line.pidfd):
            self._lines.pop(-1 if descriptor is None else descriptor, None)
        self._users[line.peer.uid] -= 1
        if not self._users[line.peer.uid]:
            del self._users[line.peer.uid]
        self._paused.discard(line)
        line.close()  # which takes its descriptors out of the epoll

    # --- Packets --------------------------------------------------------------------------------

    def _take(self, line: Line, packet: bytes) -> None:
        self._counts["packets"] += 1
        try:
            match wire.decode(packet):
                case wire.Hello() as hello:
                    self._hello(line, hello)
                case wire.Steps() as steps:
                    self._steps(line, steps)
                case wire.Event() as event:
                    self._event(line, event)
        except WireError as error:
            self._refuse(line, str(error))

    def _hello(self, line: Line, hello: wire.Hello) -> None:
        if line.seat is not None:
            raise WireError("a second hello on one line")
        nonce, process = hello.stamp.session, line.peer.process
        start = process.start if process else 0
        # With the peer's identity in its name, nobody can speak for another's session.
        session = f"{line.peer.uid}-{line.peer.pid}-{start}-{nonce:016x}"
        cursor = self._store.cursor(session)
        try:
            line.seat, news = self._book.hello(
                hello, line.peer, session=session, committed=cursor,
                steps_after=partial(self._store.steps_after, session),
            )  # fmt: skip
        except WireError as error:
            self._complain(line, str(error))
            self._drop(line)
            return
        line.session, line.nonce, line.handed = session, nonce, cursor
        line.recorded = self._store.recorded(session)
        line.acknowledge(cursor, self._beat)
        self.publish(news)

    def _steps(self, line: Line, steps: wire.Steps) -> None:
        if line.seat is None or steps.stamp.session != line.nonce:
            raise WireError("steps before a hello, or of another session")
        self._counts["rows"] += len(steps.rows)
        self._counts["implausible"] += steps.implausible
        lost = max(0, steps.stamp.first - line.handed - 1)
        rank = line.seat.rank
        before = Before(None if rank.broken else rank.stepped, rank.seen)
        self.publish(self._book.steps(line.seat, steps.rows, lost))
        rows = [row for row in steps.rows if row.sequence > line.handed]
        if steps.last > line.handed:
            self._commit(line, steps.last, self._folds(line, rows, before))

    def _event(self, line: Line, event: wire.Event) -> None:
        if line.seat is None or event.stamp.session != line.nonce:
            raise WireError("an event before a hello, or of another session")
        self._counts["events"] += 1
        if event.event == "note":
            self._complain(line, event.error)
        self.publish(self._book.event(line.seat, event))
        if event.stamp.first > line.handed:
            self._commit(line, event.stamp.first, ())

    def _folds(self, line: Line, rows: Sequence[wire.Row], before: Before) -> Sequence[StepFold]:
        if not rows or line.seat is None:
            return ()
        age = max(0.0, self._beat - rows[-1].boot)
        at, rank = self._clock.now() - age, line.seat.rank.rank
        return tuple(folds(line.seat.job.label, rank, rows, at, before, line.recorded))

    def _commit(self, line: Line, sequence: int, folds: Sequence[StepFold]) -> None:
        line.asked(sequence, self._beat)
        self._store.commit_telemetry(
            line.session, sequence, folds, partial(self._committed, line),
            job=line.seat.job.label if line.seat else "",
        )  # fmt: skip

    def _committed(self, line: Line, sequence: int) -> None:
        """Hand a commit over to the loop. Called from the store's thread."""
        self._done.append((line, sequence))
        if not self._stopping:
            os.eventfd_write(self._signal, 1)

    def _acknowledge(self) -> None:
        """Tell each rank the newest of its commits."""
        newest: dict[Line, int] = {}
        while self._done:
            line, sequence = self._done.popleft()
            newest[line] = max(sequence, newest.get(line, 0))
        for line, sequence in newest.items():
            if line.open:
                line.acknowledge(sequence, self._beat)

    def publish(self, news: News) -> None:
        """Write what must be known at once, and only then wake who judges it."""
        for (kind, key), document in news.documents.items():
            self._store.put(kind, key, document)
        if news.samples:
            self._store.write(news.samples)
        if news.touched:
            self._wake(news.touched)

    # --- What is wrong --------------------------------------------------------------------------

    def _refuse(self, line: Line, reason: str) -> None:
        self._counts["malformed"] += 1
        line.malformed += 1
        self._complain(line, reason)
        if line.malformed >= MALFORMED_LIMIT:
            self._counts["lines_refused"] += 1
            self._leave(line)

    def _complain(self, line: Line, reason: str) -> None:
        """Log at most once a minute for each sender."""
        sender = (line.peer.pid, line.peer.uid)
        if self._beat - self._logged.get(sender, -LOG_EVERY) < LOG_EVERY:
            return
        if len(self._logged) >= SENDERS:
            del self._logged[min(self._logged, key=lambda known: self._logged[known])]
        self._logged[sender] = self._beat
        log.warning(
            "telemetry refused", pid=sender[0], uid=sender[1], reason=reason[:500],
            malformed=line.malformed,
        )  # fmt: skip


COUNTS = ("lines", "lines_refused", "packets", "rows", "events", "malformed", "implausible",
          "throttled", "silent", "resent")  # fmt: skip
"""What is counted from the start, so that each is there at zero."""
