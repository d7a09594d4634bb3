"""Record /metrics of real daemons into bench/expositions, for bench.player to play.

`python -m bench.recording` makes them all anew in five minutes; names after it make only those.
Each is two scrapes of one daemon, 15 s apart, so that the player knows what moves and how fast:

    cpu-4    four ranks on processors, all well
    gpu-8    eight ranks on eight GPUs, all well; there is no GPU here: NVML is a fake that replays
             an H100's readings
    failing  cpu-4 after one rank was killed
    blind    cpu-4 whose temperature sensors and power meters, which it should have, cannot be read
"""

from __future__ import annotations

import gzip
import importlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import node as nodes
from bench.harness import testbed
from bench.simulated import simulated

PLACE = Path(__file__).resolve().parent / "expositions"

APART = 15.0
"""Seconds between the two scrapes of a recording: a usual scrape interval."""

SETTLE = 45.0
"""Seconds of the job before the first scrape: a validation and four checkpoints have come."""

SCRAPED = "# scraped at "
"""Begins the line before each scrape; its Unix time follows."""

CONFIG = """
[node]
name = "recorded"
[http]
port = 0
[[logs]]
name = "training"
path = "{log}"
[profile]
expected_throughput = {throughput}
"""

SENSORLESS = "temperature_sensors = false\npower_meters = false\n"
"""What is true of a virtual machine: there are none."""

ON_GPUS = 'accelerator = "gpu"\nbackend = "nccl"\ngpus = 8\nprocesses_per_node = 8\n'


@dataclass(frozen=True, slots=True)
class Scene:
    """What is recorded."""

    ranks: int = 4
    profile: str = SENSORLESS
    gpus: int = 0
    kill: int | None = None


SCENES = {
    "cpu-4": Scene(),
    "gpu-8": Scene(ranks=8, gpus=8, profile=SENSORLESS + ON_GPUS),
    "failing": Scene(kill=3),
    "blind": Scene(profile=""),
}


def main() -> None:
    """Record the scenes named, or all."""
    if sys.argv[1:2] == ["--daemon-with-gpus"]:
        daemon_with_gpus(int(sys.argv[2]))
        return
    PLACE.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SCENES:
        with tempfile.TemporaryDirectory() as place:
            text = record(Path(place), SCENES[name])
        path = PLACE / f"{name}.txt.gz"
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
        print(f"{path.name}: {path.stat().st_size} bytes")


def record(place: Path, scene: Scene) -> str:
    """Two scrapes of a daemon with a job beside it."""
    checkpoint = _checkpoint(place / "model.pt")
    with _daemon(place, scene) as daemon:
        job = simulated(daemon, "train", ranks=scene.ranks, checkpoint=str(checkpoint))
        with job as ranks:
            for checklist in ("daily", "weekly", "monthly"):
                daemon.ask("check", check=checklist)
            time.sleep(SETTLE)
            if scene.kill is not None:
                ranks[scene.kill].kill()
                time.sleep(APART)
            first = _scrape(daemon)
            time.sleep(APART)
            text = first + _scrape(daemon)
    # Where the recording was made says nothing of the nodes that are played.
    return text.replace(f"{daemon.directory}/state", "/var/lib/dvfd").replace(str(place), "/mnt")


def _scrape(daemon: Any) -> str:
    at, body = time.time(), testbed.fetch(f"http://{daemon.address}/metrics")
    return f"{SCRAPED}{at:.3f}\n{body.decode()}"


@contextmanager
def _daemon(place: Path, scene: Scene) -> Iterator[Any]:
    """The node of the tests with the scene's profile, up."""
    built = nodes.Node(place / "node", [])
    throughput = 80 * scene.ranks  # bench.simulated: ten steps of eight samples a second and rank
    config = CONFIG.format(log=built.directory / "job.log", throughput=throughput) + scene.profile
    (built.directory / "dvfd.toml").write_text(config, encoding="utf-8")
    command = ["-m", "dvfd", "run"]
    if scene.gpus:
        command = ["-m", "bench.recording", "--daemon-with-gpus", str(scene.gpus)]
    with (built.directory / "daemon.log").open("wb") as log:
        built.daemon = subprocess.Popen(
            [sys.executable, *command], env=built.environment, stdout=log, stderr=log
        )
    try:
        testbed.eventually(lambda: built.ask("ping"), 30, every=0.1)
        yield built
    finally:
        built.stop()


def daemon_with_gpus(count: int) -> None:
    """Be a daemon whose NVML is a fake with *count* GPUs at work."""
    fakes: Any = importlib.import_module("fakes_probes")  # harness put tests/ on the path
    from dvfd.cli import main as command
    from dvfd.probes import gpu

    class Working(fakes.FakeNvml):  # type: ignore[misc]
        """Uses energy and flickers a little, as GPUs at work do."""

        def energy(self, handle: Any) -> int:
            joules = 600 * (time.time() % 1e6) + 50 * id(handle) % 1e5
            return int(1000 * joules)

        def utilisation(self, _handle: Any) -> int:
            return random.randint(93, 99)

        def temperature(self, _handle: Any) -> int:
            return random.randint(58, 66)

    cards = [dict(fakes.H100) for _ in range(count)]
    gpu.Pynvml = lambda: Working(*cards)  # type: ignore[assignment, misc]
    sys.argv[1:] = ["run"]
    command()


def _checkpoint(path: Path) -> Path:
    """A small one, written by torch in a process of its own."""
    script = f"import torch; torch.save({{'w': torch.zeros(8)}}, {str(path)!r})"
    subprocess.run([sys.executable, "-c", script], check=True)
    return path


if __name__ == "__main__":
    main()
