"""A node with a real NVIDIA GPU: a job on it over NCCL, seen by a real daemon.

Run where one is: `pytest -m gpu`. What was seen is in docs/validation.md.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from node import Node, running, training
from testbed import eventually

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

GPU = """
[profile]
accelerator = "gpu"
backend = "nccl"
gpus = {gpus}
processes_per_node = {gpus}
openmpi = "optional"
"""

LARGE = ("--width=1024", "--layers=8", "--batch=64", "--context=256", "--hash-every=20")
"""A model that keeps the GPU busy, unlike the one for two processors."""


@pytest.fixture(scope="module")
def gpus() -> int:
    found = int(torch.cuda.device_count())
    return found or pytest.skip("no NVIDIA GPU here")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, gpus: int) -> Iterator[tuple[Node, list[str]]]:
    """The node beside its job, and /metrics after the GPUs have been busy for a while."""
    node = Node(tmp_path_factory.mktemp("gpu"), [], GPU.format(gpus=gpus))
    with (
        running(node),
        training(node, "--backend=nccl", "--job=gpt", "--checkpoint-every=100", *LARGE, ranks=gpus),
    ):
        eventually(lambda: steps(node) > 100, 150, every=1)
        eventually(lambda: min(values(node, "gpu_utilization_ratio")) > 0.5, 60, every=1)
        yield node, metrics(node)


def metrics(node: Node) -> list[str]:
    with urllib.request.urlopen(f"http://{node.address}/metrics", timeout=10) as answer:
        return answer.read().decode().splitlines()


def values(node: Node, name: str, lines: list[str] | None = None) -> list[float]:
    pattern = re.compile(rf"dvfd_{name}(\{{.*\}})? ([^ ]+)$")
    found = (pattern.match(line) for line in lines or metrics(node))
    return [float(match[2]) for match in found if match] or [0.0]


def steps(node: Node) -> float:
    return min(values(node, "rank_steps_total"))


def test_the_ranks_of_a_job_on_nccl_report_and_live(seen: tuple[Node, list[str]]) -> None:
    node, lines = seen
    assert values(node, "rank_responding", lines) == [1.0] * len(node.pids("gpt"))
    assert min(values(node, "rank_steps_total", lines)) > 100


def test_a_busy_gpu_is_seen_busy_warm_and_fed(seen: tuple[Node, list[str]]) -> None:
    node, lines = seen
    assert min(values(node, "gpu_utilization_ratio", lines)) > 0.5
    assert all(15 < t < 95 for t in values(node, "gpu_temperature_celsius", lines))
    assert all(0 < used < 1 for used in values(node, "gpu_memory_used_ratio", lines))
    assert min(values(node, "gpu_energy_joules_total", lines)) > 0


def test_it_is_judged_cool_and_roomy(seen: tuple[Node, list[str]]) -> None:
    results = seen[0].results()
    for criterion in ("live.gpu_temperature", "live.gpu_memory"):
        assert results[criterion]["verdict"] == "PASS", results[criterion]["reason"]


def test_a_gpu_that_the_profile_promises_and_that_is_not_there_fails(
    tmp_path_factory: pytest.TempPathFactory, gpus: int
) -> None:
    node = Node(tmp_path_factory.mktemp("more"), [], GPU.format(gpus=gpus + 1))
    with running(node):
        eventually(lambda: values(node, "gpu_missing") == [1.0], 30, every=0.5)


def test_pytorch_on_a_gpu_node_is_judged(seen: tuple[Node, list[str]]) -> None:
    node, _ = seen
    ended = subprocess.run(
        [sys.executable, "-m", "dvfd", "check", "pytorch", "--no-soak", "-o", "json"],
        env=node.environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    results = {r["criterion"]: r for r in json.loads(ended.stdout)["results"]}
    assert results["pytorch.backend_nccl"]["verdict"] == "PASS", results
    assert not any("crashed" in r["reason"] for r in results.values()), results
