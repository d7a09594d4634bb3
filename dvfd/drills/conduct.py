"""Run the drill of one check from start to end, for a command or a script. Judges nothing.

One drill at a time on a node: two would measure each other.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import drills
from dvfd.clock import SystemClock
from dvfd.drills import each, fleet, tree
from dvfd.drills.drill import Options, Task
from dvfd.drills.memo import Memo
from dvfd.drills.supervise import supervise
from dvfd.environment import environment_facts
from dvfd.errors import DvfdError
from dvfd.places import state_dir, users_state

if TYPE_CHECKING:
    from types import FrameType

    from dvfd.config import Config
    from dvfd.drills.findings import Findings
    from dvfd.model import Check

LOCK = "\0dvfd-drill"
"""An abstract socket: one for each network namespace, gone with its process, no file to clean."""

CLEANING = tree.PATIENCE + 5.0
"""Seconds after the first signal in which further ones change nothing."""

WAITING = 1024
"""Commands that may ask who holds the lock while it is held: nobody takes them off the queue."""


def conduct(
    check: Check,
    config: Config,
    options: Options,
    *,
    training: str = "",
    memo: Memo | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Findings:
    """Run every part of the drill of *check*: within `alone`, which lasts for a whole command.

    *training* says in words which job runs here, *memo* is shared by the checks of one command.
    """
    with (
        _progress_aside(options),
        tempfile.TemporaryDirectory(prefix="dvfd-drill-", ignore_cleanup_errors=True) as scratch,
    ):
        task = Task(
            check=check,
            config=config,
            clock=SystemClock(),
            scratch=Path(scratch),
            state=kept(check.id),
            options=options,
            training=training,
            memo=memo or Memo(),
            say=say,
            run=partial(tree.run, temporary=scratch),
        )
        parts = drills.build(check.id)
        found = supervise(task, parts)
        return _placed(each.of_all(task, found) if each.wanted(task, parts) else found, task)


def _placed(found: Findings, task: Task) -> Findings:
    """*found* with who took part, and what this node is now that it took part."""
    came = fleet.came(task)
    own = task.processes if task.check.processes and task.check.nodes == 1 else 0
    return replace(
        found,
        processes=found.processes or sum(len(m.ranks) for m in came) or own or task.check.processes,
        members=tuple(met.name for met in came) or (task.config.node.name,),
        node=environment_facts(),
    )


def _progress_aside(options: Options) -> contextlib.AbstractContextManager[object]:
    """A rank tells its progress on stdout; where that is ours, it goes to stderr."""
    return contextlib.redirect_stdout(sys.stderr) if options.inside else contextlib.nullcontext()


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Asked to end, end as after Ctrl-C: what was started goes first. Exit code 128 + signal.

    A person presses Ctrl-C twice: the second time is not to break off that very cleaning up.
    """
    until = -math.inf

    def leave(number: int, frame: FrameType | None) -> None:
        nonlocal until
        if time.monotonic() < until:
            return
        until = time.monotonic() + CLEANING
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        sys.exit(128 + number)

    # What ignores or handles it already, as nohup and torchrun's rank 0 do, has its reason.
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    mine = {number: handler for number, handler in before.items() if handler in usual}
    for number in mine:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Be the only drill of this node meanwhile, and end in order when asked to.

    What a drill that was killed left running is ended. Raises DvfdError naming the process that
    is the only one, or what cannot be ended.
    """
    with (
        _ending(),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as lock,
    ):
        try:
            lock.bind(LOCK)
        except OSError:
            raise DvfdError(f"another drill runs on this node{_holder()}: wait for it") from None
        lock.listen(WAITING)
        for mark in set(tree.orphans().values()):
            tree.sweep(mark)
        yield


def _holder() -> str:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(1.0)
        line.connect(LOCK)
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack(
            "3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
        return f" (pid {pid})" if pid else ""  # 0 where it is of another pid namespace
    return ""


def kept(check: str) -> Path:
    """Where the drill of *check* keeps what it can resume: beside the store, else at the user's."""
    for base in (state_dir, users_state):
        place = base() / "drills" / check
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK | os.X_OK):
                return place
    raise DvfdError(f"{state_dir()}: cannot be written: set DVFD_STATE_DIR to a directory of yours")


def timed(options: Options, check: Check) -> Options:
    """*options* for *check*: a duration goes only to one that has its own."""
    return options if check.duration else replace(options, duration=None)
