"""A rank that only reports: a real process with the real Reporter, at a steady rate.

`python -m bench.simulated_rank --job J --rank N` is one. SIGTERM ends it in good order. A line on
its standard input is an order; its answer is the CLOCK_MONOTONIC time just before it reports what
came of it:

    nan      one loss is NaN                        spike    one loss is ten times the level
    slow     from now on it computes twice as long  unsaved  from now on no checkpoint is saved

With --checkpoint its rank 0 reports that file as saved anew at every hundredth step, or as often as
--saves says; then no interval is declared, and none is missing.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
import threading
import time
from types import FrameType

from dvfd.telemetry.reporter import Reporter

HASH_EVERY = 50
"""Steps between hashes, as in the reference job; a validation comes every fourth time."""

SAVE_EVERY = 100
"""Steps between checkpoints."""

BUSY = 0.9
"""Of a step's time, what its sections take."""

COMMUNICATION = 0.1
"""Of that, the communication."""

LEVEL, NOISE = 2.5, 0.1
"""The loss lies within NOISE of LEVEL. Bounded: within twice its MAD, so no chance makes a spike,
as Gaussian noise does once in ten thousand steps while few are known."""


class Rank:
    """One rank; its loss is noise about a level, so that nothing but a fault is one."""

    def __init__(
        self,
        reporter: Reporter,
        rank: int,
        rate: float,
        checkpoint: str = "",
        *,
        compute: float = 0.8,
        saves: int = 0,
        begin: float = 0.0,
    ) -> None:
        """*checkpoint* is a file that is there, to be reported as saved, *saves* times at most but
        if it is 0; *compute* is its share of what a step's sections take; *begin* the
        CLOCK_MONOTONIC time of its step 0, like that of the other ranks.
        """
        self._reporter = reporter
        self._rate = rate
        self._checkpoint = checkpoint
        self._compute = compute
        self._begin = begin or math.ceil(time.monotonic())
        self._chance = random.Random(rank)
        self._order = ""
        self._left = saves or math.inf
        self._ended = False

    def run(self) -> None:
        """Report steps in time with the other ranks until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_term)
        threading.Thread(target=self._listen, daemon=True).start()
        step = 0
        while not self._ended:
            step += 1
            time.sleep(max(0.0, self._begin + step / self._rate - time.monotonic()))
            self._report(step)
        self._reporter.end("signal")

    def _listen(self) -> None:
        for line in sys.stdin:
            self._order = line.strip()

    def _report(self, step: int) -> None:
        due = self._checkpoint and step % SAVE_EVERY == 0
        loss = self._obey(self._chance.uniform(LEVEL - NOISE, LEVEL + NOISE), due=bool(due))
        busy = BUSY / self._rate
        hashed = step if step % HASH_EVERY == 0 else None
        validated = LEVEL if step % (4 * HASH_EVERY) == 0 else None
        self._reporter.step(
            step, samples=8, loss=loss, grad_norm=1.0, compute=self._compute * busy,
            communication=COMMUNICATION * busy, allreduce=0.2 * busy, bytes=1e6, lr=1e-3,
            val_loss=validated, grad_hash=hashed, param_hash=hashed,
        )  # fmt: skip
        if due and self._left > 0:
            self._left -= 1
            self._reporter.checkpoint_begin(self._checkpoint, step)
            self._reporter.checkpoint_saved(self._checkpoint, step)

    def _obey(self, loss: float, *, due: bool) -> float:
        """The loss to report, after what was ordered; a save is left out only where one is due."""
        order = self._order
        if not order or (order == "unsaved" and not due):
            return loss
        self._order = ""
        match order:
            case "nan":
                loss = math.nan
            case "spike":
                loss = 10 * LEVEL
            case "slow":
                self._compute *= 2
            case "unsaved":
                self._left = 0
        print(time.monotonic(), flush=True)
        return loss

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._ended = True


def main() -> None:
    """Be one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--saves", type=int, default=0)
    parser.add_argument("--compute", type=float, default=0.8)
    parser.add_argument("--begin", type=float, default=0.0)
    options = parser.parse_args()
    place = {"local_rank": options.rank, "local_world_size": options.world}
    place |= {"checkpoint_every": SAVE_EVERY} if options.checkpoint and not options.saves else {}
    reporter = Reporter(
        job=options.job, run=options.job, rank=options.rank, world_size=options.world, **place
    )
    saved = options.checkpoint if options.rank == 0 else ""
    Rank(
        reporter, options.rank, options.rate, saved, compute=options.compute,
        saves=options.saves, begin=options.begin,
    ).run()  # fmt: skip


if __name__ == "__main__":
    main()
