"""Reduce gradients as DDP does, and keep what went in and what came out of each bucket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch._C._distributed_c10d import GradBucket
    from torch.nn.parallel import DistributedDataParallel

    Harm = Callable[[int, torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of one backward: its parameters in the order of its memory, the memory itself,
    which holds the reduced gradient once the backward has ended, and the rank's own gradient from
    before, undivided, where it was asked for.
    """

    parameters: tuple[torch.Tensor, ...]
    reduced: torch.Tensor
    own: torch.Tensor | None = None

    def lay_out(self, gradients: dict[int, torch.Tensor]) -> torch.Tensor:
        """The same memory made of *gradients*, by the `id` of their parameters."""
        return torch.cat([gradients[id(p)].flatten() for p in self.parameters])


@dataclass(slots=True)
class Capture:
    """The hook of one model. Set `keep` before a backward whose gradients are wanted.

    `failure` says in torch's own words which collective raised; `harm` is what a test does to a
    bucket before it is reduced.
    """

    keep: bool = False
    failure: str = ""
    harm: Harm | None = None
    buckets: list[Bucket] = field(default_factory=list)

    def attach(self, model: DistributedDataParallel) -> None:
        """Become the model's communication hook; it can have only one."""
        # A plain function: DDP refuses annotations that are strings, as they are in this file.
        model.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))

    def _reduce(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        index, buffer = bucket.index(), bucket.buffer()
        if index == 0:
            self.buckets = []
        if self.harm:
            self.harm(index, buffer)
        own = buffer.clone() if self.keep else None
        self.buckets.append(Bucket(tuple(bucket.parameters()), buffer, own))
        buffer.mul_(1.0 / distributed.get_world_size())  # as DDP without a hook
        try:
            work = distributed.all_reduce(buffer, async_op=True)
        except RuntimeError as error:
            self._failed(index, error)
            raise
        future: torch.futures.Future[torch.Tensor] = work.get_future()
        return future.then(lambda done: self._finish(index, done))

    def _finish(self, index: int, future: torch.futures.Future[torch.Tensor]) -> torch.Tensor:
        try:
            return future.value()[0]  # Gloo's and NCCL's futures hold a list of one
        except RuntimeError as error:
            self._failed(index, error)
            raise

    def _failed(self, index: int, error: Exception) -> None:
        self.failure = self.failure or f"all-reduce of bucket {index}: {error}"
