"""Barriers of a crew: how long they take back to back, and whether a rank leaves one too early.

Clocks of nodes differ by more than a barrier takes, so none is compared: barriers follow each other
at once, and each lasts from one exit to the next, by the clock of one rank; the slowest rank's is
kept. Whether one holds is counted in the store: who leaves looks whether all had entered.

Options: `backend`, `timeout` (seconds of a collective), `count` of barriers that are timed,
`rounds` of those that are looked at.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import distributed

from dvfd.drills.workers import fleet_group
from dvfd.drills.workers.collective import WARM_UP, CollectiveFailed
from dvfd.drills.workers.fleet import Crew

LONGEST = 0.03
"""Seconds that a rank may sleep before it enters: several barriers."""


class Counters(Protocol):
    """What a store of torch does."""

    def add(self, key: str, amount: int) -> int:
        """The sum of all amounts at *key*."""
        ...


def run(crew: Crew, options: Mapping[str, Any]) -> dict[str, Any]:
    """The times in rank 0, and how often each rank left early. Raises CollectiveFailed."""
    place = fleet_group.join(crew, options["backend"])
    timeout = float(options["timeout"])
    witness = fleet_group.witness()
    group = distributed.new_group(timeout=timedelta(seconds=timeout))
    cuda = place.device.type == "cuda"

    def barrier() -> None:
        distributed.barrier(group=group)
        if cuda:
            torch.cuda.synchronize(place.device)

    try:
        rounds = int(options["rounds"])
        early = left_early(barrier, _store(timeout), size=crew.size, rank=crew.rank, rounds=rounds)
        took = back_to_back(barrier, int(options["count"]))
        slowest = torch.tensor(took, dtype=torch.int64, device=place.device)
        distributed.all_reduce(slowest, distributed.ReduceOp.MAX, group=group)
    except RuntimeError as error:
        why = fleet_group.broke(crew, witness, error, "barrier", patience=timeout)
        raise CollectiveFailed(why) from error
    return {"early": early, "slowest": slowest.tolist() if place.leads else []}


def back_to_back(
    barrier: Callable[[], None], count: int, clock: Callable[[], int] = time.perf_counter_ns
) -> list[int]:
    """Nanoseconds from one exit to the next, *count* times."""
    for _ in range(WARM_UP):
        barrier()
    exits = [clock()]
    for _ in range(count):
        barrier()
        exits.append(clock())
    return [after - before for before, after in itertools.pairwise(exits)]


def left_early(
    barrier: Callable[[], None], store: Counters, *, size: int, rank: int, rounds: int
) -> int:
    """How often this rank left a barrier before all *size* ranks had entered it."""
    dice = random.Random(rank)  # noqa: S311  # another wait in each rank is all that is wanted
    early = 0
    for number in range(rounds):
        time.sleep(dice.uniform(0.0, LONGEST))
        store.add(f"dvfd/barrier/{number}", 1)
        barrier()
        early += store.add(f"dvfd/barrier/{number}", 0) < size
    return early


def _store(timeout: float) -> Counters:
    """A line of our own to the store of the rendezvous."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    limit = timedelta(seconds=timeout)
    found: Counters = distributed.TCPStore(  # type: ignore[attr-defined]  # it is there
        host, port, is_master=False, timeout=limit
    )
    return found
