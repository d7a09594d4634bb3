"""A node's software for tests: launchers, a torch, interfaces; each may differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fakes_drills import FakeRunner, said

from dvfd.drills.interface import Interface
from dvfd.shell import Output

THERE = {
    "lo": Interface("lo", True, ("127.0.0.1", "::1")),
    "eth0": Interface("eth0", True, ("192.0.2.7", "fd00::7")),
    "eth1": Interface("eth1", False, ("198.51.100.7",)),
    "ib0": Interface("ib0", True, ()),
    "docker0": Interface("docker0", True, ("172.17.0.1",)),
}

TORCH: dict[str, Any] = {
    "python": "3.11.7",
    "processors": 32,
    "usable": 32,
    "version": "2.13.0+cpu",
    "backends": {"gloo": True, "mpi": False, "nccl": False, "ucc": False},
    "rendezvous": 600.0,
}

MPI = {"OMPI_UNIVERSE_SIZE": "4", "OMPI_COMM_WORLD_SIZE": "4"}

ELASTIC = {
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
    "OMP_NUM_THREADS": "1",
}


def which(*names: str) -> Callable[[str], str | None]:
    """A PATH on which only *names* are."""
    return lambda name: f"/usr/bin/{name}" if name in names else None


def by_mpirun(**changes: str | None) -> list[dict[str, Any]]:
    """What mpirun's four children say; a change to None takes a variable away."""
    return [rank(MPI | {"OMPI_COMM_WORLD_RANK": str(n)} | changes) for n in range(4)]


def by_torchrun(threads: int | None = 1, **changes: str | None) -> list[dict[str, Any]]:
    """What torchrun's four children say."""
    more = {} if threads is None else {"threads": threads}
    numbers = [{"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(4)]
    return [rank(ELASTIC | number | changes) | more for number in numbers]


def rank(environment: Mapping[str, str | None], **more: Any) -> dict[str, Any]:
    given = {name: value for name, value in environment.items() if value is not None}
    base = {"environment": given, "processors": list(range(32)), "cgroup": "", "master": ""}
    return base | more


class Software(FakeRunner):
    """Answers for a node on which all is well, but for what is given."""

    def __init__(
        self,
        *,
        openmpi: Any = "Open MPI v4.1.4\n",
        mpirun: Any = "mpirun (Open MPI) 4.1.4\n",
        include: str = "",
        mpi: Any = None,
        torch: Any = None,
        elastic: Any = None,
        address: Any = None,
    ) -> None:
        self._openmpi, self._mpirun, self._include = openmpi, mpirun, include
        self._mpi = by_mpirun() if mpi is None else mpi
        self._elastic = by_torchrun() if elastic is None else elastic
        here = {"host": "node7", "address": "192.0.2.7", "why": ""}
        super().__init__(
            {
                "ompi_info": self._ask_openmpi,
                "mpirun": self._ask_mpirun,
                "torch_facts": lambda argv: written(
                    Path(argv[-1]), TORCH if torch is None else torch
                ),
                "torch.distributed.run": lambda argv: ranks(Path(argv[-2]), self._elastic),
                "address": lambda argv: written(Path(argv[-1]), address or here),
            }
        )

    def _ask_openmpi(self, argv: list[str]) -> Any:
        if "--param" in argv:
            return said(f"mca:btl:tcp:param:btl_tcp_if_include:value:{self._include}\nmca:more\n")
        return output(self._openmpi)

    def _ask_mpirun(self, argv: list[str]) -> Any:
        return output(self._mpirun) if "--version" in argv else ranks(Path(argv[-1]), self._mpi)


def output(answer: Any) -> Any:
    """Text is what a tool prints that ends well; anything else is the answer itself."""
    return said(answer) if isinstance(answer, str) else answer


def written(path: Path, answer: Any) -> Any:
    """Leave a dict as JSON and text as it is; anything else is the answer itself."""
    if isinstance(answer, Output | BaseException):
        return answer
    path.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return said()


def ranks(directory: Path, answers: Any) -> Any:
    """Leave what each child says; a pair adds what the launcher itself left."""
    children, left = answers if isinstance(answers, tuple) else (answers, said())
    if isinstance(children, Output | BaseException):
        return children
    for pid, answer in enumerate(children, 100):
        written(directory / f"{pid}.json", answer)
    return left
