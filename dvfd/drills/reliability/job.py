"""The reference job as a scenario needs it: under one torchrun or several, watched from outside.

It reports to a receiver of ours, so that the daemon's history stays free of what is provoked, and
leaves a trail. Nothing of it outlives the scenario.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import signal
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import checkpoint_verify
from dvfd.config import Jobs
from dvfd.drills import trail
from dvfd.drills.interpreter import BARE
from dvfd.drills.order import RESTARTS_WORK
from dvfd.drills.reliability.course import Team, teams
from dvfd.drills.trial import Ear, running
from dvfd.errors import ProbeError
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dvfd.drills.drill import Task
    from dvfd.drills.trial import Child

GROUP_TIMEOUT = 10.0
"""Seconds that a collective waits for a dead peer: procedures 14, and the job's own default."""

STARTING = 180.0
"""Seconds to the first step of all ranks: torch from a cold disk, on processors that are shared."""

LOOK = 0.05

CHECKPOINTS = 20
"""Steps between two checkpoints."""

LAST_CALL = 5
"""Seconds in which all torchruns of an elastic job have to come to a rendezvous. Its default, 30,
would be the whole pause; one that needs longer to stop its workers is left out and stays so: seen
with 1 s.
"""

PER_PROCESS = 6
"""Samples per step of each process that it starts with: 4 of half as many more, 3 of twice."""

SIZE = ("--width=64", "--layers=2", "--step-time=0.05", "--validate-every=0", "--hash-every=10")
"""A model whose steps are short, so that what is timed is the recovery and not a step."""

NAME = "dvfd-reliability"


@dataclass(frozen=True, slots=True)
class Agent:
    """One torchrun: ranks that it starts, its own options, the command that it stands behind."""

    ranks: int
    options: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()  # NAME=VALUE


@dataclass(slots=True)
class Job:
    """A job that runs. `batch` is over all ranks."""

    task: Task
    home: Path
    batch: int
    book: JobBook
    stack: contextlib.ExitStack
    began: float  # CLOCK_BOOTTIME
    agents: list[Child] = field(default_factory=list)
    unwell: float | None = None  # when our receiver first knew of a rank that does not respond

    @property
    def checkpoints(self) -> Path:
        """Where they lie."""
        return self.home / "checkpoints"

    def start(self, agent: Agent) -> None:
        """Start one more torchrun of it. Raises ToolError."""
        command = [
            *agent.within, "env", *(f"{k}={v}" for k, v in RESTARTS_WORK.items()),
            "OMP_NUM_THREADS=1", *agent.environment,
            self.task.python, "-m", "torch.distributed.run",
            f"--nproc_per_node={agent.ranks}", "--max-restarts=10", *agent.options,
            str(BARE), "dvfd.drills.reference_job", f"--job={NAME}", *SIZE,
            f"--backend={self.task.config.profile.backend}", f"--timeout={GROUP_TIMEOUT:g}",
            f"--global-batch={self.batch}", f"--trail={self.home / 'trail'}",
            f"--checkpoint-dir={self.checkpoints}", f"--checkpoint-every={CHECKPOINTS}",
            "--keep=5",
        ]  # fmt: skip
        log = self.home / f"agent-{len(self.agents)}.log"
        child = self.stack.enter_context(running(command, self.home / "s", log))
        self.agents.append(child)

    def teams(self) -> list[Team]:
        """The teams that trained so far."""
        return teams(trail.read(self.home / "trail"))

    def now(self) -> Team:
        """The newest team. Raises ProbeError if there was none."""
        if found := self.teams():
            return found[-1]
        raise ProbeError("no rank of the reference job has joined")

    def newest(self) -> int:
        """The newest step that all ranks of a team made, 0 before the first."""
        return max((team.newest for team in self.teams()), default=0)

    def until(self, reached: Callable[[list[Team]], bool], seconds: float, what: str) -> None:
        """Wait until *reached*. Raises ProbeError naming *what* after *seconds*, ToolError if the
        job ended before.
        """
        until = time.monotonic() + seconds
        while not reached(self.teams()):
            self.look()
            if time.monotonic() > until:
                raise ProbeError(f"{what}: not within {seconds:g} s; {self.stands()}")
            time.sleep(LOOK)

    def look(self) -> None:
        """See that it runs, and whether our receiver knows of a rank that does not respond."""
        for child in self.agents:
            if how := child.ended():
                raise ProbeError(f"{how} by itself; {self.stands()}")
        if self.unwell is None and self._unwell():
            self.unwell = self.task.clock.boot()

    def trains(self, ranks: int, step: int, seconds: float = STARTING) -> Team:
        """Wait until *ranks* have all made *step*; they. Raises DvfdError."""

        def reached(found: list[Team]) -> bool:
            return bool(found) and found[-1].world == ranks and found[-1].newest >= step

        self.until(reached, seconds, f"step {step} of {ranks} ranks")
        return self.now()

    def verified(self, most: float = math.inf) -> int:
        """The step of the newest checkpoint up to step *most* that agrees with its manifest, 0 if
        none does.
        """
        for path in sorted(self.checkpoints.glob("step-*"), reverse=True):
            step, manner = int(path.name.partition("-")[2]), checkpoint_verify.Manner(load=False)
            if step <= most and checkpoint_verify.verify(path, manner=manner).intact:
                return step
        return 0

    def end(self) -> None:
        """Ask all of it to end at once."""
        for child in self.agents:
            with contextlib.suppress(OSError):
                child.process.send_signal(signal.SIGTERM)

    def _unwell(self) -> bool:
        self.book.look()
        with self.book.lock:
            now = self.task.clock.boot()
            ranks = [(job, rank) for job in self.book.jobs() for rank in job.ranks.values()]
            return any(job.responding(rank, now)[0] is False for job, rank in ranks)

    def stands(self) -> str:
        """How far it is, in words."""
        found = self.teams()
        if not found:
            return "no rank has joined"
        team = found[-1]
        return f"{len(team.processes)} of {team.world} ranks joined, step {team.newest}"


@contextlib.contextmanager
def started(task: Task, *agents: Agent, batch: int) -> Iterator[Job]:
    """The reference job under *agents*. Nothing of it is left afterwards. Raises DvfdError."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dvfd-job-")))
        book = JobBook(Jobs(), task.clock)
        receiver = Receiver(home / "s", book, Ear(), task.clock, lambda _metrics: None)
        receiver.start()
        stack.callback(receiver.stop)
        job = Job(task, home, batch, book, stack, task.clock.boot())
        try:
            for agent in agents:
                job.start(agent)
            yield job
        finally:
            job.end()


def elastic(ranks: int, port: int, most: int, *, host: bool) -> Agent:
    """A torchrun that others may join, up to *most* of them, by a rendezvous on this machine."""
    conf = f"is_host={int(host)},last_call_timeout={LAST_CALL},join_timeout=60"
    return Agent(ranks, (
        f"--nnodes=1:{most}", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}",
        f"--rdzv-id={NAME}", f"--rdzv-conf={conf}", "--local-addr=127.0.0.1",
    ))  # fmt: skip


def alone(ranks: int) -> Agent:
    """A torchrun by itself."""
    return Agent(ranks, (
        "--nnodes=1", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0",
        f"--rdzv-id={secrets.token_hex(4)}",
    ))  # fmt: skip


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


def gone(processes: Sequence[trail.Process]) -> bool:
    """Whether one of them is."""
    return any(trail.started(each.pid) != each.start for each in processes)
