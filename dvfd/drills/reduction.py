"""Time the gradient all-reduce where it happens: in a communication hook of DDP.

Exposed communication is the time from the launch of the step's last bucket (its last gradient is
ready, so nothing is left to compute) to the end of `backward()`. It includes waiting for slower
ranks: that is what a rank loses to communication. Host clocks only, so it is for CPU tensors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket
    from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class Reduction:
    """One step's communication: seconds that the backward waited, seconds of its slowest bucket's
    all-reduce from launch to result, and bytes handed to all-reduce by this rank."""

    exposed: float
    allreduce: float
    bytes: int


class ReductionTimer:
    """Averages gradients as DDP itself would, and takes the time of it."""

    def __init__(self, world: int) -> None:
        self._world = world
        self._launched: list[float] = []
        self._done: list[float] = []
        self._bytes = 0

    def attach(self, model: DistributedDataParallel) -> None:
        """Become the model's communication hook; it can have only one."""
        # A plain function: DDP refuses annotations that are strings, as they are in this file.
        model.register_comm_hook(None, lambda _, bucket: self._hook(bucket))

    def take(self, ended: float) -> Reduction:
        """What the backward that ended at *ended* (perf_counter) did; starts anew."""
        launched, done, moved = self._launched, self._done, self._bytes
        self._launched, self._done, self._bytes = [], [], 0
        if not launched:
            return Reduction(0.0, 0.0, 0)
        slowest = max((b - a for a, b in zip(launched, done, strict=False)), default=0.0)
        return Reduction(max(0.0, ended - launched[-1]), slowest, moved)

    def _hook(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        buffer = bucket.buffer()
        buffer.div_(self._world)
        self._launched.append(time.perf_counter())
        self._bytes += buffer.numel() * buffer.element_size()
        work = distributed.all_reduce(buffer, async_op=True)
        future: torch.futures.Future[list[torch.Tensor]] = work.get_future()
        return future.then(self._finish)

    def _finish(self, future: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
        self._done.append(time.perf_counter())  # buckets end in the order of their launch
        return future.value()[0]
