"""A job that knows no dvfd, seen by a real daemon through the log that it writes anyway."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually, fetch

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(400)]

TRAIN = Path(__file__).parents[2] / "examples/nanogpt/train.py"
LOG = """
[[logs]]
name = "nano"
path = "{directory}/train.log"
metrics = "nanogpt"
job = "nano"
samples_per_step = 12
"""
FOREVER = "exec {python} {train} --max_iters=1000000000 --eval_interval=1000"


class Scene:
    """The daemon, and the job's own directory below its own."""

    def __init__(self, directory: Path) -> None:
        self.node = Node(directory, [], LOG.format(directory=directory))
        self.log = directory / "train.log"
        self.directory = directory

    @contextlib.contextmanager
    def job(self, *, command: str = FOREVER) -> Iterator[int]:
        """The example, as a person starts it: with a relative out_dir; its pid."""
        line = command.format(python=sys.executable, train=TRAIN)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            process = subprocess.Popen(
                ["sh", "-c", line], cwd=self.directory, env=environment, stdout=log, stderr=log
            )
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()

    def passes(self, criterion: str) -> bool:
        return self.node.verdict(f"live.{criterion}") == "PASS"

    @contextlib.contextmanager
    def held_still(self, pid: int) -> Iterator[None]:
        """Stop the job once it has saved and gone on: it saves faster than anybody verifies."""

        def stopped() -> bool:
            lines = self.log.read_text().splitlines()
            if any(line.startswith("saving") for line in lines) and lines[-1].startswith("iter"):
                os.kill(pid, signal.SIGSTOP)
                if self.log.read_text().splitlines()[-1].startswith("iter"):
                    return True
                os.kill(pid, signal.SIGCONT)
            return False

        eventually(stopped, 60)
        yield
        os.kill(pid, signal.SIGCONT)

    def seen(self) -> dict[str, Any]:
        """What the daemon knows of the job; empty before it does."""
        jobs = [job for job in self.node.ask("status")["jobs"] if job["job"] == "nano"]
        return jobs[0] if jobs else {}

    def state(self, state: str) -> bool:
        return bool(self.seen().get("state") == state)

    def series(self, name: str) -> float | None:
        text = fetch(f"http://{self.node.address}/metrics").decode()
        found = re.search(rf'^{name}{{training_job="nano"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    found = Scene(tmp_path_factory.mktemp("nano"))
    found.log.touch()
    with running(found.node):
        yield found


def test_the_daemon_shows_loss_throughput_and_checkpoint_and_whose_process_it_is(
    scene: Scene,
) -> None:
    with scene.job() as pid:
        eventually(lambda: scene.state("running"), 60)
        assert scene.seen()["ranks"][0]["pid"] == pid
        for name in ("dvfd_job_loss", "dvfd_job_validation_loss"):
            eventually(lambda name=name: 0 < (scene.series(name) or 0) < 10, 60, every=0.5)
        throughput = eventually(
            lambda: scene.series("dvfd_job_throughput_samples_per_second"), 60, every=0.5
        )
        times = re.findall(r"time ([\d.]+)ms", scene.log.read_text())[-50:]
        own = 12 * 10 / (sum(map(float, times)) / len(times) / 1000)
        assert own / 3 < throughput < own * 3
        for name in ("responding", "progress", "loss_finite"):
            eventually(lambda name=name: scene.passes(name), 60, every=0.5)
        with scene.held_still(pid):
            eventually(lambda: f"process {pid} is stopped" in scene.seen()["why"], 60)
            for name in ("checkpoint_intact", "checkpoint_loadable"):
                eventually(lambda name=name: scene.passes(name), 60, every=0.5)

        # A crash of its own: the directory of its checkpoints is gone.
        shutil.rmtree(scene.directory / "out")
        gone = f"process {pid} is gone, which wrote log {scene.log}"
        eventually(lambda: gone in scene.seen()["why"], 60)
    assert scene.seen()["exception"].startswith("RuntimeError: Parent directory out")
    for name in ("responding", "exceptions", "log_errors"):
        eventually(lambda name=name: scene.node.verdict(f"live.{name}") == "FAIL", 60)


def test_a_second_start_on_the_same_log_is_a_restart_and_the_shell_tells_its_end(
    scene: Scene,
) -> None:
    with scene.job(command='{python} {train} --max_iters=400; echo "dvfd: exit $?"'):
        eventually(lambda: scene.state("ended"), 90)
    assert scene.seen()["restarts"] == 1
    assert scene.series("dvfd_job_loss") is None
