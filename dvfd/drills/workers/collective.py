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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from dvfd.drills import stopping, world
from dvfd.drills.workers import pacing
from dvfd.drills.workers.algorithms import Team
from dvfd.drills.workers.answer import write
from dvfd.drills.workers.operations import (
    COLLECTIVES,
    SALTS,
    AllGather,
    Collective,
    Patterns,
)
from dvfd.drills.workers.pacing import TURNS, Cost
from dvfd.drills.world import World

WARM_UP = 10
"""Iterations before the first that counts (procedures, 17)."""

WARM_AGAIN = 1
"""The same where a message has its turn again."""

PART = 16
"""Of a message, by which it is estimated how long the whole takes, where there is a limit."""

SMALL = 64 * 1024
"""Bytes of which no part is taken: they take as long as the network's round trips."""

JOINING = 120.0
"""Seconds for all ranks to load torch and find each other: a minute from a cold network disk."""

ALL = "all"
"""The team of all ranks."""


class CollectiveFailed(Exception):
    """A collective raised or timed out; the message is torch's."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """What is to be timed, by the ranks of *team*. `bytes` are those of the whole array."""

    operation: str
    algorithm: str
    bytes: int
    iterations: int
    team: str = ALL


@dataclass(slots=True)
class Series:
    """What an exercise showed: nanoseconds of the slowest rank, and which results were wrong."""

    slowest: list[int] = field(default_factory=list)
    verified: int = 0  # collectives, those of the warm-up among them
    wrong: int = 0  # of these
    example: str = ""
    paced: dict[str, float] | None = None  # iterations and seconds of one, where time was short

    def take(self, rows: torch.Tensor, *, warm_up: int, ranks: Sequence[int]) -> None:
        """Add a turn: for each of *ranks* the nanoseconds and wrong elements of each iteration."""
        took, wrong = rows[:, 0, warm_up:], rows[:, 1]
        self.slowest += took.amax(dim=0).tolist()
        bad = (wrong > 0).any(dim=0)
        if bad.any() and not self.example:
            first = int(bad.nonzero()[0])
            counts = zip(ranks, wrong[:, first].tolist(), strict=True)
            self.example = "; ".join(f"rank {r}: {n} elements" for r, n in counts if n)
        self.verified += bad.numel()
        self.wrong += int(bad.sum())


# --- Timing -----------------------------------------------------------------------------------


class Bench:
    """One rank's part in all exercises; `at` says in words which one is under way."""

    def __init__(
        self,
        place: World,
        exercises: Sequence[Exercise],
        *,
        timeout: float,
        nodes: Sequence[Sequence[int]] = (),
        teams: Mapping[str, Sequence[int]] | None = None,
        room: float | None = None,
    ) -> None:
        """*nodes* are the ranks of each node, all on one unless told. *teams* are ranks by name,
        rank 0 in each; an exercise of one is for its ranks alone, the others wait for the next.
        *room*: seconds for all of it, whatever has to be left out."""
        self._place, self._exercises = place, tuple(exercises)
        self._room, self._longest = room, timeout / 2
        everybody = tuple(range(place.size))
        known = {ALL: everybody, **(teams or {})}
        whole = [tuple(node) for node in nodes] or [everybody]
        self._teams = {n: _team(place, t, whole, timeout) for n, t in known.items()}
        self._plan = [
            (e, collective, part, Series())
            for name, team in self._teams.items()
            if place.rank in team.ranks
            for e, collective, part in _collectives(
                place, team, [e for e in exercises if e.team == name]
            )
        ]
        self._plan.sort(key=lambda row: exercises.index(row[0]))
        self._salts = dict.fromkeys(self._teams, 0)
        self.at = "before the first"

    def run(self) -> list[tuple[Exercise, Series]]:
        """Every exercise of ours in its turns. Raises CollectiveFailed."""
        if self._room is not None:
            self._pace(self._room)
        for turn in range(TURNS):
            if self._place.leads:
                say(f"collectives: turn {turn + 1} of {TURNS}")
            for exercise, collective, _, series in self._plan:
                wanted = int(series.paced["iterations"]) if series.paced else exercise.iterations
                if count := pacing.turn(wanted, turn):
                    first = turn == 0 if series.paced is None else not series.slowest
                    warm_up = _warm_up(first=first, paced=series.paced is not None)
                    self._turn(exercise, collective, series, warm_up, count)
        return [(exercise, series) for exercise, _, _, series in self._plan]

    def whole(self) -> dict[int, int]:
        """The fewest shares that an all-gather brought right and in their places, by bytes."""
        return {
            exercise.bytes: collective.whole
            for exercise, collective, _, _ in self._plan
            if isinstance(collective, AllGather)
        }

    def _pace(self, room: float) -> None:
        """Let rank 0 decide how often each is timed, by what a part of its message takes."""
        mine = {self._exercises.index(e): self._estimate(e, p, s) for e, _, p, s in self._plan}
        told = torch.zeros(2, len(self._exercises), dtype=torch.float64, device=self._place.device)
        if self._place.leads:
            costs = [_cost(e, mine[i]) for i, e in enumerate(self._exercises)]
            often = pacing.pace(costs, room, self._longest)
            told.copy_(torch.tensor([often, [mine[i] for i in range(len(costs))]]))
        try:
            distributed.broadcast(told, 0, group=self._teams[ALL].group)
        except RuntimeError as error:
            raise CollectiveFailed(str(error)) from error
        for exercise, _, _, series in self._plan:
            often, seconds = told[:, self._exercises.index(exercise)].tolist()
            if often < exercise.iterations:
                series.paced = {"iterations": int(often), "seconds": seconds}

    def _estimate(self, exercise: Exercise, part: Collective, series: Series) -> float:
        """Seconds of an iteration with all that belongs to it: the shorter of two tries of a part
        of the message, times the parts."""
        self._at(exercise, "a part of ")
        rows = []
        for _ in range(2):
            began = time.perf_counter_ns()
            _, wrong = self._once(part, exercise.team)
            rows.append((time.perf_counter_ns() - began, wrong))
        team = self._teams[exercise.team]
        found = self._gather(rows, team)
        series.take(found, warm_up=len(rows), ranks=team.ranks)
        return float(found[:, 0].amax(dim=0).min()) / 1e9 * exercise.bytes / _part(exercise.bytes)

    def _at(self, exercise: Exercise, how: str = "") -> None:
        by = "" if exercise.algorithm == "builtin" else f" by {exercise.algorithm}"
        self.at = f"{exercise.operation}{by} of {how}{exercise.bytes} bytes"

    def _turn(
        self, exercise: Exercise, collective: Collective, series: Series, warm_up: int, count: int
    ) -> None:
        self._at(exercise)
        team = self._teams[exercise.team]
        rows = [self._once(collective, exercise.team) for _ in range(warm_up + count)]
        series.take(self._gather(rows, team), warm_up=warm_up, ranks=team.ranks)

    def _once(self, collective: Collective, team: str) -> tuple[int, int]:
        """Nanoseconds of one iteration in this rank, and its wrong elements."""
        self._salts[team] = salt = (self._salts[team] + 1) % SALTS  # the same in all its ranks
        collective.fill(salt)
        try:
            distributed.barrier(group=self._teams[team].group)
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

    def _gather(self, rows: Sequence[tuple[int, int]], team: Team) -> torch.Tensor:
        """Every rank's rows: ranks x (nanoseconds, wrong elements) x iterations."""
        mine = torch.tensor(rows, dtype=torch.int64, device=self._place.device).T.contiguous()
        found = [torch.empty_like(mine) for _ in team.ranks]
        try:
            distributed.all_gather(found, mine, group=team.group)
        except RuntimeError as error:
            raise CollectiveFailed(str(error)) from error
        return torch.stack(found).cpu()


def _team(
    place: World, ranks: Sequence[int], nodes: Sequence[Sequence[int]], timeout: float
) -> Team:
    """The ranks of a team with a process group of their own; every rank makes those of all."""
    group = distributed.new_group(list(ranks), timeout=timedelta(seconds=timeout))
    parts = (tuple(rank for rank in node if rank in ranks) for node in nodes)
    return Team(group, tuple(ranks), place.rank, tuple(filter(None, parts)))


def _warm_up(*, first: bool, paced: bool) -> int:
    """Iterations of a turn that do not count."""
    if paced:
        return pacing.WARM if first else 0
    return WARM_UP if first else WARM_AGAIN


def _part(size: int) -> int:
    """Bytes of the part of a message of *size* by which the whole is estimated."""
    return min(size, max(SMALL, size // PART))


def _cost(exercise: Exercise, seconds: float) -> Cost:
    return Cost(
        seconds=seconds,
        wanted=exercise.iterations,
        warm_up=WARM_UP + (TURNS - 1) * WARM_AGAIN,
        group=(exercise.operation, exercise.bytes),
        needed=exercise.algorithm == "builtin",
    )


def _collectives(
    place: World, team: Team, exercises: Sequence[Exercise]
) -> Iterator[tuple[Exercise, Collective, Collective]]:
    """Those of one team, whole and in part: they share their arrays."""
    if exercises:
        largest = max(exercise.bytes for exercise in exercises)
        patterns = Patterns(team, largest // torch.float32.itemsize, place.device)
        for each in exercises:
            make = COLLECTIVES[each.operation, each.algorithm]
            yield each, make(patterns, each.bytes), make(patterns, _part(each.bytes))


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
        "exercises": rows(found),
    }


def rows(found: Sequence[tuple[Exercise, Series]]) -> list[dict[str, Any]]:
    """Each exercise and what it showed, as JSON types."""
    return [asdict(exercise) | asdict(series) for exercise, series in found]


if __name__ == "__main__":
    stopping.leave(main(sys.argv[1]))
