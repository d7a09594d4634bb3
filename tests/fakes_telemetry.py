"""Stand-ins for the other end of each line: a bare listener, a store in memory, packets to send."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from fakes import FakeClock

from dvfd.config import Jobs
from dvfd.telemetry import wire
from dvfd.telemetry.jobs import JobBook, News, Peer
from dvfd.telemetry.processes import Process
from dvfd.telemetry.reporter import PACKET_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pytest

    from dvfd.model import Sample
    from dvfd.store.folds import StepFold

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_", "DVFD_", "TORCHELASTIC_", "SLURM_")


class Listener:
    """A socket that a reporter finds at *path*, read by hand."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(self.path)
        self._socket.listen(32)
        self._socket.settimeout(5)
        self._line: socket.socket | None = None

    def packets(self) -> list[wire.Hello | wire.Steps | wire.Event]:
        """Everything that has arrived, decoded."""
        if self._line is None:
            self._line, _ = self._socket.accept()
            self._line.setblocking(False)
        found = []
        while packet := self._read(self._line):
            found.append(wire.decode(packet))
        return found

    def rows(self) -> list[wire.Row]:
        return [row for p in self.packets() if isinstance(p, wire.Steps) for row in p.rows]

    def acknowledge(self, session: int, sequence: int) -> None:
        assert self._line
        self._line.send(wire.encode_ack(session, sequence))

    def hang_up(self) -> None:
        if self._line:
            self._line.close()
        self._line = None

    def close(self) -> None:
        self.hang_up()
        self._socket.close()

    @staticmethod
    def _read(line: socket.socket) -> bytes:
        try:
            return line.recv(PACKET_LIMIT)
        except BlockingIOError:
            return b""


@contextmanager
def listening(path: Path) -> Iterator[Listener]:
    listener = Listener(path)
    try:
        yield listener
    finally:
        listener.close()


def without_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a launcher around the tests may have set."""
    for name in [n for n in os.environ if n.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)


class FakeProcesses:
    """A process table written by the test: pid -> (state, start)."""

    def __init__(self, **_: object) -> None:
        self.table: dict[int, tuple[str, int]] = {}

    def add(self, pid: int, state: str = "S", start: int = 100) -> Process:
        self.table[pid] = (state, start)
        return Process(pid, start)

    def identify(self, pid: int) -> Process | None:
        found = self.table.get(pid)
        return Process(pid, found[1]) if found else None

    def state(self, process: Process) -> str:
        state, start = self.table.get(process.pid, ("X", 0))
        return state if start == process.start else "X"

    def boot_id(self) -> str:
        return "this boot"


class FakeStore:
    """A store in memory that commits when told, or at once; `ok` false: it never commits."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.ok = True
        self.at_once = at_once
        self.cursors: dict[str, int] = {}
        self.folds: list[StepFold] = []
        self.samples: list[Sample] = []
        self.documents: dict[str, dict[str, dict]] = {"job": {}, "rank": {}, "ran": {}}
        self._waiting: list[tuple] = []
        self._refused: set[str] = set()

    def write(self, samples: Iterable[Sample]) -> None:
        self.samples.extend(samples)

    def commit_telemetry(self, session, sequence, rows, done, *, job="") -> None:
        if not self.ok:
            self._refused.add(session)  # and all that follows, as the real one does
        if session not in self._refused:
            self._waiting.append((session, sequence, rows, done))
            if self.at_once:
                self.commit()

    def commit(self) -> None:
        for session, sequence, rows, done in self._waiting:
            if sequence > self.cursors.get(session, 0):
                self.folds.extend(rows)
                self.cursors[session] = sequence
            done(self.cursors[session])
        self._waiting.clear()

    def cursor(self, session: str) -> int:
        self._refused.discard(session)
        return self.cursors.get(session, 0)

    def steps_after(self, session: str, sequence: int) -> int:
        return sum(fold.count for fold in self.folds if fold.sequence > sequence)

    def recorded(self, session: str) -> int:
        return 0

    def put(self, kind: str, key: str, document: dict | None) -> None:
        self.documents[kind].pop(key, None)
        if document is not None:
            self.documents[kind][key] = json.loads(json.dumps(document))

    def all(self, kind: str) -> dict[str, dict]:
        return self.documents[kind]

    def health(self) -> SimpleNamespace:
        return SimpleNamespace(ok=self.ok)


STAMP = wire.Stamp(0, 0, 0, 0.0, 0.0, 0.0)


def a_hello(**changes: object) -> wire.Hello:
    fields = {"job": "gpt", "run": "r1", "rank": 0, "world_size": 4, "local_rank": 0,
              "local_world_size": 4, "checkpoint_every": 0, "restarts": 0, "pid": 0, "start": 0,
              "python": "", "reporter": 1}  # fmt: skip
    return wire.Hello(stamp=STAMP, **{**fields, **changes})


def an_event(sequence: int, event: str, **fields: object) -> wire.Event:
    return wire.Event(stamp=replace(STAMP, first=sequence), event=event, at=0.0, **fields)


class Ranks:
    """A book, its clock and process table, and ranks that report into it."""

    def __init__(self, **jobs: object) -> None:
        self.clock = FakeClock()
        self.table = FakeProcesses()
        self.ends: list[dict[str, str]] = []
        self.documents: dict[tuple[str, str], dict] = {}
        self.book = self.another_book(**jobs)
        self._sequences: dict[int, int] = {}
        self._steps: dict[int, int] = {}

    @property
    def news(self) -> News:
        return self._news

    @news.setter
    def news(self, news: News) -> None:
        self._news = news
        self.documents |= news.documents

    def another_book(self, **jobs: object) -> JobBook:
        return JobBook(
            Jobs(**jobs), self.clock, processes=self.table,
            on_end=lambda where: self.ends.append(dict(where)),
        )  # fmt: skip

    def join(self, rank: int = 0, pid: int | None = None, uid: int = 1000, **hello: object):
        """A rank says hello from a process of its own; its seat."""
        pid = 1000 + rank if pid is None else pid
        process = self.table.identify(pid) or (self.table.add(pid) if pid else None)
        peer = Peer(uid, pid, process)
        seat, self.news = self.book.hello(a_hello(rank=rank, **hello), peer, session=f"{uid}-{pid}")
        return seat

    def sequence(self, seat: object) -> int:
        self._sequences[id(seat)] = self._sequences.get(id(seat), 0) + 1
        return self._sequences[id(seat)]

    def step(self, *seats: object, every: float = 1.0, times: int = 1, **fields: object) -> None:
        """Every seat does *times* steps, *every* seconds apart."""
        for _ in range(times):
            self.clock.advance(every)
            for seat in seats:
                step = self._steps[id(seat)] = self._steps.get(id(seat), 0) + 1
                row = wire.Row(self.sequence(seat), fields.get("step", step), self.clock.boot(),
                               **{k: v for k, v in fields.items() if k != "step"})  # fmt: skip
                self.news = self.book.steps(seat, [row])

    def tell(self, seat: object, event: str, **fields: object):
        self.news = self.book.event(seat, an_event(self.sequence(seat), event, **fields))
        return self.news

    def snapshot(self, job: int = 0) -> dict:
        return self.book.snapshot()[job]


def values(samples: Iterable[Sample], metric: str) -> list[float]:
    return [s.value for s in samples if s.metric == metric]
