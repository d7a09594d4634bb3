"""Keep what a measurement found as JSON in bench/results, with the machine and the command."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: what was measured, what was wanted of it, and whether that was reached."""

    name: str
    text: str
    value: float
    unit: str
    wanted: str = ""
    reached: bool | None = None
    low: float | None = None
    high: float | None = None


def at_most(
    name: str,
    text: str,
    value: float,
    unit: str,
    limit: float,
    *,
    interval: tuple[float, float] | None = None,
) -> Figure:
    """A figure that must not exceed *limit*."""
    low, high = interval or (None, None)
    return Figure(name, text, value, unit, f"<= {limit:g} {unit}", value <= limit, low, high)


def unlimited(name: str, text: str, value: float, unit: str, _limit: float) -> Figure:
    """A figure whose limit is one of another case, such as a full run."""
    return Figure(name, text, value, unit)


def exactly(name: str, text: str, value: float, unit: str, wanted: float) -> Figure:
    """A figure that must be *wanted*, such as the number of things lost."""
    return Figure(name, text, value, unit, f"{wanted:g} {unit}", value == wanted)


def document(
    name: str, figures: Sequence[Figure], raw: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a measurement found, with the command and the machine."""
    module = Path(sys.argv[0]).stem
    return {
        "bench": name,
        "command": " ".join(["python -m", f"bench.{module}", *sys.argv[1:]]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "figures": [asdict(figure) for figure in figures],
        "raw": dict(raw or {}),
    }


RUN = "DVFD_BENCH_RUN"
"""Names a directory in which every measurement leaves what it found, a short one too."""


def leave(found: Mapping[str, Any]) -> None:
    """Write the document *found* where RUN says, if it says so; never into bench/results."""
    if place := os.environ.get(RUN):
        Path(place).mkdir(parents=True, exist_ok=True)
        (Path(place) / f"{found['bench']}.json").write_text(_json(found), encoding="utf-8")


def _json(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=1) + "\n"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def keep(name: str, figures: Sequence[Figure], *, raw: Mapping[str, Any] | None = None) -> Path:
    """Write bench/results/NAME.json and print the figures; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    found = document(name, figures, raw)
    path.write_text(_json(found), encoding="utf-8")
    leave(found)
    tell(figures)
    return path


def tell(figures: Sequence[Figure]) -> None:
    """Print them."""
    for figure in figures:
        print(line(asdict(figure)))


def line(figure: Mapping[str, Any]) -> str:
    """One figure in words."""
    interval = ""
    if figure["low"] is not None:
        interval = f" [{number(figure['low'])}, {number(figure['high'])}]"
    wanted = f" (wanted {figure['wanted']})" if figure["wanted"] else ""
    return f"{figure['text']}: {number(figure['value'])} {figure['unit']}{interval}{wanted}"


def number(value: float) -> str:
    """Three significant digits, whole numbers whole."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
