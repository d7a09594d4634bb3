"""This rank's place among the others: from torchrun's environment, or alone without it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class World:
    """Rank, process count, and the device that this rank computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which prints and writes checkpoints."""
        return self.rank == 0

    def broadcast(self, payload: bytes) -> bytes:
        """Rank 0's *payload*, in every rank: no shared file system is needed."""
        size = torch.tensor([len(payload)], device=self.device)
        distributed.broadcast(size, 0)
        data = torch.empty(int(size), dtype=torch.uint8, device=self.device)
        if self.leads and payload:
            data.copy_(torch.frombuffer(bytearray(payload), dtype=torch.uint8))
        distributed.broadcast(data, 0)
        return bytes(data.cpu().numpy())


def join(backend: str, *, timeout: float, rank: int | None = None) -> World:
    """Enter the process group, whose collectives raise after *timeout* seconds; as *rank* where it
    is another than the launcher's.

    Neighbours of a dead rank notice at once, the others only after the timeout: the default of
    30 minutes would make every restart as slow.
    """
    limit = timedelta(seconds=timeout)
    if "RANK" in os.environ:
        size = int(os.environ["WORLD_SIZE"])
        own = int(os.environ["RANK"]) if rank is None else rank
        distributed.init_process_group(backend, timeout=limit, rank=own, world_size=size)
    else:
        alone = distributed.HashStore()  # type: ignore[attr-defined]  # it is there
        distributed.init_process_group(backend, store=alone, rank=0, world_size=1, timeout=limit)
    return World(distributed.get_rank(), distributed.get_world_size(), _device(backend))


def _device(backend: str) -> torch.device:
    if backend != "nccl":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def restart_advice(environment: Mapping[str, str]) -> str:
    """What keeps a restart of this job from working, or an empty string.

    With the agent's store shared, workers of the next attempt find the dead ones' addresses
    (pytorch#135712): measured, a killed rank did not come back in 5 of 5 runs.
    """
    may_restart = int(environment.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    if may_restart and environment.get("TORCH_DISABLE_SHARE_RDZV_TCP_STORE") != "1":
        return "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, or a killed rank will not come back"
    return ""
