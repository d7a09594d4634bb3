"""A daemon whose GPU and network port are not there: the seams of both probes, and nothing else.

`python -m bench.seamed DIRECTORY ...` is `dvfd run` with one fake GPU behind the NVML seam, as warm
as DIRECTORY/gpu says, and with DIRECTORY/sys as the root of the network probe: a port eth0 whose
error counter a test moves. All other probes read this machine. Further arguments are not read: it
stands before the command that it takes the place of.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from dvfd import probes
from dvfd.probes.gpu import Gpu
from dvfd.probes.network import Network

FIXTURE = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "nic" / "sys"
PORT = "eth0"


class FakeGpu:
    """NVML with one GPU that is busy and well, but for its temperature."""

    def __init__(self, warmth: Path) -> None:
        self._warmth = warmth

    def start(self) -> None:
        """There is no driver to connect to."""

    def stop(self) -> None:
        """Nothing to let go of."""

    def count(self) -> int:
        """One GPU."""
        return 1

    def handle(self, index: int) -> int:
        """Its index."""
        return index

    def utilisation(self, _handle: int) -> int:
        """Per cent."""
        return 95

    def temperature(self, _handle: int) -> int:
        """Degrees Celsius, from the file."""
        return int(self._warmth.read_text(encoding="utf-8"))

    def memory(self, _handle: int) -> tuple[int, int]:
        """Half of 80 GiB."""
        return 40 << 30, 80 << 30

    def energy(self, _handle: int) -> int:
        """Millijoules."""
        return 1

    def uncorrected(self, _handle: int) -> int:
        """Uncorrected memory errors."""
        return 0

    def slowdowns(self, _handle: int) -> int:
        """Not slowed."""
        return 0

    def listen(self, _handle: int) -> None:
        """No Xid will come."""

    def events(self) -> Iterator[tuple[int, int]]:
        """None."""
        return iter(())


class Seams:
    """The other end of both seams: what a test moves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._counters = directory / "sys" / "class" / "net" / PORT / "statistics"

    @classmethod
    def lay(cls, directory: Path, degrees: int) -> Seams:
        """Both in a new *directory*: a GPU of so many *degrees*, a port without errors."""
        port = Path("class") / "net" / PORT
        shutil.copytree(FIXTURE / port, directory / "sys" / port)
        (directory / "proc" / "net").mkdir(parents=True)
        made = cls(directory)
        made.warm(degrees)
        made.errors(0)
        return made

    def warm(self, degrees: int) -> None:
        """Set the temperature of the GPU."""
        replace(self.directory / "gpu", f"{degrees}\n")

    def errors(self, count: int) -> None:
        """Set the receive errors of the port, in sysfs and as /proc/net/dev shows them."""
        replace(self._counters / "rx_errors", f"{count}\n")
        line = f"{PORT}: 1000 10 {count} 0 0 0 0 0 1000 10 0 0 0 0 0 0\n"
        head = "Inter-|   Receive                            |  Transmit\n"
        head += " face |bytes packets errs drop fifo frame compressed multicast|"
        head += "bytes packets errs drop fifo colls carrier compressed\n"
        replace(self.directory / "proc" / "net" / "dev", head + line)


def replace(path: Path, text: str) -> None:
    """*path* with *text*; whoever reads meanwhile reads the one or the other, never half."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)  # noqa: PTH105  # the same


def main() -> None:
    """Be the daemon."""
    place = Path(sys.argv[1])

    def gpu(**given: Any) -> Gpu:
        return Gpu(**given, nvml=FakeGpu(place / "gpu"))

    def network(**given: Any) -> Network:
        return Network(**given | {"sys": place / "sys"})

    with mock.patch.object(probes, "Gpu", gpu), mock.patch.object(probes, "Network", network):
        from dvfd.cli import main as command  # once the seams are in place

        sys.argv = ["dvfd", "run"]
        command()


if __name__ == "__main__":
    main()
