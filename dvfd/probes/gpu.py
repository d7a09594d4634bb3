"""GPUs through NVML: the only importer of pynvml, and only once there should be a GPU.

The probe speaks to NVML through the `Nvml` protocol; `Pynvml` is the real thing. Everything here
may block on a wedged driver, so the probe has a deadline.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dvfd.errors import NotApplicable, ProbeError
from dvfd.model import Sample, labels
from dvfd.probes import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NVIDIA = "0x10de"
"""NVIDIA's PCI vendor number."""

DISPLAY = "0x03"
"""PCI base class of display controllers, which GPUs for computing belong to as well."""

APPLICATIONS_OWN = frozenset({13, 31, 43, 45, 68})
"""Xids that a faulty program raises on a sound GPU: NVIDIA's k8s-device-plugin ignores these in
internal/rm/health.go. It ignores 109 too, for which NVIDIA's Xid catalogue wants a reset of the
GPU (k8s-device-plugin #1974): critical here, like every Xid that is not known to be harmless."""

SLOWED = 0x08 | 0x20 | 0x40 | 0x80
"""nvmlClocksEventReason HwSlowdown, SwThermalSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown.
Not idle, not the power cap, not clocks that somebody set."""

NOT_AVAILABLE = frozenset({2**32 - 1, 2**31 - 1, 2**64 - 1})
"""Values that stand for none: NVML_VALUE_NOT_AVAILABLE, and INT_MAX of a temperature."""

EVENTS = 64
"""Xid events taken in one pass: a storm of them must not hold the probe."""

PERCENT, MILLI = 100.0, 1000.0
"""NVML gives utilisation in per cent and energy in millijoules."""


class Fault(StrEnum):
    """What NVML's refusals mean to us."""

    NOT_SUPPORTED = "not supported"
    LOST = "the GPU is lost"
    NO_PERMISSION = "permission denied"
    NO_DRIVER = "the driver is not loaded"
    NO_LIBRARY = "libnvidia-ml.so.1 is not there"
    GONE = "NVML has to start again"
    OTHER = "NVML error"


FAULTS = {
    1: Fault.GONE,  # NVML_ERROR_UNINITIALIZED
    3: Fault.NOT_SUPPORTED,
    4: Fault.NO_PERMISSION,
    9: Fault.NO_DRIVER,
    12: Fault.NO_LIBRARY,
    13: Fault.NOT_SUPPORTED,  # NVML_ERROR_FUNCTION_NOT_FOUND: an older driver
    15: Fault.LOST,  # NVML_ERROR_GPU_IS_LOST
    28: Fault.LOST,  # NVML_ERROR_GPU_NOT_FOUND
}
"""NVML_ERROR_* of nvml.h."""


class NvmlError(Exception):
    """A refusal by NVML: what it means, and its own words."""

    def __init__(self, fault: Fault, words: str = "") -> None:
        self.fault = fault
        super().__init__(words or fault.value)


class Nvml(Protocol):
    """What we ask of NVML. Every method may raise NvmlError; a handle is anything."""

    def start(self) -> None:
        """Load the library and connect to the driver."""
        ...

    def stop(self) -> None:
        """Let go of the driver."""
        ...

    def count(self) -> int:
        """GPUs that the driver shows to us, lost ones too."""
        ...

    def handle(self, index: int) -> Any:
        """The GPU's handle: to be asked for again at every pass."""
        ...

    def utilisation(self, handle: Any) -> int:
        """Per cent of time in which a kernel ran."""
        ...

    def temperature(self, handle: Any) -> int:
        """Degrees Celsius of the core."""
        ...

    def memory(self, handle: Any) -> tuple[int, int]:
        """(used, total) bytes."""
        ...

    def energy(self, handle: Any) -> int:
        """Millijoules since the driver loaded."""
        ...

    def uncorrected(self, handle: Any) -> int:
        """Uncorrected ECC errors since the driver loaded."""
        ...

    def slowdowns(self, handle: Any) -> int:
        """nvmlClocksEventReason bits."""
        ...

    def listen(self, handle: Any) -> None:
        """Ask for the GPU's Xid events."""
        ...

    def events(self) -> Iterable[tuple[int, int]]:
        """(GPU index, Xid) of events since the last call; does not wait."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric of one GPU and how to get it, in base units."""

    metric: str
    read: Callable[[Nvml, Any], float]


READINGS = (
    Reading("gpu_utilization_ratio", lambda n, h: available(n.utilisation(h)) / PERCENT),
    Reading("gpu_temperature_celsius", lambda n, h: available(n.temperature(h))),
    Reading("gpu_memory_used_ratio", lambda n, h: full(*n.memory(h))),
    Reading("gpu_energy_joules_total", lambda n, h: available(n.energy(h)) / MILLI),
    Reading("gpu_ecc_uncorrected_total", lambda n, h: available(n.uncorrected(h))),
    Reading("gpu_throttled", lambda n, h: float(bool(available(n.slowdowns(h)) & SLOWED))),
)


class Gpu:
    """All metrics of the GPUs. Holds a connection to the driver, made anew when it breaks.

    `gaps` names the metrics that a GPU does not support, and the reason.
    """

    name = "gpu"
    metrics = ("gpu_missing", *(reading.metric for reading in READINGS), "gpu_xid_total")

    def __init__(
        self,
        *,
        accelerator: str,
        expected: int,
        nvml: Nvml | None = None,
        sys: Path = Path("/sys"),
        interval: float = 5.0,
        deadline: float = 5.0,
    ) -> None:
        self.interval = interval
        self.deadline = deadline
        self.gaps: dict[str, str] = {}
        self._accelerator = accelerator
        self._expected = expected
        self._nvml: Nvml = nvml or Pynvml()
        self._sys = sys
        self._pci: int | None = None
        self._started = False
        self._listening: set[int] = set()
        self._xids: Counter[int] = Counter()

    def sample(self, at: float) -> Iterator[Sample]:
        """Raises NotApplicable on a CPU node without GPUs, ProbeError for what is broken."""
        if self._accelerator != "gpu":
            raise self._not_wanted()
        self._start()
        look = _Look(at)
        try:
            self._look(look)
        except NvmlError as error:
            self._drop()
            look.problems.append(f"NVML: {error}: connecting anew")
        self.gaps = look.gaps
        yield from look.samples
        files.raise_all(look.problems)

    def _not_wanted(self) -> NotApplicable | ProbeError:
        """A CPU profile on a machine with NVIDIA GPUs is a mistake, not a reason to look away."""
        if self._pci is None:
            self._pci = pci_gpus(self._sys)
        if not self._pci:
            return NotApplicable("the profile says that this node computes on CPUs")
        return ProbeError(
            f"the profile says cpu, but PCI shows {self._pci} NVIDIA GPUs: "
            'set accelerator = "gpu" and gpus'
        )

    def _start(self) -> None:
        if self._started:
            return
        try:
            self._nvml.start()
        except NvmlError as error:
            raise ProbeError(f"NVML: {error}{self._advice(error.fault)}") from None
        self._started = True

    def _drop(self) -> None:
        """Give the connection up: the next pass makes a new one."""
        self._started = False
        self._listening.clear()
        with contextlib.suppress(NvmlError):
            self._nvml.stop()

    def _look(self, look: _Look) -> None:
        """All GPUs once. Raises NvmlError if the connection as a whole is gone."""
        count = self._nvml.count()
        seen = [index for index in range(count) if self._device(index, look)]
        self._missing(count, look)
        if not count and (there := pci_gpus(self._sys)):
            hidden = f"NVML shows no GPU, but PCI shows {there}"
            look.problems.append(hidden + self._advice(Fault.NO_PERMISSION))
        # Last, since it fails as a whole once a GPU that was listened to is lost.
        for index, xid in self._nvml.events():
            self._xids[index] += xid not in APPLICATIONS_OWN
        for index in self._listening.intersection(seen):
            look.add("gpu_xid_total", self._xids[index], index)

    def _device(self, index: int, look: _Look) -> bool:
        """Whether the GPU answered; a lost one leaves no samples."""
        before = len(look.samples)
        try:
            handle = self._nvml.handle(index)
            for reading in READINGS:
                self._reading(reading, handle, index, look)
            self._listen(handle, index, look)
        except NvmlError as error:
            if error.fault is Fault.GONE:
                raise
            del look.samples[before:]
            look.lost += error.fault is Fault.LOST
            look.problems.append(f"GPU {index}: {error}{self._advice(error.fault)}")
            return False
        return True

    def _reading(self, reading: Reading, handle: Any, index: int, look: _Look) -> None:
        try:
            look.add(reading.metric, reading.read(self._nvml, handle), index)
        except NvmlError as error:
            if error.fault in {Fault.LOST, Fault.GONE}:
                raise
            look.refuse(reading.metric, index, error)

    def _listen(self, handle: Any, index: int, look: _Look) -> None:
        if index in self._listening:
            return
        try:
            self._nvml.listen(handle)
            self._listening.add(index)
        except NvmlError as error:
            if error.fault in {Fault.LOST, Fault.GONE}:
                raise
            look.refuse("gpu_xid_total", index, error)

    def _missing(self, count: int, look: _Look) -> None:
        """Without an expectation in the profile only lost ones are known to be missing."""
        missing = max(look.lost, self._expected - count + look.lost)
        if self._expected or missing:
            look.samples.append(Sample("gpu_missing", missing, look.at))
        else:
            why = f"NVML shows {count}, but profile.gpus does not say how many there should be"
            look.gaps["gpu_missing"] = why

    def _advice(self, fault: Fault) -> str:
        if fault is Fault.NO_PERMISSION:
            return ": the unit needs DeviceAllow=char-nvidia* rw and PrivateDevices=no"
        if fault in {Fault.NO_DRIVER, Fault.NO_LIBRARY}:
            there = pci_gpus(self._sys)
            return f": PCI shows {there} NVIDIA GPUs: install or load NVIDIA's driver"
        return ""


@dataclass(slots=True)
class _Look:
    """What one pass over the GPUs brought."""

    at: float
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    gaps: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    def add(self, metric: str, value: float, index: int) -> None:
        """A GPU's value."""
        self.samples.append(Sample(metric, value, self.at, labels(gpu=index)))

    def refuse(self, metric: str, index: int, error: NvmlError) -> None:
        """A GPU's refusal: a gap if it cannot, a problem if it will not."""
        if error.fault is not Fault.NOT_SUPPORTED:
            self.problems.append(f"GPU {index}: {metric}: {error}")
        elif metric in self.gaps:
            self.gaps[metric] += f"; GPU {index}: {error}"
        else:
            self.gaps[metric] = f"GPU {index}: {error}"


def available(value: int) -> int:
    """*value*, unless it stands for none. Raises NvmlError."""
    if value in NOT_AVAILABLE:
        raise NvmlError(Fault.OTHER, f"read {value}, which stands for not available")
    return value


def full(used: int, total: int) -> float:
    """Used share of a memory. Raises NvmlError where the GPU shares the host's."""
    if not available(total):
        raise NvmlError(Fault.NOT_SUPPORTED, "no memory of its own")
    return available(used) / total


def pci_gpus(sys: Path) -> int:
    """NVIDIA display controllers on the PCI bus, whether or not there is a driver."""
    devices = sys / "bus/pci/devices"
    return sum(
        files.text_or(devices / name / "vendor") == NVIDIA
        and files.text_or(devices / name / "class").startswith(DISPLAY)
        for name in files.names(devices)
    )


class Pynvml:
    """NVML itself, through nvidia-ml-py, which *load* imports."""

    def __init__(self, load: Callable[[], Any] | None = None) -> None:
        self._load = load or partial(importlib.import_module, "pynvml")
        self._library: Any = None
        self._events: Any = None
        self._indices: dict[int | None, int] = {}

    def start(self) -> None:
        """Import pynvml and connect. Raises NvmlError."""
        try:
            self._library = self._load()
        except ImportError as error:
            raise NvmlError(Fault.NO_LIBRARY, f"nvidia-ml-py: {error}") from None
        self._ask("nvmlInit")
        self._events, self._indices = None, {}

    def stop(self) -> None:
        """Disconnect."""
        if self._events is not None:
            events, self._events = self._events, None
            self._ask("nvmlEventSetFree", events)
        self._ask("nvmlShutdown")

    def count(self) -> int:
        """GPUs that the driver shows to us."""
        return int(self._ask("nvmlDeviceGetCount"))

    def handle(self, index: int) -> Any:
        """A pynvml device handle."""
        return self._ask("nvmlDeviceGetHandleByIndex", index)

    def utilisation(self, handle: Any) -> int:
        """Per cent."""
        return int(self._ask("nvmlDeviceGetUtilizationRates", handle).gpu)

    def temperature(self, handle: Any) -> int:
        """Degrees Celsius; sensor 0 is the core, the only one NVML has."""
        return int(self._ask("nvmlDeviceGetTemperature", handle, 0))

    def memory(self, handle: Any) -> tuple[int, int]:
        """(used, total) bytes."""
        found = self._ask("nvmlDeviceGetMemoryInfo", handle)
        return int(found.used), int(found.total)

    def energy(self, handle: Any) -> int:
        """Millijoules."""
        return int(self._ask("nvmlDeviceGetTotalEnergyConsumption", handle))

    def uncorrected(self, handle: Any) -> int:
        """Uncorrected (1) and volatile (0): since the driver loaded."""
        return int(self._ask("nvmlDeviceGetTotalEccErrors", handle, 1, 0))

    def slowdowns(self, handle: Any) -> int:
        """Bits; drivers before 535 know the call by its older name only."""
        try:
            return int(self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle))
        except NvmlError as error:
            if error.fault is not Fault.NOT_SUPPORTED:
                raise
        return int(self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle))

    def listen(self, handle: Any) -> None:
        """Register for nvmlEventTypeXidCriticalError, which brings programs' Xids as well."""
        if self._events is None:
            self._events = self._ask("nvmlEventSetCreate")
        kind = self._library.nvmlEventTypeXidCriticalError
        self._ask("nvmlDeviceRegisterEvents", handle, kind, self._events)
        self._indices[_address(handle)] = int(self._ask("nvmlDeviceGetIndex", handle))

    def events(self) -> Iterator[tuple[int, int]]:
        """What has come; EVENTS at most, the rest at the next pass."""
        if self._events is None:
            return
        for _ in range(EVENTS):
            try:
                event = self._library.nvmlEventSetWait_v2(self._events, 0)
            except self._library.NVMLError_Timeout:
                return
            except self._library.NVMLError as error:
                raise _refusal(error) from None
            yield self._indices.get(_address(event.device), -1), int(event.eventData)

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Call pynvml. Raises NvmlError."""
        try:
            return getattr(self._library, function)(*arguments)
        except self._library.NVMLError as error:
            raise _refusal(error) from None


def _address(handle: Any) -> int | None:
    """Handles are pointers into NVML's table of devices: equal ones are the same GPU."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def _refusal(error: Any) -> NvmlError:
    return NvmlError(FAULTS.get(error.value, Fault.OTHER), str(error))
