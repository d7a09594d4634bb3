"""The reliability scenarios on the real reference job: a rank killed, ranks added, a cut."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task

from dvfd.clock import SystemClock
from dvfd.drills import tree
from dvfd.drills.drill import Fact, Options, Task
from dvfd.drills.reliability import growth, restart
from dvfd.drills.reliability.checkpoints import Checkpoints
from dvfd.drills.reliability.cut import TABLE
from dvfd.drills.reliability.job import PER_PROCESS, elastic, free_port, started
from dvfd.drills.reliability.namespaces import PREFIX, missing
from dvfd.drills.reliability.partition import CUT, Partition
from dvfd.model import Result, Sample, Verdict

pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch]

TWO = "profile.processes_per_node = 2\n"
LONG = 100.0
"""Seconds in which a recovery ends on a machine that is busy with other work; the criterion's own
limit is for a quiet one."""


def real(directory: Path) -> Task:
    return task(
        "reliability", directory, toml=TWO, clock=SystemClock(), options=Options(consent=True),
        run=partial(tree.run, temporary=str(directory)),
    )  # fmt: skip


def seconds(found: list[Any], scenario: str) -> float:
    [value] = [
        each.value
        for each in found
        if isinstance(each, Sample)
        and each.metric == "recovery_seconds"
        and dict(each.labels) == {"scenario": scenario}
    ]
    return value


def facts(found: list[Any]) -> dict[str, str]:
    return {each.name: each.text for each in found if isinstance(each, Fact)}


# --- One launch: a rank is killed, then as many processes join ----------------------------------


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], dict[str, Result]]:
    chosen = real(tmp_path_factory.mktemp("survived"))
    port = free_port()
    with started(chosen, elastic(2, port, 2, host=True), batch=2 * PER_PROCESS) as job:
        found = list(restart.provoke(job, 2))
        found += growth.provoke(job, 2, (2,), port)
    assert not [pid for pid in running("dvfd.drills.reference_job") if f"{job.home}" in line(pid)]
    return found, judged(chosen, found)


Survived = tuple[list[Any], dict[str, Result]]


@pytest.mark.parametrize(
    "criterion",
    ["restart_steps", "restart_samples", "restart_loss", "growth_steps", "growth_loss"],
)
def test_nothing_of_the_training_is_lost(survived: Survived, criterion: str) -> None:
    result = survived[1][criterion]
    assert result.verdict is Verdict.PASS, result.reason


def test_a_killed_rank_comes_back(survived: Survived) -> None:
    assert 0 < seconds(survived[0], "restart") < LONG
    told = facts(survived[0])
    assert "SIGKILL to rank 1" in told["restart: injected fault"]
    assert "first new step at" in told["restart: timeline"]
    assert "checkpoint loaded at" in told["restart: timeline"]


def test_dvfd_notices_a_killed_rank_by_itself(survived: Survived) -> None:
    assert "noticed by dvfd at" in facts(survived[0])["restart: timeline"]


def test_processes_join_a_job_under_load(survived: Survived) -> None:
    assert 0 < seconds(survived[0], "growth") < LONG
    told = facts(survived[0])
    assert told["growth: injected fault"] == "processes joined: 2 -> 4"
    assert told["growth: batch"].startswith("12 samples")


# --- Two hosts ----------------------------------------------------------------------------------


def test_a_job_cut_in_two_comes_back(tmp_path: Path) -> None:
    need_namespaces()
    chosen = real(tmp_path)
    found = list(Partition().run(chosen))
    told = facts(found)
    assert "packets of the job" in told["partition: injected fault"]
    healed = re.search(r"healed at ([\d.]+) s", told["partition: timeline"])
    assert healed
    assert float(healed[1]) >= CUT - 0.1  # rounded
    assert 0 < seconds(found, "partition") < LONG
    lost = [s.value for s in found if isinstance(s, Sample) and s.metric == "recovery_lost_steps"]
    assert lost == [0.0]
    assert not namespaces(os.getpid())


def test_a_tester_that_is_killed_leaves_no_cut_no_host_and_no_job(tmp_path: Path) -> None:
    need_namespaces()
    config = tmp_path / "dvfd.toml"
    config.write_text(TWO)
    own = {"DVFD_CONFIG": str(config), "DVFD_STATE_DIR": str(tmp_path / "state")}
    argv = [sys.executable, "-m", "dvfd", "check", "reliability", "--yes-break-it", "--force"]
    with subprocess.Popen(
        argv, env={**os.environ, **own, "XDG_RUNTIME_DIR": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as tester:  # fmt: skip
        host = f"{PREFIX}-{tester.pid}-2"
        try:
            assert soon(lambda: TABLE in rules(host)), "no cut was made"
        finally:
            tester.kill()
    assert soon(lambda: not namespaces(tester.pid)), rules(host)
    assert soon(lambda: not [p for p in running(str(tmp_path)) if p != os.getpid()])
    lock = tmp_path / "state/drills/reliability/lease"
    assert soon(lambda: free(lock)), "the lease outlived the fuse"


def need_namespaces() -> None:
    if why := missing():
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)


def namespaces(pid: int) -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"{PREFIX}-{pid}-*")]


def rules(namespace: str) -> str:
    argv = ["ip", "netns", "exec", namespace, "nft", "list", "tables"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def free(lock: Path) -> bool:
    argv = ["flock", "--nonblock", str(lock), "true"]
    return subprocess.run(argv, check=False).returncode == 0


def soon(holds: Callable[[], bool], wait: float = 120.0) -> bool:
    until = time.monotonic() + wait
    while not holds() and time.monotonic() < until:
        time.sleep(0.1)
    return holds()


def running(word: str) -> list[int]:
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in found if word in line(pid)]


def line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


# --- Checkpoints --------------------------------------------------------------------------------


def test_a_training_saved_and_loaded_in_fresh_processes_is_the_same(tmp_path: Path) -> None:
    chosen = real(tmp_path)
    results = judged(chosen, Checkpoints(cycles=2, times=10).run(chosen))
    assert results["checkpoint_cycles"].observed == 2
    assert results["checkpoint_damage"].verdict is Verdict.PASS
