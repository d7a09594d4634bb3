"""Heat, power and busy shares, read together and held together. Reads, never loads or waits.

The probes of the daemon read the sensors here too: packages by their rules, energy unwrapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.errors import DvfdError
from dvfd.probes import files, temperature
from dvfd.probes.cpu import processor_times
from dvfd.probes.power import Power
from dvfd.probes.temperature import Temperature

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dvfd.drills.drill import Task
    from dvfd.model import Probe
    from dvfd.probes.cpu import Ticks

ENERGY = "cpu_package_energy_joules_total"
HEAT = "cpu_temperature_celsius"
THROTTLES = "cpu_throttles_total"

EVERY = 5.0
"""Seconds between readings: half of what the shortest range of RAPL allows (probes/power.py)."""


JITTER = 0.02
"""Share of a minute that a reading may come early: a tick takes milliseconds to arrive."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What sensors said at one moment, by package; and each processor's times."""

    at: float
    boot: float
    joules: Mapping[str, float]
    celsius: Mapping[str, float]
    throttles: Mapping[str, float]
    ticks: Mapping[int, Ticks]


class Gauges:
    """Of one node. `power` and `heat` say what the last reading lacked, empty if nothing."""

    def __init__(self, task: Task) -> None:
        profile = task.config.profile
        self.power = self.heat = ""
        self.packages = len(set(temperature.packages(task.sys).values()))
        self.critical = temperature.criticals(task.sys)
        self._task = task
        self._power = Power(clock=task.clock, expected=profile.power_meters, sys=task.sys)
        self._heat = Temperature(expected=profile.temperature_sensors, sys=task.sys)

    @property
    def uncounted(self) -> str:
        """Why there are no counts of throttling, if there are none."""
        return self._heat.gaps.get(THROTTLES, "") or self.heat

    def read(self) -> Reading:
        """Raises ProbeError if /proc/stat cannot be read; sensors that cannot are left out."""
        at, boot = self._task.clock.now(), self._task.clock.boot()
        powers, self.power = _look(self._power, at)
        heats, self.heat = _look(self._heat, at)
        return Reading(
            at,
            boot,
            powers.get(ENERGY, {}),
            heats.get(HEAT, {}),
            heats.get(THROTTLES, {}),
            processor_times(files.text(self._task.proc / "stat")),
        )


def _look(probe: Probe, at: float) -> tuple[dict[str, dict[str, float]], str]:
    """What a probe sees, by metric and package, and what it complains of."""
    found: dict[str, dict[str, float]] = {}
    try:
        for sample in probe.sample(at):
            found.setdefault(sample.metric, {})[dict(sample.labels)["package"]] = sample.value
    except DvfdError as error:
        return found, str(error)
    return found, ""


@dataclass(frozen=True, slots=True)
class Span:
    """Readings from one moment to another, at least two."""

    readings: Sequence[Reading]

    @property
    def at(self) -> float:
        """When it ended."""
        return self.readings[-1].at

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.readings[-1].boot - self.readings[0].boot

    def watts(self, package: str) -> float | None:
        """Mean power; None where a reading is missing, for the counter may have begun anew."""
        joules = [r.joules.get(package) for r in self.readings]
        known = [j for j in joules if j is not None]
        if len(known) < len(joules) or known[-1] < known[0]:
            return None
        return (known[-1] - known[0]) / self.seconds

    def busy(self) -> float:
        """Of all processors together. What the host took away counts: somebody wanted it."""
        before, after = self.readings[0].ticks, self.readings[-1].ticks
        total = sum(after[cpu].total - before[cpu].total for cpu in _in_both(before, after))
        idle = sum(after[cpu].idle - before[cpu].idle for cpu in _in_both(before, after))
        return 1 - idle / total if total > 0 else 1.0

    def loaded(self, processors: Collection[int]) -> float:
        """Of *processors* together, what really ran: nothing of what the host took away."""
        before, after = self.readings[0].ticks, self.readings[-1].ticks
        both = [cpu for cpu in _in_both(before, after) if cpu in processors]
        total = sum(after[cpu].total - before[cpu].total for cpu in both)
        ran = total - sum(
            after[cpu].idle + after[cpu].stolen - before[cpu].idle - before[cpu].stolen
            for cpu in both
        )
        # Of those that went offline nothing ran: the share is of all.
        return ran / total * len(both) / len(processors) if total > 0 else 0.0


def _in_both(before: Mapping[int, Ticks], after: Mapping[int, Ticks]) -> list[int]:
    return [cpu for cpu in after if cpu in before]


def minutes(readings: Sequence[Reading], length: float) -> list[Span]:
    """Whole spans of *length* seconds one after the other; what is left at the end is none."""
    spans = []
    first = 0
    for number, reading in enumerate(readings):
        if reading.boot - readings[first].boot >= length * (1 - JITTER):
            spans.append(Span(readings[first : number + 1]))
            first = number
    return spans


def packages(readings: Iterable[Mapping[str, float]]) -> list[str]:
    """Every package that was seen at least once."""
    return sorted({package for reading in readings for package in reading})
