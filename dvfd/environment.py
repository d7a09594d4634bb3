"""What this machine and this program are, as one hash: evidence falls when it changes."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

from dvfd import __version__


def environment_hash() -> str:
    """SHA-256 over kernel, architecture, Python and dvfd's own version."""
    facts = (platform.release(), platform.machine(), platform.python_version(), __version__)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def environment_facts(proc: Path = Path("/proc")) -> dict[str, str]:
    """The same for people: what a report of a run says that it ran on."""
    facts = {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "logical processors": str(os.cpu_count() or "not known"),
        "Python": platform.python_version(),
        "dvfd": __version__,
    }
    with suppress(OSError):
        facts["system"] = platform.freedesktop_os_release().get("PRETTY_NAME", "not known")
    with suppress(OSError):
        lines = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        facts["processor"] = models[0] if models else "not known"
    return facts
