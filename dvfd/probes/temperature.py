"""How hot the processor packages are, and how often heat slowed them. Not boards, not disks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import NotApplicable, ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Iterator

MILLI = 1000.0
"""sysfs gives thousandths of a degree: Documentation/hwmon/sysfs-interface."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A file with a package's temperature or throttle count."""

    package: str
    path: str


class Temperature:
    """cpu_temperature_celsius and cpu_throttles_total, for each package.

    `gaps` says why there are no throttle counts: only Intel's have a counter in sysfs.
    """

    name = "temperature"
    metrics = ("cpu_temperature_celsius", "cpu_throttles_total")
    deadline = 0.0

    def __init__(
        self, *, expected: bool = True, sys: Path = Path("/sys"), interval: float = 5.0
    ) -> None:
        self.interval = interval
        self.gaps: dict[str, str] = {}
        self._expected = expected
        self._sys = sys
        self._sensors: list[Sensor] = []
        self._counters: list[Sensor] | None = None

    def sample(self, at: float) -> Iterator[Sample]:
        """Raises NotApplicable by the profile, ProbeError if sensors are missing or broken."""
        if not self._expected:
            raise NotApplicable("the profile says that this node has no temperature sensors")
        self._find()
        problems: list[str] = []
        for sensor in self._counters or ():
            if (count := self._read(sensor, problems)) is not None:
                yield Sample("cpu_throttles_total", count, at, labels(package=sensor.package))
        for sensor in self._sensors:
            if (heat := self._read(sensor, problems)) is not None:
                package = labels(package=sensor.package)
                yield Sample("cpu_temperature_celsius", heat / MILLI, at, package)
        if not self._sensors:
            problems.append(self._none())
        if problems and self._sensors:  # something moved: look for all of it again
            self._sensors, self._counters = [], None
        files.raise_all(problems)

    def _find(self) -> None:
        """Look for sensors until there are some; again after one could not be read."""
        if not self._sensors:
            self._sensors = hwmon(self._sys) or zones(self._sys)
        if self._counters is None:  # once: it takes milliseconds with hundreds of processors
            self._counters = throttles(self._sys)
            where = f"{self._sys}/devices/system/cpu/cpu*/thermal_throttle"
            why = f"{where} is absent: only Intel processors count throttling there"
            self.gaps = {} if self._counters else {"cpu_throttles_total": why}

    def _read(self, sensor: Sensor, problems: list[str]) -> int | None:
        try:
            return files.number(sensor.path)
        except ProbeError as error:
            problems.append(str(error))
            return None

    def _none(self) -> str:
        there = [
            files.text_or(self._sys / "class/hwmon" / name / "name", "?")
            for name in files.names(self._sys / "class/hwmon")
        ]
        found = ", ".join(there) or "nothing"
        return (
            f"no package temperature sensor under {self._sys}/class/hwmon: found {found}, wanted "
            "coretemp or k10temp: load the module, or set temperature_sensors = false"
        )


def hwmon(sys: Path) -> list[Sensor]:
    """Package sensors of coretemp (Intel) and k10temp (AMD)."""
    directory = sys / "class/hwmon"
    drivers = {name: files.text_or(directory / name / "name") for name in files.names(directory)}
    intel = [directory / name for name, driver in drivers.items() if driver == "coretemp"]
    amd = [directory / name for name, driver in drivers.items() if driver == "k10temp"]
    return [sensor for place in intel for sensor in _coretemp(place)] + _k10temp(amd)


def _coretemp(place: Path) -> Iterator[Sensor]:
    """`Package id N` is the hottest of package N; the cores' own are left out."""
    for label, path in _labelled(place).items():
        if label.startswith("Package id "):
            yield Sensor(label.removeprefix("Package id "), path)


def _k10temp(places: list[Path]) -> list[Sensor]:
    """Tdie where there is one; else Tctl, which may carry an offset (hwmon/k10temp).

    The driver does not say which package a device is: they are numbered in order of PCI address.
    """
    sensors = []
    for number, place in enumerate(sorted(places, key=_address)):
        found = _labelled(place)
        if path := found.get("Tdie") or found.get("Tctl"):
            sensors.append(Sensor(str(number), path))
    return sensors


def _address(place: Path) -> tuple[str, str]:
    return Path(os.path.realpath(place / "device")).name, place.name


def _labelled(place: Path) -> dict[str, str]:
    """The input file of each labelled temperature of a device."""
    return {
        files.text_or(place / name): str(place / name.replace("_label", "_input"))
        for name in files.names(place, r"temp\d+_label")
    }


def criticals(sys: Path) -> dict[str, float]:
    """Degrees at which a package shuts itself down or is stopped, where its driver tells."""
    found = {}
    for sensor in hwmon(sys):
        limit = files.text_or(sensor.path.removesuffix("_input") + "_crit")
        if limit.isdigit():
            found[sensor.package] = int(limit) / MILLI
    return found


def zones(sys: Path) -> list[Sensor]:
    """The thermal zones of packages, where coretemp is not loaded; numbered as they appear."""
    directory = sys / "class/thermal"
    every = files.names(directory, r"thermal_zone\d+")
    packages = [z for z in every if files.text_or(directory / z / "type") == "x86_pkg_temp"]
    return [Sensor(str(n), str(directory / zone / "temp")) for n, zone in enumerate(packages)]


def throttles(sys: Path) -> list[Sensor]:
    """One throttle counter for each package: every processor of a package has the same."""
    found: dict[str, Sensor] = {}
    for cpu, package in packages(sys).items():
        counter = sys / "devices/system/cpu" / cpu / "thermal_throttle/package_throttle_count"
        if package not in found and counter.exists():
            found[package] = Sensor(package, str(counter))
    return list(found.values())


def packages(sys: Path) -> dict[str, str]:
    """The package of each online processor: `{"cpu0": "0"}`."""
    directory = sys / "devices/system/cpu"
    places = {
        cpu: files.text_or(directory / cpu / "topology/physical_package_id")
        for cpu in files.names(directory, r"cpu\d+")
    }
    return {cpu: package for cpu, package in places.items() if package}
