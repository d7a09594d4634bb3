"""Keep processors busy: one pinned process each, multiplying matrices, until the time is over.

`burn.py ANSWER SECONDS TICK PROCESSOR,... [KIND]`. Once all are at work it writes down with what,
and prints `tick` then and every TICK seconds. It ends when a child of its own does, and with its
parent; its children end with it.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dvfd.drills.workers.answer import write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Work = Callable[[], object]

SIDE = 1024
"""Rows of torch's matrices: three of float32 are 12 MB, so that memory is busy too."""

FEW = 64
"""Rows of the matrix that is multiplied in Python's own floats."""

START = 60.0
"""Seconds for all to begin."""

LONGER = 30.0
"""Seconds after which a child ends by itself, should it be alive beyond its time."""

PR_SET_PDEATHSIG = 1  # prctl(2)

STRESS_NG = ("stress-ng", "--cpu", "1", "--cpu-method", "matrixprod", "--quiet", "--timeout")


def main(answer: str, seconds: str, tick: str, processors: str, kind: str = "") -> None:
    """Burn; exits with a message if a processor cannot be kept busy."""
    work, words = choose(kind)
    wanted = [int(cpu) for cpu in processors.split(",")]
    children = start(wanted, work, float(seconds) + START + LONGER)
    write(Path(answer), {"words": words, "processors": wanted})
    try:
        hold(children, float(seconds), float(tick))
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def choose(kind: str = "") -> tuple[Work | None, str]:
    """What loads a processor most here, or *kind*; None stands for stress-ng. And its words."""
    if kind in {"", "torch"} and (found := _torch()):
        return found
    if kind in {"", "stress-ng"} and shutil.which(STRESS_NG[0]):
        return None, "stress-ng's matrixprod: torch is not there, whose power is higher"
    return _python(), "Python's own floats: power is far below training's; install torch"


def _torch() -> tuple[Work, str] | None:
    try:
        import torch  # noqa: PLC0415  # there may be none
    except (ImportError, OSError):
        return None
    torch.set_num_threads(1)

    def work() -> None:
        a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
        out = torch.empty(SIDE, SIDE)
        while True:
            torch.mm(a, b, out=out)

    return work, f"torch {torch.__version__}, float32 matrices of {SIDE}"


def _python() -> Work:
    rows = [[float(i * j % 7) for i in range(FEW)] for j in range(FEW)]

    def work() -> None:
        while True:
            for row in rows:
                [sum(map(mul, row, column)) for column in rows]

    return work


def start(processors: Sequence[int], work: Work | None, longest: float) -> dict[int, int]:
    """A child on each processor, all at work: their processors by pid. Exits if one is not."""
    _usable(processors)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    children = {}
    for cpu in processors:
        child = os.fork()
        if not child:
            _child(cpu, work, longest, writing, parent)
        children[child] = cpu
    os.close(writing)
    waiting = len(children)
    until = time.monotonic() + START
    while waiting:
        check(children)
        if time.monotonic() > until:
            sys.exit(f"{waiting} of {len(children)} processors were not busy in {START:g} s")
        if select.select([reading], [], [], 0.1)[0]:
            waiting -= len(os.read(reading, waiting))
    return children


def _usable(processors: Sequence[int]) -> None:
    """Exit naming a processor that we may not run on."""
    before = os.sched_getaffinity(0)
    for cpu in processors:
        try:
            os.sched_setaffinity(0, {cpu})
        except OSError as error:  # offline, or not in our cpuset
            sys.exit(f"processor {cpu} cannot be loaded: {error.strerror}")
    os.sched_setaffinity(0, before)


def _child(cpu: int, work: Work | None, longest: float, writing: int, parent: int) -> NoReturn:
    """Pinned, and never longer than *longest*."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.sched_setaffinity(0, {cpu})
            signal.alarm(int(longest) + 1)
            os.write(writing, b".")
            if work is None:
                os.execvp(STRESS_NG[0], [*STRESS_NG, str(int(longest))])  # noqa: S606  # no shell
            work()
    finally:
        os._exit(1)


def check(children: dict[int, int]) -> None:
    """Exit if a child has ended: its processor is idle."""
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
        cpu = children.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        sys.exit(f"the load on processor {cpu} ended early: {how}")


def hold(children: dict[int, int], seconds: float, tick: float) -> None:
    """Tick now and until *seconds* have passed."""
    began = time.monotonic()
    for number in range(int(seconds / tick) + 1):
        time.sleep(max(0.0, began + number * tick - time.monotonic()))
        check(children)
        print("tick", flush=True)  # noqa: T201  # what the parent waits for


if __name__ == "__main__":
    main(*sys.argv[1:])
