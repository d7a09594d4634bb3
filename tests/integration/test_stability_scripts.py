"""Stability runs with real ranks: the reference job, and the source's torchrun lines, word for word
but for a shorter duration.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually, free_port

from dvfd.clock import SystemClock
from dvfd.evidence.ledger import Evidence
from dvfd.runs import ending

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
SMALL = ("--width=32", "--layers=1", "--context=32")
CONFIG = '[node]\nname = "n"\n[http]\nport = 0\n'


class Torchrun:
    """The script under torchrun, in a directory of its own."""

    def __init__(
        self, directory: Path, *options: str, environment: dict[str, str],
        script: str = "phase1_24hr_stability", agent: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.directory = directory
        argv = [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=4", *agent,
            str(ROOT / f"tests/{script}.py"), "--backend=gloo", *options, *SMALL,
        ]  # fmt: skip
        with (directory / "out").open("w") as out, (directory / "err").open("w") as err:
            self.process = subprocess.Popen(
                argv, env=environment | {"TMPDIR": str(directory)}, cwd=directory, stdout=out,
                stderr=err,
            )  # fmt: skip

    def said(self, stream: str) -> str:
        return (self.directory / stream).read_text(errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a node where no daemon answers."""
    (tmp_path / "dvfd.toml").write_text(CONFIG)
    ours = {k: v for k, v in os.environ.items() if k != "DVFD_SOCKET"}
    return {
        **ours, "DVFD_CONFIG": str(tmp_path / "dvfd.toml"), "OMP_NUM_THREADS": "1",
        "DVFD_STATE_DIR": str(tmp_path / "state"), "RUNTIME_DIRECTORY": str(tmp_path),
    }  # fmt: skip


@pytest.fixture
def torchrun(tmp_path: Path, environment: dict[str, str]) -> Iterator[object]:
    """Start the script; it ends with the test."""
    started: list[Torchrun] = []

    def start(*options: str, of: dict[str, str] | None = None) -> Torchrun:
        started.append(Torchrun(tmp_path, *options, environment=of or environment))
        return started[-1]

    yield start
    for each in started:
        each.end()


def stewards(directory: Path) -> list[int]:
    """The stewards and daemons that were started in *directory*."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "dvfd" in command and f"TMPDIR={directory}" in environment:
            found.append(int(entry.name))
    return found


def test_without_a_daemon_one_is_started_and_nothing_is_left_but_the_runs_files(
    torchrun, tmp_path: Path
) -> None:
    run = torchrun("--duration=15", "--force")
    run.process.wait(240)
    report, words = run.said("out"), run.said("err")
    assert "FAIL, it does not count" in report or "UNKNOWN, it does not count" in report, words
    assert "does not count: shortened: 15 s of 24 h" in report
    assert "complete, 15 s of 24 h, 0 s down" in report
    assert "no daemon answers here: started one" in words
    assert run.process.returncode == 1  # of torchrun: rank 0 ended with 2 or 3
    kept = {path.suffix for path in (tmp_path / "state/runs").iterdir()}
    assert {".checkpoints", ".db", ".json"} <= kept
    eventually(lambda: not stewards(tmp_path), 60)
    assert not list(tmp_path.glob("dvfd-ranks-*"))
    ledger = Evidence(tmp_path / "state" / "evidence", SystemClock())
    (record,) = ledger.records("run", "stability_phase1")
    assert record.body["shortened"] == "15 s of 24 h"
    assert ledger.verify() == []


def test_the_daemon_of_the_node_is_asked_where_one_answers(torchrun, tmp_path: Path) -> None:
    with running(Node(tmp_path / "node", [])) as node:
        run = torchrun("--duration=15", "--force", of=node.environment)
        run.process.wait(240)
        known = node.ask("stability_status", id="")["run"]
        assert (known["stage"], known["plan"]["job"]) == ("complete", "stability_phase1")
        assert f"{known['id']}: " in run.said("out"), run.said("err")
        assert "started one" not in run.said("err")


def test_a_run_that_is_refused_trains_nothing(torchrun, tmp_path: Path) -> None:
    with running(Node(tmp_path / "node", [])) as node:
        on = node.ask(
            "stability_arm", check="stability_phase1", job="x", duration=None, argv=[]
        )  # fmt: skip
        run = torchrun("--duration=15", of=node.environment)
        assert run.process.wait(120) == 1
        assert f"run {on['id']} is armed on this node" in run.said("err")
        assert run.said("out") == ""
        assert "step=" not in run.said("err")


def test_a_rank_that_is_killed_does_not_keep_the_report_from_being_printed(
    torchrun, tmp_path: Path
) -> None:
    run = torchrun("--duration=300", "--force")
    eventually(lambda: "dvfd: warm-up" in run.said("err"), 120)
    os.kill(rank(run.process.pid, 2), signal.SIGKILL)
    assert run.process.wait(120) == 1
    report = eventually(lambda: run.said("out"), 120)
    assert "aborted" in report
    assert "PASS" not in report
    eventually(lambda: not stewards(tmp_path), 60)
    assert not list(tmp_path.glob("dvfd-ranks-*"))


def test_a_mistyped_option_arms_no_run(torchrun, tmp_path: Path) -> None:
    run = torchrun("--widht=32")
    assert run.process.wait(120) == 1
    assert "unrecognized arguments: --widht=32" in run.said("err")
    assert "armed" not in run.said("err")
    assert not list(tmp_path.glob("dvfd-ranks-*"))


def rank(agent: int, wanted: int) -> int:
    """The pid of a rank of torchrun's *agent*."""
    for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        if f"RANK={wanted}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise LookupError(wanted)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("phase1_24hr_stability", 1),
        ("phase2a_48hr_stability", 2),
        ("24hr_3node_stability", 3),
        ("48hr_4node_stability", 4),
    ],
)
def test_without_torchrun_a_script_says_the_line_to_type(
    name: str, nodes: int, environment: dict[str, str]
) -> None:
    script = ROOT / f"tests/{name}.py"
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    several = f"--nnodes={nodes} " if nodes > 1 else ""
    line = f"torchrun {several}--nproc_per_node=4 {script} --backend=gloo"
    assert line in done.stderr


@pytest.mark.long
def test_the_reference_job_trains_on_through_a_kill_of_the_daemon_and_ends_with_the_run(
    tmp_path: Path,
) -> None:
    with running(Node(tmp_path / "node", [])) as node:
        start = ("stability", "start", "phase1", "--reference", "--duration=40", "--force")
        subprocess.run(
            [sys.executable, "-m", "dvfd", *start, "--no-follow"], env=node.environment, check=True,
            timeout=60,
        )  # fmt: skip
        run = stage(node, "armed")["id"]
        stage(node, "warm-up")
        training = ending.living(run)
        node.kill()
        node.start()
        assert training <= ending.living(run)
        assert len(training) >= 5  # torchrun and its ranks

        done = stage(node, "complete")
        assert (done["id"], done["plan"]["job"]) == (run, "reference")
        eventually(lambda: not ending.living(run), 90)
        [kept] = (tmp_path / "node/state/runs").glob("*.checkpoints")
        assert list(kept.iterdir())
        status = [sys.executable, "-m", "dvfd", "stability", "status", run]
        judged = subprocess.run(status, env=node.environment, timeout=60, check=False)
        assert judged.returncode in {2, 3}  # a shortened run passes nothing


@pytest.mark.long
def test_over_two_nodes_the_leaders_run_ends_the_training_of_both(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    extra = '[profile]\nnodes = 2\n[cluster]\nlead = "n0"\n' + "".join(
        f'[[cluster.nodes]]\nname = "n{n}"\naddress = "127.0.0.{n + 1}"\n'
        f'url = "http://127.0.0.1:{ports[n]}"\n'
        for n in range(2)
    )
    nodes = [Node(tmp_path / f"n{n}", [], extra, name=f"n{n}", port=ports[n]) for n in range(2)]
    options = ("--nnodes=2", "--master_addr=127.0.0.1", f"--master_port={ports[2]}")
    with running(nodes[0]), running(nodes[1]):
        both = [
            Torchrun(
                tmp_path / f"n{n}", "--duration=10", "--force", environment=node.environment,
                script="phase2a_48hr_stability", agent=(*options, f"--node_rank={n}"),
            )
            for n, node in enumerate(nodes)
        ]  # fmt: skip
        try:
            for each in both:
                each.process.wait(240)
            runs = [node.ask("stability_status", id="")["run"] for node in nodes]
        finally:
            for each in both:
                each.end()
    assert [(r["stage"], r["reason"]) for r in runs] == [("complete", "")] * 2
    assert (runs[0]["peers"], runs[1]["of"]) == ({"n1": runs[1]["id"]}, runs[0]["id"])
    assert "complete, 10 s of 48 h" in both[0].said("out"), both[0].said("err")
    assert f"judged at n0, which leads, as run {runs[0]['id']}" in both[1].said("out")


def stage(node: Node, wanted: str) -> dict[str, Any]:
    """The run, once it has come so far."""
    order = ["armed", "warm-up", "running", "complete"]

    def far() -> Any:
        run = (node.ask("stability_status", id="") or {}).get("run", {"stage": "armed"})
        assert run["stage"] != "aborted", run["reason"]
        return order.index(run["stage"]) >= order.index(wanted) and run

    found: dict[str, Any] = eventually(far, 150, 0.2)
    return found
