"""Say what this interpreter's torch is and has: `bare.py dvfd.drills.workers.torch_facts FILE`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from dvfd.drills.workers.answer import write

BACKENDS = ("gloo", "mpi", "nccl", "ucc")


def facts() -> dict[str, Any]:
    """What is true with and without torch, then what torch says."""
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "processors": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)),
        "version": "",
        "backends": {},
        "rendezvous": None,
    }
    if importlib.util.find_spec("torch") is None:
        return found
    try:
        return found | _torch()
    except Exception as error:  # noqa: BLE001  # whatever it is, it keeps torch from being used
        return found | {"broken": f"{type(error).__name__}: {error}"[:500]}


def _torch() -> dict[str, Any]:
    import torch  # noqa: PLC0415  # it may be absent
    from torch import distributed  # noqa: PLC0415

    return {
        "version": str(torch.__version__),
        "backends": {name: _has(distributed, name) for name in BACKENDS},
        "rendezvous": _rendezvous(),
    }


def _has(distributed: Any, name: str) -> bool:
    """Whether this torch was built with the backend; older ones have no word on ucc."""
    asked = getattr(distributed, f"is_{name}_available", None)
    return bool(distributed.is_available() and asked and asked())


def _rendezvous() -> float | None:
    """Seconds for which torchrun waits for all nodes; None where this torch does not tell."""
    try:
        from torch.distributed.elastic.rendezvous import dynamic_rendezvous  # noqa: PLC0415

        return float(dynamic_rendezvous.RendezvousTimeout().join.total_seconds())
    except Exception:  # noqa: BLE001  # torch's inside: it may move
        return None


if __name__ == "__main__":
    write(Path(sys.argv[1]), facts())
