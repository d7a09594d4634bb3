"""What is broken in the second half of a soak, how it is healed, and which alerts must tell of it.

Each fault is a harm that lasts as long as its `with` does. Which come, when, and which rank they
hit is drawn from a seed. Those that must be told of nothing are faults of others, or of dvfd
itself, which outlives them: any alert then is one that nobody can explain.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness import testbed
from bench.soaked_job import RANKS, spoil

JOB = "soak"

BACK = 300.0
"""Seconds for what was killed to be back: torchrun and four ranks on a machine that is busy."""

ERROR_LINE = "RuntimeError: CUDA error: an illegal memory access was encountered\n"

SETTLED = 15.0
"""Seconds without a change after which a checkpoint counts as verified: thrice the sampling."""

TRIES = 5
"""Starts of a server, each given a minute by the testbed."""

RESTART_AFTER = 5.0
"""RestartSec of systemd/dvfd.service."""

GAPS = ("DvfdBlind:cpu", "DvfdBlind:network", "DvfdBlind:ranks")
"""Windows of minutes of which nine tenths must be observed: after half a minute in which somebody
was not there they are UNKNOWN, and blindness is an alert.
"""

OF_RANKS = (
    "live.responding", "live.progress", "live.step_skew", "live.ranks_missing", "live.log_errors",
    "live.exceptions", "live.throughput", "live.stragglers", "live.cpu", "live.checkpoint_missing",
    "DvfdStorm", "DvfdUptime*", *GAPS,
)  # fmt: skip
"""What a rank that is lost or stands may raise beside what it must: all of it is true then."""


class Switch:
    """A server that can be taken away and brought back at the same port."""

    def __init__(self, start: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        """*start* runs it for as long as its context lasts."""
        self._start = start
        self._stack = contextlib.ExitStack()
        self.server: Any = None

    def on(self) -> None:
        """Start it, and wait until it answers: on a busy machine not at the first try."""
        for _ in range(TRIES):
            with contextlib.suppress(testbed.pytest.fail.Exception):
                self.server = self._stack.enter_context(self._start())
                return
        raise RuntimeError(f"not started in {TRIES} tries")

    def off(self) -> None:
        """Stop it in good order."""
        self._stack.close()


@dataclass(slots=True)
class Scene:
    """Everything that runs, and what a fault may touch of it."""

    node: Any
    pager: Switch
    prometheus: Switch
    place: Path
    chance: random.Random
    stop: threading.Event
    life: int = 0
    away: threading.Event = field(default_factory=threading.Event)
    """Whether the daemon is dead or stopped on purpose: nobody asks it then."""

    def rank(self) -> int:
        """The process of a rank, by lot."""
        pids = self.node.pids(JOB)
        return int(pids[self.chance.choice(sorted(pids))])

    def steps(self) -> list[int]:
        """The last step of each rank that responds."""
        jobs = (self.node.ask("status") or {"jobs": []})["jobs"]
        ranks = [rank for job in jobs if job["job"] == JOB for rank in job["ranks"]]
        return [rank["step"] or 0 for rank in ranks if rank["state"] == "responding"]

    @contextlib.contextmanager
    def absent(self) -> Iterator[None]:
        """Nobody asks the daemon, or samples it, meanwhile."""
        self.away.set()
        try:
            yield
        finally:
            self.away.clear()

    def wait(self, seconds: float) -> None:
        """Wait, or less where the soak is ended meanwhile."""
        self.stop.wait(seconds)

    def until(self, what: Callable[[], Any], seconds: float) -> bool:
        """Whether *what* came true within so many seconds."""
        end = time.monotonic() + seconds
        while not self.stop.is_set() and time.monotonic() < end:
            if what():
                return True
            self.stop.wait(0.2)
        return bool(what())

    def must(self, what: Callable[[], Any], text: str) -> None:
        """Wait until *what* is true. Raises RuntimeError: a soak of a corpse says nothing."""
        if not self.until(what, BACK) and not self.stop.is_set():
            raise RuntimeError(f"not within {BACK:g} s: {text}")


Harm = Callable[[Scene], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done; `told` must be told, `also` may be (patterns of keys)."""

    name: str
    harm: Harm
    told: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    least: float = 0.0
    """Seconds that the harm lasts at the least."""
    within: float = 0.0
    """Seconds that it lasts at the most, for its alerts to come while it is there."""
    settles: float = 90.0
    """Seconds from the healing until its last alert is over, by the limits as delivered."""
    restarts: bool = False
    """Whether it begins a new life of the daemon."""


@contextlib.contextmanager
def rank_killed(scene: Scene) -> Iterator[None]:
    """SIGKILL; torchrun restarts the job."""
    os.kill(scene.rank(), signal.SIGKILL)
    yield
    scene.must(lambda: len(scene.steps()) == RANKS, "the job trains again")


@contextlib.contextmanager
def rank_stopped(scene: Scene) -> Iterator[None]:
    """SIGSTOP, then SIGCONT: the others wait in a collective meanwhile."""
    pid = scene.rank()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def nan_loss(scene: Scene) -> Iterator[None]:
    """One step's loss is NaN; it heals itself, as no update is made of it."""
    spoil(scene.place, "nan")
    yield


@contextlib.contextmanager
def loss_spike(scene: Scene) -> Iterator[None]:
    """One step's loss is many times its course."""
    spoil(scene.place, "spike")
    yield


@contextlib.contextmanager
def checkpoint_corrupted(scene: Scene) -> Iterator[None]:
    """One bit of the newest, once its verification has had the time to pass it."""
    folder = scene.node.directory / "checkpoints"

    def settled() -> Path | None:
        newest = max(folder.glob("step-*"), default=None)
        old = newest is not None and SETTLED < time.time() - newest.stat().st_mtime < 2 * SETTLED
        return newest if old else None

    if scene.until(settled, 300) and (path := settled()):
        state = path / "state.pt"
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    yield


@contextlib.contextmanager
def log_error(scene: Scene) -> Iterator[None]:
    """A line in the watched log."""
    _write_error(scene)
    yield


def _write_error(scene: Scene) -> None:
    with (scene.node.directory / "job.log").open("a", encoding="utf-8") as log:
        log.write(ERROR_LINE)


@contextlib.contextmanager
def alertmanager_away(scene: Scene) -> Iterator[None]:
    """With an error to tell of meanwhile: it is told once somebody listens again."""
    scene.pager.off()
    try:
        _write_error(scene)
        yield
    finally:
        scene.pager.on()


@contextlib.contextmanager
def prometheus_away(scene: Scene) -> Iterator[None]:
    """Nobody scrapes, and no rule is evaluated."""
    scene.prometheus.off()
    try:
        yield
    finally:
        scene.prometheus.on()


@contextlib.contextmanager
def store_full(scene: Scene) -> Iterator[None]:
    """The file system of the store, its own, has no byte left."""
    ballast = scene.node.directory / "state" / "ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"0")
        yield
    finally:
        ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def reloaded(scene: Scene) -> Iterator[None]:
    """SIGHUP after a change that means nothing: the daemon starts anew all the same."""
    path = scene.node.directory / "dvfd.toml"
    with path.open("a", encoding="utf-8") as file:
        file.write(f"# changed at {time.time():.0f}\n")
    before = scene.node.said().count("watching")
    with scene.absent():
        scene.node.daemon.send_signal(signal.SIGHUP)
        scene.must(lambda: scene.node.said().count("watching") > before, "it watches again")
        scene.life += 1
    yield


@contextlib.contextmanager
def daemon_killed(scene: Scene) -> Iterator[None]:
    """As systemd does it: started again once RestartSec of the unit has passed."""
    with scene.absent():
        scene.node.kill()
        scene.wait(RESTART_AFTER)
        with contextlib.suppress(testbed.pytest.fail.Exception):  # given a minute by the testbed
            scene.node.start()
        scene.must(lambda: scene.node.ask("ping"), "the daemon answers again")
        scene.life += 1
    yield


@contextlib.contextmanager
def daemon_stopped(scene: Scene) -> Iterator[None]:
    """SIGSTOP, as a suspended or starved machine; ranks go on meanwhile."""
    with scene.absent():
        scene.node.daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            scene.node.daemon.send_signal(signal.SIGCONT)
            scene.must(lambda: scene.node.ask("ping"), "it answers again")


FAULTS = (
    Fault(name="loss spike", harm=loss_spike, told=("live.loss_spikes",), also=("live.log_errors",),
          within=60, settles=660),
    Fault(name="rank killed, job restarted", harm=rank_killed, told=("live.responding",),
          also=OF_RANKS, within=20),
    Fault(name="rank stopped and continued", harm=rank_stopped, told=("live.responding",),
          also=OF_RANKS, least=10, within=60),
    Fault(name="NaN loss", harm=nan_loss, told=("live.loss_finite",),
          also=("live.log_errors", "live.loss_spikes"), within=60),
    Fault(name="checkpoint corrupted", harm=checkpoint_corrupted, told=("live.checkpoint_intact",),
          within=60, settles=240),
    Fault(name="log error", harm=log_error, told=("live.log_errors",), within=60),
    Fault(name="Alertmanager away, with an error to tell", harm=alertmanager_away, least=60,
          told=("live.log_errors",), also=("DvfdAlertDelivery*", "DvfdRaised*", "DvfdOutbox*"),
          settles=180),
    Fault(name="Prometheus away", harm=prometheus_away, least=60, settles=30),
    Fault(name="disk of the store full", harm=store_full, told=("live.disk_free",),
          also=("live.inodes_free", "DvfdStore*", "DvfdDisk*", "DvfdUptime*"), least=30,
          within=240, settles=420),
    Fault(name="configuration taken anew", harm=reloaded, also=GAPS, settles=30, restarts=True),
    Fault(name="daemon killed and started", harm=daemon_killed, also=GAPS, settles=30,
          restarts=True),
    Fault(name="daemon stopped for 30 s", harm=daemon_stopped, also=("DvfdBlind:*",), least=30,
          settles=60),
)  # fmt: skip

TMPFS = "disk of the store full"
"""Needs a file system of the store's own."""

SHORT = ("log error", "rank stopped and continued", "daemon killed and started")
"""What fits two minutes, in this order."""


def drawn(
    faults: tuple[Fault, ...], chance: random.Random, left: Callable[[], float]
) -> Iterator[Fault]:
    """Each once by lot, those with a long alert first; then by lot again, but for those that
    restart the daemon (a fourth restart within the hour is an alert of its own) or last.
    *left* says how many seconds there are: who does not settle within them does not come.
    """
    order = sorted(chance.sample(faults, len(faults)), key=lambda fault: fault.settles < 600)
    for fault in order:
        if lasts(fault) < left():
            yield fault
    again = [fault for fault in faults if not fault.restarts and fault.settles < 300]
    while fitting := [fault for fault in again if lasts(fault) < left()]:
        yield chance.choice(fitting)


def lasts(fault: Fault) -> float:
    """Seconds from its injection until its last alert is over, with a minute for what is slow."""
    return max(fault.least, fault.within) + fault.settles + 60


def left_to_break(faults: tuple[Fault, ...], names: tuple[str, ...]) -> tuple[Fault, ...]:
    """Those of *names*, in that order."""
    by_name = {fault.name: fault for fault in faults}
    return tuple(by_name[name] for name in names)


def ports(count: int) -> list[int]:
    """So many ports that nobody listens on."""
    found: set[int] = set()
    while len(found) < count:
        found.add(testbed.free_port())
    return list(found)
