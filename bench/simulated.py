"""Jobs whose ranks only report: starts them, waits until they are known, gives them orders."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench.harness import testbed

START = 2
"""Seconds that ranks have to start in, so that all of them make step 1 at one time."""

KNOWN = 20
"""Steps of each rank after which a job counts as known."""

Ranks = list[subprocess.Popen[str]]


@contextlib.contextmanager
def simulated(
    node: Any, job: str, *, ranks: int = 4, rate: float = 10.0, checkpoint: str = "",
    more: tuple[str, ...] = (),
) -> Iterator[Ranks]:  # fmt: skip
    """The ranks of *job*, each known to the daemon of *node* by at least 20 steps; *more* are
    further options of bench.simulated_rank.
    """
    begin = math.ceil(time.monotonic()) + START
    command = [sys.executable, "-m", "bench.simulated_rank", f"--job={job}", f"--world={ranks}"]
    command += [f"--checkpoint={checkpoint}"] if checkpoint else []
    processes = [
        subprocess.Popen(
            [*command, f"--rank={rank}", f"--rate={rate}", f"--begin={begin}", *more],
            env=node.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        testbed.eventually(lambda: len(_steps(node, job)) == ranks, 90, every=0.2)
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in processes:
            process.communicate()


def order(rank: subprocess.Popen[str], what: str) -> float:
    """Have *rank* do *what*; the CLOCK_MONOTONIC time just before it reported that."""
    assert rank.stdin
    assert rank.stdout
    rank.stdin.write(f"{what}\n")
    rank.stdin.flush()
    return float(rank.stdout.readline())


def _steps(node: Any, job: str) -> list[int]:
    """The last steps of the job's ranks that have done enough of them."""
    known = (node.ask("status") or {}).get("jobs", [])
    ranks = [r for j in known if j["job"] == job for r in j["ranks"]]
    return [rank["step"] for rank in ranks if (rank["step"] or 0) >= KNOWN]
