"""Time collectives, one rank: `torchrun ... bare.py dvfd.drills.workers.collective PLAN`.

Each iteration begins at a barrier, is timed alone in every rank, and its result is compared with
what is known beforehand, outside the time. The floats hold integers, whose sums are exact in any
order. All messages take their turns several times, so what disturbs the node for a second is spread
over them. Rank 0 writes the answer; a rank whose collective raises leaves a note beside it.

The plan is a JSON object: `answer` (a path), `backend`, `timeout` (seconds of a collective), and
`exercises`, each with `operation`, `algorithm`, `bytes` and `iterations`. Exit codes: 0 ran to its
end, 1 a collective failed. The path over NCCL has never run on a GPU so far.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import distributed

from dvfd.drills import stopping, world
from dvfd.drills.workers.answer import write
from dvfd.drills.world import World

WARM_UP = 10
"""Iterations before the first that counts (procedures, 17)."""

WARM_AGAIN = 1
"""The same where a message has its turn again."""

TURNS = 10

JOINING = 120.0
"""Seconds for all ranks to load torch and find each other: a minute from a cold network disk."""

VALUES = 1024
SALTS = 256
"""Elements are below VALUES and get the iteration's number modulo SALTS added, so that a result
which stayed from before is wrong. float32 holds whole numbers up to 2^24: 13,000 ranks."""


class CollectiveFailed(Exception):
    """A collective raised or timed out; the message is torch's."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """What is to be timed. `bytes` are those of the whole array in one rank."""

    operation: str
    algorithm: str
    bytes: int
    iterations: int


@dataclass(slots=True)
class Series:
    """What an exercise showed: nanoseconds of the slowest rank, and which results were wrong."""

    slowest: list[int] = field(default_factory=list)
    verified: int = 0  # collectives, those of the warm-up among them
    wrong: int = 0  # of these
    example: str = ""

    def take(self, rows: torch.Tensor, *, warm_up: int) -> None:
        """Add a turn: for each rank the nanoseconds and the wrong elements of each iteration."""
        took, wrong = rows[:, 0, warm_up:], rows[:, 1]
        self.slowest += took.amax(dim=0).tolist()
        bad = (wrong > 0).any(dim=0)
        if bad.any() and not self.example:
            first = int(bad.nonzero()[0])
            counts = wrong[:, first].tolist()
            self.example = "; ".join(f"rank {r}: {n} elements" for r, n in enumerate(counts) if n)
        self.verified += bad.numel()
        self.wrong += int(bad.sum())


# --- Operations -------------------------------------------------------------------------------


class Patterns:
    """Whole numbers that look like noise, each rank's own; any rank can make those of all."""

    def __init__(self, place: World, elements: int) -> None:
        self.ranks = place.size
        total = torch.zeros(elements)
        for rank in range(place.size):
            one = self._of(rank, elements)
            total += one
            if rank == place.rank:
                self.mine = one.to(place.device)
        self.total = total.to(place.device)
        self.buffer = torch.empty_like(self.mine)

    @staticmethod
    def _of(rank: int, elements: int) -> torch.Tensor:
        dice = torch.Generator().manual_seed(rank)
        return torch.randint(VALUES, (elements,), generator=dice, dtype=torch.float32)


class Collective(Protocol):
    """An operation on an array of one size."""

    def fill(self, salt: int) -> None:
        """Make the input of one iteration."""
        ...

    def call(self) -> None:
        """Do it: all that is timed."""
        ...

    def wrong(self) -> int:
        """Elements of the result that are not what they must be."""
        ...


class AllReduce:
    """The sum over all ranks, in place, by the backend's own algorithm."""

    def __init__(self, patterns: Patterns, size: int, group: Any) -> None:
        elements = size // patterns.mine.element_size()
        self._mine, self._total = patterns.mine[:elements], patterns.total[:elements]
        self._buffer = patterns.buffer[:elements]
        self._ranks, self._group, self._salt = patterns.ranks, group, 0

    def fill(self, salt: int) -> None:
        """The rank's own pattern plus *salt*."""
        self._salt = salt
        torch.add(self._mine, salt, out=self._buffer)

    def call(self) -> None:
        """Raises RuntimeError, torch's own."""
        distributed.all_reduce(self._buffer, group=self._group)

    def wrong(self) -> int:
        """Exact: every number on the way is whole and small."""
        self._buffer.sub_(self._salt * self._ranks)
        if torch.equal(self._buffer, self._total):
            return 0
        return int((self._buffer != self._total).sum())


COLLECTIVES: Mapping[tuple[str, str], Callable[[Patterns, int, Any], Collective]] = {
    ("all_reduce", "builtin"): AllReduce,
}
"""By operation and algorithm."""


# --- Timing -----------------------------------------------------------------------------------


class Bench:
    """One rank's part in all exercises; `at` says in words which one is under way."""

    def __init__(self, place: World, exercises: Sequence[Exercise], *, timeout: float) -> None:
        self._place = place
        self._group = distributed.new_group(timeout=timedelta(seconds=timeout))
        largest = max(exercise.bytes for exercise in exercises)
        patterns = Patterns(place, largest // torch.float32.itemsize)
        self._plan = [
            (e, COLLECTIVES[e.operation, e.algorithm](patterns, e.bytes, self._group), Series())
            for e in exercises
        ]
        self._salt = 0
        self.at = "before the first"

    def run(self) -> list[tuple[Exercise, Series]]:
        """Every exercise in its turns. Raises CollectiveFailed."""
        for turn in range(TURNS):
            if self._place.leads:
                say(f"collectives: turn {turn + 1} of {TURNS}")
            for exercise, collective, series in self._plan:
                first, last = (exercise.iterations * t // TURNS for t in (turn, turn + 1))
                self._turn(exercise, collective, series, turn, last - first)
        return [(exercise, series) for exercise, _, series in self._plan]

    def _turn(
        self, exercise: Exercise, collective: Collective, series: Series, turn: int, count: int
    ) -> None:
        warm_up = WARM_AGAIN if turn else WARM_UP
        self.at = f"{exercise.operation} of {exercise.bytes} bytes"
        rows = [self._once(collective) for _ in range(warm_up + count)]
        series.take(self._gather(rows), warm_up=warm_up)

    def _once(self, collective: Collective) -> tuple[int, int]:
        """Nanoseconds of one iteration in this rank, and its wrong elements."""
        self._salt = (self._salt + 1) % SALTS
        collective.fill(self._salt)
        try:
            distributed.barrier(group=self._group)
            self._settle()
            began = time.perf_counter_ns()
            collective.call()
            self._settle()
            took = time.perf_counter_ns() - began
        except RuntimeError as error:
            raise CollectiveFailed(str(error)) from error
        return took, collective.wrong()

    def _settle(self) -> None:
        if self._place.device.type == "cuda":
            torch.cuda.synchronize(self._place.device)

    def _gather(self, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Every rank's rows: ranks x (nanoseconds, wrong elements) x iterations."""
        mine = torch.tensor(rows, dtype=torch.int64, device=self._place.device).T.contiguous()
        found = [torch.empty_like(mine) for _ in range(self._place.size)]
        try:
            distributed.all_gather(found, mine, group=self._group)
        except RuntimeError as error:
            raise CollectiveFailed(str(error)) from error
        return torch.stack(found).cpu()


# --- Being a rank -----------------------------------------------------------------------------


def addresses() -> list[str]:
    """The IPv4 and IPv6 addresses that this process listens on, not those that mean any."""
    ours, found = _descriptors(), set()
    for name in ("tcp", "tcp6"):
        for row in Path("/proc/self/net", name).read_text(encoding="utf-8").splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in ours:
                found.add(_address(fields[1].partition(":")[0]))
    return sorted(found - {"0.0.0.0", "::"})  # noqa: S104  # nothing is bound here


LISTENING = "0A"  # include/net/tcp_states.h


def _descriptors() -> set[str]:
    """What our file descriptors are links to."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            found.add(str(link.readlink()))
    return found


def _address(digits: str) -> str:
    """The kernel prints words of 32 bits in its own byte order."""
    raw = bytes.fromhex(digits)
    words = struct.unpack(f">{len(raw) // 4}I", raw)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def main(path: str) -> int:
    """Take part in the plan at *path*; the exit code is in the file's first words."""
    plan = json.loads(Path(path).read_text(encoding="utf-8"))
    answer = Path(plan["answer"])
    exercises = [Exercise(**each) for each in plan["exercises"]]
    place = world.join(plan["backend"], timeout=JOINING)
    # torchrun stops the other ranks when one has died. Their collective fails at about the same
    # moment, and a rank that lives to say so is worth more: torchrun waits 30 seconds for it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    bench = Bench(place, exercises, timeout=plan["timeout"])
    try:
        found = bench.run()
    except CollectiveFailed as error:
        words = {"time": time.time(), "rank": place.rank, "at": bench.at, "error": str(error)}
        write(answer.with_name(f"{answer.name}.failed-{place.rank}"), words)
        say(f"rank {place.rank}, {bench.at}: {error}")
        return 1  # without destroying the group: that may wait for ranks that are gone
    if place.leads:
        write(answer, told(place, found))
    # Who leaves first closes lines from which another may still read the last of the times. Once
    # one has passed here all have them, so what fails from now on means nothing.
    with contextlib.suppress(RuntimeError):
        distributed.barrier()
    distributed.destroy_process_group()
    return 0


def say(line: str) -> None:
    """One line of progress on stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def told(place: World, found: Sequence[tuple[Exercise, Series]]) -> dict[str, Any]:
    """The answer."""
    return {
        "world": place.size,
        "torch": torch.__version__,
        "git": str(torch.version.git_version),
        "addresses": addresses(),
        "exercises": [asdict(exercise) | asdict(series) for exercise, series in found],
    }


if __name__ == "__main__":
    stopping.leave(main(sys.argv[1]))
