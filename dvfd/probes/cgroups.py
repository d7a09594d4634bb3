"""The processor quota that control groups put on a process, v1 and v2. Reads, never judges."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dvfd.probes.files import text_or

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Quota = Callable[[Path], float | None]


def quotas(membership: str, sys: Path) -> dict[str, float]:
    """Cores allowed to each control group with a quota that the process is in, by directory.

    *membership* is the text of /proc/PID/cgroup. A group outside our own mount (a container's
    process seen from another container) shows no quota: its cores then count as unlimited.
    """
    found: dict[str, float] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found |= _limits(_roots_v2(sys), path, _quota_v2)
        elif "cpu" in controllers.split(","):
            found |= _limits(_roots_v1(sys, controllers), path, _quota_v1)
    return found


def _limits(roots: list[Path], path: str, quota: Quota) -> dict[str, float]:
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


def _roots_v1(sys: Path, controllers: str) -> list[Path]:
    return [sys / "fs/cgroup/cpu", sys / "fs/cgroup" / controllers]


def _quota_v2(group: Path) -> float | None:
    """cpu.max: `max 100000` or `200000 100000` (quota and period in us)."""
    quota, _, period = text_or(group / "cpu.max", "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period or 100_000)


def _quota_v1(group: Path) -> float | None:
    """cpu.cfs_quota_us over cpu.cfs_period_us; -1 is no quota."""
    quota = int(text_or(group / "cpu.cfs_quota_us", "-1"))
    return None if quota < 0 else quota / int(text_or(group / "cpu.cfs_period_us", "100000"))
