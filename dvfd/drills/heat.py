"""Item 4: what a package draws while the node does nothing, and how it bears full load.

Both parts take minutes, and neither runs beside a training job.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dvfd.drills import gauges, load, processors
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.gauges import Gauges, Reading, Span, minutes, packages
from dvfd.drills.trend import slope
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dvfd.drills.drill import Task

    Found = Sample | Remark | Trouble | Fact

POWER = "hardware_power_joules_per_second"
TEMPERATURE = "hardware_stress_temperature_celsius"
SLOPE = "hardware_stress_slope_celsius_per_second"
THROTTLES = "hardware_stress_throttles"

MINUTE = 60.0
"""Seconds over which power is averaged: readings, 22."""

IDLE = 0.05
"""Busy share below which the node is idle, part of the metric: its own services take 1 or 2 %."""

LOADED = 0.95
"""Share of the chosen processors' time that the load must have got, part of the metric."""

STRESS = 600.0
"""Seconds of full load; its last half counts as steady: procedures, 1."""

MARGIN = 3.0
"""Degrees below a package's critical temperature at which the stress is given up."""

DEGREE = 1.0
"""What sensors round to: coretemp to whole degrees, k10temp to eighths."""

SEEN = 0.9
"""Share of the steady readings that a package's sensor must have given, the last among them."""


class TooHot(Exception):
    """A package is about to reach its critical temperature; the message says which."""


def left_alone(task: Task) -> str:
    """Why nothing is to be disturbed or waited for, or nothing."""
    if not task.options.soak:
        return "left out: --no-soak"
    if task.training and not task.options.force:
        return f"a training job runs: {task.training}; --force runs it all the same"
    return ""


class Idle:
    """hardware_power_joules_per_second{load="idle"}, of minutes in which the node was idle."""

    name = "idle power"
    metrics = (POWER,)

    def __init__(
        self,
        *,
        wanted: int = 3,
        tries: int = 10,
        minute: float = MINUTE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wanted = wanted
        self._tries = tries
        self._minute = minute
        self._sleep = sleep

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError if /proc/stat cannot be read."""
        where = labels(load="idle")
        if why := left_alone(task):
            yield Trouble(POWER, why, where)
            return
        meters = Gauges(task)
        if not meters.read().joules:
            yield Trouble(POWER, meters.power, where)
            return
        spans: list[Span] = []
        shares: list[float] = []
        while len(spans) < self._wanted and len(shares) < self._tries:
            span = self._look(task, meters)
            shares.append(span.busy())
            task.say(f"idle power: minute {len(shares)}: {shares[-1]:.1%} busy")
            if shares[-1] < IDLE:
                spans.append(span)
        if spans:
            yield from _power(spans, "idle", meters)
            yield Remark(POWER, f"{len(spans)} of {len(shares)} minutes were idle", where)
        else:
            yield Trouble(POWER, _restless(shares), where)

    def _look(self, task: Task, meters: Gauges) -> Span:
        """One minute's readings."""
        readings = [meters.read()]
        while (left := readings[0].boot + self._minute - task.clock.boot()) > 0:
            self._sleep(min(gauges.EVERY, left))
            readings.append(meters.read())
        return Span(readings)


def _restless(shares: Sequence[float]) -> str:
    return (
        f"not idle: {min(shares):.0%} busy in the quietest of {len(shares)} minutes, wanted under "
        f"{IDLE:.0%}: stop what runs (top shows it)"
    )


class Stress:
    """Power, temperature, its slope and throttling of each package under full load."""

    name = "stress"
    metrics = (POWER, TEMPERATURE, SLOPE, THROTTLES)

    def __init__(
        self, *, seconds: float = STRESS, minute: float = MINUTE, every: float = gauges.EVERY
    ) -> None:
        self._seconds = seconds
        self._minute = minute
        self._every = every

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ToolError if the load cannot be held, ProbeError if /proc/stat is not there."""
        if why := left_alone(task):
            yield from _nothing(why, why)
            return
        meters = Gauges(task)
        before = meters.read()
        if not before.joules and not before.celsius:
            yield from _nothing(meters.power, meters.heat)
            return
        chosen = processors.allotted(task)
        watch = Watch(task, meters, chosen, self._minute)
        stopped = ""
        try:
            load.hold(task, chosen, self._seconds, self._every, watch.look)
        except TooHot as heat:
            stopped = f"stopped after {watch.seconds:.0f} of {self._seconds:.0f} s: {heat}"
        what = load.words(task)
        where = processors.listed(chosen)
        yield Fact("load", f"processors {where} for {watch.seconds:.0f} s: {what}")
        spans = minutes(watch.readings, self._minute)
        shares = [span.loaded(chosen) for span in spans]
        if shares and min(shares) < LOADED:
            why = _unloaded(shares)
            yield from _nothing(why, why)
            return
        yield from _power(spans, "stress", meters, stopped)
        yield from _heat(watch, before, self._seconds, stopped)


def _nothing(power: str, heat: str) -> Iterator[Trouble]:
    yield Trouble(POWER, power, labels(load="stress"))
    for metric in (TEMPERATURE, SLOPE, THROTTLES):
        yield Trouble(metric, heat)


def _unloaded(shares: Sequence[float]) -> str:
    return (
        f"the load reached {min(shares):.0%} of the processors only, in minute "
        f"{shares.index(min(shares)) + 1}, wanted {LOADED:.0%}: a quota, or a host that gives less"
    )


class Watch:
    """Takes a reading at every tick, tells a person each minute, and stops before it is too hot."""

    def __init__(self, task: Task, meters: Gauges, chosen: frozenset[int], minute: float) -> None:
        self.meters = meters
        self.readings: list[Reading] = []
        self._task = task
        self._chosen = chosen
        self._minute = minute
        self._told = 0

    @property
    def seconds(self) -> float:
        """How long the load has been watched."""
        return self.readings[-1].boot - self.readings[0].boot if self.readings else 0.0

    def look(self) -> None:
        """Raises TooHot."""
        self.readings.append(self.meters.read())
        self._tell()
        for package, celsius in self.readings[-1].celsius.items():
            critical = self.meters.critical.get(package)
            if critical is not None and celsius >= critical - MARGIN:
                raise TooHot(
                    f"package {package} reached {celsius:g} C, its critical temperature is "
                    f"{critical:g} C: look after its cooling"
                )

    def _tell(self) -> None:
        spans = minutes(self.readings, self._minute)
        if len(spans) > self._told:
            self._told = len(spans)
            share = spans[-1].loaded(self._chosen)
            self._task.say(f"stress: minute {len(spans)}: {share:.0%} loaded{_seen(spans[-1])}")


def _seen(span: Span) -> str:
    """`, package 0 212 W 64 C`."""
    heat = span.readings[-1].celsius
    return "".join(
        f", package {package}"
        + (f" {watts:.0f} W" if (watts := span.watts(package)) is not None else "")
        + (f" {heat[package]:.0f} C" if package in heat else "")
        for package in packages([span.readings[-1].joules, heat])
    )


# --- Figures ------------------------------------------------------------------------------------


def _power(
    spans: Sequence[Span], what: str, meters: Gauges, stopped: str = ""
) -> Iterator[Sample | Trouble]:
    """One sample for each package and minute; what is missing is told."""
    seen = packages(r.joules for span in spans for r in span.readings)
    for package in seen:
        where = labels(package=package, load=what)
        for span in spans:
            if (watts := span.watts(package)) is not None:
                yield Sample(POWER, watts, span.at, where, span=span.seconds)
            else:
                why = meters.power or "its meter gave no answer for a while"
                yield Trouble(POWER, f"package {package}: a minute is missing: {why}", where)
    short = stopped or meters.power or _fewer(seen, meters, "power meters")
    if short or not spans:
        yield Trouble(POWER, short or "not one whole minute", labels(load=what))


def _fewer(seen: Sequence[str], meters: Gauges, what: str) -> str:
    if len(seen) >= meters.packages:
        return ""
    return f"{what} of {len(seen)} packages only, and this node has {meters.packages}"


def _heat(watch: Watch, before: Reading, seconds: float, stopped: str) -> Iterator[Found]:
    """Temperature, slope and throttles, of the last half; before it was too hot, what is sure."""
    if stopped:
        yield from _broken_off(watch, stopped)
    else:
        yield from _settled(watch, seconds)
    yield from _throttles(watch, before, stopped)


def _broken_off(watch: Watch, stopped: str) -> Iterator[Found]:
    """The last reading of each package: where it would have settled is not cooler."""
    last = watch.readings[-1]
    for package, celsius in last.celsius.items():
        yield Sample(TEMPERATURE, celsius, last.at, labels(package=package))
    yield Remark(TEMPERATURE, stopped)
    for metric in (TEMPERATURE, SLOPE):
        yield Trouble(metric, stopped)


def _settled(watch: Watch, seconds: float) -> Iterator[Sample | Trouble]:
    start = watch.readings[0].boot if watch.readings else 0.0
    steady = [r for r in watch.readings if r.boot >= start + seconds / 2]
    seen = packages(r.celsius for r in watch.readings)
    for package in seen:
        yield from _package(package, steady, watch.meters)
    short = watch.meters.heat or _fewer(seen, watch.meters, "temperature sensors")
    if short or not steady:
        for metric in (TEMPERATURE, SLOPE):
            yield Trouble(metric, short or "not one reading")


def _package(package: str, steady: Sequence[Reading], meters: Gauges) -> Iterator[Sample | Trouble]:
    """Every steady reading of a package, and their slope."""
    where = labels(package=package)
    given = [r for r in steady if package in r.celsius]
    for reading in given:
        yield Sample(TEMPERATURE, reading.celsius[package], reading.at, where)
    if len(given) < SEEN * len(steady) or package not in steady[-1].celsius:
        why = f"package {package}: {len(given)} of {len(steady)} readings: {meters.heat}"
        yield Trouble(TEMPERATURE, why, where)
        yield Trouble(SLOPE, why, where)
        return
    times, values = [r.boot for r in given], [r.celsius[package] for r in given]
    if rise := slope(times, values, step=DEGREE):
        yield Sample(SLOPE, rise.value, given[-1].at, where, low=rise.low, high=rise.high)
    else:
        yield Trouble(SLOPE, f"package {package}: {len(given)} readings are too few", where)


def _throttles(watch: Watch, before: Reading, stopped: str) -> Iterator[Sample | Trouble]:
    """How much each package's counter grew, up to where the stress was broken off."""
    last = watch.readings[-1] if watch.readings else before
    for package, count in before.throttles.items():
        where = labels(package=package)
        grown = last.throttles.get(package, -1.0) - count
        if grown < 0:
            why = watch.meters.heat or "it fell"
            yield Trouble(THROTTLES, f"package {package}: its counter is lost: {why}", where)
        else:
            yield Sample(THROTTLES, grown, last.at, where)
    short = _fewer(list(before.throttles), watch.meters, "throttle counters")
    if why := stopped or (not before.throttles and watch.meters.uncounted) or short:
        yield Trouble(THROTTLES, why)
