"""A synthetic machine: /proc and /sys of any number of packages, cores, threads and NUMA nodes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fakes_drills import FakeRunner, said
from fakes_probes import FIXTURES

UNLIMITED = (
    "Max address space  unlimited  unlimited  bytes\nMax data size  unlimited  unlimited  bytes\n"
)
GB = 10**9


class FakeMachine:
    """Processors are numbered as Linux does: the first thread of every core, then the second ones.

    Cores are spread evenly over packages, and nodes over cores, in order. Core ids repeat in each
    package. `run` answers lscpu, and gives each child of a crew what `children` says of it.
    """

    def __init__(self, root: Path, *, packages=2, cores=32, threads=2, nodes=2, offline=()):
        self.proc, self.sys = root / "proc", root / "sys"
        self.cores, self.threads = cores, threads
        self.online = sorted(set(range(cores * threads)) - set(offline))
        self.write("sys/devices/system/cpu/online", kernel_list(self.online))
        self.write("sys/devices/system/cpu/offline", kernel_list(offline))
        for cpu in self.online:
            place = f"sys/devices/system/cpu/cpu{cpu}/topology"
            self.write(f"{place}/core_cpus_list", kernel_list(self.siblings(cpu)))
            self.write(f"{place}/core_id", cpu % cores % (cores // packages))
            self.write(f"{place}/physical_package_id", cpu % cores * packages // cores)
        for number in range(nodes):
            mine = [cpu for cpu in self.online if cpu % cores * nodes // cores == number]
            self.node(
                number,
                mine,
                distances=" ".join("10" if n == number else "21" for n in range(nodes)),
            )
        self.ourselves(self.online)
        self.write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Fake CPU 32\n")
        self.memory(512 * GB)
        self.children: list[dict[str, Any]] = []
        self.lost = ""
        self.meanwhile = lambda: None  # what happens on the machine while the children work
        self.run = FakeRunner({"lscpu": self._lscpu, "dvfd.drills.workers.crew": self._crew})

    # --- What there is ------------------------------------------------------------------------

    def write(self, path: str, text: object) -> None:
        place = self.proc.parent / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")

    def siblings(self, cpu: int) -> list[int]:
        return [s for s in self.online if s % self.cores == cpu % self.cores]

    def node(self, number: int, cpus: Iterable[int], *, size=256 * GB, distances="10") -> None:
        place = f"sys/devices/system/node/node{number}"
        self.write(f"{place}/cpulist", kernel_list(cpus))
        self.write(f"{place}/distance", distances)
        self.write(f"{place}/meminfo", f"Node {number} MemTotal:  {size // 1024} kB")

    def ourselves(self, cpus: Iterable[int], *, cgroup="0::/") -> None:
        self.write("proc/self/status", status(cpus))
        self.write("proc/self/cgroup", cgroup)
        self.write("proc/self/limits", UNLIMITED)
        (self.sys / "fs/cgroup").mkdir(parents=True, exist_ok=True)

    def grouped(self, name: str) -> str:
        """Put us into the control groups of fixture *name*; the text of /proc/PID/cgroup."""
        shutil.copytree(FIXTURES / name / "sys/fs", self.sys / "fs", dirs_exist_ok=True)
        membership = (FIXTURES / name / "proc/101/cgroup").read_text().strip()
        self.write("proc/self/cgroup", membership)
        return membership

    def memory(self, free: int, *, kills: int = 0, swapped: int = 0) -> None:
        self.write("proc/meminfo", f"MemTotal: 536870912 kB\nMemAvailable: {free // 1024} kB")
        self.write("proc/vmstat", f"pgfault 12\noom_kill {kills}\npswpin {swapped}")

    def rank(self, pid: int, number: int, cpus: Iterable[int], *, numa_maps: str = "") -> None:
        """A rank of somebody's training job."""
        place = f"proc/{pid}"
        self.write(f"{place}/stat", stat(min(cpus)))
        self.write(f"{place}/status", status(cpus))
        self.write(f"{place}/cgroup", "0::/")
        self.write(f"{place}/cmdline", "python\0train.py\0")
        self.write(f"{place}/environ", f"RANK={number}\0LOCAL_RANK={number}\0WORLD_SIZE=4\0")
        if numa_maps:
            self.write(f"{place}/numa_maps", numa_maps)

    # --- What tools answer --------------------------------------------------------------------

    def bound(self, *masks: Iterable[int], cgroup: str = "0::/") -> None:
        """Children on these processors, each with its pages on its own node."""
        self.children = [
            child(
                mask, pages={min(mask) % self.cores * self.nodes // self.cores: 1000}, cgroup=cgroup
            )
            for mask in map(list, masks)
        ]

    @property
    def nodes(self) -> int:
        return len(list((self.sys / "devices/system/node").glob("node*")))

    def _lscpu(self, _argv: list[str]):
        rows = [{"cpu": c, "core": c % self.cores, "socket": 0} for c in self.online]
        return said(json.dumps({"cpus": rows}))

    def _crew(self, argv: list[str]):
        plan = json.loads(Path(argv[-1]).read_text())
        ranks = [{"wrote": plan["bytes"], "wrong": 0, "ended": "", **c} for c in self.children]
        self.meanwhile()
        answer = {"ranks": ranks, "seconds": {"write": 2.0, "read": 1.0}, "lost": self.lost}
        Path(plan["answer"]).write_text(json.dumps(answer))
        return said("ranks 7 8\nwrote 1000\n")

    @property
    def world(self) -> Mapping[str, Any]:
        """What a Task is given to be on this machine."""
        return {"proc": self.proc, "sys": self.sys, "run": self.run}


def child(cpus: Iterable[int], *, pages: Mapping[int, int], cgroup: str = "0::/") -> dict[str, Any]:
    """What a child says of itself; *pages* on each node."""
    held = " ".join(f"N{node}={count}" for node, count in pages.items())
    return {
        "status": status(cpus),
        "stat": stat(min(cpus)),
        "cgroup": cgroup,
        "numa_maps": f"7f00 default anon=9 dirty=9 {held} kernelpagesize_kB=4\n",
    }


def status(cpus: Iterable[int]) -> str:
    return f"Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t{kernel_list(cpus)}\n"


def stat(cpu: int) -> str:
    return f"9 (py (3)) S 1 {'0 ' * 34}{cpu} 0 0"


def kernel_list(cpus: Iterable[int]) -> str:
    return ",".join(map(str, sorted(cpus)))
