"""Real trainings by real frameworks beside a real daemon: seen, counted over its restart, ended,
crashed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes_frameworks import INSTALLED, ROOT, environment
from node import Node, running
from testbed import eventually, fetch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(500)]

STEPS = 40
EXAMPLES = {"huggingface": 1, "accelerate_loop": 2, "plain_torch": 2}
"""How many ranks each is run with; the Trainer's two are those that are watched below."""


class Scene:
    """The daemon, and what trains beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = Node(directory / "node", [])
        self.started: list[subprocess.Popen[bytes]] = []
        self._stores: list[object] = []

    def store(self, ranks: int) -> dict[str, str]:
        """Where the ranks of one job meet: here, as with torchrun, whose agent has it."""
        store = torch.distributed.TCPStore("127.0.0.1", 0, ranks, True, wait_for_workers=False)
        self._stores.append(store)  # it lasts as long as the object
        agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        return {**agent, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}

    def start(self, job: str, *command: str, ranks: int = 1) -> list[subprocess.Popen[bytes]]:
        """Start the ranks of a job as a launcher does: with an environment, and no more."""
        found = []
        meeting = self.store(ranks) if ranks > 1 else {}
        for rank in range(ranks):
            places = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
            around = {**places, **sizes, **meeting} if ranks > 1 else {}
            socket = self.node.environment["DVFD_SOCKET"]
            with (self.directory / f"{job}-{rank}.log").open("wb") as log:
                found.append(subprocess.Popen(
                    [sys.executable, *command], stdout=log, stderr=log, cwd=self.directory,
                    env=environment(INSTALLED, DVFD_JOB=job, DVFD_SOCKET=socket, **around),
                ))  # fmt: skip
        self.started += found
        return found

    def log(self, job: str, rank: int = 0) -> str:
        return (self.directory / f"{job}-{rank}.log").read_text()

    def job(self, job: str) -> dict[str, Any]:
        """What the daemon knows of a job; nothing before it does."""
        jobs = (self.node.ask("status") or {"jobs": []})["jobs"]
        return next((each for each in jobs if each["job"] == job), {"ranks": [], "state": ""})

    def saved(self, job: str) -> set[Path]:
        """The directories of a Trainer's checkpoints."""
        return set((self.directory / job).glob("checkpoint-*"))

    def steps(self, job: str) -> list[int]:
        """How many steps of each rank were counted."""
        return [rank["steps_total"] for rank in self.job(job)["ranks"]]

    def passes(self, criterion: str, timeout: float) -> None:
        """Wait until it does; fails with the reason why it does not."""
        end = time.monotonic() + timeout
        while (result := self.node.results()[criterion])["verdict"] != "PASS":
            assert time.monotonic() < end, result["reason"]
            time.sleep(0.5)

    def series(self, name: str, job: str) -> float | None:
        text = fetch(f"http://{self.node.address}/metrics").decode()
        found = re.search(rf'^{name}{{training_job="{job}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    found = Scene(tmp_path_factory.mktemp("trainers"))
    with running(found.node):
        yield found
    for process in found.started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def watched(scene: Scene) -> list[subprocess.Popen[bytes]]:
    """Two ranks under the Trainer, which train until they are told to stop."""
    script = str(ROOT / "tests/hf_trainings.py")
    found = scene.start("watched", script, str(scene.directory), "watched", ranks=2)
    eventually(lambda: min(scene.steps("watched"), default=0) > 120, 200, every=0.5)
    return found


def test_a_trainers_loss_norm_validation_and_throughput_are_shown(
    scene: Scene, watched: list[subprocess.Popen[bytes]]
) -> None:
    for name in ("loss", "gradient_norm", "validation_loss"):
        series = f"dvfd_job_{name}"
        assert eventually(lambda s=series: 0 < (scene.series(s, "watched") or 0) < 10, 60)
    series = "dvfd_job_throughput_samples_per_second"
    throughput = eventually(lambda: scene.series(series, "watched"), 60, every=0.5)
    pace = max(rank["step_seconds"] for rank in scene.job("watched")["ranks"])
    assert throughput == pytest.approx(2 * 4 / pace, rel=0.8)  # saves and evaluations lie between


def test_a_trainers_checkpoints_are_found_and_verified(
    scene: Scene, watched: list[subprocess.Popen[bytes]]
) -> None:
    wanted = ("responding", "loss_finite", "checkpoint_intact", "checkpoint_loadable")
    for name in (*wanted, "checkpoint_missing"):
        scene.passes(f"live.{name}", 120)


def test_a_daemon_that_is_killed_and_comes_back_counts_every_step_of_each_rank_once(
    scene: Scene, watched: list[subprocess.Popen[bytes]]
) -> None:
    scene.node.kill()
    saved = scene.saved("watched")
    eventually(lambda: scene.saved("watched") - saved, 120, every=0.1)  # steps that nobody hears
    scene.node.start()
    before = max(eventually(lambda: scene.steps("watched"), 60))
    eventually(lambda: min(scene.steps("watched"), default=0) > before + 50, 120, every=0.2)

    (scene.directory / "stop").touch()
    assert [process.wait(60) for process in watched] == [0, 0], scene.log("watched")[-3000:]

    eventually(lambda: scene.job("watched")["state"] == "ended", 60)
    stopped = re.findall(r"stopped at step (\d+)", scene.log("watched"))
    assert scene.steps("watched") == [int(stopped[0])] * 2


@pytest.fixture(scope="module")
def examples(scene: Scene, watched: object) -> dict[str, list[int]]:
    """The exit codes of every example's ranks, and of one rank each that crashes at step 10."""
    started = {}
    for name, ranks in EXAMPLES.items():
        script = str(ROOT / "examples" / f"{name}.py")
        started[name] = scene.start(name, script, f"--steps={STEPS}", ranks=ranks)
        crashing = ("--fail-at=10", f"--output=run/crashed-{name}")
        started[f"crashed-{name}"] = scene.start(f"crashed-{name}", script, *crashing)
    return {name: [each.wait(300) for each in ranks] for name, ranks in started.items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_each_of_its_ranks_is_counted_to_its_end(
    scene: Scene, examples: dict[str, list[int]], name: str
) -> None:
    assert examples[name] == [0] * EXAMPLES[name], scene.log(name)[-3000:]
    eventually(lambda: scene.job(name)["state"] == "ended", 60)
    assert scene.steps(name) == [STEPS] * EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_crash_is_shown_with_the_exception(
    scene: Scene, examples: dict[str, list[int]], name: str
) -> None:
    assert examples[f"crashed-{name}"] == [1]
    eventually(lambda: scene.job(f"crashed-{name}")["state"] == "not responding", 60)
    job = scene.job(f"crashed-{name}")
    why = "ended by a failure: RuntimeError: a sample that cannot be read"
    assert [rank["why"] for rank in job["ranks"]] == [why]
    eventually(lambda: scene.node.verdict("live.responding") == "FAIL", 60)
