"""The frameworks that integrations are tried with, those installed here and those of 2024, and
what trainings by them reported.

The older ones lie in a directory of their own under .cache, made once by pip without their
dependencies: before the others on the path, they share the installed torch.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes_telemetry import Listener, listening
from testbed import outside

from dvfd.telemetry import wire

ROOT = Path(__file__).resolve().parents[1]

INSTALLED, OLD = "installed", "2024"
YEARS = (INSTALLED, pytest.param(OLD, marks=pytest.mark.long))

PINNED = (
    "accelerate==1.1.1",
    "huggingface_hub==0.26.2",  # transformers 4.46 and tokenizers 0.20 refuse a later major one
    "lightning==2.4.0",
    "pytorch-lightning==2.4.0",
    "tokenizers==0.20.3",
    "transformers==4.46.3",
)
"""The newest of each in November 2024."""

UNREACHABLE = ("No matching distribution", "Connection", "NewConnectionError", "timed out")
"""What pip says where the package index cannot be asked."""


def environment(year: str, **more: str) -> dict[str, str]:
    """What a subprocess needs to import the frameworks of *year* and dvfd, and no network."""
    path = [str(ROOT), *([str(old_frameworks())] if year == OLD else [])]
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVFD_", "SLURM_", "PYTHON"))}
    return {**kept, **offline, "PYTHONPATH": os.pathsep.join(reversed(path)), **more}


def old_frameworks() -> Path:
    """The directory with the frameworks of 2024."""
    return pinned(f"frameworks-{OLD}", PINNED)


def pinned(name: str, requirements: tuple[str, ...]) -> Path:
    """The directory with these alone, made if need be; no test where it cannot be."""
    tag = f"py{sys.version_info.major}.{sys.version_info.minor}"
    directory = ROOT / ".cache" / f"{name}-{tag}"
    directory.parent.mkdir(exist_ok=True)
    with (directory.parent / f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = directory / "pinned.txt"
        if not said.exists() or said.read_text(encoding="utf-8") != "\n".join(requirements):
            _install(directory, requirements)
            said.write_text("\n".join(requirements), encoding="utf-8")
    return directory


@dataclass
class Training:
    """What one of them reported."""

    hello: wire.Hello
    told: list[wire.Row | wire.Event] = field(default_factory=list)

    @property
    def rows(self) -> list[wire.Row]:
        return [found for found in self.told if isinstance(found, wire.Row)]

    @property
    def course(self) -> list[str]:
        """Steps by number and events by name, in the order of their sequence."""
        return [str(t.step) if isinstance(t, wire.Row) else t.event for t in self.told]

    def event(self, name: str) -> wire.Event:
        return next(t for t in self.told if isinstance(t, wire.Event) and t.event == name)


@dataclass
class Process:
    """What came of all of them."""

    code: int
    out: str
    err: str
    trainings: dict[str, Training]


def trained(
    script: Path, directory: Path, names: Sequence[str], environment: dict[str, str]
) -> Process:
    """Run *script*, which makes the trainings that are named, one after another in one process."""
    with listening(directory / "s") as listener:
        done = subprocess.run(
            [sys.executable, str(script), str(directory), *names],
            env={**environment, "DVFD_SOCKET": listener.path},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        found = {training.hello.job: training for training in trainings(listener)}
    return Process(done.returncode, done.stdout, done.stderr, found)


def trainings(listener: Listener) -> Iterator[Training]:
    """Each connection that waits, in order."""
    listener._socket.settimeout(0.2)
    while True:
        try:
            hello, *packets = listener.packets()
        except TimeoutError:
            return
        assert isinstance(hello, wire.Hello)
        found = Training(hello)
        for packet in packets:
            found.told += packet.rows if isinstance(packet, wire.Steps) else [packet]
        yield found
        listener.hang_up()


def _install(directory: Path, requirements: tuple[str, ...]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    done = subprocess.run(
        [*outside(), *command, "--target", str(directory), *requirements],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if done.returncode == 0:
        return
    away = any(word in done.stderr for word in UNREACHABLE)
    message = f"{directory.name} could not be fetched: {done.stderr[-500:]}"
    pytest.skip(message) if away and os.environ.get("CI") != "true" else pytest.fail(message)
