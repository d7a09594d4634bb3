"""Say what a launcher gave to this process: `bare.py dvfd.drills.workers.launched DIR [torch]`.

The environment is written before torch is loaded: a rank that dies of torch has told it by then.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from dvfd.drills.workers.answer import write

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PREFIXES = ("OMPI_COMM_WORLD_", "OMPI_UNIVERSE_SIZE", "OMPI_MCA_btl_tcp_", "OMP_", "MKL_NUM_")


def given() -> dict[str, Any]:
    """What this process was given, without what is nobody's business."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in NAMES or name.startswith(PREFIXES)
    }
    return {
        "environment": environment,
        "processors": sorted(os.sched_getaffinity(0)),
        "cgroup": Path("/proc/self/cgroup").read_text(encoding="utf-8"),
        "master": _master(environment),
    }


def _master(environment: dict[str, str]) -> str:
    """Why the master's address does not resolve; nothing if it does or there is none."""
    if "MASTER_ADDR" not in environment:
        return ""
    try:
        socket.getaddrinfo(environment["MASTER_ADDR"], None, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"{environment['MASTER_ADDR']!r} does not resolve: {error.strerror or error}"
    return ""


def threads() -> dict[str, Any]:
    """How many threads torch computes with here, or why it cannot say."""
    try:
        import torch  # noqa: PLC0415  # it may be absent

        return {"threads": torch.get_num_threads()}
    except Exception as error:  # noqa: BLE001  # whatever it is, it keeps torch from being used
        return {"trouble": f"{type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    place = Path(sys.argv[1]) / f"{os.getpid()}.json"
    found = given()
    write(place, found)
    if sys.argv[2:] == ["torch"]:
        write(place, found | threads())
