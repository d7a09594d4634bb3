"""Take a new configuration without an end of the watch, or keep the old one and say so.

A good one is taken by starting anew in the same process (execve): no part is half old, half new.
The pid stays, the socket that systemd passed stays, ranks send again what was not acknowledged.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dvfd import notify, shell
from dvfd.config import Config, load
from dvfd.errors import ConfigError, ToolError
from dvfd.sinks.server import listen
from dvfd.telemetry import endpoint

CHECKING = 20.0
"""Seconds that a look at the new configuration may take: it takes one; the watchdog waits 30."""


ASKING = frozenset({signal.SIGHUP, signal.SIGTERM, signal.SIGINT})
"""Signals that ask something of the daemon, and so must not be lost while it starts anew."""


@dataclass(frozen=True, slots=True)
class Reload:
    """How the last reload went, the one at start included: `problems` is empty if it was good."""

    at: float
    problems: tuple[str, ...] = ()
    succeeded_at: float | None = None

    @property
    def notice(self) -> str:
        """What a person must read, or an empty string."""
        if not self.problems:
            return ""
        return f"the new configuration was refused, the old one stays: {'; '.join(self.problems)}"


def check(path: Path | None, current: Config) -> None:
    """Whether the configuration at *path* could be started with. Raises ConfigError.

    All of it is built by another process, so that whatever it does, this one goes on.
    """
    chosen = ["-c", str(path)] if path else []
    argv = [sys.executable, "-m", "dvfd", "config", "check", *chosen]
    try:
        done = shell.run(argv, timeout=CHECKING)
    except ToolError as error:
        raise ConfigError([f"not checked: {error}"]) from None
    if done.code:
        raise ConfigError(done.stderr.strip().splitlines() or [f"exit code {done.code}"])
    _can_listen(load(path), current)


def _can_listen(new: Config, current: Config) -> None:
    """Try a new address. Raises ConfigError if it cannot be had."""
    if new.http.port != current.http.port:
        listen(new.http.host, new.http.port).close()
    elif new.http.host != current.http.host:  # the port is ours: only the address is in question
        listen(new.http.host, 0).close()


def start_anew(stop: Callable[[], None], told_to_end: Callable[[], bool]) -> None:
    """Stop in order, then become the same program again; returns only if *told_to_end*.

    Signals wait meanwhile: the mask and what waits outlive execve, handlers do not. What another
    thread took before it ended lies with *told_to_end*.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    if told_to_end():
        return
    notify.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    stop()
    if told_to_end():
        return
    endpoint.hand_on()
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606  # no shell: it is ourselves


def has_terminal() -> bool:
    """Whether a terminal controls this process: SIGHUP then means that it was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
