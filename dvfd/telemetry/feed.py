"""Let a file speak for a rank that cannot: what it says becomes rows and events."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
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
LOSSES = ("loss", "grad_norm", "val_loss")
"""Figures whose NaN or infinity is a finding: it is heard whoever says it, when and how."""

AGAIN = "dvfd.again"
"""Key of what is said of the last step once more: it is no progress."""

_NONFINITE = re.compile(r"(?<![a-z])(?:nan|inf(?:inity)?)(?![a-z])", re.IGNORECASE)


@dataclass(slots=True)
class _Line:
    """What a line says of a step; `at` is its boot time."""

    step: int
    said: Mapping[str, Any]
    at: float = 0.0
    progress: bool = True


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
        self._ended = self._failed = False
        self._looked = clock.boot()
        self._at: float | None = None  # the time of the last row
        self._last: int | None = None
        self._given: frozenset[str] = frozenset()  # what was said of the last step
        self._lost: frozenset[str] = frozenset()  # and what of it was no number
        self.malformed = 0

    def take(self, said: Sequence[Mapping[str, Any]], uid: int) -> None:
        """Add what was *said* in its order: rows, and events, which have the key `event`. Rows that
        come at once are spread evenly over the time since the one before: a buffer was full.

        A row that repeats what is known of the last step is another rank's word, and left out: but
        for a loss or a norm that is no number, which is counted once of each step.
        """
        now, looked = self._clock.boot(), self._looked
        self._looked = now
        since = looked if self._at is None else self._at
        rows: list[_Line] = []
        for number, each in enumerate(said, 1):
            event = each.get("event")
            told = isinstance(event, str) and event in EVENTS
            if (line := self._line(each, uid, told=told)) is not None:
                line.at = since + (now - since) * number / len(said)
                rows.append(line)
            if told:
                self._add(rows, uid)
                self._tell(each, uid)
        self._add(rows, uid)

    def end(self, uid: int, *, failed: bool) -> None:
        """The source says that the job is done."""
        self._tell({"event": "end", "failed": failed}, uid)

    def _add(self, rows: list[_Line], uid: int) -> None:
        """Give *rows* to the book, and empty them. None of them may be progress: then they are of
        the life before, ended or not.
        """
        if not rows:
            return
        over = self._ended and not any(line.progress for line in rows)
        seat = self._seat if over and self._seat else self._seated(uid)
        first, self._at = seat.rank.seen + 1, rows[-1].at
        made = [_row(first + n, line) for n, line in enumerate(rows)]
        rows.clear()
        self._publish(self._book.steps(seat, made))

    def _tell(self, said: Mapping[str, Any], uid: int) -> None:
        """Take an event. What comes after an end is heard and begins no new life; an end does not
        mend a failure.
        """
        if self._failed and said.get("event") == "end":
            return
        seat = self._seat if self._ended and self._seat else self._seated(uid)
        fields = {"at": self._clock.now(), **said, "path": self._absolute(said.get("path", ""))}
        try:
            event = event_of(Stamp(0, seat.rank.seen + 1, 0, 0.0, 0.0, 0.0), fields)
        except WireError:
            self.malformed += 1
            return
        self._ended |= event.event == "end"
        self._failed |= event.event == "end" and event.failed
        self._publish(self._book.event(seat, event))

    def _absolute(self, path: object) -> object:
        """A relative *path* where its writer stands; as it is if nobody knows where that is."""
        if not isinstance(path, str) or not path or self._writer is None:
            return path
        return os.path.normpath(os.path.join(self._writer.directory, path))  # noqa: PTH118

    def _line(self, said: Mapping[str, Any], uid: int, *, told: bool) -> _Line | None:
        """What *said* says of a step, if it does; of what is no progress, only what is no number.

        An event, *told* as one, is none.
        """
        step = None if told or said.get(AGAIN) is True else self._step(said, uid)
        if step is not None:
            return _Line(step, said)
        lost = nonfinite(said)
        again = {name: value for name, value in lost.items() if name not in self._lost}
        if not again:
            return None
        self._lost = frozenset(self._lost | again.keys())
        return _Line(self._known(uid) or 0, again, progress=False)

    def _step(self, said: Mapping[str, Any], uid: int) -> int | None:
        """The step that *said* makes; None if it makes none, or is known."""
        given, figures = plain(said.get("step")), FIGURES & said.keys()
        if (given is None and not figures) or (self._ended and figures == {"val_loss"}):
            return None  # no word of a step; a last validation begins no new life
        if given is not None and not 0 <= given < SEQUENCE_LIMIT:
            return None
        last = self._known(uid)
        if given is None:  # a trainer that does not number its lines; a validation is no step
            step = (last or 0) + (figures != {"val_loss"})
        else:
            step = int(given)
            if step == last and figures <= self._given:
                return None
        self._given = figures | (self._given if step == last else frozenset())
        self._lost = frozenset(nonfinite(said)) | (self._lost if step == last else frozenset())
        self._last = step
        return step

    def _known(self, uid: int) -> int | None:
        """The last step that is known of the rank; None before its first."""
        if self._last is None:
            self._last = self._seated(uid).rank.step
        return self._last

    # --- Who it is ------------------------------------------------------------------------------

    def _seated(self, uid: int) -> Seat:
        """The rank's seat: a new one for its first word, after its end, and for a new process."""
        if self._seat is None or self._ended or self._succeeded(self._seat):
            self._seat = self._register(uid)
            self._ended = self._failed = False
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
    except OverflowError:  # a whole number beyond any other
        return math.inf
    except ValueError:
        return None


def figure(value: object) -> float | None:
    """A loss or a norm, however it is put: `[NaN]` and `tensor(nan)` are none as well."""
    number = plain(value)
    if number is None and isinstance(value, list | dict | str) and _NONFINITE.search(str(value)):
        return math.nan
    return number


def nonfinite(said: Mapping[str, Any]) -> dict[str, float]:
    """The losses and norms of a line that are NaN or infinite."""
    found = {name: figure(said.get(name)) for name in LOSSES}
    return {k: v for k, v in found.items() if v is not None and not math.isfinite(v)}


def _row(sequence: int, line: _Line) -> Row:
    values: dict[str, Any] = {}
    for name in NUMBERS:
        value = (figure if name in LOSSES else plain)(line.said.get(name))
        bound = AMOUNTS.get(name)
        if value is None or (bound is not None and not 0 <= value < bound):
            continue
        values[name] = value
    return Row(sequence, line.step, line.at, **values)
