"""One rank that trains three copies of the reference model in turn, one of them watched.

`torchrun -m bench.watched_steps DIRECTORY ROUNDS` leaves rank-N.json: for each round and arm the
seconds and the processor time of one block of steps, all threads of this rank included; of the
watched one also those inside the watch. Every block ends with a barrier, so its seconds are the
slowest rank's. A block has as many steps as lie between two hashes, so each has one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import permutations
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dvfd.drills import corpus
from dvfd.drills.reference_model import ByteModel
from dvfd.telemetry import gradient_hook
from dvfd.telemetry.gradient_hook import EVERY
from dvfd.telemetry.reporter import Reporter

ARMS = ("without", "again", "with")


class Timed(gradient_hook.Watch):
    """Notes what its calls took: seconds, and processor seconds of the calling thread."""

    wall = cpu = 0.0

    def __call__(self, optimizer: torch.optim.Optimizer, *call: Any) -> None:
        """Pass on and note the time."""
        began, spent = time.perf_counter(), time.thread_time()
        super().__call__(optimizer, *call)
        Timed.cpu += time.thread_time() - spent
        Timed.wall += time.perf_counter() - began


class Arm:
    """A model with its optimizer and reporter, as in the reference job."""

    def __init__(self, text: torch.Tensor, *, watched: bool) -> None:
        torch.manual_seed(1)
        self._watched = watched
        self._sampler = corpus.Sampler(text, context=64, seed=1)
        self._model = DistributedDataParallel(
            ByteModel(width=128, layers=4, context=64), gradient_as_bucket_view=True
        )
        self._reporter = Reporter(job="bench", socket="/nonexistent/ingest.sock")
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3)
        self._step = 0

    def block(self, steps: int) -> tuple[float, float, float, float]:
        """Train; seconds and processor seconds, and those of them inside the watch."""
        handle = (
            gradient_hook.watch_gradients(self._model, self._reporter) if self._watched else None
        )
        Timed.wall = Timed.cpu = 0.0
        distributed.barrier()
        began, spent = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self._train()
        distributed.barrier()
        ended, used = time.perf_counter(), time.process_time()
        if handle is not None:
            handle.remove()  # it would be called before the steps of the other arms too
        return ended - began, used - spent, Timed.wall, Timed.cpu

    def _train(self) -> None:
        self._step += 1
        rank, world = distributed.get_rank(), distributed.get_world_size()
        loss = self._model(self._sampler.take(4, rank=rank, world=world))
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._reporter.step(self._step, samples=4, loss=loss.item())


def main() -> None:
    """Be one rank."""
    directory, rounds = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    text = corpus.load().train
    with mock.patch.object(gradient_hook, "Watch", Timed):
        found = _measure(text, rounds)
    path = directory / f"rank-{os.environ['RANK']}.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


def _measure(text: torch.Tensor, rounds: int) -> list[dict[str, tuple[float, ...]]]:
    """Each arm once in each round."""
    arms = {name: Arm(text, watched=name == "with") for name in ARMS}
    for arm in arms.values():
        arm.block(EVERY)  # buckets are laid out anew, memory and caches fill
    orders = list(permutations(ARMS))
    return [
        {name: arms[name].block(EVERY) for name in orders[number % len(orders)]}
        for number in range(rounds)
    ]


if __name__ == "__main__":
    main()
