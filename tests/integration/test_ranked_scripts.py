"""The source's torchrun lines, word for word but for a shorter duration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testbed import eventually

from dvfd.drills import tree

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]


def start(directory: Path, script: str, *options: str, ranks: int = 4) -> subprocess.Popen[str]:
    """The script under torchrun, with a store of its own, whatever else trains here."""
    config = directory / "dvfd.toml"
    config.touch()
    environment = {
        **os.environ, "DVFD_CONFIG": str(config), "DVFD_STATE_DIR": str(directory / "state"),
        "RUNTIME_DIRECTORY": str(directory), "TMPDIR": str(directory),
        tree.MARK: "not a training job",  # other tests may look for one meanwhile
    }  # fmt: skip
    argv = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}",
        str(ROOT / "tests" / script), "--force", "-o", "json", *options,
    ]  # fmt: skip
    return subprocess.Popen(
        argv, env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def verdicts(report: Any) -> dict[str, str]:
    return {row["criterion"]: row["verdict"] for row in report["results"]}


@pytest.mark.long
def test_the_ranks_of_torchrun_check_their_gradients_and_rank_0_judges(tmp_path: Path) -> None:
    run = start(tmp_path, "gradient_sync_validation.py", "--duration=8")
    said, progress = run.communicate(timeout=200)
    report = json.loads(said)
    assert report["drill"]["shortened"].endswith("of 4 h"), progress
    assert all("passes so far" in row["reason"] for row in report["results"]), progress
    assert run.returncode == 1  # of torchrun: rank 0 ended with 3
    assert not list(tmp_path.glob("dvfd-ranks-*"))


@pytest.mark.long
def test_a_rank_that_is_killed_is_told_and_torchrun_ends(tmp_path: Path) -> None:
    run = start(tmp_path, "gradient_sync_validation.py", "--duration=120")
    place = eventually(lambda: list(tmp_path.glob("dvfd-ranks-*/gradient.json")), 100)[0]
    eventually(lambda: json.loads(place.read_text())["passes"]["float32"]["steps"] > 0, 100)
    os.kill(rank(run.pid, 2), signal.SIGKILL)
    said, progress = run.communicate(timeout=100)
    report = json.loads(said)
    assert verdicts(report)["gradient_sync.failures"] == "FAIL", progress
    assert "PASS" not in verdicts(report).values()


def rank(agent: int, wanted: int) -> int:
    """The pid of a rank of torchrun's *agent*."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    for pid in children:
        if f"RANK={wanted}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise LookupError(wanted)


def test_a_torchrun_of_another_size_is_told_what_was_wanted(tmp_path: Path) -> None:
    run = start(tmp_path, "gradient_sync_validation.py", "--duration=8", ranks=2)
    report = json.loads(run.communicate(timeout=100)[0])
    reasons = {row["criterion"]: row["reason"] for row in report["results"]}
    wanted = "torchrun started 2 ranks, profile.processes_per_node is 4"
    assert wanted in reasons["gradient_sync.agreement"]
