"""Let a file speak for a rank that cannot: what it says becomes rows and events."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dvfd.errors import WireError
from dvfd.telemetry.jobs import Peer
from dvfd.telemetry.wire import AMOUNTS, EVENTS, SEQUENCE_LIMIT, Hello, Row, Stamp, event_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dvfd.model import Clock
    from dvfd.telemetry.jobs import JobBook, News, Seat
    from dvfd.telemetry.writers import Writer

NUMBERS = ("samples", "loss", "grad_norm", "compute", "communication", "allreduce", "bytes", "lr",
           "val_loss")  # fmt: skip
FIGURES = frozenset(NUMBERS) - {"samples"}


class Feed:
    """One rank, fed by hand. It registers with its first row."""

    def __init__(
        self,
        book: JobBook,
        clock: Clock,
        publish: Callable[[News], None],
        *,
        job: str,
        where: str,
        rank: int = 0,
        world_size: int = 1,
        writer: Callable[[], Writer | None] = lambda: None,
    ) -> None:
        """*where* names the source in reasons: `file /data/metrics.jsonl`; *writer* is asked whose
        life is the rank's.
        """
        self._book, self._clock, self._publish = book, clock, publish
        self._job, self._where, self._rank, self._world = job, where, rank, world_size
        self._find_writer = writer
        self._writer: Writer | None = None
        self._seat: Seat | None = None
        self._ended = False
        self._looked = clock.boot()
        self._at: float | None = None  # the time of the last row
        self._last: int | None = None
        self._given: frozenset[str] = frozenset()  # what was said of the last step
        self.malformed = 0

    def take(self, said: Sequence[Mapping[str, Any]], uid: int) -> None:
        """Add what was *said* in its order: rows, and events, which have the key `event`. Rows that
        come at once are spread evenly over the time since the one before: a buffer was full.

        A row that repeats what is known of the last step is another rank's word, and left out.
        """
        now, looked = self._clock.boot(), self._looked
        self._looked = now
        since = looked if self._at is None else self._at
        rows: list[tuple[int, float, Mapping[str, Any]]] = []
        for number, each in enumerate(said, 1):
            event = each.get("event")
            if isinstance(event, str) and event in EVENTS:
                self._add(rows, uid)
                self._tell(each, uid)
            elif (step := self._step(each, uid)) is not None:
                rows.append((step, since + (now - since) * number / len(said), each))
        self._add(rows, uid)

    def end(self, uid: int) -> None:
        """The source says that the job is done."""
        self._tell({"event": "end"}, uid)

    def _add(self, rows: list[tuple[int, float, Mapping[str, Any]]], uid: int) -> None:
        if not rows:
            return
        seat = self._seated(uid)
        first, self._at = seat.rank.seen + 1, rows[-1][1]
        made = [_row(first + n, step, at, said) for n, (step, at, said) in enumerate(rows)]
        rows.clear()
        self._publish(self._book.steps(seat, made))

    def _tell(self, said: Mapping[str, Any], uid: int) -> None:
        """Take an event. What comes after an end is heard and begins no new life."""
        seat = self._seat if self._ended and self._seat else self._seated(uid)
        fields = {"at": self._clock.now(), **said, "path": self._absolute(said.get("path", ""))}
        try:
            event = event_of(Stamp(0, seat.rank.seen + 1, 0, 0.0, 0.0, 0.0), fields)
        except WireError:
            self.malformed += 1
            return
        self._ended |= event.event == "end"
        self._publish(self._book.event(seat, event))

    def _absolute(self, path: object) -> object:
        """A relative *path* where its writer stands; as it is if nobody knows where that is."""
        if not isinstance(path, str) or not path or self._writer is None:
            return path
        return os.path.normpath(os.path.join(self._writer.directory, path))  # noqa: PTH118

    def _step(self, said: Mapping[str, Any], uid: int) -> int | None:
        given, figures = plain(said.get("step")), FIGURES & said.keys()
        if (given is None and not figures) or (self._ended and figures == {"val_loss"}):
            return None  # no word of a step; a last validation begins no new life
        if given is not None and not 0 <= given < SEQUENCE_LIMIT:
            return None
        if self._last is None:
            self._last = self._seated(uid).rank.step
        if given is None:  # a trainer that does not number its lines; a validation is no step
            step = (self._last or 0) + (figures != {"val_loss"})
        else:
            step = int(given)
            if step == self._last and figures <= self._given:
                return None
        self._given = figures | (self._given if step == self._last else frozenset())
        self._last = step
        return step

    # --- Who it is ------------------------------------------------------------------------------

    def _seated(self, uid: int) -> Seat:
        """The rank's seat: a new one for its first word, after its end, and for a new process."""
        if self._seat is None or self._ended or self._succeeded(self._seat):
            self._seat = self._register(uid)
            self._ended = False
        return self._seat

    def _succeeded(self, seat: Seat) -> bool:
        """Whether the process is gone, and another one writes."""
        return seat.rank.dead and self._find_writer() is not None

    def _register(self, uid: int) -> Seat:
        hello = Hello(
            stamp=Stamp(0, 0, 0, 0.0, 0.0, 0.0),
            job=self._job,
            run=self._where,
            rank=self._rank,
            world_size=max(self._world, self._rank + 1),
            local_rank=0,
            local_world_size=1,
            checkpoint_every=0,
            restarts=0,
            pid=0,
            start=0,
            python="",
            reporter=0,
        )
        self._writer = self._find_writer()
        process = self._writer.process if self._writer else None
        session = f"{self._where} rank {self._rank}"
        if process is not None:
            session += f" of {process.pid}-{process.start}"
        peer = Peer(uid, process.pid if process else 0, process)
        seat, news = self._book.hello(hello, peer, session=session, feed=self._where)
        self._publish(news)
        return seat


def plain(value: object) -> float | None:
    """A number, or a text that is one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _row(sequence: int, step: int, at: float, said: Mapping[str, Any]) -> Row:
    values: dict[str, Any] = {}
    for name in NUMBERS:
        value = plain(said.get(name))
        bound = AMOUNTS.get(name)
        if value is None or (bound is not None and not 0 <= value < bound):
            continue
        values[name] = value
    return Row(sequence, step, at, **values)
