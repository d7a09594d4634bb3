"""The whole daemon beside a real training job, a real Prometheus and a real Alertmanager.

One launch of the job is shared by a sequence of faults. Each must page, name the criterion with
observed and wanted, and resolve when it is mended; nothing else critical may page meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from node import Node, running, training
from testbed import Server, Webhook, alertmanager, eventually, fetch, prometheus, promtool, query

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch, pytest.mark.timeout(600)]

JOB = "reference"
OPTIONS = ("--step-time=0.2", "--checkpoint-every=100", "--timeout=60", "--validate-every=50")


@dataclass
class Scene:
    """Everything that runs in this test."""

    node: Node
    hook: Webhook
    alertmanager: Server
    prometheus: Server

    def paged(self, criterion: str, timeout: float = 20) -> dict[str, Any]:
        """Wait for the page of *criterion*, and check that it says both sides."""
        alert = self.hook.wait_for("firing", timeout, criterion=criterion)
        assert alert["labels"]["alertname"] == "DvfdCriterionFailed"
        assert alert["labels"]["node"] == "node-under-test"
        assert "wanted" in alert["annotations"]["description"]
        return alert

    def resolved(self, criterion: str, timeout: float = 60) -> None:
        """Wait until people were told that *criterion* holds again; then forget all pages."""
        self.hook.wait_for("resolved", timeout, criterion=criterion)

    def calm(self, timeout: float = 90) -> None:
        """Wait until nothing critical fires, and start a new page."""
        eventually(lambda: not self.firing(), timeout, every=0.2)
        time.sleep(1.5)  # Alertmanager's group_interval: the last "resolved" arrives
        self.hook.alerts.clear()

    def firing(self) -> list[str]:
        alerts = self.node.ask("status")["alerts"]
        return [a["key"] for a in alerts if a["severity"] == "critical"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("scene")
    with (
        Webhook() as hook,
        alertmanager(directory, hook.url) as pager,
        running(Node(directory / "node", [pager.url])) as node,
        prometheus(directory, node.address) as scraper,
    ):
        yield Scene(node, hook, pager, scraper)


@pytest.fixture(scope="module")
def job(scene: Scene) -> Iterator[subprocess.Popen[bytes]]:
    with training(scene.node, *OPTIONS) as process:
        eventually(lambda: steps(scene.node) > 105, 120, every=0.5)
        yield process


def steps(node: Node) -> int:
    jobs = [j for j in node.ask("status")["jobs"] if j["job"] == JOB]
    return min((r["step"] or 0 for r in jobs[0]["ranks"]), default=0) if jobs else 0


def just_saved(scene: Scene) -> Path:
    """Wait for the next checkpoint and its verification: the one after is 20 s away then."""
    before = newest(scene.node)
    eventually(lambda: newest(scene.node) != before, 60, every=0.1)
    eventually(lambda: verifying(scene.node), 60)
    eventually(lambda: not verifying(scene.node), 60)
    return newest(scene.node)


def verifying(node: Node) -> bool:
    """Whether the daemon has a checkpoint verified now."""
    assert node.daemon
    children = psutil.Process(node.daemon.pid).children()
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("dvfd.checkpoint_verify" in child.cmdline() for child in children)
    return False


def newest(node: Node) -> Path:
    return max((node.directory / "checkpoints").glob("step-*"))


def test_a_healthy_job_is_seen_and_pages_nobody(scene: Scene, job: object) -> None:
    wanted = ("responding", "progress", "loss_finite", "checkpoint_intact", "checkpoint_loadable",
              "checkpoint_missing", "log_errors", "corruption", "memory")  # fmt: skip
    eventually(lambda: {scene.node.verdict(f"live.{w}") for w in wanted} == {"PASS"}, 40, every=0.5)
    assert not scene.firing()
    assert not [a for a in scene.hook.alerts if a["labels"]["severity"] == "critical"]


def test_the_weekly_list_restores_its_checkpoint_and_believes_no_week_of_minutes(
    scene: Scene, job: object
) -> None:
    report = scene.node.ask("check", check="weekly")
    rows = {row["criterion"].partition(".")[2]: row for row in report["results"]}
    assert rows["checkpoint_restored"]["verdict"] == "PASS", rows["checkpoint_restored"]["reason"]
    assert "each equal to the one that was saved" in rows["checkpoint_restored"]["remark"]
    assert report["verdict"] != "PASS"
    for criterion in ("uptime", "trend_floor", "efficiency", "gradient_sync"):
        assert rows[criterion]["verdict"] == "UNKNOWN", rows[criterion]["reason"]


def test_no_criterion_passes_without_a_sample_behind_it(scene: Scene, job: object) -> None:
    results = scene.node.results()
    assert len(results) > 200
    assert not [
        r["criterion"] for r in results.values() if r["verdict"] == "PASS" and not r["samples"]
    ]


def test_prometheus_scrapes_it_and_promtool_finds_no_fault(scene: Scene, job: object) -> None:
    text = fetch(f"http://{scene.node.address}/metrics")
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    assert len([line for line in text.splitlines() if not line.startswith(b"#")]) <= 500
    eventually(lambda: query(scene.prometheus, 'dvfd_job_loss{training_job="reference"}'), 60)
    verdict = 'dvfd_criterion_verdict{criterion="live.responding",verdict="PASS"}'
    eventually(lambda: query(scene.prometheus, verdict), 60)


def test_the_page_and_healthz_are_served(scene: Scene, job: object) -> None:
    assert JOB in fetch(f"http://{scene.node.address}/").decode()
    assert b'"status": "ok"' in fetch(f"http://{scene.node.address}/healthz")


def test_an_error_line_in_the_log_pages(scene: Scene, job: object) -> None:
    scene.calm()
    with (scene.node.directory / "job.log").open("a") as log:
        log.write("RuntimeError: CUDA error: an illegal memory access was encountered\n")
    alert = scene.paged("live.log_errors")
    assert alert["annotations"]["value"] == "1"
    scene.resolved("live.log_errors")


def test_a_flipped_bit_in_the_newest_checkpoint_pages(scene: Scene, job: object) -> None:
    scene.calm()
    flip(max(just_saved(scene).iterdir(), key=lambda file: file.stat().st_size))
    scene.paged("live.checkpoint_intact")
    scene.resolved("live.checkpoint_intact")


def flip(path: Path) -> None:
    """Flip one bit in the middle, as a disk does it: without touching the times."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(times.st_size // 2)
        byte = file.read(1)[0]
        file.seek(times.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_checkpoint_that_vanished_pages(scene: Scene, job: object) -> None:
    scene.calm()
    path = just_saved(scene)
    path.rename(path.with_name(f"taken-away-{path.name}"))
    scene.paged("live.checkpoint_intact")
    scene.resolved("live.checkpoint_intact")


def test_a_stopped_rank_pages_even_if_the_daemon_is_killed_meanwhile(
    scene: Scene, job: object
) -> None:
    scene.calm()
    pid = scene.node.pids(JOB)[2]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = scene.paged("live.responding", 10)
        assert "rank=2" in began["annotations"]["evidence"]
        scene.node.kill()
        scene.node.start()
        time.sleep(4)
        assert "live.responding" in scene.firing()
        assert not scene.hook.matching("resolved", criterion="live.responding")
    finally:
        os.kill(pid, signal.SIGCONT)
    scene.resolved("live.responding")
    assert (
        scene.hook.matching("resolved", criterion="live.responding")[0]["startsAt"]
        == began["startsAt"]
    )


def test_a_killed_rank_pages_and_its_restart_resolves(scene: Scene, job: object) -> None:
    scene.calm()
    before = scene.node.pids(JOB)
    os.kill(before[1], signal.SIGKILL)
    alert = scene.paged("live.responding", 5)
    assert "wanted == 1" in alert["annotations"]["description"]
    scene.resolved("live.responding", 90)
    after = eventually(lambda: scene.node.pids(JOB), 5)
    assert not set(before.values()) & set(after.values())


def test_a_clean_end_is_no_alarm(scene: Scene, job: subprocess.Popen[bytes]) -> None:
    scene.calm()
    end(scene, job)
    time.sleep(3)
    assert not scene.firing()
    assert scene.node.verdict("live.responding") == "UNKNOWN"


def end(scene: Scene, job: subprocess.Popen[bytes]) -> None:
    """End the job in good order. To the ranks, as Slurm does it: torchrun would log a traceback."""
    for pid in scene.node.pids(JOB).values():
        os.kill(pid, signal.SIGTERM)
    assert job.wait(40) == 0
    eventually(lambda: state(scene.node) == "ended", 60)


def state(node: Node) -> str:
    return "".join(j["state"] for j in node.ask("status")["jobs"] if j["job"] == JOB)


def test_a_nan_loss_pages_until_the_job_goes_on_from_its_checkpoint(
    scene: Scene, job: object
) -> None:
    scene.calm()
    fault = last_step(scene.node) + 15
    with training(scene.node, *OPTIONS, fault=f"nan@{fault}") as again:
        scene.paged("live.loss_finite", 90)
        os.kill(scene.node.pids(JOB)[0], signal.SIGKILL)
        scene.resolved("live.loss_finite", 90)
        eventually(lambda: steps(scene.node) > fault, 90, every=0.5)
        eventually(lambda: scene.node.verdict("live.responding") == "PASS", 30, every=0.5)
        end(scene, again)
    scene.calm()


def last_step(node: Node) -> int:
    return int(newest(node).name.partition("-")[2])


SILENT_SAVER = """
import sys, time
from dvfd.telemetry.reporter import Reporter
reporter = Reporter(job="silent-saver", rank=0, world_size=1, checkpoint_every=5)
step = 0
for line in sys.stdin:
    for _ in range(int(line)):
        step += 1
        reporter.step(step, samples=1, loss=1.0)
        time.sleep(0.05)
    if step > 50:
        for due in range(5, step + 1, 5):
            reporter.checkpoint_saved("/nonexistent/model.pt", due)
reporter.end()
"""


def test_checkpoints_that_are_not_saved_page(scene: Scene) -> None:
    scene.calm()
    with subprocess.Popen(
        [sys.executable, "-c", SILENT_SAVER], env=scene.node.environment,
        stdin=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        process.stdin.write("40\n")
        process.stdin.flush()
        alert = scene.paged("live.checkpoint_missing")
        assert float(alert["annotations"]["value"]) >= 1
        process.stdin.write("40\n")
        process.stdin.flush()
        scene.resolved("live.checkpoint_missing")
        process.stdin.close()


def test_a_test_alert_reaches_people(scene: Scene) -> None:
    answers = scene.node.ask("alerts_test")
    assert [a["accepted"] for a in answers] == [True]
    scene.hook.wait_for("firing", 5, alertname="DvfdTest")


def test_the_daemon_stops_cleanly_and_had_nothing_to_complain_of(scene: Scene) -> None:
    assert scene.node.stop() == 0
    assert "Traceback" not in scene.node.said()
    assert '"level": "error"' not in scene.node.said()
