"""Watch the gradients of a DDP model in training: one line, one file to copy beside reporter.py.

    reporter = Reporter(job="gpt")
    watch_gradients(ddp, reporter)

Every `every` steps the reduced gradient of one bucket, another each time, is hashed, and the hash
goes with the next `reporter.step`: the daemon compares it between the ranks of its node. What DDP
computes stays what it was, bit by bit; other steps pay for a call in Python per bucket. Needs
torch and the standard library.

DDP takes one communication hook. A model that has one, say fp16_compress_hook, gives it to us in
place of registering it: `watch_gradients(ddp, reporter, hook=fp16_compress_hook)`.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from torch._C._distributed_c10d import GradBucket
    from torch.futures import Future
    from torch.nn.parallel import DistributedDataParallel

    from dvfd.telemetry.reporter import Reporter

    Hook = Callable[[Any, GradBucket], Future[torch.Tensor]]

EVERY = 50
"""Steps from one hash to the next: 25 MB, DDP's usual bucket, take 25 ms to hash."""


def watch_gradients(
    model: DistributedDataParallel,
    reporter: Reporter,
    *,
    every: int = EVERY,
    hook: Hook | None = None,
    state: object = None,
) -> None:
    """Tell *reporter* the hash of one reduced bucket every *every* steps, the same in all ranks.

    Call it once, before the first backward. Backward passes inside `no_sync` do not count. *hook*
    and *state* are what would otherwise be given to `model.register_comm_hook`.
    """
    watch = Watch(model.process_group, reporter, every=every, hook=hook, state=state)
    # A plain function: DDP refuses annotations that are strings, as they are in this file.
    model.register_comm_hook(None, lambda _, bucket: watch.reduce(bucket))


class Watch:
    """Reduces as DDP would, or as the given hook does, and hashes what comes out now and then.

    Ranks need no word to agree on what is sampled: all count the same backward passes.
    """

    def __init__(
        self,
        group: Any,
        reporter: Reporter,
        *,
        every: int = EVERY,
        hook: Hook | None = None,
        state: object = None,
    ) -> None:
        self._group = group
        self._reporter = reporter
        self._every = max(1, every)
        self._hook = hook
        self._state = state
        self._passes = 0
        self._buckets = 1  # of the last pass: DDP makes them anew after the first one
        self._chosen = -1

    def reduce(self, bucket: GradBucket) -> Future[torch.Tensor]:
        """Start the reduction of *bucket*; its result is hashed if it is this pass's turn."""
        if bucket.index() == 0:  # DDP takes them in this order
            self._begin()
        future = self._hook(self._state, bucket) if self._hook else self._average(bucket)
        if bucket.index() == self._chosen:
            future = future.then(self._sample)
        if bucket.is_last():
            self._buckets = bucket.index() + 1
        return future

    def _begin(self) -> None:
        self._passes += 1
        turn, rest = divmod(self._passes, self._every)
        self._chosen = turn % self._buckets if rest == 0 else -1

    def _average(self, bucket: GradBucket) -> Future[torch.Tensor]:
        """What DDP does without a hook: multiply with 1/n, then sum."""
        buffer = bucket.buffer()
        buffer.mul_(1.0 / self._group.size())
        work = distributed.all_reduce(buffer, group=self._group, async_op=True)
        future: Future[torch.Tensor] = work.get_future().then(_only)
        return future

    def _sample(self, future: Future[Any]) -> torch.Tensor:
        """Hash the result and pass it on. A failed reduction raises here as it would without us."""
        tensor: torch.Tensor = future.value()
        try:
            self._reporter.gradient(hash64([tensor]))
        except Exception as error:  # noqa: BLE001  # nothing of ours may stop somebody's job
            self._every = 1 << 62
            logging.getLogger("dvfd").warning("gradients are no longer watched: %r", error)
        return tensor


def _only(future: Future[Any]) -> torch.Tensor:
    """What an all-reduce of one tensor came to: its future holds a list."""
    tensor: torch.Tensor = future.value()[0]
    return tensor


def hash64(tensors: Iterable[torch.Tensor]) -> int:
    """64-bit hash of the tensors' bytes, in order: equal on all ranks, or data was corrupted."""
    state = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        size = flat.numel() * flat.element_size()
        state.update((ctypes.c_ubyte * size).from_address(flat.data_ptr()))  # numpy may be absent
    return int.from_bytes(state.digest(), "little")
