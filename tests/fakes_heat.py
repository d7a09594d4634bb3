"""A node that draws power and warms up as it is told: sensor trees that a fake clock moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fakes import FakeClock
from fakes_probes import FIXTURES

from dvfd.errors import ToolError
from dvfd.shell import Output

HZ = 100


class FakeNode:
    """Packages by name; `watts`, `celsius`, `busy` and `stolen` hold until they are changed.

    `rapl` and `hwmon` are fixture trees, either may be empty.
    """

    def __init__(
        self, place: Path, rapl: str = "rapl_intel", hwmon: str = "hwmon_coretemp", *, cpus: int = 4
    ) -> None:
        self.root = place / "node"
        self.sys, self.proc = self.root / "sys", self.root / "proc"
        self.proc.mkdir(parents=True)
        for name in filter(None, (rapl, hwmon)):
            shutil.copytree(FIXTURES / name, self.root, dirs_exist_ok=True)
        self.clock = FakeClock()
        self.domains = [d for d in self.sys.glob("class/powercap/*") if self._package(d)]
        self.inputs = self._inputs()
        self.watts = {self._package(d): 30.0 for d in self.domains}
        self.celsius = dict.fromkeys(self.inputs, 60.0)
        self._shown: dict[str, float] = {}
        self.busy, self.stolen = 0.01, 0.0
        self.cpus = cpus
        self._seconds = dict.fromkeys(("busy", "stolen", "idle"), 100.0)
        self.advance(0)

    def _package(self, domain: Path) -> str:
        name = (domain / "name").read_text().strip()
        mine = domain.name.count(":") == 1 and domain.name.startswith("intel-rapl:")
        return name.removeprefix("package-") if mine and name.startswith("package-") else ""

    def _inputs(self) -> dict[str, Path]:
        """The sensor that counts, of each package."""
        found = {}
        for label in sorted(self.sys.glob("class/hwmon/*/temp*_label")):
            text = label.read_text().strip()
            place = Path(str(label).replace("_label", "_input"))
            if text.startswith("Package id "):
                found[text.removeprefix("Package id ")] = place
            elif text == "Tdie" or (text == "Tctl" and label.parent.name == "hwmon1"):
                found[label.parent.name.removeprefix("hwmon")] = place
        return found

    def advance(self, seconds: float) -> None:
        """Let time pass; energy counters wrap at their range."""
        self.clock.advance(seconds)
        for domain in self.domains:
            used = int(self.watts[self._package(domain)] * seconds * 1e6)
            meter = domain / "energy_uj"
            if meter.exists():
                limit = int((domain / "max_energy_range_uj").read_text())
                meter.write_text(str((int(meter.read_text()) + used) % limit))
        for package, path in self.inputs.items():
            if path.exists() and self._shown.get(package) != self.celsius[package]:
                path.write_text(str(round(self.celsius[package]) * 1000))
                self._shown[package] = self.celsius[package]
        ran = {"busy": self.busy, "stolen": self.stolen, "idle": 1 - self.busy - self.stolen}
        for name, share in ran.items():
            self._seconds[name] += share * seconds
        self._stat()

    def _stat(self) -> None:
        busy, stolen, idle = (round(HZ * s) for s in self._seconds.values())
        lines = [f"cpu{n} {busy} 0 0 {idle} 0 0 0 {stolen} 0 0" for n in range(self.cpus)]
        whole = f"cpu {busy * 4} 0 0 {idle * 4} 0 0 0 {stolen * 4} 0 0"
        (self.proc / "stat").write_text("\n".join([whole, *lines, "intr 1"]))

    def throttle(self, package: str, times: int) -> None:
        """Raise the package's counter on every processor of it."""
        for cpu in self.sys.glob("devices/system/cpu/cpu*"):
            if (cpu / "topology/physical_package_id").read_text().strip() == package:
                counter = cpu / "thermal_throttle/package_throttle_count"
                counter.write_text(str(int(counter.read_text()) + times))


class FakeLoad:
    """Stands for the worker that burns: ticks as it is asked to, and lets the node's time pass.

    *during* is called before each tick with the node and the seconds since the load began.
    """

    def __init__(
        self,
        node: FakeNode,
        during: Callable[[FakeNode, float], None] = lambda _node, _seconds: None,
        *,
        fails: str = "",
    ) -> None:
        self.node = node
        self.during = during
        self.fails = fails
        self.ran: list[list[str]] = []
        self.ticks = 0

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> Output:
        self.ran.append(list(argv))
        assert on_line
        answer, seconds, tick = argv[3], float(argv[4]), float(argv[5])
        if self.fails:
            return Output(1, "", f"{self.fails}\n", 0.1)
        if timeout < seconds:
            raise ToolError("the load has no time")
        Path(answer).write_text(json.dumps({"words": "fake matrices"}))
        self.node.busy = max(self.node.busy, 1.0) - self.node.stolen
        for number in range(int(seconds / tick) + 1):
            self.node.advance(tick if number else 0)
            self.during(self.node, number * tick)
            self.node.advance(0)
            self.ticks += 1
            on_line("tick")
        return Output(0, "", "", seconds)


def sleeping(
    node: FakeNode, during: Callable[[FakeNode, float], None] = lambda _node, _seconds: None
) -> Callable[[float], None]:
    """A sleep that lets the node's time pass; *during* is called after it, as above."""
    began = node.clock.boot()

    def sleep(seconds: float) -> None:
        node.advance(seconds)
        during(node, node.clock.boot() - began)
        node.advance(0)

    return sleep
