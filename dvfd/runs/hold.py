"""Hold the training of a stability run: `python -m dvfd.runs.hold RUN -- COMMAND...`.

Starts COMMAND, tells the daemon, and asks it now and then how the run stands. A daemon that is
down is waited for: the training goes on. When the run is over, or on SIGTERM, SIGINT or SIGHUP,
COMMAND is asked to end, and what is left of it is killed and seen gone. Lives for days beside the
job, so it loads little. Exit codes: 0 it ended the training, 1 something of it cannot be ended,
127 COMMAND cannot be started, else how COMMAND ended by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.asking import ask
from dvfd.drills import tree
from dvfd.drills.order import RESTARTS_WORK
from dvfd.errors import DvfdError, ToolError
from dvfd.runs import ending
from dvfd.shell import LIBC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EVERY = 5.0
"""Seconds between two questions to the daemon."""

PATIENCE = 5.0
"""Seconds that an answer may take: signals wait meanwhile."""

TELLING = 600.0
"""Seconds in which a daemon is told that the training ended: by then it notices by itself
(runs.advance.GONE)."""

LOG_BYTES = 64 << 20
"""A log that is longer begins anew; what was in it is kept once, as `.1`."""

CANNOT_START = 127
ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
HEARD = {*ASKED, signal.SIGCHLD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the command line says. `only` ends the training also with a run that was broken off."""

    run: str
    command: tuple[str, ...]
    control: Path
    log: Path | None
    unit: str
    grace: float
    every: float
    only: bool


class Holder:
    """Holds one training. Expects its signals blocked, so that it alone takes them."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._child = 0
        self._code: int | None = None
        self._told = False
        self._trouble = ""

    def hold(self) -> int:
        """Run the training to its end, or end it; the exit code."""
        orders = self._orders
        LIBC.prctl(tree.PR_SET_CHILD_SUBREAPER, 1)  # what loses its parent becomes a child of ours
        try:
            self._start()
        except OSError as error:
            say(f"{orders.command[0]}: cannot be started: {error.strerror or error}")
            self._tell_end(CANNOT_START)
            return CANNOT_START
        why = self._watch()
        left = 0
        try:
            if why:
                say(f"{why}: ending the training")
                count = ending.end(orders.run, grace=orders.grace, spared=set())
                say(f"the training is gone: {count} processes")
            else:
                tree.sweep(ending.mark(orders.run), spared=set())
        except ToolError as error:
            say(str(error))
            left = 1
        self._bury()
        code = -signal.SIGKILL if self._code is None else self._code
        self._tell_end(code)
        if why or left:
            return left
        return code if code >= 0 else 128 - code

    def _start(self) -> None:
        """Raises OSError."""
        orders = self._orders
        environment = {**os.environ, **RESTARTS_WORK, tree.MARK: ending.mark(orders.run)}
        self._child = os.posix_spawnp(
            orders.command[0], orders.command, environment, setsigmask=(), setsigdef=HEARD
        )
        say(f"started {orders.command[0]}, pid {self._child}")

    # --- While it runs --------------------------------------------------------------------------

    def _watch(self) -> str:
        """Wait until the training has ended, or is to end; why it is, or nothing."""
        due = time.monotonic()
        while self._code is None:
            if time.monotonic() >= due:
                if why := self._ask():
                    return why
                self._bound_log()
                due = time.monotonic() + self._orders.every
            found = signal.sigtimedwait(HEARD, max(0.0, due - time.monotonic()))
            if found and found.si_signo in ASKED:
                return f"told to end by {signal.Signals(found.si_signo).name}"
            self._bury()
        return ""

    def _bury(self) -> None:
        """Take the exit codes of children that ended: also of those that were left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._child:
                self._code = os.waitstatus_to_exitcode(status)

    def _ask(self) -> str:
        """Why the training is to end, as far as the daemon knows. None that answers: it goes on."""
        answer: dict[str, Any] = {}
        try:
            if not self._told:
                self._introduce()
            self._request("stability_status", into=answer)
        except DvfdError as error:
            self._complain(str(error))
            return ""
        self._complain("" if answer else "no daemon answers; the training goes on")
        return to_end(answer.get("run", {}), only=self._orders.only)

    def _complain(self, trouble: str) -> None:
        """Say what is wrong once, and once that it is well again."""
        if trouble != self._trouble:
            say(trouble or "the daemon answers again")
        self._trouble = trouble

    def _bound_log(self) -> None:
        if self._orders.log is not None:
            bound(self._orders.log)

    # --- What the daemon is told ----------------------------------------------------------------

    def _introduce(self) -> None:
        """Say who holds the training. A refusal is no end of it: how the run stands is."""
        orders, pid = self._orders, os.getpid()
        mark = ending.mark(orders.run)
        who = {"unit": orders.unit, "pid": pid, "start": ending.started(pid), "mark": mark}
        with contextlib.suppress(DvfdError):
            self._told = self._request("stability_launched", launched=who)

    def _request(self, op: str, *, into: dict[str, Any] | None = None, **said: Any) -> bool:
        """Ask the daemon; whether one answered. Raises DvfdError with its refusal."""
        orders = self._orders
        answer = ask(orders.control, op, timeout=PATIENCE, id=orders.run, **said)
        if into is not None:
            into.update(answer or {})
        return answer is not None

    def _tell_end(self, code: int) -> None:
        """Tell how the training ended, until somebody has heard it or need not."""
        until = time.monotonic() + TELLING
        while not self._heard(code) and time.monotonic() < until:
            found = signal.sigtimedwait(ASKED, 1.0)
            if found is not None:
                return

    def _heard(self, code: int) -> bool:
        """Whether the daemon knows by now, or the run is over anyway."""
        try:
            if self._request("stability_exited", code=code):
                return True
            self._complain("no daemon answers that could be told how the training ended")
        except DvfdError as refusal:
            answer: dict[str, Any] = {}
            with contextlib.suppress(DvfdError):
                self._request("stability_status", into=answer)
            if not over(answer.get("run", {})):
                self._complain(str(refusal))
            return over(answer.get("run", {}))
        return False


def to_end(run: Mapping[str, Any], *, only: bool) -> str:
    """Why the training of *run*, as the daemon tells it, is to end; nothing while it is not.

    A few keys are read and no more: a daemon that was upgraded meanwhile may tell others.
    """
    stage = run.get("stage")
    if stage == "complete":
        return "the run is complete"
    asked = run.get("stopped_by") or run.get("plan", {}).get("on_failure") == "stop"
    if stage == "aborted" and (asked or only):
        return f"the run ended: {run.get('reason')}"
    return ""


def over(run: Mapping[str, Any]) -> bool:
    """Whether nothing of *run* follows."""
    return run.get("stage") in {"complete", "aborted"}


def bound(log: Path, limit: int = LOG_BYTES) -> None:
    """Begin *log* anew if it is longer than *limit*: the training keeps its descriptor.

    What is written between copying and cutting is lost, as with logrotate's `copytruncate`.
    """
    try:
        size = log.stat().st_size
        if size <= limit:
            return
        with log.open("r+b") as file, log.with_suffix(".log.1").open("wb") as kept:
            while size > 0 and (part := os.copy_file_range(file.fileno(), kept.fileno(), size)):
                size -= part
            file.truncate(0)
    except OSError as error:
        say(f"{log}: {error.strerror or error}")


def say(line: str) -> None:
    """A line for the log of the run."""
    sys.stderr.write(f"dvfd: {line}\n")
    sys.stderr.flush()


def parse(arguments: Sequence[str]) -> Orders:
    """Read the command line; on a mistake, exit with code 2 and say it on stderr."""
    parser = argparse.ArgumentParser(prog="python -m dvfd.runs.hold", description=__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--control", type=Path, required=True, help="the daemon's control socket")
    parser.add_argument("--log", type=Path, help="where what the training says goes")
    parser.add_argument("--unit", default="", help="the unit of systemd's that this is")
    parser.add_argument("--grace", type=float, default=ending.GRACE, help="seconds to end in")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between questions")
    parser.add_argument("--only", action="store_true", help="the training serves this run alone")
    parser.add_argument("command", metavar="COMMAND", nargs="+")
    found = vars(parser.parse_args(arguments))
    return Orders(**{**found, "command": tuple(found["command"])})


def main(arguments: Sequence[str]) -> int:
    """Hold what the command line says."""
    orders = parse(arguments)
    if orders.log is not None:
        place = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        os.dup2(place, 1)
        os.dup2(place, 2)
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    return Holder(orders).hold()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
