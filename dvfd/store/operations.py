"""What can be written: each operation knows its SQL, its urgency, and what to say once it is safe.

Applied in order, in one transaction for many; nothing here commits.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from dvfd.model import Labels, Sample
    from dvfd.store.documents import StoredReport
    from dvfd.store.folds import StepFold
    from dvfd.store.rollups import Rollups


class Tables:
    """One connection inside a transaction, and the ids of the live series. Writing thread only."""

    def __init__(self, rollups: Rollups) -> None:
        self._rollups = rollups
        self._ids: dict[tuple[str, Labels], int] = {}
        self.connection: sqlite3.Connection

    def forget(self) -> None:
        """Ids that a rolled-back transaction gave out, or of series that ended, are void."""
        self._ids.clear()

    def put_samples(self, samples: Sequence[Sample]) -> None:
        """Insert raw rows; the later word on the same instant counts."""
        rows = []
        for s in samples:
            series = self._series(s.metric, s.labels)
            self._rollups.note(series, s.at)
            rows.append((series, milliseconds(s.at), s.value, s.low, s.high))
        self.connection.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?)", rows)

    def _series(self, metric: str, labels: Labels) -> int:
        """The id of a live series; one that had ended lives again."""
        key = (metric, labels)
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = self.connection.execute(
                "INSERT INTO series (metric, labels) VALUES (?, ?)"
                " ON CONFLICT (metric, labels) DO UPDATE SET ended_at = NULL RETURNING id",
                (metric, label_text(labels)),
            ).fetchone()[0]
        return known


class Operation(Protocol):
    """One thing to write. `key`: a later one with the same key replaces it while it waits."""

    kind: ClassVar[str]
    urgent: ClassVar[bool]

    @property
    def key(self) -> tuple[str, ...] | None:
        """Its identity, if a later one may replace it."""
        ...

    @property
    def weight(self) -> int:
        """How much of the queue's bound for its kind it takes."""
        ...

    def apply(self, tables: Tables) -> None:
        """Write it. Raises sqlite3.Error."""
        ...

    def committed(self) -> None:
        """It is on the disk now: remember so, before it leaves the queue."""
        ...

    def tell(self) -> None:
        """It has left the queue: tell whoever waits for it. Must not raise."""
        ...


class _Plain:
    """What most operations are: urgent, one of its kind, not replaceable, silent when done."""

    __slots__ = ()
    urgent: ClassVar[bool] = True

    @property
    def key(self) -> tuple[str, ...] | None:
        """None: nothing replaces it."""
        return None

    @property
    def weight(self) -> int:
        """One."""
        return 1

    def committed(self) -> None:
        """Nothing to remember."""

    def tell(self) -> None:
        """Nobody waits for it."""


@dataclass(frozen=True, eq=False, slots=True)
class PutSamples(_Plain):
    """Raw samples, all finite."""

    kind: ClassVar[str] = "samples"
    urgent: ClassVar[bool] = False
    samples: Sequence[Sample]

    @property
    def weight(self) -> int:
        """One for each sample."""
        return len(self.samples)

    def apply(self, tables: Tables) -> None:
        """Insert them."""
        tables.put_samples(self.samples)


@dataclass(frozen=True, eq=False, slots=True)
class EndSeries(_Plain):
    """The series with these labels stop being live."""

    kind: ClassVar[str] = "ends"
    where: Mapping[str, str]
    at: float
    metric: str = ""  # of this one alone

    @property
    def key(self) -> tuple[str, ...]:
        """By labels: what ends twice is over since the second time."""
        pairs = (part for pair in sorted(self.where.items()) for part in pair)
        return (self.kind, self.metric, *pairs)

    def covers(self, metric: str, labels: Labels) -> bool:
        """Whether it ends this series."""
        return self.metric in ("", metric) and set(self.where.items()) <= set(labels)

    def apply(self, tables: Tables) -> None:
        """Mark them."""
        named = ["labels ->> ? = ?" for _ in self.where] + ["metric = ?"] * bool(self.metric)
        conditions = " AND ".join(named) or "1"
        values = [part for pair in self.where.items() for part in pair]
        values += [self.metric] * bool(self.metric)
        tables.connection.execute(
            f"UPDATE series SET ended_at = ? WHERE ended_at IS NULL AND {conditions}",  # noqa: S608
            (self.at, *values),
        )
        tables.forget()


@dataclass(frozen=True, eq=False, slots=True)
class CommitTelemetry(_Plain):
    """One packet's folds, and how far its session is committed with them."""

    kind: ClassVar[str] = "telemetry"
    session: str
    sequence: int
    rows: Sequence[StepFold]
    at: float
    done: Callable[[int], None]
    cursors: dict[str, int] = field(repr=False)
    job: str = ""

    @property
    def weight(self) -> int:
        """One for each fold, and one for the cursor."""
        return len(self.rows) + 1

    def apply(self, tables: Tables) -> None:
        """Insert what lies beyond the session's cursor and move the cursor."""
        connection = tables.connection
        found = connection.execute(
            "SELECT id, sequence FROM sessions WHERE session = ?", (self.session,)
        ).fetchone()
        if found and found[1] >= self.sequence:
            return
        session = connection.execute(
            "INSERT INTO sessions (session, sequence, at) VALUES (?, ?, ?) ON CONFLICT (session)"
            " DO UPDATE SET sequence = excluded.sequence, at = excluded.at RETURNING id",
            (self.session, self.sequence, self.at),
        ).fetchone()[0]
        connection.executemany(_FOLD, [_fold(session, self.sequence, row) for row in self.rows])

    def committed(self) -> None:
        """Move the cursor that readers see."""
        self.cursors[self.session] = max(self.sequence, self.cursors.get(self.session, 0))

    def tell(self) -> None:
        """Tell the receiver, which tells the job."""
        self.done(self.cursors.get(self.session, self.sequence))


_FOLD = (
    "INSERT INTO folds (session, sequence, job, rank, first_step, last_step, count, at,"
    " samples_sum, loss_sum, loss_count, nonfinite, compute_sum, comm_sum, bytes_sum)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _fold(session: int, sequence: int, row: StepFold) -> tuple[object, ...]:
    return (
        session, row.sequence or sequence, row.job, row.rank,
        row.first_step, row.last_step, row.count, row.at,
        _finite(row.samples_sum), _finite(row.loss_sum), row.loss_count, row.nonfinite,
        _finite(row.compute_sum), _finite(row.comm_sum), _finite(row.bytes_sum),
    )  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class KeepReport(_Plain):
    """The record of a run of a check."""

    kind: ClassVar[str] = "reports"
    report: StoredReport
    watch: bool

    def apply(self, tables: Tables) -> None:
        """Insert it."""
        r = self.report
        tables.connection.execute(
            "INSERT INTO reports (check_id, at, scheduled, verdict, late, watch, document)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (r.check_id, r.at, r.scheduled, r.verdict, r.late, self.watch, r.text),
        )


@dataclass(frozen=True, eq=False, slots=True)
class Move(_Plain):
    """A subject is in another state from now on."""

    kind: ClassVar[str] = "transitions"
    subject: str
    state: str
    at: float

    def apply(self, tables: Tables) -> None:
        """Insert it."""
        tables.connection.execute(
            "INSERT OR REPLACE INTO transitions VALUES (?, ?, ?)",
            (self.subject, self.at, self.state),
        )


@dataclass(frozen=True, eq=False, slots=True)
class SaveAlarm(_Plain):
    """The state of one alarm; the newest is all that counts."""

    kind: ClassVar[str] = "alarms"
    alarm: str
    text: str

    @property
    def key(self) -> tuple[str, ...]:
        """By alarm."""
        return (self.kind, self.alarm)

    def apply(self, tables: Tables) -> None:
        """Replace it."""
        tables.connection.execute(
            "INSERT OR REPLACE INTO alarms VALUES (?, ?)", (self.alarm, self.text)
        )


@dataclass(frozen=True, eq=False, slots=True)
class PutAlert(_Plain):
    """An alert to send, together with the alarm that asks for it: both or neither."""

    kind: ClassVar[str] = "outbox"
    alarm: str
    alert: str
    text: str  # of the alarm

    def apply(self, tables: Tables) -> None:
        """Insert or replace the alert, in its old place, and replace the alarm."""
        tables.connection.execute(
            "INSERT INTO outbox (key, alert) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET alert = excluded.alert",
            (self.alarm, self.alert),
        )
        tables.connection.execute(
            "INSERT OR REPLACE INTO alarms VALUES (?, ?)", (self.alarm, self.text)
        )


@dataclass(frozen=True, eq=False, slots=True)
class AlertDone(_Plain):
    """An alert was delivered."""

    kind: ClassVar[str] = "outbox"
    alarm: str

    def apply(self, tables: Tables) -> None:
        """Delete it."""
        tables.connection.execute("DELETE FROM outbox WHERE key = ?", (self.alarm,))


@dataclass(frozen=True, eq=False, slots=True)
class PutRecord(_Plain):
    """A small document by kind and key; without a text it is deleted."""

    kind: ClassVar[str] = "records"
    urgent: ClassVar[bool] = False
    place: tuple[str, str]
    text: str | None

    @property
    def key(self) -> tuple[str, ...]:
        """By kind and key."""
        return (self.kind, *self.place)

    def apply(self, tables: Tables) -> None:
        """Replace or delete it."""
        if self.text is None:
            tables.connection.execute("DELETE FROM records WHERE kind = ? AND key = ?", self.place)
        else:
            tables.connection.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (*self.place, self.text)
            )


@dataclass(frozen=True, eq=False, slots=True)
class PutRecordNow(PutRecord):
    """One that does not wait for the next beat: killed before it, one would do something twice."""

    urgent: ClassVar[bool] = True


def milliseconds(at: float) -> int:
    """Unix seconds as stored."""
    return round(at * 1000)


def label_text(labels: Labels) -> str:
    """Labels as stored: a JSON object, its keys in order."""
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
