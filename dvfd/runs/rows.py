"""What the file of a run holds: windows of batches, minutes of probes, events. Nouns only.

`t` is run seconds: since the run was armed, by CLOCK_BOOTTIME, through restarts and reboots. The
figures of a run are folds over these rows, so that the same file always gives the same report.
Two days of 16 ranks are 110,000 windows and 80,000 minutes, made anew each time they are read: as
tuples, in the order of the file's columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dvfd.model import Labels


class Window(NamedTuple):
    """The steps of one rank in one collection interval: seconds, samples, bytes summed.

    Interval *window* holds the steps from `window * every + 1` to `(window + 1) * every`. A rank
    that came back as a new process has a new `session` and so a row of its own. What a job did not
    report is None, or 0 in a count. `loss` runs over the `losses` finite ones; `stepping` is the
    time of the steps that reported communication, starts, pauses and checkpoints left out, and
    `communication` what these steps reported.
    """

    node: str
    rank: int
    window: int
    session: str
    first_step: int
    last_step: int
    steps: int
    began: float  # t at which the first of these steps ended
    ended: float  # t at which the last of these steps ended
    samples: float | None = None
    loss: float = 0.0
    losses: int = 0
    nonfinite: int = 0
    norm: float = 0.0
    norms: int = 0
    compute: float = 0.0
    computes: int = 0
    communication: float = 0.0
    stepping: float = 0.0
    allreduce: float = 0.0
    allreduces: int = 0
    moved: float = 0.0  # bytes that the reductions moved


class Minute(NamedTuple):
    """One series of a probe over the minute that begins at run second `60 * minute`.

    `grown` is how much a counter grew in it, resets and the last value before it included;
    `covered` the seconds of it that the samples stand for.
    """

    node: str
    metric: str
    labels: Labels
    minute: int
    count: int  # type: ignore[assignment]  # of samples; that of a tuple is asked by nobody
    sum: float
    low: float
    high: float
    last: float
    grown: float = 0.0
    covered: float = 0.0


class What(StrEnum):
    """What an event of a run says happened. `value` and `text` mean what stands beside it."""

    STAGE = "stage"  # text: the stage that began
    UP = "up"  # all expected workers of the node live and make progress
    DOWN = "down"  # text: why not
    UNSEEN = "unseen"  # nobody looked, or it could not be said; text: why
    FAILURE = "failure"  # a process died, left or came back unplanned; text: how
    PLANNED = "planned"  # the same, injected or ordered
    RESTART = "restart"  # a rank came back as a new process
    BEGUN = "checkpoint begun"  # value: seconds that it took are told by SAVED
    SAVED = "checkpoint saved"  # value: seconds that it took, text: path
    FAILED = "checkpoint failed"  # text: why
    RESTORED = "checkpoint loaded"  # value: seconds that it took, text: path
    VERIFIED = "checkpoint verified"  # text: path
    DAMAGED = "checkpoint damaged"  # text: path and what is wrong
    UNVERIFIED = "checkpoint unverified"  # it could not be said; text: why
    ISSUE = "synchronisation issue"  # text: skew, hash or timeout, then words
    HASHED = "hash"  # of a step, for the nodes to be compared; text: grad or param, and the value
    PROBED = "collective probed"  # value: seconds, text: 64KiB or bucket
    INJECTED = "fault injected"  # text: what, value: seconds that it lasts at most
    HEALED = "fault healed"
    RECOVERED = "first step after a fault"  # value: seconds since HEALED
    CLOCK = "clock stepped"  # value: seconds
    SUSPENDED = "suspended"  # value: seconds
    SILENT = "node silent"  # text: since when, why; until HEARD nothing of it is known
    HEARD = "node heard again"
    DAEMON = "daemon"  # looks again; value: seconds in which nobody looked
    NOTE = "note"  # text


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run, at run second `t` and Unix time `at`.

    `origin` names what a rank told, by session and sequence: it may tell that again after a kill
    of the daemon, and a file takes it once.
    """

    node: str
    t: float
    at: float
    what: What
    rank: int | None = None
    step: int | None = None
    value: float | None = None
    text: str = ""
    origin: str = ""


Row = Window | Minute | Event


class Rows(Protocol):
    """A run's file, read: what changed after mark *since* and not after mark *until*."""

    def windows(self, since: int = 0, until: int | None = None) -> Iterator[Window]:
        """Windows that were added or grew, whole, by window, node, rank, session."""
        ...

    def minutes(self, since: int = 0, until: int | None = None) -> Iterator[Minute]:
        """Minutes that were added, in that order: those of one series by minute."""
        ...

    def events(self, since: int = 0, until: int | None = None) -> Iterator[Event]:
        """Events that were added, by time."""
        ...

    def mark(self) -> int:
        """The newest mark: between two of them every row comes once."""
        ...


class Pen(Protocol):
    """A run's file, written."""

    def add(self, rows: Iterable[Minute | Event]) -> None:
        """Take rows in; does not wait for the disk."""
        ...
