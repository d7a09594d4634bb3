"""Reporters in real processes, from the reporter's file alone, and a receiver that hears them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.clock import SystemClock
from dvfd.config import Jobs
from dvfd.telemetry import reporter as vendored
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.receiver import Receiver
from dvfd.telemetry.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes_telemetry import FakeStore


class Daemon:
    """A receiver and what it needs, at one path."""

    def __init__(self, path: Path, store: FakeStore, **limits: int) -> None:
        self.store = store
        self.woken: list[str] = []
        self.book = JobBook(Jobs(), SystemClock())
        self.receiver = Receiver(
            path, self.book, store, SystemClock(), self.woken.extend, **limits
        )  # fmt: skip
        self.path = str(path)

    def __enter__(self) -> Daemon:
        self.receiver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.receiver.stop()

    def reporter(self, **settings: object) -> Reporter:
        return Reporter(**{"job": "gpt", "socket": self.path, "interval": 0.0, **settings})


def until(condition: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait for *condition*, *seconds* at most, for a machine may be busy; how long it took."""
    since = time.monotonic()
    while not condition():
        assert time.monotonic() - since < seconds, "it did not come to pass"
        time.sleep(0.002)
    return time.monotonic() - since


@contextlib.contextmanager
def process(daemon: Daemon, body: str, python: str = sys.executable) -> Iterator[subprocess.Popen]:
    """A rank in a process of its own, from the vendored file alone."""
    place = str(Path(vendored.__file__).parent)
    code = f"import sys; sys.path.insert(0, {place!r})\n" + textwrap.dedent(f"""
        import os, time
        from reporter import Reporter
        r = Reporter(job="gpt", run="r", socket={daemon.path!r}, interval=0.05)
    """) + textwrap.dedent(body)  # fmt: skip
    child = subprocess.Popen([python, "-S", "-c", code])
    try:
        yield child
    finally:
        child.kill()
        child.wait()


FOREVER = """
i = 0
while True:
    i += 1; r.step(i, loss=1.0, samples=8); time.sleep(0.02)
"""
