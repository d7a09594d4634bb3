"""One rank of a job: its process, its line, and what its rows add up to. Reads no clock."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dvfd.derive import HANG_FLOOR, StepStats
from dvfd.telemetry.processes import GONE, STOPPED, Process

if TYPE_CHECKING:
    from dvfd.telemetry.wire import Row

START_LIMIT = 300.0
"""Seconds before the first step: importing torch, rendezvous, reading the data set."""

PACKET_DELAY = 3.0
"""Seconds after a step within which its successors may be done but not sent: the reporter makes
a packet each second."""

COMPUTE_WINDOW = 64
"""Compute sections in a median: what the rank does now, not an hour ago."""

MEDIAN_EVERY = 60.0
MEDIANS = 240
"""A rank's past: one median a minute for four hours, which is the decay of procedures 16."""


STEPS_KEPT = 512
"""Ends of steps kept: ranks report about once a second, and the fastest job seen here does 100."""

LINE_STEPS = 10_000
"""Steps between two log lines at most; a larger jump is a resumption, not progress."""

LEAP = 4.0
STRIDES = 10
PRESUMED = 100.0
"""A jump is one as well if it is both more than ten times the last one and more than the time since
then would bear at four times the rank's own pace: of which 100 steps a second are presumed until
it is known.
"""


class Link(StrEnum):
    """What became of the rank's connection."""

    CONNECTED = "connected"
    AWAITED = "awaited"  # the daemon restarted, or hung up: the rank will come again
    LEFT = "left"
    ENDED = "ended"
    FAILED = "failed"


HERE = (Link.CONNECTED, Link.AWAITED)
"""What the line of a live rank is. A tuple: members of an enum are dear to hash, and this is asked
of every rank at every step.
"""


@dataclass(slots=True)
class Totals:
    """Sums over a rank's rows since this daemon met it; seconds, samples, bytes."""

    steps: int = 0
    samples: float = 0.0
    loss: float = 0.0
    losses: int = 0
    grad_norm: float = 0.0
    grad_norms: int = 0
    compute: float = 0.0
    computes: int = 0
    communication: float = 0.0
    stepping: float = 0.0  # seconds of the steps that reported communication
    allreduce: float = 0.0
    allreduces: int = 0
    interval: float = 0.0
    intervals: int = 0


@dataclass(slots=True)
class Rank:
    """What is known of one rank. Times are CLOCK_BOOTTIME seconds."""

    rank: int
    process: Process | None  # None: it cannot be seen from here
    pid: int
    session: str
    since: float  # the hello, or the restart of this daemon
    link: Link = Link.CONNECTED
    dead: bool = False
    stopped: bool = False
    feed: str = ""  # the file that speaks for it, if it is no process of ours
    gone: bool = False  # its process was when looked at, and its line had not told of it yet
    unread: float = -math.inf  # until when it is not believed: lines of that file were lost
    arrived: float | None = None  # when that file last spoke
    arrivals: StepStats = field(default_factory=StepStats)  # seconds from then to the time before
    seen: int = 0  # the last sequence of the session that is in the totals
    steps_total: int = 0
    step: int | None = None
    stride: int = 0  # steps from the line before to the last one, of a file
    stepped: float | None = None  # when the last step ended
    progress: float = 0.0
    before: float | None = None  # its last progress under an earlier daemon
    step_samples: float | None = None  # of the last step, or of all that a log's line stands for
    broken: bool = True  # the next interval is no step: a start or a checkpoint lies in it
    section: float | None = None  # when the checkpoint being written began
    pause: float = 0.0  # seconds that the next step may take, as the job says
    limit: float = HANG_FLOOR
    totals: Totals = field(default_factory=Totals)
    pace: StepStats = field(default_factory=StepStats)
    compute: StepStats = field(default_factory=lambda: StepStats(COMPUTE_WINDOW))
    past: StepStats = field(default_factory=lambda: StepStats(MEDIANS))
    past_at: float = 0.0
    kept_at: float = -math.inf  # when its document was last kept
    ends: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=STEPS_KEPT))

    @property
    def live(self) -> bool:
        """Whether it is expected to make progress."""
        return not self.dead and self.link in HERE

    @property
    def lost(self) -> bool:
        """Whether it is known to have come to an end that was none of its own choice."""
        return self.dead or self.link is Link.FAILED

    @property
    def progressed(self) -> float | None:
        """When it last got on, as far as is known: its silence may count from a daemon's start,
        which is no progress of its own.
        """
        if self.progress > self.since:
            return self.progress
        known = [at for at in (self.before, self.stepped) if at is not None]
        return max(known, default=None)

    @property
    def holding(self) -> bool:
        """Whether it keeps its seat from others: one that may be gone unseen does not."""
        return self.live and not (self.process is None and self.link is Link.AWAITED)

    def take(self, row: Row, now: float) -> None:
        """Add one row. A row's own time counts only as far as it is not in the future."""
        totals, at = self.totals, min(row.boot, now)
        interval = None if self.stepped is None or self.broken else at - self.stepped
        steps = self._steps_to(row.step, at) if self.feed else 1
        self.steps_total += steps
        totals.steps += steps
        self.step, self.stepped, self.broken = row.step, at, False
        self.pause = 0.0
        if steps:
            self.step_samples = None if row.samples is None else row.samples * steps
        self.progress = max(self.progress, at)
        self.ends.append((at, row.step))
        if interval is not None and interval > 0:
            self.pace.add(interval)
            totals.interval += interval
            totals.intervals += steps
            if row.communication is not None:
                totals.communication += row.communication
                totals.stepping += interval
        self._add(row, steps)

    def _steps_to(self, step: int, at: float) -> int:
        """How many steps a line of a log stands for: it may come at every tenth step only, and a
        validation at one that is known. A resumption, ahead or back, is one.
        """
        ahead = 1 if self.step is None else step - self.step
        stride = self.stride
        self.stride = ahead if ahead > 0 else stride
        return ahead if 0 <= ahead <= max(1, self._bearable(stride, at)) else 1

    def _bearable(self, stride: int, at: float) -> float:
        """The steps that may have been made until *at*, as far as the lines before it say."""
        if self.stepped is None:
            return LINE_STEPS
        totals = self.totals
        pace = LEAP * totals.intervals / totals.interval if totals.intervals else PRESUMED
        return min(LINE_STEPS, max(STRIDES * stride, pace * (at - self.stepped)))

    def _add(self, row: Row, steps: int) -> None:
        totals = self.totals
        totals.samples += (row.samples or 0.0) * steps
        if row.loss is not None and math.isfinite(row.loss):
            totals.loss += row.loss
            totals.losses += 1
        if row.grad_norm is not None and math.isfinite(row.grad_norm):
            totals.grad_norm += row.grad_norm
            totals.grad_norms += 1
        if row.compute is not None:
            self.compute.add(row.compute)
            totals.compute += row.compute
            totals.computes += 1
        if row.allreduce is not None:
            totals.allreduce += row.allreduce
            totals.allreduces += 1

    def step_at(self, at: float) -> int | None:
        """The last step that had ended at boot time *at*; None if that is too long ago to know."""
        return next((step for ended, step in reversed(self.ends) if ended <= at), None)

    def settle(self, now: float) -> None:
        """Work out once a packet what is too dear for every row."""
        self.limit = self._hang_limit(now)
        if now - self.past_at < MEDIAN_EVERY:
            return
        median = self.compute.median()
        if median is not None:
            self.past.add(median)
            self.past_at = now

    def _hang_limit(self, now: float) -> float:
        """A file says nothing until its writer's buffer is full, and then much: how often it speaks
        counts, and until that is known, as long as a start may take.
        """
        if not self.feed:
            return self.pace.hang_limit()
        if self.arrived is not None:
            self.arrivals.add(now - self.arrived)
        self.arrived = now
        rare = self.arrivals.hang_limit() if len(self.arrivals) else START_LIMIT
        return max(self.pace.hang_limit(), rare)

    def look(self, state: str) -> None:
        """Take note of the process's *state*, a letter of proc(5)."""
        self.dead = self.dead or state in GONE
        self.stopped = state in STOPPED

    def to_document(self) -> dict[str, Any]:
        """What must survive a restart of the daemon: who it is, and what is already counted."""
        return {
            "rank": self.rank,
            "pid": self.pid,
            "start": self.process.start if self.process else None,
            "session": self.session,
            "seen": self.seen,
            "link": self.link.value,
            "feed": self.feed,
            "dead": self.dead,
            "steps_total": self.steps_total,
            "step": self.step,
            "limit": max(self.limit, self.pause),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], now: float) -> Rank:
        """Bring a rank back, waiting to hear from it again.

        Raises KeyError, TypeError or ValueError on a document that is none of ours.
        """
        start, link = document["start"], Link(document["link"])
        return cls(
            rank=int(document["rank"]),
            process=None if start is None else Process(int(document["pid"]), int(start)),
            pid=int(document["pid"]),
            session=str(document["session"]),
            since=now,
            link=Link.AWAITED if link is Link.CONNECTED else link,
            dead=bool(document["dead"]),
            feed=str(document["feed"]),
            seen=int(document["seen"]),
            steps_total=int(document["steps_total"]),
            step=document["step"],
            progress=now,
            limit=float(document["limit"]),
        )
