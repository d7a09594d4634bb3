"""An all-reduce timed as its definition says, and nothing else.

Shares no code with what it is compared to. Barrier, 10 iterations of warm-up, each iteration's time
that of the slowest rank, every sum looked at.
"""

from __future__ import annotations

import statistics
import time

import torch
import torch.distributed as dist


def median_seconds(size: int, iterations: int) -> float:
    """Of a message of *size* bytes, between all ranks."""
    ranks, mine = dist.get_world_size(), dist.get_rank() + 1.0
    data = torch.empty(size // 4)
    times = []
    for _ in range(10 + iterations):
        data.fill_(mine)
        dist.barrier()
        began = time.perf_counter_ns()
        dist.all_reduce(data)
        times.append(time.perf_counter_ns() - began)
        assert bool((data == ranks * (ranks + 1) / 2).all())
    slowest = torch.tensor(times[10:])
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return float(statistics.median(slowest.tolist())) / 1e9
