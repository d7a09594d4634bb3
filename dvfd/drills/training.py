"""Find the ranks of training jobs that run on this node, by what launchers put in the environment.

Blind where /proc is: another user's environment can be read with CAP_SYS_PTRACE only.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.drills import tree
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LAUNCHERS = (
    ("RANK", "LOCAL_RANK", "WORLD_SIZE"),  # torchrun, and most scripts around it
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),  # mpirun
)
"""The variables by which launchers tell a process its rank, its rank on the node, and how many."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a job. `name` is its script's, or the program's."""

    pid: int
    rank: int
    local_rank: int
    world: int
    name: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    rank: Rank
    local: bool  # the environment names its rank on the node: it is no agent that starts ranks


def training(proc: Path = Path("/proc"), launcher: int | None = None) -> list[Rank]:
    """The ranks found below *proc*, by rank: not ourselves, our ancestors, our children, or drills,
    nor what *launcher*, the pid of our own torchrun, started besides.

    What a rank started (loaders of data) has its environment too: the topmost counts. An agent
    that an operator gave a rank of its own does not count where its ranks are seen.
    """
    parents = _parents(proc)
    ours = {*_above(os.getpid(), parents), os.getpid()}
    roots = {os.getpid(), launcher}
    found: dict[int, _Candidate] = {}
    for pid in parents:
        if pid in ours or roots.intersection(_above(pid, parents)):
            continue
        if candidate := _candidate(proc, pid):
            found[pid] = candidate
    return sorted(_topmost(found, parents), key=lambda rank: (rank.rank, rank.pid))


def unseen(proc: Path = Path("/proc")) -> list[int]:
    """Interpreters whose environment we may not read: one of them may be a rank."""
    found = []
    for pid in _parents(proc):
        try:
            (proc / str(pid) / "environ").read_bytes()
        except PermissionError:
            if files.text_or(proc / str(pid) / "comm").startswith("python"):
                found.append(pid)
        except OSError:  # gone
            continue
    return sorted(found)


def words(ranks: Iterable[Rank]) -> str:
    """`train.py: rank 0 (pid 812), rank 1 (pid 813)`; empty if there is none."""
    names: dict[str, list[str]] = {}
    for rank in ranks:
        names.setdefault(rank.name, []).append(f"rank {rank.rank} (pid {rank.pid})")
    return "; ".join(f"{name}: {', '.join(each)}" for name, each in names.items())


def _topmost(found: Mapping[int, _Candidate], parents: Mapping[int, int]) -> Iterator[Rank]:
    agents = {
        above
        for pid, candidate in found.items()
        if candidate.local
        for above in _above(pid, parents)
        if above in found and not found[above].local
    }
    for pid, candidate in found.items():
        copies = (found[a] for a in _above(pid, parents) if a in found and a not in agents)
        if pid not in agents and not any(_same(candidate.rank, c.rank) for c in copies):
            yield candidate.rank


def _same(one: Rank, other: Rank) -> bool:
    return (one.rank, one.local_rank, one.world) == (other.rank, other.local_rank, other.world)


def _parents(proc: Path) -> dict[int, int]:
    """Each living process's parent."""
    found = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] not in b"ZX":
                found[int(entry.name)] = int(fields[1])
        except (OSError, ValueError, IndexError):  # gone, or hidden
            continue
    return found


def _above(pid: int, parents: Mapping[int, int]) -> list[int]:
    """The ancestors of *pid*. A pid used again while we read could make a ring: each once."""
    found: list[int] = []
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.append(pid)
    return found


def _candidate(proc: Path, pid: int) -> _Candidate | None:
    environment = _environment(proc, pid)
    if not environment.get(tree.MARK, tree.HELD).startswith(tree.HELD):
        return None
    for rank, local, world in LAUNCHERS:
        try:
            place = int(environment[rank]), int(environment[world])
            on_node = int(environment.get(local, environment[rank]))
        except (KeyError, ValueError):
            continue
        named = Rank(pid, place[0], on_node, place[1], _name(proc, pid))
        return _Candidate(named, local in environment)
    return None


def _environment(proc: Path, pid: int) -> dict[str, str]:
    """What the process was started with; empty if it may not be read."""
    try:
        text = (proc / str(pid) / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.partition("=")[::2] for entry in text.split("\0") if "=" in entry)


def _name(proc: Path, pid: int) -> str:
    """The script's name, never the whole command line: that may hold secrets."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = []
    scripts = (Path(word).name for word in words if word.endswith(".py"))
    modules = (after for word, after in itertools.pairwise(words) if word == "-m")
    return next(scripts, "") or next(modules, "") or Path(words[0] if words else "").name or "?"
