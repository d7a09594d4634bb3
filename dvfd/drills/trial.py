"""Run a training job for a bounded time and take its throughput, by the daemon's own receiver.

The job reports to a socket of ours: the daemon of this node does not hear of it, and its history
stays free of it. The figures come from the same book and the same probe that judge production.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.config import Jobs
from dvfd.drills import tree
from dvfd.drills.collectives import median_interval
from dvfd.drills.convergence import TORCHRUN, cause
from dvfd.drills.interpreter import BARE
from dvfd.errors import ProbeError, ToolError
from dvfd.probes.ranks import Ranks
from dvfd.reduce import seconds as spoken
from dvfd.shell import Output
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.receiver import Receiver

if TYPE_CHECKING:
    from dvfd.drills.drill import Task
    from dvfd.model import Clock, Sample
    from dvfd.store.folds import StepFold
    from dvfd.telemetry.job import Job

WINDOW = 2.0
"""Seconds of one figure: ranks report about once a second."""

FEWEST = 6
"""Windows that bound a median: of fewer, none does."""

WARM_UP = 5.0
"""Seconds of steps before the clock counts: allocations, first batches."""

START = 300.0
"""Seconds to the first step: importing torch, rendezvous, reading the data set."""

GRACE = 20.0
"""Seconds for a job to end by itself once asked: one that writes a last checkpoint takes them."""

LOOK = 0.1
TELL = 5.0

ARRIVING = 2.0
"""Seconds for the last words of a job that ended: they are there already, and have to be read."""

WORDS = 1 << 16
"""Bytes of the job's last words that are looked at."""

METRIC = "job_throughput_samples_per_second"
SHARE = "job_communication_ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Samples a second of the whole job; `low` and `high` bound the median over windows, whose
    figures are `rates`; `communication` is the mean share of steps, None where no rank tells it.
    """

    median: float
    low: float
    high: float
    windows: int
    steps: int
    seconds: float
    processes: int
    job: str
    command: tuple[str, ...]
    rates: tuple[float, ...] = ()
    communication: float | None = None


@dataclass(slots=True)
class Ear:
    """A store for the receiver that keeps nothing: what it is given counts in the book."""

    ok: bool = True
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, samples: Iterable[Sample]) -> None:
        """Let them go."""

    def commit_telemetry(
        self,
        session: str,
        sequence: int,
        rows: Sequence[StepFold],
        done: Callable[[int], None],
        *,
        job: str = "",
    ) -> None:
        """Acknowledge at once: the job must not keep its rows for us."""
        done(sequence)

    def cursor(self, session: str) -> int:
        """Nothing is remembered."""
        return 0

    def steps_after(self, session: str, sequence: int) -> None:
        """Nothing is kept."""

    def recorded(self, session: str) -> int:
        """Nothing is recorded."""
        return 0

    def put(self, kind: str, key: str, document: dict[str, Any] | None) -> None:
        """Let it go."""

    def all(self, kind: str) -> Mapping[str, dict[str, Any]]:
        """Nothing."""
        return self.kept

    def health(self) -> Ear:
        """Well."""
        return self


def trial(
    task: Task, command: Sequence[str], *, seconds: float, processes: int, here: int
) -> Throughput:
    """The throughput of *command* over *seconds* after its start and warm-up; it is then ended.

    Raises ToolError if it cannot be started or ends by itself with an error, ProbeError if what
    it reports is not the training of *processes* ranks that it should be, *here* of them on this
    node.
    """
    with tempfile.TemporaryDirectory(prefix="dvfd-trial-") as place:
        path = Path(place) / "s"  # a socket's name must be short
        book = JobBook(Jobs(), task.clock)
        receiver = Receiver(path, book, Ear(), task.clock, lambda _metrics: None)
        receiver.start()
        try:
            with running(command, path, Path(place) / "log") as job:
                return Listening(task, book, job, processes, here).measure(command, seconds)
        finally:
            receiver.stop()


@dataclass(frozen=True, slots=True)
class Child:
    """A job that was started, and the file that its words go to."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def ended(self) -> str | None:
        """How it ended, None while it runs. Raises ToolError if that was with an error."""
        code = self.process.poll()
        if code is None:
            return None
        if code:
            raise ToolError(f"the job failed: {cause(self._output(code))}")
        return "the job ended"

    def _output(self, code: int) -> Output:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - WORDS))
            words = file.read().decode(errors="replace")
        return Output(code, "", words, time.monotonic() - self.began)


@contextlib.contextmanager
def running(command: Sequence[str], socket: Path, log: Path) -> Iterator[Child]:
    """*command* with its ranks told to report to *socket*. Asked to end, then made to: nothing of
    it is left.
    """
    mark = secrets.token_hex(8)
    ours = {k: v for k, v in os.environ.items() if not k.startswith((*TORCHRUN, "DVFD_"))}
    environment = {**ours, "DVFD_SOCKET": str(socket), tree.MARK: mark}
    argv = [sys.executable, str(BARE), "dvfd.drills.workers.become", *command]
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            yield Child(process, log, time.monotonic())
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            process.kill()
            process.wait()
    finally:
        tree.sweep(mark)


class Listening:
    """Hears a job to the end of its measurement."""

    def __init__(self, task: Task, book: JobBook, child: Child, processes: int, here: int) -> None:
        self._say, self._book, self._child = task.say, book, child
        self._processes, self._here = processes, here
        self._clock: Clock = task.clock
        self._ranks = Ranks(book, task.clock, interval=WINDOW)
        self._told = 0.0
        self._shares: list[float] = []

    def measure(self, command: Sequence[str], seconds: float) -> Throughput:
        """Wait for all ranks to train, let them warm up, look at every window."""
        job = self._wait_for_steps()
        self._pass(self._clock.boot() + WARM_UP)
        self._look()
        self._shares.clear()  # of the warm-up
        first, since = _steps(job), self._clock.boot()
        found: list[float] = []
        while (now := self._clock.boot()) < since + seconds:
            self._pass(min(now + WINDOW, since + seconds))
            rates = self._look()
            if job.ended is not None or self._child.ended():
                break  # what is not there any more is no slow training
            found += rates
            self._tell(now - since, seconds, found)
        _is_sound(job)
        if len(found) < FEWEST:
            raise ProbeError(
                f"the job was heard for {len(found)} windows of {spoken(WINDOW)}, wanted {FEWEST}: "
                "one that trains longer, and reports its samples (Reporter.step(samples=...))"
            )
        low, high = median_interval(found)
        return Throughput(
            median=statistics.median(found),
            low=low,
            high=high,
            windows=len(found),
            steps=_steps(job) - first,
            seconds=self._clock.boot() - since,
            processes=job.world_size,
            job=job.name,
            command=tuple(command),
            rates=tuple(found),
            communication=statistics.fmean(self._shares) if self._shares else None,
        )

    def _wait_for_steps(self) -> Job:
        """The job, once every rank has made a step. Raises ToolError, ProbeError."""
        until = self._clock.boot() + START
        wanted = f"wanted {self._here} ranks on this node that make steps"
        while self._clock.boot() < until:
            if job := self._training():
                return job
            if self._child.ended():
                self._let_arrive()
                raise ProbeError(f"the job ended too soon: {self._heard()}; {wanted}")
            time.sleep(LOOK)
        raise ProbeError(f"no training after {spoken(START)}: {self._heard()}; {wanted}")

    def _training(self) -> Job | None:
        """The job that reports, if all its ranks make steps. Raises ProbeError if it is another
        than was wanted.
        """
        with self._book.lock:
            jobs = [job for job in self._book.jobs() if job.ranks]
            if len(jobs) > 1:
                raise ProbeError(f"{len(jobs)} jobs report, wanted one: {self._heard()}")
            if not jobs:
                return None
            if jobs[0].world_size != self._processes:
                raise ProbeError(
                    f"the job has {jobs[0].world_size} processes, wanted {self._processes}: those "
                    "of the profile (nodes x processes_per_node), or one"
                )
            ranks = jobs[0].ranks.values()
            whole = len(ranks) >= self._here and all(rank.step is not None for rank in ranks)
            return jobs[0] if whole else None

    def _let_arrive(self) -> None:
        """What a job said last may be on its way still when its process is gone."""
        until = self._clock.boot() + ARRIVING
        while not self._book.snapshot() and self._clock.boot() < until:
            time.sleep(LOOK)

    def _heard(self) -> str:
        jobs = self._book.snapshot()
        if not jobs:
            return "nothing reported (dvfd.telemetry.reporter in the job, README.md)"
        return "; ".join(f"job {job['job']} reported: {job['summary']}" for job in jobs)

    def _look(self) -> list[float]:
        samples = list(self._ranks.sample(self._clock.now()))
        self._shares += [s.value for s in samples if s.metric == SHARE]
        return [s.value for s in samples if s.metric == METRIC]

    def _pass(self, until: float) -> None:
        """Let time go by, as long as the job runs. Raises ToolError if it fails."""
        while (left := until - self._clock.boot()) > 0 and not self._child.ended():
            time.sleep(min(LOOK, left))

    def _tell(self, passed: float, seconds: float, found: Sequence[float]) -> None:
        if found and passed - self._told >= TELL:
            self._told = passed
            rate = statistics.median(found)
            self._say(
                f"training with {self._processes} process{'es' * (self._processes > 1)}: "
                f"{passed:.0f} of {seconds:g} s, {rate:.4g} samples/s"
            )


def _steps(job: Job) -> int:
    return min((rank.steps_total for rank in job.ranks.values()), default=0)


def _is_sound(job: Job) -> None:
    """Raises ProbeError where what was timed was no healthy training."""
    if job.counters.nonfinite or job.counters.exceptions:
        raise ProbeError(
            f"the job is not well: {job.counters.nonfinite} losses or gradient norms that are not "
            f"finite, {job.counters.exceptions} exceptions"
        )
