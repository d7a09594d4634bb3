"""One process for each rank, in step: what the kernel says of each, and memory if that is asked.

`bare.py dvfd.drills.workers.crew PLAN` reads the plan (JSON) and writes the answer where it says.
Nothing is allocated before a rank has made itself the first that the kernel kills. The standard
library only; the ranks end with their parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills.workers import answer
from dvfd.drills.workers.pattern import BLOCK, Memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

STEP = 954 * BLOCK
"""Bytes that every rank writes before all look again whether there is room: 1 GB."""

PR_SET_PDEATHSIG = 1  # prctl(2)

PROC = Path("/proc")


class Lost(Exception):
    """The crew cannot go on: a rank is gone, or there is no more room. The message says why."""


# --- The ranks --------------------------------------------------------------------------------


def serve(seed: int, cpus: list[int] | None, orders: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """Be a rank: an answer to each order, the first one when the rank is ready."""
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    memory: Memory | None = None
    yield {}
    for order in orders:
        name, *numbers = order.split()
        if name == "map":
            (PROC / "self/oom_score_adj").write_text("1000")
            memory = Memory(int(numbers[0]), seed=seed)
        if name == "write" and memory:
            memory.write(int(numbers[0]), int(numbers[1]))
        if name == "invert" and memory:
            memory.invert()
        if name == "check" and memory:
            yield {"wrong": memory.wrong()}
        elif name == "look":
            yield {n: _read(n) for n in ("status", "stat", "cgroup", "numa_maps")}
        else:
            yield {}


def _read(name: str) -> str:
    """What the kernel says of this process; nothing where it has no such file."""
    try:
        return (PROC / "self" / name).read_text(errors="replace")
    except OSError:
        return ""


def _rank(number: int, cpus: list[int] | None, orders: int, words: int) -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask to end with it
        return
    with os.fdopen(orders) as heard, os.fdopen(words, "w") as said:
        try:
            for reply in serve(number, cpus, heard):
                said.write(json.dumps(reply) + "\n")
                said.flush()
        except (OSError, MemoryError) as error:
            said.write(json.dumps({"refused": str(error) or "no memory"}) + "\n")


# --- The one that leads -----------------------------------------------------------------------


@dataclass(slots=True)
class Member:
    """A rank as its leader knows it."""

    pid: int
    orders: Any
    words: Any
    ended: str = ""  # how it ended before its time: `killed` by SIGKILL, or its own words
    wrote: int = 0
    found: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, number: int, cpus: list[int] | None) -> Member:
        """Fork a rank."""
        (hear, order), (listen, say) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _rank(number, cpus, hear, say)
            finally:
                os._exit(0)
        os.close(hear)
        os.close(say)
        return cls(pid, os.fdopen(order, "w"), os.fdopen(listen))

    def tell(self, order: str) -> None:
        """Give an order. That nobody hears it, `answer` finds out."""
        try:
            self.orders.write(order + "\n")
            self.orders.flush()
        except BrokenPipeError:
            pass

    def answer(self) -> dict[str, Any]:
        """What it says to the last order. Raises Lost if it says nothing any more."""
        line = self.words.readline()
        said: dict[str, Any] = json.loads(line) if line.endswith("\n") else {"refused": self.how()}
        if "refused" in said:
            self.ended = str(said["refused"])
            raise Lost(self.ended)
        return said

    def how(self) -> str:
        """How it ended by itself."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return _ending(status)

    def end(self) -> None:
        """Leave nothing of it. Who ended before was not ended by us."""
        if not self.pid:
            return
        gone, status = os.waitpid(self.pid, os.WNOHANG)
        if gone:
            self.ended = self.ended or _ending(status)
        else:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.pid = 0


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return "killed" if code == -signal.SIGKILL else f"ended with {code}"


def every(crew: list[Member], order: str) -> list[dict[str, Any]]:
    """All do as told at the same time; back when all have. Raises Lost."""
    for member in crew:
        member.tell(order)
    return [member.answer() for member in crew]


def lead(crew: list[Member], plan: Mapping[str, Any]) -> dict[str, float]:
    """Take the crew through the plan; the seconds that its parts took. Raises Lost."""
    for member in crew:
        member.answer()
    print("ranks", *(member.pid for member in crew), flush=True)  # noqa: T201
    seconds: dict[str, float] = {}
    if plan["bytes"]:
        every(crew, f"map {plan['bytes']}")
        seconds["write"] = _timed(lambda: _fill(crew, plan))
        time.sleep(plan["hold"])
        seconds["read"] = _timed(lambda: _check(crew))
        every(crew, "invert")
        _fill(crew, plan)
        _check(crew)
    for member, found in zip(crew, every(crew, "look"), strict=True):
        member.found |= found
    return seconds


def _timed(work: Any) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _fill(crew: list[Member], plan: Mapping[str, Any]) -> None:
    """Write all of it, everybody the same step at a time."""
    for start in range(0, plan["bytes"], STEP):
        _room(plan["floor"])
        end = min(start + STEP, plan["bytes"])
        every(crew, f"write {start} {end}")
        for member in crew:
            member.wrote = max(member.wrote, end)
        print("wrote", end, flush=True)  # noqa: T201


def _check(crew: list[Member]) -> None:
    for member, said in zip(crew, every(crew, "check"), strict=True):
        member.found["wrong"] = member.found.get("wrong", 0) + said["wrong"]


def _room(floor: int) -> None:
    """Raises Lost if less than *floor* bytes are left: somebody else takes memory too."""
    left = re.search(r"^MemAvailable:\s*(\d+) kB", (PROC / "meminfo").read_text(), re.MULTILINE)
    if floor and left and int(left[1]) * 1024 < floor:
        raise Lost(
            f"stopped: {int(left[1]) * 1024 / 1e9:.1f} GB are left, wanted {floor / 1e9:.1f} GB"
            " to stay free: something else takes memory too"
        )


def main(path: str) -> None:
    """Carry out the plan at *path*; the answer is there even if the crew was lost."""
    plan = json.loads(Path(path).read_text())
    crew: list[Member] = []
    seconds, lost = {}, ""
    try:
        for number, cpus in enumerate(plan["ranks"]):
            crew.append(Member.start(number, cpus))
        seconds = lead(crew, plan)
    except Lost as error:
        lost = str(error)
    finally:
        for member in crew:
            member.end()
    ranks = [{"wrote": m.wrote, "ended": m.ended, **m.found} for m in crew]
    answer.write(Path(plan["answer"]), {"ranks": ranks, "seconds": seconds, "lost": lost})


if __name__ == "__main__":
    main(sys.argv[1])
