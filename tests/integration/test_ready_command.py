"""What a scheduler's scripts ask: an answer in time whatever the daemon does, and an exit code."""

import json
import socket
import time

import pytest
from click.testing import CliRunner
from fakes_sinks import NOW, check, criterion, result, state

from dvfd.cli import dvfd
from dvfd.control import ControlServer, Operation
from dvfd.errors import DvfdError
from dvfd.model import Report, Verdict
from dvfd.ready import asked_of
from dvfd.ready import document as ready

LIVE = check("live", criterion("live.memory"), watch=True)


def job(name, run, state="running"):
    return {"job": name, "run": run, "state": state, "summary": f"{state}, 1 of 1 ranks here"}


JOBS = [job("one", "17"), job("one~2", "18"), job("other", "17"), job("done", "17", "ended")]


class Daemon:
    """Answers as one whose node FAILs, with JOBS; `forgotten` has what it was told to forget."""

    def __init__(self, path):
        self.forgotten = []
        made = state(LIVE)
        made.tell(Report(LIVE, (result(Verdict.FAIL, LIVE.criteria[0]),), NOW))
        self.server = ControlServer(
            path / "control.sock",
            {
                "ready": Operation(lambda request, peer: ready(
                    made.snapshot(), asked_of(request, "checks"), asked_of(request, "left_out"),
                    booted=NOW - 1000,
                )),
                "status": Operation(lambda request, peer: {"jobs": JOBS}),
                "forget": Operation(self.forget, changes=True),
            },
        )  # fmt: skip

    def forget(self, request, peer):
        self.forgotten.append(request["job"])
        return f"job {request['job']} is not expected any more"


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    made = Daemon(tmp_path)
    made.server.start()
    yield made
    made.server.stop()


def run(*words):
    return CliRunner().invoke(dvfd, list(words))


def test_a_failing_node_is_refused_with_its_reason(daemon):
    found = run("ready")

    assert found.exit_code == 2
    assert found.output.startswith("FAIL: live.memory: rank 2 responds: 0, wanted 1\n")


def test_a_slip_in_a_name_is_refused_whatever_is_to_fail(daemon):
    """A prolog that asks for what is not there must not let every job in."""
    found = run("ready", "--fail-on", "fail", "--leave-out", "live.memry")

    assert isinstance(found.exception, DvfdError)
    assert "did you mean 'live.memory'" in str(found.exception)


@pytest.mark.parametrize(("level", "code"), [("unknown", 3), ("fail", 0)])
def test_no_daemon_is_unknown(tmp_path, monkeypatch, level, code):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    found = run("ready", "--fail-on", level)

    assert found.exit_code == code
    assert found.output.startswith("UNKNOWN: dvfd.itself: no daemon answers on ")


def test_a_daemon_that_hangs_is_unknown_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "control.sock"))
        deaf.listen()
        began = time.monotonic()
        found = run("ready", "--timeout", "0.3", "-o", "json")

    assert found.exit_code == 3
    assert "listens but does not answer" in json.loads(found.output)["troubles"][0]
    assert time.monotonic() - began < 25  # 30 is what other commands wait


NOTHING = {"schema": 1, "check": "ready", "node": "n", "at": NOW, "verdict": "PASS",
           "asked": ["live"], "left_out": [], "troubles": [], "results": []}  # fmt: skip
PASSES = {**NOTHING, "results": [{
    "criterion": "live.memory", "severity": "critical", "verdict": "PASS", "reason": "0.5",
}]}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "words", "reason"),
    [
        (NOTHING, (), "a PASS without a critical criterion"),
        (PASSES, ("hardware",), "hardware was asked for and is not in the answer"),
        ({"verdict": "PASS"}, (), "no judgement of a node"),
        ("pong", (), "no judgement of a node"),
    ],
)
def test_a_pass_of_nothing_lets_no_job_start(tmp_path, monkeypatch, answer, words, reason):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    said = {"ready": Operation(lambda request, peer: answer)}
    server = ControlServer(tmp_path / "control.sock", said)
    server.start()
    try:
        found = run("ready", *words)
    finally:
        server.stop()

    assert found.exit_code == 3
    assert reason in found.output


@pytest.mark.parametrize(("level", "code"), [("warning", 2), ("unknown", 2), ("fail", 2)])
def test_a_fail_fails_at_every_level(daemon, level, code):
    assert run("ready", "--fail-on", level).exit_code == code


def test_an_epilog_forgets_all_that_is_on_its_run_and_nothing_else(daemon):
    found = run("job", "forget", "--run", "17")

    assert daemon.forgotten == ["one", "other"]
    assert found.exit_code == 0
    assert "job other is not expected any more" in found.output


def test_an_epilog_of_a_job_that_never_reported_is_no_mistake(daemon):
    found = run("job", "forget", "--run", "99")

    assert (found.exit_code, daemon.forgotten) == (0, [])
    assert "nothing of it is expected here" in found.output


def test_a_dry_run_of_an_epilog_forgets_nothing(daemon):
    found = run("job", "forget", "--run", "17", "--dry-run")

    assert (found.output, daemon.forgotten) == ("run 17: would forget one, other\n", [])


@pytest.mark.parametrize("words", [[], ["one", "--run", "17"]])
def test_a_job_is_forgotten_by_its_name_or_by_its_run(daemon, words):
    assert run("job", "forget", *words).exit_code != 0
    assert daemon.forgotten == []
