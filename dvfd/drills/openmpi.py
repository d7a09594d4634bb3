"""OpenMPI: which version is installed, and which interfaces it is told to take. Starts no rank."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.interpreter import last_words
from dvfd.drills.version import encode
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dvfd.drills.drill import Task

ASKING = 30.0
"""Seconds for ompi_info: 0.02 here, much longer where /usr is a busy network file system."""

MEND = "apt-get install openmpi-bin libopenmpi-dev, or module load it before this command"

NAMED = re.compile(r"Open MPI\)? v?(\S+)")
"""In the first line of ompi_info ("Open MPI v4.1.4") and of mpirun ("mpirun (Open MPI) 4.1.4")."""


def wanted(task: Task) -> bool:
    """Whether this site says that it needs OpenMPI."""
    return task.config.profile.openmpi == "required"


def version(task: Task, tool: str) -> str:
    """What *tool*, ompi_info or mpirun, says of itself. Raises ToolError, ProbeError."""
    output = task.run([tool, "--version"], timeout=ASKING)
    if output.code:
        raise ProbeError(f"{tool} --version: {last_words(output)}")
    found = NAMED.search(output.stdout)
    if found is None:
        first = output.stdout.strip().partition("\n")[0]
        raise ProbeError(f"{tool} --version: read {first[:80]!r}, wanted Open MPI and its version")
    return found[1]


def tcp_interfaces(task: Task) -> tuple[str, ...]:
    """Names and networks in btl_tcp_if_include, from wherever it is set; none if it is not.

    Raises ToolError, ProbeError.
    """
    output = task.run(
        ["ompi_info", "--param", "btl", "tcp", "--level", "9", "--parsable"], timeout=ASKING
    )
    if output.code:
        raise ProbeError(f"ompi_info --param btl tcp: {last_words(output)}")
    _, found, rest = output.stdout.partition(":btl_tcp_if_include:value:")
    value = rest.partition("\n")[0].strip() if found else ""
    return tuple(part.strip() for part in value.split(",") if part.strip())


class OpenMpi:
    """Its version; 0 where there is none."""

    name = "OpenMPI"
    metrics = ("software_version",)

    def __init__(self, which: Callable[[str], str | None] = shutil.which) -> None:
        self._which = which

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """One sample; without OpenMPI only where the site needs it."""
        where = labels(package="openmpi")
        place = self._which("ompi_info")
        if place is None:
            yield Fact("OpenMPI", "none: ompi_info is not on the PATH of this command")
            if wanted(task):
                yield Sample("software_version", 0.0, task.clock.now(), where)
                yield Remark("software_version", f"ompi_info is not on the PATH: {MEND}", where)
            return
        try:
            said = version(task, "ompi_info")
            yield Sample("software_version", encode(said), task.clock.now(), where)
            yield Fact("OpenMPI", f"{said}, {place}")
        except DvfdError as error:  # of this package only: torch's version is another's concern
            yield Trouble("software_version", str(error), where)
