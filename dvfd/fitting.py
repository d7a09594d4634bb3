"""Where a profile and the machine differ: what is promised and not here, what is here and denied.

A profile says what a node should be, so nothing is corrected: a person is told. A denial counts
most, for what the profile denies is NOT_APPLICABLE and nobody would miss it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.probes import files
from dvfd.probes.ports import infiniband_names, named
from dvfd.probes.temperature import hwmon

if TYPE_CHECKING:
    from dvfd.config import Profile

RIGHT = "scripts/install --with"
"""How an installed daemon gets one of the rights of systemd/drop-ins."""


@dataclass(frozen=True, slots=True)
class Gap:
    """One difference; `lacking` is what the profile promises and this machine has not. `probe` is
    the source that would say so, too.
    """

    subject: str
    lacking: bool
    text: str
    do: str
    probe: str = ""


def gaps(profile: Profile, root: Path = Path("/")) -> Iterator[Gap]:
    """Every difference that files below *root* show. Raises ProbeError if one cannot be read."""
    for look in (_gpus, _processors, _sensors, _meters, _interfaces):
        yield from look(profile, root)


def _gpus(profile: Profile, root: Path) -> Iterator[Gap]:
    found = len(files.names(root / "dev", r"nvidia\d+"))
    said = f'[profile] accelerator = "gpu", gpus = {found}; {RIGHT} gpu'
    if found and profile.accelerator == "cpu":
        yield Gap("gpu", False, f"{found} NVIDIA devices, the profile says cpu", said)
    elif profile.accelerator == "gpu" and not found:
        text = "the profile says gpu, and /dev/nvidia* is not there"
        yield Gap("gpu", True, text, f"nvidia-smi; in a sandbox: {RIGHT} gpu")
    elif profile.accelerator == "gpu" and found != profile.gpus:
        text = f"the profile says {profile.gpus}, {found} are in /dev"
        do = "nvidia-smi -L; lspci | grep -i nvidia" if found < profile.gpus else said
        yield Gap("gpu", found < profile.gpus, text, do)


def _processors(profile: Profile, root: Path) -> Iterator[Gap]:
    online = files.cpus(files.text(root / "sys/devices/system/cpu/online"))
    pinned = [files.cpus(cores) for cores in profile.rank_cores]
    if absent := sorted(frozenset().union(*pinned) - online):
        listed = ", ".join(map(str, absent[:8]))
        do = "lscpu --extended; then [profile] rank_cores"
        yield Gap("rank_cores", True, f"names processors that are not online: {listed}", do)
    if len(online) < profile.processes_per_node:
        text = f"{profile.processes_per_node} processes for {len(online)} processors"
        yield Gap("processors", True, text, "[profile] processes_per_node, or a larger node")


def _sensors(profile: Profile, root: Path) -> Iterator[Gap]:
    found = bool(hwmon(root / "sys"))
    if found and not profile.temperature_sensors:
        text = "the profile says that there are no temperature sensors, and there are"
        yield Gap("sensors", False, text, "[profile] temperature_sensors = true")
    elif profile.temperature_sensors and not found:
        text = "the profile says temperature sensors, and no coretemp or k10temp is here"
        do = "modprobe coretemp, or k10temp; in a virtual machine: temperature_sensors = false"
        yield Gap("sensors", True, text, do, "temperature")


def _meters(profile: Profile, root: Path) -> Iterator[Gap]:
    found = bool(files.names(root / "sys/class/powercap", r"intel-rapl:\d+"))
    if found and not profile.power_meters:
        text = "the profile says that there are no power meters, and there are"
        yield Gap("power", False, text, f"[profile] power_meters = true; {RIGHT} rapl")
    elif profile.power_meters and not found:
        text = "the profile says power meters, and there is no intel-rapl under /sys/class/powercap"
        do = "modprobe intel_rapl_msr; in a virtual machine: power_meters = false"
        yield Gap("power", True, text, do, "power")


def _interfaces(profile: Profile, root: Path) -> Iterator[Gap]:
    net, fabric = root / "sys/class/net", root / "sys/class/infiniband"
    there = [*files.names(net), *infiniband_names(fabric)]
    for name in named(profile.interfaces, there)[1]:
        text = f"{name} is not here; there are {', '.join(there) or 'none'}"
        yield Gap("interfaces", True, text, "ip -br link; then [profile] interfaces")
