"""Lightning's and torchtitan's real jobs seen by a real daemon, to their end and to a crash."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes_frameworks import ROOT, environment
from fakes_torchtitan import EXAMPLE, NEW, STAND_IN, titan_environment
from node import Node, running
from testbed import eventually, fetch

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(600)]

LIGHTNING = ROOT / "examples" / "lightning_job.py"
SUMS, DEBUG = "lightning-sums", "llama3-debug"


class Scene:
    """The daemon, and the jobs that are started beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = Node(directory, [])

    @contextlib.contextmanager
    def job(self, given: dict[str, str], *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """A job in a session of its own, of which nothing is left."""
        told = {"DVFD_SOCKET": self.node.environment["DVFD_SOCKET"]}
        with (self.directory / "job.out").open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *argv],
                cwd=self.directory, env={**given, **told}, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def lightning(self, *options: str) -> contextlib.AbstractContextManager[Any]:
        place = f"--output={self.directory / 'sums'}"
        return self.job(environment("installed"), str(LIGHTNING), place, *options)

    def torchtitan(self, *options: str) -> contextlib.AbstractContextManager[Any]:
        given = titan_environment(NEW, self.directory / "titan")
        return self.job(given, str(STAND_IN), str(EXAMPLE), *options)

    def seen(self, job: str) -> dict[str, Any]:
        """What the daemon knows of the job; empty before it does."""
        return next((j for j in self.node.ask("status")["jobs"] if j["job"] == job), {})

    def series(self, name: str, job: str) -> float | None:
        text = fetch(f"http://{self.node.address}/metrics").decode()
        found = re.search(rf'^dvfd_{name}{{training_job="{job}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else None

    def passes(self, *names: str) -> None:
        for name in names:
            self.until(lambda name=name: self.node.verdict(f"live.{name}") == "PASS")

    def until(self, what: Callable[[], Any], timeout: float = 120) -> Any:
        """Wait for it; the job's last words if it does not come."""
        try:
            return eventually(what, timeout, every=0.2)
        except BaseException:
            print((self.directory / "job.out").read_text(errors="replace")[-3000:])
            raise


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    found = Scene(tmp_path_factory.mktemp("trainers"))
    with running(found.node):
        yield found


def shown(scene: Scene, job: str, ranks: int) -> None:
    """Wait for what each job is wanted to show."""
    scene.until(lambda: len(scene.seen(job).get("ranks", ())) == ranks)
    for name in ("job_loss", "job_validation_loss", "job_gradient_norm"):
        scene.until(lambda name=name: (scene.series(name, job) or 0) > 0)
    scene.until(lambda: (scene.series("job_throughput_samples_per_second", job) or 0) > 0)
    scene.passes("responding", "progress", "loss_finite")
    scene.until(lambda: scene.series("checkpoint_age_seconds", job) is not None)


@contextlib.contextmanager
def held_still(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a job while its checkpoint is verified: it saves faster than anybody can."""
    os.killpg(process.pid, signal.SIGSTOP)
    yield
    os.killpg(process.pid, signal.SIGCONT)


def test_a_lightning_job_of_two_ranks_is_seen_to_its_end(scene: Scene) -> None:
    with scene.lightning(
        "--devices=2", "--steps=800", "--pace=0.02", "--save-every=200"
    ) as process:
        shown(scene, SUMS, 2)
        with held_still(process):
            scene.passes("checkpoint_intact", "checkpoint_loadable")
        ranks = scene.seen(SUMS)["ranks"]
        assert [rank["rank"] for rank in ranks] == [0, 1]
        assert ranks[0]["pid"] == process.pid
        assert process.wait(200) == 0
    scene.until(lambda: scene.seen(SUMS)["state"] == "ended")
    assert {rank["step"] for rank in scene.seen(SUMS)["ranks"]} == {800}
    assert {rank["steps_total"] for rank in scene.seen(SUMS)["ranks"]} == {800}


def test_a_lightning_job_that_breaks_is_a_failure_with_its_exception(scene: Scene) -> None:
    with scene.lightning("--fail-at=7") as process:
        assert process.wait(200) != 0
    scene.until(lambda: scene.seen(SUMS)["state"] == "not responding")
    found = scene.seen(SUMS)
    assert found["exception"] == "RuntimeError: a sample that cannot be read"
    assert found["ranks"][0]["step"] == 7


def test_a_torchtitan_job_is_seen_to_its_end(scene: Scene) -> None:
    scene.node.ask("forget", job=SUMS)
    with scene.torchtitan("--training.steps=60") as process:
        shown(scene, DEBUG, 1)
        # What tells of its shards is a pickle, and no code of a job's is run.
        assert scene.node.verdict("live.checkpoint_loadable") == "UNKNOWN"
        assert process.wait(200) == 0
    scene.until(lambda: scene.seen(DEBUG)["state"] == "ended")
    assert {rank["step"] for rank in scene.seen(DEBUG)["ranks"]} == {60}
    assert {rank["steps_total"] for rank in scene.seen(DEBUG)["ranks"]} == {60}
