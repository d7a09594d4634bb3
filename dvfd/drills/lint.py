"""Settings of the environment that cost speed or hide trouble, each with the line that mends it.

Only what is really wrong counts: a matter of taste (huge pages on demand, a governor that follows
the load) does not. Reads; changes nothing.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dvfd.catalogue import load
from dvfd.drills import interface, interpreter, launchers
from dvfd.drills.allotted import allotted
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files
from dvfd.probes.node import Discipline, ask_kernel

if TYPE_CHECKING:
    from dvfd.drills.drill import Task
    from dvfd.drills.interface import Interface

SETTINGS = "environment_settings"

RECOVERY = "reliability.partition"
"""The criterion whose limit a process group's timeout must leave room for."""

FEW_FILES = 1024
"""Linux's default, of the time of select(2): torch's data loaders, which pass tensors as open
files, run out of it ("Too many open files"; torch's notes on multiprocessing)."""

OWN_SCALING = ("intel_pstate", "amd-pstate", "amd-pstate-epp")
"""Drivers under which `powersave` follows the load: Documentation/admin-guide/pm."""

SAVING = ("power", "balance_power")
"""Preferences of such a driver that hold the frequency down."""

SLOW = ("powersave", "conservative", "userspace")
"""Governors of other drivers that stay at a low frequency, or climb from it step by step."""


@dataclass(frozen=True, slots=True)
class World:
    """What the settings are read from, beside the task's /proc and /sys."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    limit: Callable[[int], tuple[int, int]] = resource.getrlimit
    discipline: Callable[[], Discipline] = ask_kernel
    there: Callable[[], Mapping[str, Interface]] = interface.interfaces


@dataclass(frozen=True, slots=True)
class Setting:
    """Whether it is as it should be, what was read, and if not, what it costs and what mends it."""

    fine: bool
    words: str


def omp_num_threads(task: Task, world: World) -> Setting:
    """Threads of a rank against the cores that it has to itself."""
    if not interpreter.torch(task).version:
        raise ProbeError(f"{task.python} has no torch: {interpreter.MEND}")
    launch = launchers.torchrun(task)
    cores = allotted(task, launch)
    if len(cores) < task.processes:
        raise ProbeError(f"{len(cores)} of {task.processes} ranks answered; {launch.failed}")
    own = min(cores.values())
    least = max(1, int(own))
    said = world.environ.get("OMP_NUM_THREADS")
    mend = f"export OMP_NUM_THREADS={least}"
    if said is None:
        words = f"OMP_NUM_THREADS is not set: torchrun makes it 1, a rank has {own:g} cores"
        return Setting(least == 1, words if least == 1 else f"{words}: {mend}")
    threads = launchers.number(said.partition(",")[0].strip())  # a list is for nested regions
    if not threads:
        return Setting(False, f"OMP_NUM_THREADS={said} is no number of threads: {mend}")
    words = f"OMP_NUM_THREADS={said}, a rank has {own:g} cores"
    if threads > least:
        return Setting(False, f"{words}: ranks take each other's processors: {mend}")
    if threads == 1 < least:
        return Setting(False, f"{words}: the others stand idle: {mend}")
    return Setting(True, words)


def gloo_interface(task: Task, world: World) -> Setting:
    """Between nodes, a real port, and one of the profile's if it names any."""
    there = world.there()
    choice = interface.chosen(task, there, world.environ)
    profile = task.config.profile
    mend = f"export {interface.VARIABLE}={next(iter(profile.interfaces), 'NAME')}"
    if wrong := interface.faults(choice, there, nodes=profile.nodes):
        return Setting(False, f"{choice.how}: {'; '.join(wrong)}")
    names = ", ".join(choice.names)
    if profile.nodes == 1:
        return Setting(True, f"{names}; one node, nothing leaves it")
    if odd := interface.virtual(choice, task):
        return Setting(False, f"{choice.how}: {', '.join(odd)} is no port of this node: {mend}")
    named = [name for name in profile.interfaces if name in there]
    if named and not set(choice.names) <= set(named):
        return Setting(False, f"{names} is not among the profile's {', '.join(named)}: {mend}")
    return Setting(True, names)


def timeouts(task: Task, world: World) -> Setting:
    """Process group before rendezvous, and early enough for a recovery in time.

    How long a job takes to start is nowhere to be read, so that end of the order is not looked at.
    """
    group = task.config.profile.process_group_timeout
    if group is None:
        raise ProbeError(
            "how long a collective waits for a dead peer is in the job's code (1800 s unless it "
            "says otherwise): say it here too: [profile] process_group_timeout = 10"
        )
    allowed = load(task.config).criteria[RECOVERY].limit.value
    if allowed is not None and group >= allowed:
        return Setting(
            False,
            f"process group {group:g} s: a dead peer is noticed too late for a recovery within "
            f"{allowed:g} s: init_process_group(timeout=timedelta(seconds=10)), and say the same "
            "in [profile]",
        )
    rendezvous = _rendezvous(task, world)
    words = f"process group {group:g} s, rendezvous {rendezvous:g} s"
    if group >= rendezvous:
        return Setting(
            False,
            f"{words}: the next attempt gives up before the ranks of this one do: torchrun "
            f"--rdzv-conf join_timeout={int(2 * group)}",
        )
    return Setting(True, words)


def _rendezvous(task: Task, world: World) -> float:
    """Seconds for which torchrun waits for all nodes, from its own variable or torch's default."""
    said = world.environ.get("PET_RDZV_CONF", "")
    for pair in filter(None, said.split(",")):
        name, _, value = pair.partition("=")
        if name.strip() == "join_timeout":
            seconds = launchers.number(value.strip())
            if seconds is None:
                raise ProbeError(f"PET_RDZV_CONF={said}: join_timeout is no number")
            return float(seconds)
    default = interpreter.torch(task).rendezvous
    if default is None:
        raise ProbeError("this torch does not tell how long a rendezvous waits: say it in "
                         "PET_RDZV_CONF=join_timeout=600")  # fmt: skip
    return default


def open_files(task: Task, world: World) -> Setting:
    """Enough for the sockets of a full mesh and the files of data loaders."""
    soft, hard = world.limit(resource.RLIMIT_NOFILE)
    profile = task.config.profile
    needed = FEW_FILES + profile.nodes * profile.processes_per_node
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return Setting(True, f"{_count(soft)} open files for each process")
    mend = "ulimit -n 65536, or LimitNOFILE=65536 in a unit"
    if hard != resource.RLIM_INFINITY and hard < needed:
        mend += f"; the hard limit is {hard}: /etc/security/limits.conf: * - nofile 65536"
    return Setting(
        False,
        f"{soft} open files for each process, wanted {needed}: a rank has a socket to each other, "
        f"and data loaders stop with 'Too many open files': {mend}",
    )


def locked_memory(task: Task, world: World) -> Setting:
    """Without bound where NCCL registers memory with a network adapter."""
    soft, _ = world.limit(resource.RLIMIT_MEMLOCK)
    adapters = files.names(task.sys / "class/infiniband")
    words = f"{_count(soft)} bytes of locked memory"
    if soft == resource.RLIM_INFINITY or not adapters:
        return Setting(True, words if adapters else f"{words}; no RDMA adapter needs any")
    if task.config.profile.backend != "nccl":
        return Setting(True, f"{words}; Gloo speaks TCP, {adapters[0]} needs more only over RDMA")
    return Setting(
        False,
        f"{words}, wanted unlimited: NCCL cannot register its buffers with {adapters[0]}, and "
        "fails or falls back to TCP: ulimit -l unlimited, or LimitMEMLOCK=infinity in a unit",
    )


def clock(_task: Task, world: World) -> Setting:
    """Something keeps it right."""
    try:
        found = world.discipline()
    except OSError as error:
        raise ProbeError(f"adjtimex: {error.strerror or error}") from None
    if found.synchronised:
        return Setting(True, f"synchronised, at most {found.error:g} s off")
    return Setting(
        False,
        "nothing synchronises the clock: logs and times of several nodes cannot be put in order: "
        "apt-get install chrony, then chronyc tracking",
    )


def swap(task: Task, _world: World) -> Setting:
    """None in use, and none that the kernel fills before it must."""
    rows = [line.split() for line in files.text(task.proc / "swaps").splitlines()[1:]]
    try:
        used = sum(int(row[3]) for row in rows) / 1024
    except (IndexError, ValueError):
        raise ProbeError(f"{task.proc / 'swaps'}: read {rows}, wanted sizes in KiB") from None
    if not rows:
        return Setting(True, "no swap")
    eager = files.number(task.proc / "sys/vm/swappiness")
    words = f"{used:.0f} MiB of swap in use, vm.swappiness = {eager}"
    if used:
        return Setting(
            False,
            f"{words}: a rank that waits for a page holds up all: grep VmSwap /proc/*/status, then "
            "swapoff -a && swapon -a, and sysctl vm.swappiness=1",
        )
    if eager >= KERNELS_OWN:
        return Setting(
            False,
            f"{words}, the default: idle parts of a job are swapped out to make room for files: "
            "sysctl vm.swappiness=1",
        )
    return Setting(True, words)


KERNELS_OWN = 60
"""vm.swappiness that nobody chose: Documentation/admin-guide/sysctl/vm."""


def huge_pages(task: Task, _world: World) -> Setting:
    """For those who ask (madvise) or for all; not for nobody."""
    place = task.sys / "kernel/mm/transparent_hugepage/enabled"
    text = files.text(place)
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen not in {"always", "madvise", "never"}:
        raise ProbeError(f"{place}: read {text[:60]!r}, wanted always, madvise or never")
    if chosen != "never":
        return Setting(True, chosen)
    return Setting(
        False,
        "never: each 4 KiB of a tensor has a page of its own, and large products wait for the "
        f"page tables: echo madvise > {place}",
    )


def cpu_governor(task: Task, _world: World) -> Setting:
    """None that holds the frequency down."""
    cpus = task.sys / "devices/system/cpu"
    there = [
        cpus / name / "cpufreq"
        for name in files.names(cpus, r"cpu\d+")
        if (cpus / name / "cpufreq/scaling_governor").exists()
    ]
    if not there:
        raise ProbeError(f"no cpufreq under {cpus}: the hypervisor or the firmware decides")
    found: Counter[tuple[str, bool]] = Counter()
    for place in there:
        governor = files.text(place / "scaling_governor")
        preference = files.text_or(place / "energy_performance_preference")
        own = files.text_or(place / "scaling_driver") in OWN_SCALING
        slow = (preference in SAVING) if own else (governor in SLOW)
        slow = slow and governor != "performance"
        found[f"{governor} {preference}".strip(), slow] += 1
    words = ", ".join(f"{name} on {count}" for (name, _), count in sorted(found.items()))
    if not any(slow for _, slow in found):
        return Setting(True, f"{words} processors")
    return Setting(
        False,
        f"{words} processors: the slowest core holds up every rank: "
        "cpupower frequency-set -g performance",
    )


def _count(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


LOOKS: Mapping[str, Callable[[Task, World], Setting]] = {
    "omp_num_threads": omp_num_threads,
    "interface": gloo_interface,
    "timeouts": timeouts,
    "open_files": open_files,
    "locked_memory": locked_memory,
    "clock": clock,
    "swap": swap,
    "huge_pages": huge_pages,
    "cpu_governor": cpu_governor,
}
"""Each setting by its name in environment_settings."""


class EnvironmentLint:
    """Every setting: a yes or no of each that can be read."""

    name = "settings"
    metrics = (SETTINGS,)

    def __init__(self, world: World | None = None) -> None:
        self._world = world or World()

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """A sample for each that can be read; what is no breach is a fact for the reader."""
        for name, look in LOOKS.items():
            where = labels(setting=name)
            try:
                setting = look(task, self._world)
            except DvfdError as error:  # one that cannot be read hides none of the others
                yield Trouble(SETTINGS, f"{name}: {error}", where)
                yield Fact(f"setting {name}", f"not known: {error}")
                continue
            yield Sample(SETTINGS, float(setting.fine), task.clock.now(), where)
            if setting.fine:
                yield Fact(f"setting {name}", setting.words)
            else:
                yield Remark(SETTINGS, f"{name}: {setting.words}", where)
