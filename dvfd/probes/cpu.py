"""How busy the processors and the ranks' processes are. Shares of cores, never judged here.

Core means logical processor throughout. What a rank is allotted is found out from its affinity,
the processors that are online and its control groups' quotas, each shared with the node's other
ranks that have them too.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files
from dvfd.probes.cgroups import quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dvfd.model import Clock

Rank = tuple[str, int, int, float]
"""(job, rank, pid, cores); cores 0 means: find out what it is allotted."""

TICKS = 100.0
"""USER_HZ, the unit of times in /proc: 100 on every architecture that Linux runs torch on."""

ALLOT_EVERY = 30.0
"""Seconds between looks at affinity and quotas: ranks are pinned when they start, not later."""


@dataclass(frozen=True, slots=True)
class Use:
    """Processor time that a process had used at boot time `boot`, all in seconds."""

    started: int  # ticks since boot: tells a process from a later one of the same pid
    seconds: float
    boot: float


@dataclass(frozen=True, slots=True)
class Ticks:
    """Of one processor since boot. `stolen` is time in which the host ran somebody else."""

    idle: int
    stolen: int
    total: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a process may run: its processors, and the cores that each of its groups allows."""

    mask: frozenset[int]
    quotas: Mapping[str, float]


class Cpu:
    """node_cpu_ratio and rank_cpu_ratio; the first look at anything brings nothing.

    `gaps` names the ranks whose processes cannot be seen.
    """

    name = "cpu"
    metrics = ("node_cpu_ratio", "rank_cpu_ratio")
    deadline = 0.0

    def __init__(
        self,
        ranks: Callable[[], Iterable[Rank]],
        *,
        clock: Clock,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        interval: float = 5.0,
    ) -> None:
        self.interval = interval
        self.gaps: dict[str, str] = {}
        self._ranks = ranks
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._times: tuple[int, int] | None = None
        self._uses: dict[int, Use] = {}
        self._cores: dict[int, float] = {}
        self._allotted = -ALLOT_EVERY

    def sample(self, at: float) -> Iterator[Sample]:
        """Busy shares since the last call. Raises ProbeError if /proc does not tell."""
        yield from self._node(at)
        ranks = list(self._ranks())
        before, self._uses = self._uses, self._look(pid for _, _, pid, _ in ranks)
        self._allot(before)
        silent: list[str] = []
        for job, rank, pid, given in ranks:
            used = share(before.get(pid), self._uses.get(pid))
            cores = given or self._cores.get(pid, 0.0)
            if pid not in self._uses or not cores:
                silent.append(f"{job} rank {rank} (pid {pid})")
            elif used is not None:
                yield Sample("rank_cpu_ratio", used / cores, at, labels(job=job, rank=rank))
        self.gaps = self._gaps(silent, known=bool(ranks))

    def _gaps(self, silent: list[str], *, known: bool) -> dict[str, str]:
        """Why ranks have no share, where it is not that they were first seen just now."""
        if not known:
            return {"rank_cpu_ratio": "no rank is known here"}
        why = f"{self._proc} does not show {', '.join(silent)}: it ended, or hidepid hides it"
        return {"rank_cpu_ratio": why} if silent else {}

    def _node(self, at: float) -> Iterator[Sample]:
        before, self._times = self._times, node_times(files.text(self._proc / "stat"))
        if before is None:
            return
        total = self._times[1] - before[1]
        if total > 0:
            busy = min(max(0, self._times[0] - before[0]), total)
            yield Sample("node_cpu_ratio", busy / total, at)

    def _look(self, pids: Iterable[int]) -> dict[int, Use]:
        """What each process has used; that one is gone is the ranks probe's business."""
        found = {pid: self._use(pid) for pid in pids}
        return {pid: use for pid, use in found.items() if use}

    def _use(self, pid: int) -> Use | None:
        try:
            stat = files.read(f"{self._proc}/{pid}/stat")
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            raise ProbeError(files.explain(f"{self._proc}/{pid}/stat", error)) from None
        return process_use(stat, self._clock.boot())

    def _allot(self, before: Mapping[int, Use]) -> None:
        """Find out what each process is allotted: when they change, and now and then."""
        same = {p: u.started for p, u in before.items()} == {
            p: u.started for p, u in self._uses.items()
        }
        if same and self._clock.boot() - self._allotted < ALLOT_EVERY:
            return
        online = files.cpus(files.text(self._sys / "devices/system/cpu/online"))
        bounds = {pid: self._bounds(pid, online) for pid in self._uses}
        self._cores = allotments({pid: b for pid, b in bounds.items() if b})
        self._allotted = self._clock.boot()

    def _bounds(self, pid: int, online: frozenset[int]) -> Bounds | None:
        status = files.text_or(f"{self._proc}/{pid}/status")
        _, found, rest = status.partition("Cpus_allowed_list:")
        if not found:
            return None
        # A mask without a cpuset names every processor that could ever be plugged in.
        mask = files.cpus(rest.partition("\n")[0]) & online
        membership = files.text_or(f"{self._proc}/{pid}/cgroup")
        return Bounds(mask, quotas(membership, self._sys))


def node_times(stat: str) -> tuple[int, int]:
    """(busy, total) ticks from /proc/stat. Waiting for a disk is idle; stolen time is busy."""
    line = stat.partition("\n")[0]
    ticks = _ticks(line)
    if line.partition(" ")[0] != "cpu" or ticks is None:
        raise ProbeError(f"/proc/stat: read {stat[:40]!r}, wanted 'cpu' and its times")
    return ticks.total - ticks.idle, ticks.total


def processor_times(stat: str) -> dict[int, Ticks]:
    """Of each online processor, from /proc/stat. Raises ProbeError if there is none."""
    found = {}
    for line in stat.splitlines():
        name = line.partition(" ")[0]
        if name[:3] == "cpu" and name[3:].isdigit() and (ticks := _ticks(line)):
            found[int(name[3:])] = ticks
    if not found:
        raise ProbeError(f"/proc/stat: read {stat[:40]!r}, wanted 'cpu0' and its times")
    return found


def _ticks(line: str) -> Ticks | None:
    fields = [int(f) for f in line.split()[1:9]]  # guest time is in user time already: proc(5)
    if len(fields) < 4:
        return None
    return Ticks(sum(fields[3:5]), sum(fields[7:8]), sum(fields))


def process_use(stat: str, boot: float) -> Use | None:
    """Times in /proc/PID/stat, proc(5): utime, stime, starttime. None for a zombie."""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    if len(fields) < 20 or fields[0] in {"Z", "X"}:
        return None
    return Use(int(fields[19]), (int(fields[11]) + int(fields[12])) / TICKS, boot)


def share(before: Use | None, now: Use | None) -> float | None:
    """Cores in use between two looks at one process; None if it is not the same one."""
    if before is None or now is None or before.started != now.started or now.boot <= before.boot:
        return None
    return (now.seconds - before.seconds) / (now.boot - before.boot)


def allotments(bounds: Mapping[int, Bounds]) -> dict[int, float]:
    """Cores of each process: its share of its processors, and at most of every quota above it.

    A processor, like a quota, is shared evenly by the processes of *bounds* that have it.
    """
    crowd = Counter(cpu for b in bounds.values() for cpu in b.mask)
    sharers = Counter(group for b in bounds.values() for group in b.quotas)
    return {
        pid: min(
            sum(1 / crowd[cpu] for cpu in b.mask),
            min((q / sharers[group] for group, q in b.quotas.items()), default=math.inf),
        )
        for pid, b in bounds.items()
    }
