"""`dvfd goodput` as a person types it: of a job beside a daemon, after it, and of a run's file."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

from fakes_runs import healthy
from node import Node, running
from testbed import eventually

from dvfd.runs.rows import Event, What
from dvfd.runs.run import Stage
from dvfd.store.folds import StepFold
from dvfd.store.run_file import RunFile
from dvfd.telemetry.reporter import Reporter


def dvfd(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *arguments],
        env=node.environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


def account(node: Node, *arguments: str) -> dict[str, object]:
    (found,) = json.loads(dvfd(node, "goodput", *arguments, "-o", "json").stdout)["jobs"]
    seconds = [part["seconds"] for part in found["parts"]]
    assert math.isclose(math.fsum(seconds), found["seconds"], abs_tol=1e-6)
    assert min(seconds) >= 0
    return {part["part"]: part["seconds"] for part in found["parts"]} | found


def looked_at(node: Node) -> bool:
    answer = node.ask("goodput", job="gpt", hours=1)  # None while it is refused
    return bool(answer) and answer["jobs"][0]["steps"] > 0


def test_a_jobs_time_is_told_beside_the_daemon_and_after_it(tmp_path: Path) -> None:
    node = Node(tmp_path, [], extra="[sampling]\ninterval = 1\n")
    with running(node):
        path = node.environment["DVFD_SOCKET"]
        with Reporter(job="gpt", rank=0, world_size=1, socket=path, batch=1) as reporter:
            step = iter(range(1, 10_000))

            def trained() -> bool:
                reporter.step(next(step), samples=8, loss=2.0)
                return looked_at(node)

            eventually(trained, 60)
            for _ in range(40):
                time.sleep(0.05)  # the length of a step, which is what is measured
                reporter.step(next(step), samples=8, loss=2.0)
            eventually(lambda: bool(account(node)["productive"]), 60)
            text = dvfd(node, "goodput", "--job", "gpt").stdout

    assert text.startswith("job gpt: goodput ")
    assert "productive steps" in text
    assert account(node, "--job", "gpt")["productive"]


def test_without_a_store_it_says_that_nothing_is_remembered(tmp_path: Path) -> None:
    done = dvfd(Node(tmp_path, []), "goodput")
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing is remembered" in done.stderr


def test_a_runs_file_tells_where_its_time_went(tmp_path: Path) -> None:
    node = Node(tmp_path, [])
    story = healthy(stage=Stage.COMPLETE)
    run = story.run()
    file = RunFile.create(tmp_path / "state" / "runs" / "r.db", run.to_document())
    file.job, file.every, file.node = run.plan.job, run.plan.every, run.node
    file.set_axis(run.axis)
    for rank in range(run.plan.processes):
        began, ended = run.began_t, run.began_t + 1800.0  # type: ignore[operator]
        assert file.take([(f"s{rank}", 1, [
            StepFold(
                job="gpt", rank=rank, first_step=1, last_step=50, count=50, at=0.0,
                began=began, ended=ended,
            )
        ])])  # fmt: skip
    file.add([Event(node="n0", t=0.0, at=0.0, what=What.UP)])
    file.close()

    found = account(node, "--run", "r")
    assert (found["run"], found["seconds"], found["productive"]) == ("r", story.length, 1800.0)
    assert found["other"] == story.length - 1800.0
