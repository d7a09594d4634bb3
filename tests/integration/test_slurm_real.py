"""A real Slurm calls the scripts of examples/slurm: who gets a job, and what is left of one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from node import Node
from slurm_cluster import NODES, slurm
from testbed import eventually, free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/slurm"

SITE = """
[profile]
temperature_sensors = false
[sampling]
interval = 1
[override."live.network"]
severity = "warning"
reason = "a virtual link has no speed"
[cluster]
lead = "node1"
interface = "lo"
port = {port}
nodes = [{{ name = "node1", address = "127.0.0.1" }}, {{ name = "node2", address = "127.0.0.2" }}]
"""

WRAPPER = """#!/bin/sh
here={place}/${{SLURMD_NODENAME:-node1}}
export DVFD_CONFIG="$here/dvfd.toml" DVFD_STATE_DIR="$here/state" RUNTIME_DIRECTORY="$here"
export PYTHONPATH={root}
echo "$*" >>"$here/calls"
exec {python} -m dvfd "$@"
"""

QUICK = """
import time
from dvfd.telemetry.reporter import Reporter
with Reporter(interval=0.05) as reporter:
    for step in range(10**6):
        time.sleep(0.05)
        reporter.step(step, samples=1, loss=1.0)
"""


class Site:
    """Two nodes with a daemon each, under one Slurm that was set up as docs/slurm.md says."""

    def __init__(self, place: Path) -> None:
        self.place = place
        port = free_port()
        self.nodes = {
            name: Node(place / name, [], SITE.format(port=port), name=name) for name in NODES
        }
        binaries = place / "bin"
        binaries.mkdir()
        text = WRAPPER.format(place=place, root=ROOT, python=sys.executable)
        (binaries / "dvfd").write_text(text)
        (binaries / "dvfd").chmod(0o755)
        (place / "quick.py").write_text(QUICK)
        self.path = f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def scripts(self, slurm_conf: Path) -> None:
        """The example's scripts beside *slurm_conf*, with paths of the test's own."""
        for script in EXAMPLE.glob("*.sh"):
            text = script.read_text()
            head = f"export PATH={self.place}/bin:/usr/bin:/bin\nexport SLURM_CONF={slurm_conf}"
            text = re.sub(r"^export PATH=.*$", head, text, flags=re.MULTILINE)
            notes = f"NOTES={self.place}/notes-$SLURMD_NODENAME"
            text = re.sub(r"^NOTES=\S+", notes, text, flags=re.MULTILINE)
            if script.name == "task_prolog.sh":
                text += f'echo "export DVFD_SOCKET={self.place}/$SLURMD_NODENAME/ingest.sock"\n'
            copy = self.place / script.name
            copy.write_text(text)
            copy.chmod(0o755)

    def configuration(self) -> str:
        text = (EXAMPLE / "slurm.conf").read_text().replace("/etc/slurm/dvfd", str(self.place))
        return text.replace("HealthCheckInterval=60", "HealthCheckInterval=3")

    def job(self, node: str, run: str) -> list[dict]:
        """What the daemon of *node* knows of the jobs on *run*."""
        return [job for job in self.nodes[node].ask("status")["jobs"] if job["run"] == run]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("site"))
    with contextlib.ExitStack() as stack:
        for node in made.nodes.values():
            node.start()
            stack.callback(lambda node=node: node.daemon.poll() is not None or node.stop())
        for node in made.nodes.values():
            eventually(lambda node=node: ready(node), 60, every=0.2)
        up = slurm(made.configuration(), prepare=made.scripts)
        made.slurm = stack.enter_context(up)
        made.slurm.given |= {
            "PATH": made.path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "EXAMPLE": str(EXAMPLE),
            "MASTER_ADDR": "127.0.0.1",  # node1 is no name that resolves here
        }  # fmt: skip
        yield made


def ready(node: Node) -> bool:
    answer = node.ask("ready")
    return bool(answer) and answer["verdict"] == "PASS"


@pytest.fixture
def both(site):
    """The site, with both nodes free before the test and after it."""
    for name in NODES:
        site.slurm.idle(name)
    yield site
    site.slurm.run("scancel", "-s", "KILL", "--full", "-u", "root", code=None)
    for name in NODES:
        site.slurm.idle(name)


@contextlib.contextmanager
def ill(node: Node):
    """Error lines in a log that is watched, as long as this lasts."""
    well = threading.Event()

    def write() -> None:
        while not well.wait(0.2):
            with (node.directory / "job.log").open("a") as log:
                log.write("RuntimeError: CUDA error: an illegal memory access was encountered\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: node.ask("ready")["verdict"] == "FAIL", 60, every=0.1)
        yield
    finally:
        well.set()
        writer.join()


@contextlib.contextmanager
def hung(node: Node):
    node.daemon.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.daemon.send_signal(signal.SIGCONT)


def drained(site: Site, node: str, begins: str) -> str:
    """The reason with which *node* is drained, once it begins so."""

    def seen() -> str:
        state, reason = site.slurm.node(node)
        return reason if state in {"drained", "draining"} and reason.startswith(begins) else ""

    return str(eventually(seen, 60, every=0.2))


def test_a_node_that_is_well_takes_a_job(both):
    assert both.slurm.run("srun", "-w", "node1", "printenv", "SLURMD_NODENAME") == "node1"
    assert "ready" in (both.place / "node1/calls").read_text()


def test_a_node_that_is_ill_gets_no_job_and_says_why_until_it_is_well(both):
    with ill(both.nodes["node1"]):
        job = both.slurm.submit("-w", "node1", "-o", "/dev/null", "--wrap", "sleep 60")
        reason = drained(both, "node1", "dvfd: FAIL: live.log_errors: ")
        assert "wanted == 0" in reason
        both.slurm.wait(job, "PENDING")
        assert both.slurm.node("node2") == ("idle", "none")

    both.slurm.idle("node1")  # resumed by the health check, and by nobody else
    both.slurm.run("scancel", job)


def test_a_daemon_that_hangs_refuses_a_job_in_time(both):
    """UNKNOWN is no yes; and the prolog is not what Slurm has to kill."""
    prolog = ("env", "SLURMD_NODENAME=node2", "SLURM_JOB_ID=0", "sh", both.place / "prolog.sh")
    with hung(both.nodes["node2"]):
        began = time.monotonic()
        both.slurm.run(*prolog, code=1)
        assert time.monotonic() - began < 55  # PrologEpilogTimeout is 60
        job = both.slurm.submit("-w", "node2", "-o", "/dev/null", "--wrap", "sleep 60")
        reason = drained(both, "node2", "dvfd: UNKNOWN: dvfd.itself: ")
        assert "listens but does not answer" in reason
        both.slurm.run("scancel", job)
    both.slurm.idle("node2")


def test_a_daemon_that_is_gone_takes_its_node_with_it_until_it_is_back(both):
    node = both.nodes["node2"]
    node.kill()
    assert "no daemon answers on" in drained(both, "node2", "dvfd: UNKNOWN: ")

    node.start()
    both.slurm.idle("node2")


def test_what_a_person_drained_stays_drained_for_that_reason(both):
    check = ("env", "SLURMD_NODENAME=node1", "sh", both.place / "health_check.sh")
    both.slurm.run("scontrol", "update", "NodeName=node1", "State=DRAIN", "Reason=disk, ask Ann")
    try:
        both.slurm.run(*check)
        assert both.slurm.node("node1") == ("drained", "disk, ask Ann")
        both.nodes["node1"].kill()
        both.slurm.run(*check)
        assert both.slurm.node("node1") == ("drained", "disk, ask Ann")
    finally:
        both.nodes["node1"].start()
        both.slurm.run("scontrol", "update", "NodeName=node1", "State=RESUME")


def quick(site: Site, *words: str, node: str = "node1") -> str:
    """A batch job of one reporting process that never ends by itself."""
    return site.slurm.submit(
        "-w", node, "-o", "/dev/null", *words, "--wrap", f"exec python {site.place}/quick.py"
    )


def seen(site: Site, run: str, node: str = "node1") -> dict:
    found = eventually(lambda: site.job(node, run), 60, every=0.1)
    return found[0]


def test_a_job_that_slurm_kills_is_expected_no_more(both):
    job = quick(both, "--job-name", "größer als 7 & mehr")
    assert seen(both, job)["job"] == "größer als 7 & mehr"

    both.slurm.run("scancel", "-s", "KILL", "--full", job)
    eventually(lambda: not both.job("node1", job), 60, every=0.1)
    assert both.nodes["node1"].ask("ready")["verdict"] == "PASS"


def test_a_job_that_ends_while_the_daemon_is_away_is_forgotten_later(both):
    node = both.nodes["node1"]
    job = quick(both)
    seen(both, job)
    with hung(node):
        both.slurm.run("scancel", "-s", "KILL", "--full", job)
        eventually((both.place / "notes-node1/over" / job).exists, 60)
    eventually(lambda: not both.job("node1", job), 60, every=0.1)
    eventually(lambda: not (both.place / "notes-node1/over" / job).exists(), 60)


def test_one_task_of_an_array_ends_without_the_other(both):
    array = quick(both, "--array", "1-2", "--job-name", "sweep")
    listed = ("squeue", "-hj", array, "-t", "RUNNING", "-rO", "ArrayTaskID:9,JobID:20")
    eventually(lambda: len(both.slurm.run(*listed).splitlines()) == 2, 60, every=0.2)
    jobs = dict(line.split() for line in both.slurm.run(*listed).splitlines())
    assert {seen(both, job)["job"] for job in jobs.values()} == {"sweep", "sweep~2"}

    both.slurm.run("scancel", "-s", "KILL", "--full", f"{array}_1")
    eventually(lambda: not both.job("node1", jobs["1"]), 60, every=0.1)
    assert both.job("node1", jobs["2"])[0]["state"] == "running"


def test_a_job_that_is_queued_again_is_a_job_anew(both):
    job = quick(both, "--requeue")
    pid = seen(both, job)["ranks"][0]["pid"]
    both.slurm.run("scontrol", "requeue", job)
    eventually(lambda: not both.job("node1", job), 60, every=0.1)
    both.slurm.wait(job, "PENDING")
    both.slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # not in two minutes

    again = seen(both, job)
    assert again["ranks"][0]["pid"] != pid
    assert (again["state"], again["restarts"]) == ("running", 0)


def test_without_munge_the_health_check_says_so_and_changes_nothing(both, tmp_path):
    """Nobody can be asked or told then; a node whose prolog needs nobody still takes jobs."""
    script = (both.place / "health_check.sh").read_text()
    conf = (both.slurm.place / "slurm.conf").read_text()
    (tmp_path / "slurm.conf").write_text(conf.replace("munge.sock", "nothing.sock"))
    broken = re.sub(r"SLURM_CONF=\S+", f"SLURM_CONF={tmp_path}/slurm.conf", script)
    (tmp_path / "health_check.sh").write_text(broken)

    both.slurm.run("env", "SLURMD_NODENAME=node1", "sh", tmp_path / "health_check.sh", code=1)
    assert both.slurm.node("node1") == ("idle", "none")


@pytest.mark.torch
@pytest.mark.slow
def test_training_is_seen_on_its_nodes_and_ends_well_when_slurm_ends_it(both):
    """Under torchrun, and a task of srun for each rank, side by side."""
    place = both.place / "checkpoints"
    jobs = {
        how: both.slurm.submit(
            "-J", how, "-o", both.place / f"{how}.out", EXAMPLE / f"{how}.sbatch", 10**6, place
        )
        for how in ("torchrun", "direct")
    }
    everywhere = [(how, job, node) for how, job in jobs.items() for node in NODES]
    for how, job, node in everywhere:
        eventually(lambda: any(step(j) > 5 for j in both.job(node, job)), 120, every=0.2)  # noqa: B023
        found = both.job(node, job)[0]
        assert (found["job"], found["world_size"], found["state"]) == (how, 2, "running")
        assert len(found["ranks"]) == 1

    both.slurm.run("scancel", *jobs.values())
    for _, job, node in everywhere:
        eventually(lambda: both.job(node, job)[0]["state"] == "ended", 90, every=0.1)  # noqa: B023
        assert both.job(node, job)[0]["exception"] == ""
    assert list(place.glob("*.pt"))


def step(job: dict) -> int:
    return max(rank["step"] or 0 for rank in job["ranks"])
