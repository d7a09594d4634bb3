"""Let a file speak for a rank that cannot: its values become rows, without any process behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvfd.telemetry.jobs import Peer
from dvfd.telemetry.wire import AMOUNTS, SEQUENCE_LIMIT, Event, Hello, Row, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dvfd.model import Clock
    from dvfd.telemetry.jobs import JobBook, News, Seat

NUMBERS = ("samples", "loss", "grad_norm", "compute", "communication", "allreduce", "bytes", "lr",
           "val_loss")  # fmt: skip


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
    ) -> None:
        """*where* names the source in reasons: `file /data/metrics.jsonl`."""
        self._book, self._clock, self._publish = book, clock, publish
        self._job, self._where, self._rank, self._world = job, where, rank, world_size
        self._seat: Seat | None = None
        self._looked = clock.boot()
        self._last: int | None = None

    def take(self, values: Sequence[Mapping[str, Any]], uid: int) -> None:
        """Add one row for each of *values*, spread evenly over the time since the last look.

        A step that is the last one again is another rank's word on it, and left out.
        """
        now, since = self._clock.boot(), self._looked
        self._looked = now
        if not values:
            return
        seat = self._seat or self._register(uid)
        rows: list[Row] = []
        for number, said in enumerate(values, 1):
            step = self._step(said)
            if step is not None:
                at = since + (now - since) * number / len(values)
                rows.append(_row(seat.rank.seen + len(rows) + 1, step, at, said))
        if rows:
            self._publish(self._book.steps(seat, rows))

    def end(self, uid: int) -> None:
        """The source says that the job is done."""
        seat = self._seat or self._register(uid)
        stamp = Stamp(0, seat.rank.seen + 1, 0, 0.0, 0.0, 0.0)
        self._publish(self._book.event(seat, Event(stamp=stamp, event="end", at=self._clock.now())))
        self._seat = None

    def _step(self, said: Mapping[str, Any]) -> int | None:
        given = plain(said.get("step"))
        if given is None:
            step = (self._last or 0) + 1  # a trainer that does not number its lines
        elif 0 <= given < SEQUENCE_LIMIT:
            step = int(given)
        else:
            return None
        if step == self._last and "val_loss" not in said:
            return None
        self._last = step
        return step

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
        seat, news = self._book.hello(
            hello, Peer(uid), session=f"{self._where} rank {self._rank}", feed=self._where
        )
        self._seat = seat
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
