"""Hardware item 1: the processor cores that may be used here, and those of each rank."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from dvfd.drills import crew
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.processors import listed
from dvfd.drills.topology import Topology, allowed, topology
from dvfd.errors import ProbeError, ToolError
from dvfd.model import Sample, labels
from dvfd.probes import cgroups, files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dvfd.drills.drill import Task

LSCPU = ("lscpu", "--json", "--online", "--extended=CPU,CORE,SOCKET")

ADVICE = (
    "start each rank on cores of its own (numactl --physcpubind, taskset, mpirun --bind-to core"
    " --map-by slot:PE=4) and say so in profile.rank_cores"
)


class Cores:
    """Physical cores throughout: siblings of SMT count once, offline processors not at all."""

    name = "cores"
    metrics = ("hardware_usable_cores",)

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """Raises ProbeError where sysfs is hidden, or lscpu contradicts it."""
        found = topology(task.sys)
        yield Fact("processors", f"{_model(task)}: {_counts(task, found)}")
        yield Fact("lscpu", _cross_check(task, found))
        yield from _usable(task, found)


class RankCores:
    """The same of each rank, and whether two have the same."""

    name = "cores of the ranks"
    metrics = ("hardware_rank_cores", "hardware_shared_cores")

    def run(self, task: Task) -> Iterator[Sample | Remark | Fact]:
        """Raises ProbeError also where the ranks cannot be looked at, or are others than wanted."""
        found = topology(task.sys)
        _cross_check(task, found)
        seen = crew.look(task)
        yield Fact("ranks on cores", seen.whose)
        yield from _ranks(task, found, seen)


# --- The node ---------------------------------------------------------------------------------


def _model(task: Task) -> str:
    """The processor's name; not every architecture tells it."""
    found = re.search(
        r"^model name\s*:\s*(.+)$", files.text_or(task.proc / "cpuinfo"), re.MULTILINE
    )
    return found[1] if found else "a model that /proc/cpuinfo does not name"


def _counts(task: Task, found: Topology) -> str:
    packages, cores = set(found.packages.values()), set(found.cores.values())
    smt = f"SMT on, {found.threads} processors on a core" if found.threads > 1 else "SMT off"
    return (
        f"{len(packages)} package{_s(packages)}, {len(cores)} core{_s(cores)},"
        f" {len(found.online)} logical processor{_s(found.online)} online, {smt}{_offline(task)}"
    )


def _offline(task: Task) -> str:
    text = files.text_or(task.sys / "devices/system/cpu/offline")
    return f", offline: {text}" if text else ""


def _s(several: Sequence[int] | set[int] | frozenset[int]) -> str:
    return "" if len(several) == 1 else "s"


def _usable(task: Task, found: Topology) -> Iterator[Sample | Remark | Trouble | Fact]:
    """Of this process, as of what it starts: affinity, then quota."""
    mask = allowed(files.text(task.proc / "self/status"), found)
    membership = files.text_or(task.proc / "self/cgroup")
    quota = min(cgroups.quotas(membership, task.sys).values(), default=math.inf)
    cores = min(float(len(found.physical(mask))), quota)
    limited = f"a quota of {quota:g} cores" if math.isfinite(quota) else "no quota"
    yield Fact("usable processors", f"{listed(mask)}, {limited}")
    yield Sample("hardware_usable_cores", cores, task.clock.now())
    if why := cgroups.hidden(membership, task.sys, "cpu"):
        yield Trouble("hardware_usable_cores", f"a quota may leave less: {why}")
    if cores < len(set(found.cores.values())):
        yield Remark("hardware_usable_cores", f"may run on processors {listed(mask)}, {limited}")


def _cross_check(task: Task, found: Topology) -> str:
    """What lscpu says. Raises ProbeError if that is something else; its absence is told only."""
    try:
        output = task.run(LSCPU, timeout=10.0)
        rows = json.loads(output.stdout)["cpus"]
        seen = {(str(row["socket"]), str(row["core"])) for row in rows}
    except ToolError as error:
        return f"not asked: {error}"
    except (ValueError, KeyError, TypeError):
        return f"exit {output.code}, read {(output.stdout or output.stderr)[:60]!r}, wanted JSON"
    theirs, ours = (len(seen), len(rows)), (len(set(found.cores.values())), len(found.online))
    if theirs != ours:
        raise ProbeError(
            f"lscpu counts {theirs[0]} cores and {theirs[1]} processors, sysfs {ours[0]} and"
            f" {ours[1]}: which is right?"
        )
    return f"agrees: {theirs[0]} cores, {theirs[1]} processors"


# --- The ranks --------------------------------------------------------------------------------


def _ranks(task: Task, found: Topology, seen: crew.Look) -> Iterator[Sample | Remark]:
    at = task.clock.now()
    masks = {rank: allowed(rank.status, found) for rank in seen.ranks}
    quotas = {rank: cgroups.quotas(rank.cgroup, task.sys) for rank in seen.ranks}
    for rank, mask in masks.items():
        cores = min(float(len(found.physical(mask))), _share(quotas[rank], quotas.values()))
        yield Sample("hardware_rank_cores", cores, at, labels(rank=rank.rank))
    crowd = Counter(core for mask in masks.values() for core in found.physical(mask))
    shared = {core for core, count in crowd.items() if count > 1}
    yield Sample("hardware_shared_cores", float(len(shared)), at)
    if shared:
        yield Remark("hardware_shared_cores", _fight(masks, found, shared))
    if any(quotas.values()):
        yield Remark("hardware_rank_cores", "after the quota of the control group, shared evenly")


def _share(quotas: Mapping[str, float], others: Iterable[Mapping[str, float]]) -> float:
    """Cores of the tightest quota, each shared by all ranks that have it."""
    sharers = Counter(group for each in others for group in each)
    return min((quota / sharers[group] for group, quota in quotas.items()), default=math.inf)


def _fight(masks: Mapping[crew.Seen, frozenset[int]], found: Topology, shared: set[int]) -> str:
    """Who wants which processors, and what to do."""
    alike: dict[str, list[str]] = {}
    for rank, mask in masks.items():
        if shared & found.physical(mask):
            alike.setdefault(listed(mask), []).append(rank.who)
    each = "; ".join(f"{', '.join(who)} on {mask}" for mask, who in alike.items())
    return f"may run on the same processors: {each}: {ADVICE}"
