"""Commands as processes, with and without a daemon: exit codes, JSON, never a traceback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from fakes_output import valid
from node import Node, running
from testbed import eventually

from dvfd.telemetry.reporter import Reporter

DVFD = [sys.executable, "-m", "dvfd"]


def dvfd(command: str, environment: dict[str, str], **keys) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*DVFD, *command.split()],
        env=environment, text=True, capture_output=True, timeout=60, check=False, **keys,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def alone(tmp_path) -> dict[str, str]:
    """The environment of a node without a daemon, a store or a configuration."""
    return {
        **{name: value for name, value in os.environ.items() if name != "DVFD_CONFIG"},
        "DVFD_STATE_DIR": str(tmp_path / "state"),
        "RUNTIME_DIRECTORY": str(tmp_path),
        "DVFD_SOCKET": str(tmp_path / "ingest.sock"),
    }


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running(Node(tmp_path_factory.mktemp("cli"), [])) as node:
        path = node.environment["DVFD_SOCKET"]
        with Reporter(job="gpt", rank=0, world_size=1, socket=path, batch=1) as reporter:
            for step in range(5):
                reporter.step(step, samples=8, loss=2.0)
            eventually(lambda: node.ask("status")["jobs"], 60)
            node.reporter = reporter
            yield node


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("check nope", "no such check: 'nope'"),
        ("check hardwares", "did you mean 'hardware'?"),
        ("history job_los", "did you mean 'job_loss'?"),
        ("alerts test", "needs `dvfd run`"),
        ("job forget gpt", "needs `dvfd run`"),
        ("site forget site_disks disk=sda", "needs `dvfd run`"),
        ("history job_loss", "nothing is remembered; no daemon runs here"),
    ],
)
def test_what_cannot_be_done_without_a_daemon_is_one_line(command, says, alone):
    done = dvfd(command, alone)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert says in done.stderr


def test_the_status_without_a_daemon_is_unknown_and_says_so(alone):
    done = dvfd("status", alone)

    assert done.returncode == 3
    assert "UNKNOWN" in done.stdout.splitlines()[0]
    assert "NO DAEMON RUNS HERE" in done.stdout


def test_a_checklist_without_a_daemon_names_the_store_and_passes_nothing(alone):
    done = dvfd("checklist daily -o json", alone)

    assert done.returncode == 3
    assert not [r for r in json.loads(done.stdout)["results"] if r["verdict"] == "PASS"]
    assert "no daemon runs here" in done.stderr


@pytest.mark.parametrize("command", ["run", "checklist daily"])
def test_a_mistake_in_the_configuration_is_78_and_names_every_one(command, alone, tmp_path):
    (tmp_path / "bad.toml").write_text('[node]\nnme = "x"\n[alerting]\nurls = ["ftp://x"]\n')
    done = dvfd(command, {**alone, "DVFD_CONFIG": str(tmp_path / "bad.toml")})

    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.count("bad.toml: ") == 2


def test_a_reader_that_goes_away_is_no_trouble(alone):
    done = subprocess.run(
        f"{sys.executable} -m dvfd config schema | head -c 1",
        shell=True, env=alone, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("{", "")


def test_a_full_disk_behind_stdout_is_one_line(alone):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*DVFD, "config", "schema"],
            env=alone, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


@pytest.mark.parametrize("code", [b"junk" * 2000, b""])
def test_a_store_that_is_none_is_told_or_left_and_never_a_pass(code, alone, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/dvfd.db").write_bytes(code)

    assert dvfd("status", alone).returncode == 3


def test_a_daemon_that_hangs_is_an_error_and_not_no_daemon(alone, tmp_path, node):
    node.daemon.send_signal(signal.SIGSTOP)
    try:
        asked = subprocess.Popen(
            [*DVFD, "status"], env=node.environment, stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            asked.wait(2)
        asked.kill()
        assert asked.communicate()[0] == ""
    finally:
        node.daemon.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("command", ["status", "checklist daily", "check network"])
def test_json_and_text_of_a_daemon_have_the_same_exit_code(command, node):
    told, asked = (dvfd(f"{command}{o}", node.environment) for o in ("", " -o json"))

    assert json.loads(asked.stdout)["schema"] == 1
    assert (told.returncode, asked.returncode) == (3, 3)
    assert "UNKNOWN" in told.stdout


@pytest.mark.parametrize("command", ["status", "checklist daily", "check network", "ready"])
def test_who_wants_to_hear_of_failures_alone_hears_nothing_of_what_is_unknown(command, node):
    for level, unknown in (("warning", 3), ("unknown", 3), ("fail", 0)):
        asked = dvfd(f"{command} --fail-on {level} -o json", node.environment)

        # A machine that is busy with other things may fail a line, at any moment.
        verdict = json.loads(asked.stdout)["verdict"]
        assert asked.returncode == {"UNKNOWN": unknown, "FAIL": 2}[verdict]


@pytest.mark.parametrize(
    ("command", "schema"),
    [
        ("status", "status"), ("ready", "ready"), ("check network", "report"),
        ("checklist daily", "report"), ("history job_loss", "history"),
        ("history network", "history"),
    ],
)  # fmt: skip
def test_the_documents_of_a_daemon_are_as_their_schemas_say(command, schema, node):
    def documents(form: str) -> list:
        eventually(lambda: dvfd(f"{command} -o {form}", node.environment).stdout, 10, every=0.5)
        told = dvfd(f"{command} -o {form}", node.environment).stdout
        return [json.loads(told)] if form == "json" else list(map(json.loads, told.splitlines()))

    valid(*documents("json"), schema)
    for line in documents("jsonl"):
        valid(line, "line")


@pytest.mark.parametrize("command", ["status", "check network"])
def test_junit_and_nagios_of_a_daemon_are_not_green_while_it_is_not(command, node):
    junit, nagios = (dvfd(f"{command} -o {f}", node.environment) for f in ("junit", "nagios"))

    # A job that says nothing for ten seconds fails besides: then the daemon is red.
    state = {2: "CRITICAL", 3: "UNKNOWN"}[nagios.returncode]
    assert int(ET.fromstring(junit.stdout).get("errors")) > 0
    assert nagios.stdout.startswith(f"DVFD {state} - ")
    assert junit.returncode in {2, 3}


def test_the_status_shows_the_job_and_no_line_wider_than_the_terminal(node):
    told = dvfd("status", {**node.environment, "COLUMNS": "80"}).stdout
    wide = [line for line in told.splitlines() if len(line) > 80]

    assert "job gpt: " in told
    assert not [line for line in wide if " " in line.strip()]  # paths and series stay whole


def test_the_history_has_what_was_reported(node):
    eventually(lambda: dvfd("history job_loss", node.environment).returncode == 0, 10, every=0.5)
    rows = json.loads(dvfd("history job_loss -o json", node.environment).stdout)["rows"]

    assert rows[-1]["value"] == 2.0


def test_the_status_shows_the_log_line_that_counted_and_what_to_look_at(node):
    with (node.directory / "job.log").open("a") as log:
        log.write("RuntimeError: CUDA error: an illegal memory access was encountered\n")
    eventually(lambda: node.ask("status")["log_lines"], 10, every=0.2)
    told = dvfd("status", node.environment).stdout

    assert "LOG LINES THAT COUNTED" in told
    assert "  RuntimeError: CUDA error: an illegal memory access" in told


def test_a_test_alert_without_an_alertmanager_says_that_nobody_got_it(node):
    done = dvfd("alerts test", node.environment)

    assert (done.returncode, "no Alertmanager" in done.stdout) == (2, True)


def test_a_second_daemon_on_the_same_sockets_is_refused_in_one_line(node):
    done = dvfd("run", node.environment)

    assert done.returncode == 78
    assert "cannot listen" in done.stderr


def test_a_job_is_forgotten_once(node):
    node.reporter.end()
    first, again = (dvfd("job forget gpt", node.environment) for _ in range(2))

    assert (first.returncode, "not expected any more" in first.stdout) == (0, True)
    assert (again.returncode, "no job 'gpt'" in again.stderr) == (3, True)
