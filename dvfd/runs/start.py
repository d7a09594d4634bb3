"""Start the supervisor of a run's training: by systemd where root asks, else in its own session."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import shell
from dvfd.drills import order as orders
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOTED = Path("/run/systemd/system")
"""Is there where systemd is the system manager: sd_booted(3)."""

SYSTEMS = ("NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID")
"""Variables that are about the unit of who asks, and would be wrong in another."""

STARTING = 60.0
"""Seconds in which systemctl starts a unit: it waits for no more than the supervisor's exec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What to start for *run*: a command, in a directory, with an environment."""

    run: str
    argv: tuple[str, ...]
    control: Path
    directory: str
    environment: Mapping[str, str]
    grace: float
    only: bool

    def holder(self, *more: str) -> tuple[str, ...]:
        """The supervisor's command line, with *more* options."""
        options = (f"--control={self.control}", f"--grace={self.grace}", *more)
        only = ("--only",) if self.only else ()
        words = ("-P", "-m", "dvfd.runs.hold", self.run, *options, *only)
        return (sys.executable, *words, "--", *self.argv)


def unit(run: str) -> str:
    """The unit of systemd's that holds the training of *run*."""
    return f"dvfd-drill@{run}.service"


def by_systemd(booted: Path = BOOTED) -> bool:
    """Whether a unit can hold the training here."""
    return booted.is_dir() and os.geteuid() == 0 and _systemctl("cat", unit("x")).code == 0


def start_unit(start: Start, directory: Path = orders.DIRECTORY) -> None:
    """Leave the order and start the unit. Raises DvfdError with systemd's own words."""
    environment = {k: v for k, v in start.environment.items() if k not in SYSTEMS}
    order = orders.Order(
        argv=start.holder(f"--unit={unit(start.run)}"),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        directory=start.directory,
        environment=environment,
    )
    try:
        orders.leave(start.run, order, directory)
    except OSError as error:
        raise DvfdError(f"{directory}: {(error.strerror or str(error)).lower()}") from None
    done = _systemctl("start", unit(start.run))
    if done.code:
        raise DvfdError(f"systemctl start {unit(start.run)}: {done.stderr.strip()}")


def forget(run: str, directory: Path = orders.DIRECTORY) -> None:
    """Remove an order that was carried out: what the environment holds is nobody else's."""
    with contextlib.suppress(OSError):
        orders.place(run, directory).unlink()


def start_session(start: Start, log: Path) -> subprocess.Popen[bytes]:
    """Start it apart from this terminal; what it says goes to *log*. Raises DvfdError."""
    argv = start.holder(f"--log={log}")
    try:
        return subprocess.Popen(
            argv,
            cwd=start.directory,
            env=start.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise DvfdError(f"{argv[0]}: cannot be started: {error.strerror or error}") from None


def _systemctl(*words: str, timeout: float = STARTING) -> shell.Output:
    """Raises ToolError if there is no systemctl, or it takes too long."""
    return shell.run(("systemctl", "--no-ask-password", *words), timeout=timeout)
