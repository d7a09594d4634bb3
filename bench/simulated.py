"""Ranks of a job that only report: real processes with the real Reporter, at a steady rate.

`python -m bench.simulated --job J --rank N` is one of them. SIGTERM ends it in good order; at
SIGUSR1 its next loss is NaN, and it prints the CLOCK_MONOTONIC time just before reporting that.
With --checkpoint its rank 0 reports that file as saved anew at every hundredth step.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from bench.harness import testbed
from dvfd.telemetry.reporter import Reporter

HASH_EVERY = 50
"""Steps between hashes, as in the reference job; a validation comes every fourth time."""

SAVE_EVERY = 100
"""Steps between checkpoints."""


class Rank:
    """One rank; its loss is noise about a level, so that nothing but a fault is one."""

    def __init__(self, reporter: Reporter, rank: int, rate: float, checkpoint: str = "") -> None:
        """*checkpoint* is a file that is there, to be reported as saved."""
        self._reporter = reporter
        self._rate = rate
        self._checkpoint = checkpoint
        self._chance = random.Random(rank)
        self._poisoned = self._ended = False

    def run(self) -> None:
        """Report steps in time with the other ranks until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGUSR1, self._on_poison)
        begun, step = math.ceil(time.monotonic()), 0
        while not self._ended:
            step += 1
            time.sleep(max(0.0, begun + step / self._rate - time.monotonic()))
            self._report(step)
        self._reporter.end("signal")

    def _report(self, step: int) -> None:
        loss = self._chance.gauss(2.5, 0.05)
        if self._poisoned:
            self._poisoned, loss = False, math.nan
            print(time.monotonic(), flush=True)
        busy = 0.9 / self._rate
        hashed = step if step % HASH_EVERY == 0 else None
        validated = 2.5 if step % (4 * HASH_EVERY) == 0 else None
        self._reporter.step(
            step, samples=8, loss=loss, grad_norm=1.0, compute=0.8 * busy,
            communication=0.1 * busy, allreduce=0.2 * busy, bytes=1e6, lr=1e-3,
            val_loss=validated, grad_hash=hashed, param_hash=hashed,
        )  # fmt: skip
        if self._checkpoint and step % SAVE_EVERY == 0:
            self._reporter.checkpoint_begin(self._checkpoint, step)
            self._reporter.checkpoint_saved(self._checkpoint, step)

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._ended = True

    def _on_poison(self, _number: int, _frame: FrameType | None) -> None:
        self._poisoned = True


@contextlib.contextmanager
def simulated(
    node: Any, job: str, *, ranks: int = 4, rate: float = 10.0, checkpoint: str = ""
) -> Iterator[list[subprocess.Popen[str]]]:
    """The ranks of *job*, each known to the daemon of *node* by at least 20 steps."""
    command = [sys.executable, "-m", "bench.simulated", f"--job={job}", f"--world={ranks}"]
    command += [f"--checkpoint={checkpoint}"] if checkpoint else []
    processes = [
        subprocess.Popen(
            [*command, f"--rank={rank}", f"--rate={rate}"],
            env=node.environment, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        testbed.eventually(lambda: len(_steps(node, job, 20)) == ranks, 30, every=0.2)
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in processes:
            process.communicate()


def _steps(node: Any, job: str, least: int) -> list[int]:
    """The last steps of the job's ranks that have done at least *least*."""
    ranks = [r for j in node.ask("status")["jobs"] if j["job"] == job for r in j["ranks"]]
    return [rank["step"] for rank in ranks if (rank["step"] or 0) >= least]


def main() -> None:
    """Be one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--checkpoint", default="")
    options = parser.parse_args()
    place = {"local_rank": options.rank, "local_world_size": options.world}
    place |= {"checkpoint_every": SAVE_EVERY} if options.checkpoint else {}
    reporter = Reporter(
        job=options.job, run=options.job, rank=options.rank, world_size=options.world, **place
    )
    saved = options.checkpoint if options.rank == 0 else ""
    Rank(reporter, options.rank, options.rate, saved).run()


if __name__ == "__main__":
    main()
