"""A site's command really run: whatever it starts is gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fakes_probes import measure
from testbed import eventually

from dvfd.config import Plugin
from dvfd.contained import SAID
from dvfd.probes.exec_plugin import CONTAINED, ExecPlugin
from dvfd.probes.inputs import Allowance


def script(directory: Path, text: str) -> str:
    path = directory / "check"
    path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


def run(*argv: str, timeout: float = 60.0, **more: object) -> dict[str, object]:
    orders = json.dumps({"argv": argv, "timeout": timeout, **more})
    done = subprocess.run(CONTAINED, input=orders, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


TREE = """
    import os, subprocess, sys, time
    hidden = "import os, time; os.environ.clear(); time.sleep(600)"
    pids = []
    for new in (False, True):
        child = subprocess.Popen(["/usr/bin/env", "-i", sys.executable, "-c", hidden],
                                 start_new_session=new, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        pids.append(child.pid)
    print(*pids, flush=True)
    open(os.path.join(os.path.dirname(__file__), "pids"), "w").write(" ".join(map(str, pids)))
    {end}
"""


DAEMON = """
import sys
from dvfd.probes.exec_plugin import CONTAINED, POLITELY
POLITELY(CONTAINED, timeout=600, stdin=sys.argv[1].encode())
"""


def test_a_check_that_does_not_end_is_killed_with_all_that_it_started(tmp_path):
    command, kept = script(tmp_path, TREE.format(end="time.sleep(600)")), tmp_path / "pids"
    for patience in (3, 15, 60):  # a busy machine takes longer to start what is to be killed
        kept.write_text("")
        answer = run(command, timeout=patience)
        assert f"still running after {patience} s" in answer["error"]
        if pids := kept.read_text().split():
            break

    assert len(pids) == 2
    assert all(gone(int(pid)) for pid in pids)


def test_what_a_check_leaves_behind_is_gone_though_it_ended_well(tmp_path):
    answer = run(script(tmp_path, TREE.format(end="")))

    assert answer["code"] == 0
    assert all(gone(int(pid)) for pid in answer["stdout"].split())


def test_a_check_ends_with_the_one_that_runs_it(tmp_path):
    command = script(
        tmp_path,
        """
        import os, time
        open(os.path.join(os.path.dirname(__file__), "pid"), "w").write(str(os.getpid()))
        time.sleep(600)
        """,
    )
    parent = subprocess.Popen(CONTAINED, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert parent.stdin
    parent.stdin.write(json.dumps({"argv": [command], "timeout": 600}).encode())
    parent.stdin.close()
    assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 60)
    parent.kill()
    parent.wait()

    assert eventually(lambda: gone(int((tmp_path / "pid").read_text())), 60)


def test_a_hanging_check_with_all_that_it_started_ends_with_the_daemon(tmp_path):
    command = script(tmp_path, TREE.format(end="time.sleep(600)"))
    orders = json.dumps({"argv": [command], "timeout": 600})
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, orders])
    kept = tmp_path / "pids"
    assert eventually(lambda: kept.exists() and len(kept.read_text().split()) == 2, 60)
    daemon.kill()
    daemon.wait()

    assert eventually(lambda: all(gone(int(pid)) for pid in kept.read_text().split()), 60)


def test_a_flood_of_words_is_bounded(tmp_path):
    answer = run(script(tmp_path, "print('x' * 50_000_000)"))

    assert (len(str(answer["stdout"])), answer["cut"]) == (SAID, True)


def test_a_check_sees_none_of_the_daemons_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/dvfd.service")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    answer = run(script(tmp_path, "import os; print(sorted(os.environ), os.getcwd())"))

    assert answer["stdout"] == "['DVFD_DRILL', 'LC_ALL', 'PATH'] /\n"


@pytest.mark.parametrize(
    ("command", "why"),
    [("/no/such/check", "No such file"), ("/etc/passwd", "Permission denied"), ("/", "Permission")],
)
def test_a_command_that_cannot_be_started_is_an_error(command, why):
    assert why in str(run(command)["error"])


def test_a_check_may_run_as_another_user_where_dvfd_is_root(tmp_path):
    if os.geteuid():
        assert "wanted root" in str(run("/usr/bin/id", "-u", user="root")["error"])
        return

    assert run("/usr/bin/id", "-nu", user="nobody")["stdout"] == "nobody\n"
    assert run("/usr/bin/id", "-u", user="no_such")["error"] == "there is no user 'no_such'"


def test_a_slow_check_costs_no_more_than_its_deadline_says(tmp_path):
    settings = Plugin(name="slow", command=(script(tmp_path, "import time; time.sleep(600)"),),
                      timeout=1)  # fmt: skip
    probe = ExecPlugin(settings, Allowance(9))
    began = time.monotonic()
    samples, error = measure(probe)

    assert (samples, "still running after 1 s" in error) == ([], True)
    assert time.monotonic() - began < probe.deadline
