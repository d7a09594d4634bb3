"""What this machine and this program are: as one hash, in words for a report, and as the facts
whose change makes evidence fall (reading 29).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOT_KNOWN = "not known"

NONE = "none"

FINGERPRINT = {
    "kernel": "kernel",
    "driver": "accelerator driver",
    "network": "network drivers",
    "bios": "BIOS",
    "processor": "processor",
    "microcode": "microcode",
    "dvfd": "dvfd",
}
"""The keys of a fingerprint, and the facts that they are."""


def environment_hash() -> str:
    """SHA-256 over kernel, architecture, Python and dvfd's own version."""
    facts = (platform.release(), platform.machine(), platform.python_version(), __version__)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def environment_facts(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> dict[str, str]:
    """The same for people, and more: what a report of a run says that it ran on."""
    facts = {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "logical processors": str(os.cpu_count() or NOT_KNOWN),
        "Python": platform.python_version(),
        "dvfd": __version__,
        "BIOS": _bios(sys),
        "accelerator driver": _accelerator(proc, sys),
        "network drivers": _network(sys),
    }
    with suppress(OSError):
        facts["system"] = platform.freedesktop_os_release().get("PRETTY_NAME", NOT_KNOWN)
    with suppress(OSError):
        text = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace")
        facts["processor"] = _line("model name", text)
        facts["microcode"] = _line("microcode", text)
    return facts


def fingerprint(facts: Mapping[str, str], members: Iterable[str]) -> dict[str, str]:
    """What of *facts* evidence rests on, and the nodes that took part. A fact that could not be
    read is in it as such: it then compares with nothing but itself.
    """
    found = {key: facts.get(fact, NOT_KNOWN) for key, fact in FINGERPRINT.items()}
    return found | {"membership": " ".join(sorted(members))}


def _bios(sys: Path) -> str:
    """Vendor, version and date, as the firmware says; a virtual machine's are its maker's."""
    found = [_text(sys / "class/dmi/id" / f"bios_{part}") for part in ("vendor", "version", "date")]
    return " ".join(filter(None, found)) or NOT_KNOWN


def _accelerator(proc: Path, sys: Path) -> str:
    """The versions of the kernel modules that drive GPUs."""
    told = _text(proc / "driver/nvidia/version")
    nvidia = re.search(r"Kernel Module.*?(\d+(?:\.\d+)+)", told)
    found = {
        "nvidia": nvidia[1] if nvidia else _text(sys / "module/nvidia/version"),
        "amdgpu": _text(sys / "module/amdgpu/version"),
    }
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) or NONE


def _network(sys: Path) -> str:
    """The drivers of the interfaces that are devices, with their versions where they have any."""
    try:
        links = [
            link for link in (sys / "class/net").iterdir() if (link / "device/driver").exists()
        ]
    except OSError:
        return NOT_KNOWN
    names = sorted({(link / "device/driver").resolve().name for link in links})
    versions = [_text(sys / "module" / name / "version") for name in names]
    found = [f"{name} {version}".strip() for name, version in zip(names, versions, strict=True)]
    return ", ".join(found) or NONE


def _line(name: str, cpuinfo: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else NOT_KNOWN


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
