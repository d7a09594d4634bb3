"""The service under a really booted systemd: one machine, from its installation to its end.

The tests run in the order in which they stand: the last one takes everything away again.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from booted import (
    ROOT,
    SOURCE,
    WHEELS,
    Machine,
    answer,
    machine,
    need_root_and_systemd,
    wheelhouse,
)  # fmt: skip
from testbed import eventually

from dvfd.runs import ending

pytestmark = [pytest.mark.long, pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(420)]

UNIT, SOCKET = "dvfd.service", "dvfd-ingest.socket"
INSTALL = ("sh", f"{SOURCE}/scripts/install", "--wheels", WHEELS)
CONFIG = "/etc/dvfd/dvfd.toml"
USER = "trainer"
WATCHDOG = 4
WALL = 0x40000000
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207

RANK = """
import sys, time
from dvfd.telemetry.reporter import Reporter
with Reporter(job=sys.argv[1], rank=0, world_size=1, interval=0.1) as reporter:
    print("begun", flush=True)
    for step in range(int(sys.argv[2])):
        reporter.step(step, samples=1, loss=1.0)
        time.sleep(0.01)
    time.sleep(3)  # the last packet's acknowledgement
    reporter.step(int(sys.argv[2]), samples=1, loss=1.0)
"""

COMMITTED = """
import json, sqlite3, sys
db = sqlite3.connect("file:/var/lib/dvfd/dvfd.db?mode=ro", uri=True)
print(json.dumps(db.execute(
    "SELECT first_step, last_step, count FROM folds WHERE job = ? ORDER BY first_step", sys.argv[1:]
).fetchall()))
"""

ALERTMANAGER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        print(self.headers["Authorization"], flush=True)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 9093), Handler).serve_forever()
"""

TRAINING = """
import subprocess, sys
RANK = '''
import sys, time
from dvfd.telemetry.reporter import Reporter
with Reporter(job="held", rank=int(sys.argv[1]), world_size=4, checkpoint_every=500) as reporter:
    for step in range(1, 1000000):
        reporter.step(step, samples=1, loss=1.0)
        time.sleep(0.02)
'''
ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank)]) for rank in range(4)]
print("the ranks are up", flush=True)
[rank.wait() for rank in ranks]
"""

KNOCK = """
import socket, sys, time
end = time.monotonic() + 100
while time.monotonic() < end:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        try:
            line.connect("/run/dvfd/ingest.sock")
            line.recv(1)
        except OSError:
            pass
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    need_root_and_systemd()
    directory = tmp_path_factory.mktemp("systemd")
    wheels = wheelhouse(directory / "wheels")
    prefixes = {str(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix)} - {"/usr"}
    with machine(directory, f"{ROOT}:{SOURCE}", f"{wheels}:{WHEELS}", *sorted(prefixes)) as up:
        up.run("useradd", "--create-home", USER)
        up.run("chmod", "711", "/root")  # an interpreter below it is bound into the machine
        yield up


@pytest.fixture(scope="module")
def before(booted: Machine) -> dict[str, str]:
    """Every file of the machine before dvfd came."""
    return files(booted.root)


@pytest.fixture(scope="module")
def node(booted: Machine, before: dict[str, str]) -> Machine:
    assert before
    said = booted.run(*INSTALL, timeout=120).stdout
    assert "dvfd is ready: http://127.0.0.1:9109/" in said
    booted.write(
        "/etc/systemd/system/dvfd.service.d/test.conf",
        f"[Service]\nWatchdogSec={WATCHDOG}\nRestartSec=1\n",
    )
    booted.run("systemctl", "daemon-reload")
    booted.run("systemctl", "restart", UNIT)
    return booted


def files(root: Path) -> dict[str, str]:
    """Names and, below /etc, contents; without what a running Debian writes by itself."""
    own = ("run", "proc", "sys", "dev", "tmp", "src", "wheels", "home", "root",
           "var/log", "var/tmp", "var/lib/systemd", "var/cache", "var/lib/private")  # fmt: skip
    found = {}
    for place, folders, names in os.walk(root):
        below = Path(place).relative_to(root).as_posix()
        folders[:] = [
            f
            for f in folders
            if f"{below}/{f}".removeprefix("./") not in own and f != "__pycache__"
        ]
        for name in [*names, *folders]:
            path = Path(place, name)
            etc = below.split("/")[0] == "etc" and path.is_file() and not path.is_symlink()
            found[f"{below}/{name}"] = path.read_text(errors="replace") if etc else ""
    return {name: text for name, text in found.items() if not name.endswith("-")}  # passwd-


def pid(node: Machine) -> int:
    return int(node.show(UNIT, "MainPID"))


def ready(node: Machine) -> bool:
    return node.show(UNIT, "ActiveState") == "active"


def restarted(node: Machine, old: int, timeout: float) -> None:
    eventually(lambda: ready(node) and pid(node) not in {0, old}, timeout, 0.2)


def test_it_runs_as_a_user_without_rights_and_answers_everybody(node: Machine) -> None:
    assert node.show(UNIT, "User") == "dvfd"
    status = Path(f"/proc/{node.host_pid(pid(node))}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    for user in ("", USER):
        said = answer(node.run("dvfd", "status", "-o", "json", user=user, check=False))
        assert said["running"] is True


def test_the_journal_holds_a_json_object_in_every_line(node: Machine) -> None:
    lines = node.journal(UNIT, "_TRANSPORT=stdout").splitlines()
    assert "watching" in {json.loads(line)["event"] for line in lines}


def test_the_clock_can_be_read_through_the_system_call_filter(node: Machine) -> None:
    assert "adjtimex" not in node.journal(UNIT)


def test_an_unprivileged_user_changes_nothing(node: Machine) -> None:
    refused = node.run("dvfd", "job", "forget", "x", user=USER, check=False)
    assert refused.returncode == 3
    assert f"user {USER} may not change" in refused.stderr


def test_a_kill_is_followed_by_a_restart(node: Machine) -> None:
    old = pid(node)
    os.kill(node.host_pid(old), signal.SIGKILL)
    restarted(node, old, 30)


def test_the_watchdog_ends_a_frozen_process(node: Machine) -> None:
    old = pid(node)
    os.kill(node.host_pid(old), signal.SIGSTOP)
    restarted(node, old, 60)
    assert f"Watchdog timeout (limit {WATCHDOG}s)" in node.journal(UNIT)


def test_the_watchdog_ends_a_daemon_whose_loops_hang_while_its_main_thread_lives(
    node: Machine,
) -> None:
    """A debugger's stop of every thread but the main one, which goes on looking after them."""
    old, libc = pid(node), ctypes.CDLL(None, use_errno=True)
    known = node.host_pid(old)
    tasks = [int(task.name) for task in Path(f"/proc/{known}/task").iterdir()]
    for task in set(tasks) - {known}:
        assert libc.ptrace(PTRACE_SEIZE, task, None, None) == 0
        assert libc.ptrace(PTRACE_INTERRUPT, task, None, None) == 0
    eventually(lambda: node.journal(UNIT).count("Watchdog timeout") > 1, 60, 0.2)
    for task in set(tasks) - {known}:  # a thread that is debugged ends when its debugger has heard
        while os.waitpid(task, WALL)[1] != signal.SIGABRT:
            pass
    restarted(node, old, 30)
    assert '"loop is late"' in node.journal(UNIT)


def test_nothing_is_lost_or_doubled_through_a_restart(node: Machine) -> None:
    steps, job = 600, "through"
    door = node.run("stat", "-c", "%i", "/run/dvfd/ingest.sock")
    rank = node.start("/opt/dvfd/bin/python", "-c", RANK, job, str(steps), user=USER)
    with rank:
        assert rank.stdout
        rank.stdout.readline()
        time.sleep(2)
        node.run("systemctl", "restart", UNIT)
    assert rank.returncode == 0

    def committed() -> list[list[int]]:
        done = node.run("/opt/dvfd/bin/python", "-c", COMMITTED, job)
        found: list[list[int]] = json.loads(done.stdout)
        return found if sum(row[2] for row in found) >= steps + 1 else []

    rows = eventually(committed, 20, 0.5)
    assert [s for first, last, _ in rows for s in range(first, last + 1)] == list(range(steps + 1))
    assert sum(count for _, _, count in rows) == steps + 1
    same = node.run("stat", "-c", "%i", "/run/dvfd/ingest.sock")
    assert same.stdout == door.stdout


def test_a_password_from_systemd_reaches_alertmanager_and_a_hidden_log_is_named(
    node: Machine,
) -> None:
    node.write("/etc/dvfd/credentials/am", "from-systemd\n")
    node.run("chmod", "600", "/etc/dvfd/credentials/am")
    node.write(
        "/etc/systemd/system/dvfd.service.d/password.conf",
        "[Service]\nLoadCredential=am:/etc/dvfd/credentials/am\n",
    )
    node.write(
        CONFIG,
        '[alerting]\nurls = ["http://127.0.0.1:9093"]\nusername = "dvfd"\n'
        'password_credential = "am"\n[[logs]]\nname = "job"\npath = "/tmp/job.log"\n',
    )
    node.run("touch", "/tmp/job.log")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", UNIT)
    alertmanager = node.start("python3", "-c", ALERTMANAGER)
    try:
        assert alertmanager.stdout
        eventually(lambda: node.run("dvfd", "alerts", "test", check=False).returncode == 0, 20, 0.5)
        assert alertmanager.stdout.readline() == "Basic ZHZmZDpmcm9tLXN5c3RlbWQ=\n"
    finally:
        alertmanager.kill()
        alertmanager.wait()
        alertmanager.stdout.close()
    eventually(
        lambda: "/tmp is hidden from this service (PrivateTmp=yes)" in node.journal(UNIT), 20
    )


def test_a_drill_runs_the_reference_job_apart_from_the_daemon(node: Machine) -> None:
    pytest.importorskip("torch")
    python = str(Path(sys.prefix) / "bin" / "python")
    code = (
        "import sys; from dvfd.drills.order import *\n"
        "options = ['--steps=20', '--job=drilled', '--print-every=10']\n"
        "order = reference_job(sys.argv[1], user=sys.argv[2], processes=2, options=options)\n"
        "import dataclasses; more = {**order.environment, 'PYTHONPATH': sys.argv[3]}\n"
        "leave('ref1', dataclasses.replace(order, environment=more))\n"
    )
    node.run("/opt/dvfd/bin/python", "-c", code, python, USER, SOURCE)
    began = time.monotonic()
    node.run("systemctl", "start", "dvfd-drill@ref1.service")
    eventually(lambda: node.show("dvfd-drill@ref1.service", "ActiveState") == "inactive", 120, 0.5)
    words = node.journal("dvfd-drill@ref1.service")
    done = node.run("/opt/dvfd/bin/python", "-c", COMMITTED, "drilled")
    assert sum(row[2] for row in json.loads(done.stdout)) == 2 * 20, words
    assert time.monotonic() - began < 120


def test_a_stability_run_goes_on_through_death_and_restart_of_the_daemon_until_it_is_stopped(
    node: Machine,
) -> None:
    training = ("/opt/dvfd/bin/python", "-c", TRAINING)
    start = ("stability", "start", "phase1", "--job=held", "--duration=3000", "--force")
    said = node.run("dvfd", *start, "--no-follow", "--", *training).stdout
    run = said.split()[1].rstrip(":")
    unit = f"dvfd-drill@{run}.service"
    assert f"journalctl -u {unit}" in said
    held = node.show(unit, "MainPID")
    assert "the ranks are up" in node.journal(unit)

    eventually(lambda: how(node, run)["stage"] == "warm-up", 60, 0.3)
    old = pid(node)
    os.kill(node.host_pid(old), signal.SIGKILL)
    restarted(node, old, 30)
    node.run("systemctl", "restart", UNIT)
    again = how(node, run)
    assert len(ending.living(run)) == 5
    assert again["stage"] in {"warm-up", "running"}
    assert (node.show(unit, "ActiveState"), node.show(unit, "MainPID")) == ("active", held)

    refused = node.run("dvfd", "stability", "stop", run, user=USER, check=False)
    assert (refused.returncode, how(node, run)["stage"]) == (3, again["stage"])
    done = node.run("dvfd", "stability", "stop", run, "--reason", "enough").stdout
    assert done == f"{run}: stopped by root: enough; its training is gone: 5 processes\n"
    eventually(lambda: node.show(unit, "ActiveState") == "inactive", 20, 0.2)
    assert not ending.living(run)
    order = node.run("test", "-e", f"/run/dvfd-drill/{run}.json", check=False)
    assert order.returncode == 1  # an environment has secrets
    eventually(lambda: how(node, run)["frozen"], 60, 0.5)


def test_a_training_whose_supervisor_is_killed_ends_with_its_unit(node: Machine) -> None:
    start = ("stability", "start", "phase1", "--job=held", "--duration=3000", "--force")
    said = node.run(
        "dvfd", *start, "--no-follow", "--", "/opt/dvfd/bin/python", "-c", TRAINING
    ).stdout  # fmt: skip
    run = said.split()[1].rstrip(":")
    eventually(lambda: len(ending.living(run)) == 5, 60)
    os.kill(node.host_pid(int(node.show(f"dvfd-drill@{run}.service", "MainPID"))), signal.SIGKILL)
    eventually(lambda: not ending.living(run), 60)
    assert "none of its training was left" in node.run("dvfd", "stability", "stop", run).stdout


def how(node: Machine, run: str) -> dict[str, Any]:
    """The run, as the daemon tells it."""
    found: dict[str, Any] = answer(
        node.run("dvfd", "stability", "status", run, "-o", "json", check=False)
    )["run"]
    return found


def test_a_broken_configuration_is_not_tried_again_and_again(node: Machine) -> None:
    good = (node.root / CONFIG.lstrip("/")).read_text()
    node.write(CONFIG, "[http]\nhots = 1\n")
    assert node.run("systemctl", "restart", UNIT, check=False).returncode != 0
    time.sleep(3)  # three times RestartSec of this machine
    assert node.show(UNIT, "ActiveState") == "failed"
    assert (node.show(UNIT, "ExecMainStatus"), node.show(UNIT, "NRestarts")) == ("78", "0")
    assert "did you mean 'host'?" in node.journal(UNIT)

    ranks = node.start("python3", "-c", KNOCK, user=USER)
    eventually(lambda: node.show(SOCKET, "ActiveState") == "failed", 90, 0.5)
    ranks.kill()
    ranks.wait()
    assert ranks.stdout
    ranks.stdout.close()

    node.write(CONFIG, good)
    node.run("systemctl", "reset-failed", UNIT, SOCKET)
    node.run("systemctl", "restart", UNIT)
    assert node.show(SOCKET, "ActiveState") == "active"


def test_installing_again_is_an_upgrade_that_keeps_the_configuration(node: Machine) -> None:
    mine = (node.root / CONFIG.lstrip("/")).read_text()
    old = pid(node)
    said = node.run(*INSTALL, timeout=120).stdout
    assert "configuration kept" in said
    assert (node.root / CONFIG.lstrip("/")).read_text() == mine
    assert pid(node) != old


def test_uninstalling_leaves_nothing_but_data_and_purging_nothing(
    node: Machine, before: dict[str, str]
) -> None:
    for name in ("test", "password"):
        node.run("rm", "-f", f"/etc/systemd/system/dvfd.service.d/{name}.conf")
    said = node.run("sh", f"{SOURCE}/scripts/install", "--uninstall").stdout
    assert "/var/lib/dvfd" in said
    left = {name for name in files(node.root) if name not in before}
    data = ("etc/dvfd", "var/lib/dvfd")
    assert {name for name in left if not name.startswith(data)} == set()
    assert any(name.startswith("var/lib/dvfd/dvfd.db") for name in left)

    node.run("sh", f"{SOURCE}/scripts/install", "--uninstall", "--purge")
    assert files(node.root) == before
