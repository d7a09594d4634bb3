"""A node's /proc and /sys as a calibration sees them, and a file that one left; synthetic."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dvfd import calibration
from dvfd.calibration import Conditions
from dvfd.config import Config, parse

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def node(root: Path, *, cpu: str = "Xeon 8480", cores: int = 16, gib: float = 125.6) -> Path:
    """Two threads a core, one NUMA node; below *root* are proc and sys."""
    put(root / "proc/cpuinfo", f"processor\t: 0\nmodel name\t: {cpu}\n")
    put(root / "proc/meminfo", f"MemTotal: {int(gib * 2**20)} kB\nMemAvailable: 99999999 kB\n")
    base = root / "sys/devices/system"
    put(base / "cpu/online", f"0-{2 * cores - 1}\n")
    for each in range(2 * cores):
        siblings = f"{each % cores},{each % cores + cores}\n"
        put(base / f"cpu/cpu{each}/topology/thread_siblings_list", siblings)
    put(base / "node/node0/cpulist", f"0-{2 * cores - 1}\n")
    return root


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def seen(root: Path, config: Config | None = None, torch: str = "2.13.0") -> Conditions:
    return calibration.conditions(config or Config(), torch, proc=root / "proc", sys=root / "sys")


def document(here: Conditions, **more: Any) -> dict[str, Any]:
    """What `dvfd calibrate` would write of a node with these conditions, not sealed."""
    from dataclasses import asdict

    return {
        "profile": {"expected_throughput": 270.25, "single_process_throughput": 62.5},
        "calibration": {
            "schema": 1,
            "configuration": here.hash,
            "at": AT,
            "by": "anna",
            "host": "node7",
            "job": "gpt",
            "left_out": [],
            "conditions": asdict(here),
            "besides": calibration.besides(),
            **more,
        },
    }


def kept(path: Path, here: Conditions, **more: Any) -> Path:
    """A file as the command leaves it."""
    calibration.write(path, document(here, **more), "Measured.", now=AT)
    return path


def using(path: Path, here: Conditions, toml: str = "") -> Config:
    """The configuration of a node with the conditions *here* that names the file."""
    config = parse(f'[profile]\ncalibration = "{path}"\n{toml}')
    return calibration.applied(config, here=lambda _config: here, now=AT.timestamp() + 60)
