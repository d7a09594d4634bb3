"""A real daemon whose machine is a tree of files that can be taken away, `bench.muted_node`.

It stands for hardware that is absent, and says so: probes read ROOT/proc and ROOT/sys, NVML answers
from ROOT/nvml.json, the kernel's word on its clock from ROOT/clock.json, and the wall clock is off
by what ROOT/step says. A file ROOT/raises/PROBE makes that probe raise, ROOT/hangs/PROBE makes it
never answer. Everything else is the daemon as installed. ROOT comes in DVFD_BENCH_ROOT.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dvfd import daemon, probes
from dvfd.cli import dvfd
from dvfd.config import Config
from dvfd.model import Probe, Sample
from dvfd.probes import gpu, node

LOOK = 0.05
"""Seconds between looks of a probe that hangs at whether it still does."""


class FileNvml:
    """NVML of one GPU as nvml.json says: readings, or the name of a Fault under "fault"."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self) -> None:
        """The driver is there if the file is."""
        self._now()

    def stop(self) -> None:
        """Nothing to let go of."""

    def count(self) -> int:
        """One."""
        self._now()
        return 1

    def handle(self, index: int) -> dict[str, Any]:
        """The readings of this moment."""
        return self._now()

    def __getattr__(self, name: str) -> Any:
        """A reading by its name, as the protocol calls it."""
        if name == "memory":
            return lambda handle: tuple(handle[name])
        return lambda handle: handle[name]

    def listen(self, handle: Any) -> None:
        """Nothing happens to this GPU."""

    def events(self) -> list[tuple[int, int]]:
        """None."""
        return []

    def _now(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise gpu.NvmlError(gpu.Fault.NO_DRIVER) from None
        except PermissionError:
            raise gpu.NvmlError(gpu.Fault.NO_PERMISSION) from None
        return found


class StepClock:
    """The machine's clocks, the wall clock off by the seconds in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> float:
        """Unix seconds, as somebody has set them."""
        return time.time() + float(self._path.read_text(encoding="utf-8") or 0)

    def boot(self) -> float:
        """CLOCK_BOOTTIME, which nobody sets."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def discipline(path: Path) -> node.Discipline:
    """What the file says in the kernel's place. Raises OSError."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return node.Discipline(int(found["status"]), float(found["error"]))


def muted(root: Path, probe: Probe, sample: Any, at: float) -> Iterable[Sample]:
    """What *probe* brings, unless it is to hang or to raise."""
    while (root / "hangs" / probe.name).exists():
        time.sleep(LOOK)
    if (root / "raises" / probe.name).exists():
        raise ZeroDivisionError("a bug of this probe")
    found: Iterable[Sample] = sample(at)
    return found


def built(root: Path, build: Any, config: Config, **keys: Any) -> probes.Probes:
    """The probes on the tree, each with its hand on it. File systems, which are looked at every
    15 s whatever the configuration says, are looked at as often as everything else.
    """
    found: probes.Probes = build(config, **keys, proc=root / "proc", sys=root / "sys")
    for probe in found.all:
        if probe.name == "filesystems":
            probe.interval = config.sampling.interval  # type: ignore[misc]
        probe.sample = partial(muted, root, probe, probe.sample)  # type: ignore[method-assign]
    return found


def main() -> None:
    """Be the daemon, `dvfd run`."""
    root = Path(os.environ["DVFD_BENCH_ROOT"])
    probes.build = partial(built, root, probes.build)
    gpu.Pynvml = partial(FileNvml, root / "nvml.json")  # type: ignore[assignment, misc]
    node.ask_kernel = partial(discipline, root / "clock.json")
    vars(daemon)["SystemClock"] = partial(StepClock, root / "step")
    dvfd(["run"])


if __name__ == "__main__":
    main()
