"""Each loop of a whole daemon frozen, each part crashed: it is said, and nothing stays green."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from testbed import eventually

from dvfd.clock import SystemClock
from dvfd.config import parse
from dvfd.daemon import LIMITS, Daemon
from dvfd.model import Criterion, Sample, Verdict
from dvfd.sinks.site import health
from dvfd.state import LIVE_STANDS

CONFIG = """
log_level = "error"
[http]
port = 0
[sampling]
interval = 0.5
[alerting]
urls = ["http://127.0.0.1:1"]
"""


class Clock(SystemClock):
    """The machine's clocks, some seconds ahead; `wall` is what the wall clock alone was stepped."""

    def __init__(self) -> None:
        self.ahead = self.wall = 0.0

    def now(self) -> float:
        return super().now() + self.ahead + self.wall

    def boot(self) -> float:
        return super().boot() + self.ahead


class Bench:
    """A daemon in this process, with systemd's ear beside it."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.daemon: Any = Daemon(parse(CONFIG), clock=self.clock)
        self.released = threading.Event()
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(directory / "notify"))
        self._ear.setblocking(False)

    def hang(self, *_: object, **__: object) -> float:
        self.released.wait(60)
        return 1.0

    def told(self) -> list[str]:
        """What systemd heard since it was last asked, a tick later."""
        self.daemon.tick()
        said = []
        while True:
            try:
                said.append(self._ear.recv(100).decode())
            except BlockingIOError:
                return said

    def verdict(self, criterion: str) -> Verdict:
        return self.daemon._state.snapshot().results[criterion].verdict

    def close(self) -> None:
        self.released.set()
        self.daemon.stop()
        self._ear.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("DVFD_SOCKET", str(tmp_path / "ingest.sock"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    made = Bench(tmp_path)
    made.daemon.start()
    try:
        eventually(lambda: made.verdict("live.memory") is Verdict.PASS, 60)
        yield made
    finally:
        made.close()


FREEZE: dict[str, Callable[[Bench], object]] = {
    "watch": lambda b: setattr(b.daemon._watch, "_judge", b.hang),
    "sampler": lambda b: setattr(b.daemon._sampler, "_write", b.hang),
    "writer": lambda b: setattr(b.daemon._store._writer, "_commit", b.hang),
    "receiver": lambda b: setattr(b.daemon._receiver, "_tick", b.hang),
    "http": lambda b: setattr(b.daemon._server, "_expire", b.hang),
    "schedule": lambda b: b.daemon._schedule._scheduler.pause(),
    "sender": lambda b: setattr(b.daemon._sender, "wait", b.hang),
}


@pytest.mark.slow
@pytest.mark.parametrize("loop", FREEZE)
def test_a_loop_that_hangs_is_named_and_systemd_hears_nothing(bench: Bench, loop: str) -> None:
    assert "WATCHDOG=1" in bench.told()
    FREEZE[loop](bench)
    time.sleep(2.2)  # every loop but this one goes round; this one is caught
    bench.clock.ahead += LIMITS[loop] + 0.5

    snapshot = bench.daemon._state.snapshot()
    assert snapshot.loops[loop].late
    assert f"loop {loop}: no progress" in " ".join(snapshot.troubles)
    assert health(snapshot).status == 503
    assert "WATCHDOG=1" not in bench.told()


def test_verdicts_lapse_while_the_watch_hangs(bench: Bench) -> None:
    FREEZE["watch"](bench)
    time.sleep(1)
    assert bench.verdict("live.memory") is Verdict.PASS
    bench.clock.ahead += LIVE_STANDS + 1

    results = bench.daemon._state.snapshot().results
    live = [r for name, r in results.items() if name.startswith("live.")]
    assert {r.verdict for r in live} == {Verdict.UNKNOWN}


def test_verdicts_lapse_while_the_sampler_hangs(bench: Bench) -> None:
    FREEZE["sampler"](bench)
    time.sleep(1)
    bench.clock.ahead += 16
    eventually(lambda: bench.verdict("live.memory") is Verdict.UNKNOWN, 5)


@contextmanager
def crashing(owner: Any, name: str, unless: Callable[..., bool]) -> Iterator[None]:
    """Let the method *name* of *owner* raise whenever *unless* does not hold for its arguments."""
    real = getattr(owner, name)

    def method(*arguments: Any, **keys: Any) -> Any:
        if unless(*arguments):
            return real(*arguments, **keys)
        raise RuntimeError("boom")

    setattr(owner, name, method)
    yield
    setattr(owner, name, real)


def test_a_criterion_that_cannot_be_judged_is_unknown_alone(bench: Bench) -> None:
    def sound(criterion: Criterion) -> bool:
        return criterion.id != "live.memory"

    with crashing(bench.daemon._judgements._store, "samples", sound):
        eventually(lambda: bench.verdict("live.memory") is Verdict.UNKNOWN, 5)
        assert bench.verdict("live.inodes_free") is Verdict.PASS
    eventually(lambda: bench.verdict("live.memory") is Verdict.PASS, 5)


def test_a_sink_that_crashes_leaves_the_others_alone(bench: Bench) -> None:
    with crashing(bench.daemon._breaches, "tell", lambda *_: False):
        at = bench.clock.now()
        run = lambda: bench.daemon._state.snapshot().checks["live"].last_run  # noqa: E731
        eventually(lambda: run() > at, 5)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_step_of_the_wall_clock_neither_kills_nor_keeps_green(bench: Bench, hours: int) -> None:
    def seen() -> Sample:
        return bench.daemon._store.latest("node_memory_used_ratio")[0]

    bench.clock.wall += 3600 * hours
    bench.daemon.tick()
    eventually(lambda: abs(seen().at - bench.clock.now()) < 2, 5)
    eventually(lambda: bench.verdict("live.memory") is Verdict.PASS, 5)
    raised = {alert.key for alert in bench.daemon._pager.raised()}
    assert not raised & {"live.responding", "live.progress", "live.memory"}
    assert min(bench.daemon._schedule.next_runs().values()) > bench.clock.now()
