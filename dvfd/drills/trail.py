"""What each process of the reference job did, a line a step: which samples it took, the loss, when.

A drill reads it to say that after a recovery no sample was skipped or seen twice. Standard library
only; a line is written in one go, so that a process that is killed leaves whole lines.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIX = ".trail"

START_TIME = 19
"""Field of /proc/PID/stat behind the name, counted from 0: clock ticks from boot, proc(5)."""


class Trail:
    """A rank's pen. Without a directory it writes nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._handle = -1
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"{os.getpid()}-{started(os.getpid())}{SUFFIX}"
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    @property
    def wanted(self) -> bool:
        """Whether anybody will read it."""
        return self._handle >= 0

    def joined(self, rank: int, world: int) -> None:
        """The process group is complete."""
        # Not the count of restarts: each torchrun of a job has its own.
        group = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        self._write(joined=group, rank=rank, world=world)

    def resumed(self, step: int) -> None:
        """The checkpoint of *step* is loaded."""
        self._write(resumed=step)

    def step(self, step: int, loss: float, first: int, ids: Sequence[int]) -> None:
        """Optimizer step *step* is done, on the samples *ids* from the *first* in order on."""
        self._write(step=step, loss=loss, first=first, ids=list(ids))

    def _write(self, **said: Any) -> None:
        if self.wanted:
            line = json.dumps({"at": clock_gettime(CLOCK_BOOTTIME), **said}) + "\n"
            os.write(self._handle, line.encode())


def started(pid: int) -> int:
    """When process *pid* started, clock ticks since boot; 0 if there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return 0 if fields[0] in b"ZX" else int(fields[START_TIME])
    except (OSError, ValueError, IndexError):
        return 0


# --- What a reader sees -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step of one process; `at` is CLOCK_BOOTTIME."""

    at: float
    step: int
    loss: float
    first: int
    ids: tuple[int, ...]


@dataclass(slots=True)
class Process:
    """One process of the job, from its start to its end."""

    pid: int
    start: int
    group: str = ""  # who joined together; empty: it has not joined yet
    rank: int = -1
    world: int = 0
    joined: float = 0.0
    loaded: float = 0.0  # when the checkpoint was; 0 if it began anew
    resumed: int = 0  # the checkpoint's step
    steps: list[Step] = field(default_factory=list)

    def add(self, said: Mapping[str, Any]) -> None:
        """Take a line."""
        at = float(said["at"])
        if "joined" in said:
            self.group, self.joined = str(said["joined"]), at
            self.rank, self.world = int(said["rank"]), int(said["world"])
        elif "resumed" in said:
            self.resumed, self.loaded = int(said["resumed"]), at
        else:
            ids = tuple(map(int, said["ids"]))
            row = Step(at, int(said["step"]), float(said["loss"]), int(said["first"]), ids)
            self.steps.append(row)


def read(directory: Path) -> list[Process]:
    """Every process that left a trail and joined a group, by when it joined."""
    found = [_process(path) for path in directory.glob(f"*{SUFFIX}")]
    return sorted((each for each in found if each.group), key=lambda each: each.joined)


def _process(path: Path) -> Process:
    pid, _, start = path.stem.partition("-")
    found = Process(int(pid), int(start))
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):  # the last one may be half written
            found.add(json.loads(line))
    return found
