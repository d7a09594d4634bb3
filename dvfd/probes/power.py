"""The energy that each processor package used, from RAPL. Watts are its rate, and not ours.

Only package domains: their sub-domains (cores, DRAM) are parts of them or beside them, and psys
is the whole platform. The counter starts at 0 with the daemon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import NotApplicable, ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.model import Clock

MICRO = 1e6
"""energy_uj is in microjoules: Documentation/power/powercap."""

MOST_WATTS = 1000.0
"""No processor package draws more (the largest of 2025 are rated at 500 W). A 262 kJ range wraps
in 262 s at that: a gap that long may hide a second wrap."""

STILL = 1.0
"""Seconds in which every package uses something: RAPL counts by 61 uJ or finer, about every
millisecond, and an idle package draws watts. A counter that stands is none."""

SLOWEST = 10.0
"""Most seconds between two looks; AMD's 65 kJ range wraps in 65 s at MOST_WATTS."""

PACKAGE = re.compile(r"package-(\d+)(?:-die-\d+)?")
"""Names of package domains; packages of several dies have one for each."""


@dataclass(slots=True)
class Domain:
    """A RAPL domain and its counter so far."""

    package: str
    path: Path
    range: int  # uj
    last: int | None = None  # uj, as read
    boot: float = 0.0  # of that reading
    joules: float = 0.0


class Power:
    """cpu_package_energy_joules_total, for each package."""

    name = "power"
    metrics = ("cpu_package_energy_joules_total",)
    deadline = 0.0

    def __init__(
        self,
        *,
        clock: Clock,
        expected: bool = True,
        sys: Path = Path("/sys"),
        interval: float = 5.0,
    ) -> None:
        self.interval = min(interval, SLOWEST)
        self._clock = clock
        self._expected = expected
        self._directory = sys / "class/powercap"
        self._domains: list[Domain] = []

    def sample(self, at: float) -> Iterator[Sample]:
        """Raises NotApplicable by the profile, ProbeError if RAPL is absent or refuses."""
        if not self._expected:
            raise NotApplicable("the profile says that this node has no power meters")
        self._domains = self._domains or self._find()
        problems: dict[str, str] = {}
        joules: dict[str, float] = {}
        for domain in self._domains:
            try:
                self._count(domain)
            except ProbeError as error:
                problems[domain.package] = str(error)
            joules[domain.package] = joules.get(domain.package, 0.0) + domain.joules
        for package, total in joules.items():
            if package not in problems:
                yield Sample(self.metrics[0], total, at, labels(package=package))
        files.raise_all(problems.values())

    def _find(self) -> list[Domain]:
        found = []
        for name in files.names(self._directory, r"intel-rapl:\d+"):  # AMD's have this name too
            place = self._directory / name
            if package := PACKAGE.fullmatch(files.text(place / "name")):
                limit = files.number(place / "max_energy_range_uj")
                found.append(Domain(package[1], place / "energy_uj", limit))
        if not found:
            raise ProbeError(
                f"no package domain under {self._directory}: load intel_rapl_msr, or set "
                "power_meters = false"
            )
        return found

    def _count(self, domain: Domain) -> None:
        """Add what the domain used since the last look. Starts anew after too long a gap."""
        now, boot = files.number(domain.path), self._clock.boot()
        last, gap = domain.last, boot - domain.boot
        domain.last, domain.boot = now, boot
        if last is None:
            return
        if gap * MOST_WATTS >= domain.range / MICRO:
            domain.joules = 0.0
            raise ProbeError(
                f"{domain.path}: not read for {gap:.0f} s, and its range of "
                f"{domain.range / MICRO:.0f} J may have wrapped twice: the counter starts anew"
            )
        if now == last and gap >= STILL:
            raise ProbeError(
                f"{domain.path}: read {now} again after {gap:.1f} s: it stands still, and no "
                "package uses nothing"
            )
        domain.joules += unwrapped(last, now, domain.range) / MICRO


def unwrapped(last: int, now: int, limit: int) -> int:
    """Microjoules from *last* to *now* on a counter that wraps at *limit*."""
    return now - last if now >= last else now + limit - last
