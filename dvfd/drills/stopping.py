"""End a rank cleanly on SIGTERM, or at once when its peers are gone and it hangs in a collective.

Python runs a signal handler between two bytecodes of the main thread, never while that thread
waits inside a collective. So the interpreter writes the signal's number to a pipe, and a thread
here reads it: if the rank makes no progress within the grace time, the process exits.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)

GRACE = 2.0
"""Seconds without a step after which a stop is forced. torchrun kills after 30, and a restart
waits for this: recovery has to stay below 30 s."""

FORCED = 1
"""Exit code of a forced stop: not a clean end."""


class Stopping:
    """Whether to stop, and why. `install` takes over the signals; call `progress` every step."""

    def __init__(self, grace: float = GRACE) -> None:
        self.reason = ""
        self._grace = grace
        self._steps = 0
        self._longest = 0.0
        self._last = time.monotonic()
        self._finished = threading.Event()
        self._asked = threading.Event()

    def install(self) -> None:
        """Take over SIGTERM and SIGINT. Only in the main thread."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(reading, True)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="stopping", daemon=True).start()

    def progress(self) -> None:
        """Note that a step ended."""
        now = time.monotonic()
        self._longest = max(0.9 * self._longest, now - self._last)
        self._last = now
        self._steps += 1

    def asked(self, seconds: float) -> bool:
        """Wait up to *seconds* for a signal of this rank's own; whether one came."""
        return self._asked.wait(seconds)

    def finished(self) -> None:
        """Stop forcing: the clean end is under way."""
        self._finished.set()

    def _watch(self, reading: int) -> None:
        number = os.read(reading, 1)[0]
        self.reason = signal.Signals(number).name
        self._asked.set()
        seen = -1
        while seen != self._steps:  # it still moves: the peers will hear of the stop
            seen = self._steps
            if self._finished.wait(max(self._grace, 3 * self._longest)):
                return
        os._exit(FORCED)


def leave(code: int) -> NoReturn:
    """End without taking the interpreter apart.

    A thread of Gloo that lets go of a tensor meanwhile wants the interpreter's lock, is ended for
    it, and takes the process along: `terminate called without an active exception`, exit code -6,
    in one of some ten ends where a hook of DDP is written in Python, and rarely without one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
