"""What control groups allow a process, v1 and v2: processors and memory. Reads, never judges."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dvfd.probes.files import text_or

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Reading = Callable[[Path], float | None]

UNLIMITED = 1 << 62
"""Bytes; v1 writes no limit as the largest number of whole pages."""


def quotas(membership: str, sys: Path) -> dict[str, float]:
    """Cores allowed to each control group with a quota that the process is in, by directory.

    *membership* is the text of /proc/PID/cgroup. A group outside our own mount (a container's
    process seen from another container) shows no quota: its cores then count as unlimited.
    """
    return _each(membership, sys, "cpu", _quota_v2, _quota_v1)


def room(membership: str, sys: Path) -> dict[str, float]:
    """Bytes that each control group with a limit on memory has left; files not used lately count
    as left, since the kernel gives them up first.
    """
    return _each(membership, sys, "memory", _room_v2, _room_v1)


def kills(membership: str, sys: Path) -> dict[str, float]:
    """Processes that each control group has lost for want of memory, where it counts them."""
    return _each(membership, sys, "memory", _kills_v2, _kills_v1)


def hidden(membership: str, sys: Path, controller: str) -> str:
    """Why limits of *controller* cannot be seen, empty if they can: none seen is not none."""
    lines = list(_lines(membership))
    v1 = [
        _roots_v1(sys, controller, names) for _, names, _ in lines if controller in names.split(",")
    ]
    hierarchies = v1 or [_roots_v2(sys) for _, names, _ in lines if not names]
    if all(any(map(Path.is_dir, roots)) for roots in hierarchies):
        return ""
    return f"{sys}/fs/cgroup does not show the control group that /proc names: is it mounted?"


def _each(
    membership: str, sys: Path, controller: str, v2: Reading, v1: Reading
) -> dict[str, float]:
    """What *v2* or *v1* reads of each group of *controller* that the process is in."""
    found: dict[str, float] = {}
    for _, controllers, path in _lines(membership):
        if not controllers:
            found |= _limits(_roots_v2(sys), path, v2)
        elif controller in controllers.split(","):
            found |= _limits(_roots_v1(sys, controller, controllers), path, v1)
    return found


def _lines(membership: str) -> Iterator[list[str]]:
    return (line.split(":", 2) for line in membership.splitlines())


def _limits(roots: list[Path], path: str, quota: Reading) -> dict[str, float]:
    for root in filter(Path.is_dir, roots):
        return {str(g): q for g in _upwards(root, path) if (q := quota(g)) is not None}
    return {}


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group's directory and those above it, down to the mount."""
    inside = PurePosixPath(path.lstrip("/"))
    if ".." in inside.parts:
        return
    yield root / inside
    for parent in inside.parents:
        yield root / parent


def _roots_v2(sys: Path) -> list[Path]:
    """Where the unified hierarchy is mounted, on its own or beside v1."""
    return [sys / "fs/cgroup/unified", sys / "fs/cgroup"]


def _roots_v1(sys: Path, controller: str, controllers: str) -> list[Path]:
    return [sys / "fs/cgroup" / controller, sys / "fs/cgroup" / controllers]


def _quota_v2(group: Path) -> float | None:
    """cpu.max: `max 100000` or `200000 100000` (quota and period in us)."""
    quota, _, period = text_or(group / "cpu.max", "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period or 100_000)


def _quota_v1(group: Path) -> float | None:
    """cpu.cfs_quota_us over cpu.cfs_period_us; -1 is no quota."""
    quota = int(text_or(group / "cpu.cfs_quota_us", "-1"))
    return None if quota < 0 else quota / int(text_or(group / "cpu.cfs_period_us", "100000"))


def _room_v2(group: Path) -> float | None:
    """memory.max is `max` or bytes."""
    limit = text_or(group / "memory.max", "max")
    if limit == "max":
        return None
    used = int(text_or(group / "memory.current", "0"))
    return int(limit) - used + _entry(group / "memory.stat", "inactive_file")


def _room_v1(group: Path) -> float | None:
    limit = int(text_or(group / "memory.limit_in_bytes", str(UNLIMITED)))
    if limit >= UNLIMITED:
        return None
    used = int(text_or(group / "memory.usage_in_bytes", "0"))
    return limit - used + _entry(group / "memory.stat", "total_inactive_file")


def _kills_v2(group: Path) -> float | None:
    return _counted(group / "memory.events")


def _kills_v1(group: Path) -> float | None:
    """memory.oom_control counts since Linux 4.13."""
    return _counted(group / "memory.oom_control")


def _counted(path: Path) -> float | None:
    found = re.search(r"^oom_kill (\d+)", text_or(path), re.MULTILINE)
    return float(found[1]) if found else None


def _entry(path: Path, name: str) -> int:
    found = re.search(rf"^{name} (\d+)", text_or(path), re.MULTILINE)
    return int(found[1]) if found else 0
