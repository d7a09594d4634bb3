"""Fakes of what probes look at: trees of /proc and /sys, NVML, and probes themselves."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dvfd.errors import DvfdError
from dvfd.model import Labels, Probe, Sample
from dvfd.probes.gpu import Fault, NvmlError

FIXTURES = Path(__file__).parent / "fixtures"


def tree(tmp_path: Path, name: str) -> Path:
    """A copy of a fixture tree that a test may change."""
    return shutil.copytree(FIXTURES / name, tmp_path / name)


def values(samples: Iterable[Sample], metric: str) -> dict[Labels, float]:
    return {s.labels: s.value for s in samples if s.metric == metric}


def measure(probe: Probe, at: float = 0.0) -> tuple[list[Sample], str]:
    """What a pass brings, and the error that it ends with."""
    kept: list[Sample] = []
    try:
        for sample in probe.sample(at):
            kept.append(sample)  # noqa: PERF402  # keeps what came before an error
    except DvfdError as error:
        return kept, str(error)
    return kept, ""


@contextlib.contextmanager
def as_nobody(name: str, *, denied: str) -> Iterator[Path]:
    """A fixture tree in which the *denied* file may not be read, even when tests run as root."""
    with tempfile.TemporaryDirectory() as place:
        root = tree(Path(place), name)
        Path(place).chmod(0o755)
        (root / denied).chmod(0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            yield root
        finally:
            os.seteuid(me)


class FakeProbe:
    """Does what its script says, one entry a pass: samples, an exception, or a call."""

    def __init__(
        self,
        *script: object,
        name: str = "fake",
        metrics: tuple[str, ...] = ("m",),
        interval: float = 5.0,
        deadline: float = 0.0,
    ) -> None:
        self.name, self.metrics = name, metrics
        self.interval, self.deadline = interval, deadline
        self.gaps: dict[str, str] = {}
        self.script = list(script)
        self.calls: list[float] = []

    def sample(self, at: float) -> Iterator[Sample]:
        self.calls.append(at)
        turn = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        for entry in turn if isinstance(turn, list) else [turn]:
            if isinstance(entry, BaseException):
                raise entry
            if isinstance(entry, Callable):
                entry()
            else:
                yield entry if isinstance(entry, Sample) else Sample("m", float(entry), at)


class FakeNvml:
    """NVML that replays: `gpus` are dicts of readings; a reading may be an NvmlError to raise."""

    def __init__(self, *gpus: dict[str, object] | NvmlError, start: NvmlError | None = None):
        self.gpus = list(gpus)
        self.broken = start
        self.pending: list[tuple[int, int] | NvmlError] = []
        self.starts = 0
        self.stops = 0

    def start(self) -> None:
        self.starts += 1
        if self.broken:
            raise self.broken

    def stop(self) -> None:
        self.stops += 1

    def count(self) -> int:
        return len(self.gpus)

    def handle(self, index: int) -> dict[str, object]:
        gpu = self.gpus[index]
        if isinstance(gpu, NvmlError):
            raise gpu
        return gpu

    def utilisation(self, handle):
        return _replay(handle, "utilisation")

    def temperature(self, handle):
        return _replay(handle, "temperature")

    def memory(self, handle):
        return _replay(handle, "memory")

    def energy(self, handle):
        return _replay(handle, "energy")

    def uncorrected(self, handle):
        return _replay(handle, "uncorrected")

    def slowdowns(self, handle):
        return _replay(handle, "slowdowns")

    def listen(self, handle):
        _replay(handle, "listen")

    def events(self):
        found, self.pending = self.pending, []
        for event in found:
            if isinstance(event, NvmlError):
                raise event
            yield event


# Values as nvidia-smi shows them on an idle H100 80GB.
H100 = {
    "utilisation": 87,
    "temperature": 61,
    "memory": (40 * 2**30, 80 * 2**30),
    "energy": 123_456_789,
    "uncorrected": 0,
    "slowdowns": 0,
    "listen": None,
}
LOST = NvmlError(Fault.LOST, "GPU is lost")
UNSUPPORTED = NvmlError(Fault.NOT_SUPPORTED, "Not Supported")


def _replay(handle: dict[str, object], name: str) -> object:
    value = handle[name]
    if isinstance(value, NvmlError):
        raise value
    return value
