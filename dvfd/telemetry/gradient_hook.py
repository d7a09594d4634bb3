"""Watch the gradients of a DDP model in training: one line, one file to copy beside reporter.py.

    reporter = Reporter(job="gpt")
    watch_gradients(ddp, reporter)

Every `every` steps the reduced gradient of some parameters, others each time, is hashed just before
the optimizer uses it. The hash goes with the next `reporter.step`, and the daemon compares it
between the ranks of its node. Nothing is put between DDP and its reduction: communication hooks of
your own, `gradient_as_bucket_view`, `find_unused_parameters` and accumulation under `no_sync` are
as they were. Needs torch and the standard library. Never run on a GPU so far.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import weakref
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_pre_hook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from torch.utils.hooks import RemovableHandle

    from dvfd.telemetry.reporter import Reporter

EVERY = 50
LIMIT = 4 << 20
"""Steps from one hash to the next, and bytes in it: about 5 ms in 50 steps. A parameter that is
larger is hashed whole."""

log = logging.getLogger("dvfd")


def watch_gradients(
    model: DistributedDataParallel, reporter: Reporter, *, every: int = EVERY, limit: int = LIMIT
) -> RemovableHandle | None:
    """Give *reporter* the hash of up to *limit* bytes of gradient every *every* steps.

    The handle ends it; there is none where ranks do not all hold the same model, since their
    gradients then differ by nature: that is logged. Never raises into the job.
    """
    try:
        why = _refusal(model)
        if not why:
            watch = Watch(model, reporter, every=every, limit=limit)
            return register_optimizer_step_pre_hook(watch)
    except Exception as error:  # noqa: BLE001  # nothing of ours may stop somebody's job
        why = repr(error)
    log.warning("gradients are not watched: %s", why)
    return None


def _refusal(model: object) -> str:
    """Why the ranks' gradients need not be equal, or an empty string."""
    if not isinstance(model, DistributedDataParallel):
        return f"{type(model).__name__} is no DistributedDataParallel"
    if model.process_group.size() != distributed.get_world_size():
        return "some ranks are in another process group, so they hold another model"
    return ""


class Watch:
    """Called before every step of every optimizer. What is hashed when follows from the steps that
    were reported, which are the same in all ranks: they need no word to agree on it.
    """

    def __init__(self, model: torch.nn.Module, reporter: Reporter, *, every: int, limit: int):
        self._model = weakref.ref(model)
        self._reporter = reporter
        self._every = max(1, every)
        self._limit = limit
        self._turn: int | None = None

    def __call__(self, optimizer: torch.optim.Optimizer, *_call: Any) -> None:
        """Hash what *optimizer* is about to use, if it is time and the model is ours."""
        last = self._reporter.last_step
        if last is None or last // self._every == self._turn:
            return
        try:
            buckets = list(self._buckets(optimizer))
            if buckets:
                self._turn = last // self._every
                self._reporter.gradient(hash64(buckets[self._turn % len(buckets)]))
        except Exception as error:  # noqa: BLE001  # as above
            self._every, self._turn = 1 << 62, 0
            log.warning("gradients are no longer watched: %r", error)

    def _buckets(self, optimizer: torch.optim.Optimizer) -> Iterator[list[torch.Tensor]]:
        """The gradients of ours that *optimizer* uses, in its order, cut by size."""
        model = self._model()
        ours = {id(p) for p in model.parameters()} if model is not None else ()
        bucket: list[torch.Tensor] = []
        size = 0
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            grad = parameter.grad
            if grad is None or grad.layout != torch.strided or id(parameter) not in ours:
                continue
            more = grad.numel() * grad.element_size()
            if bucket and size + more > self._limit:
                yield bucket
                bucket, size = [], 0
            bucket.append(grad)
            size += more
        if bucket:
            yield bucket


def hash64(tensors: Iterable[torch.Tensor]) -> int:
    """64-bit hash of the tensors' bytes, in order: equal on all ranks, or data was corrupted."""
    state = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        size = flat.numel() * flat.element_size()
        state.update((ctypes.c_ubyte * size).from_address(flat.data_ptr()))  # numpy may be absent
    return int.from_bytes(state.digest(), "little")
