"""What is done at once where a test failed: stop or only say so, and what goes into the bundle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_incidents import CATALOGUE, moment, ran

from dvfd.config import parse
from dvfd.errors import DvfdError
from dvfd.incidents import incident as rules
from dvfd.incidents.at_once import AtOnce
from dvfd.incidents.incident import Incident, Moment
from dvfd.incidents.preserve import Bundle, Orders
from dvfd.incidents.protocol import LATE, TICKS
from dvfd.telemetry.processes import Process, Processes

STOPS = '[node]\nphase = "phase1"\n[incidents]\ngrace = 20\n'

TABLE = Processes()


class Seal:
    """Takes orders and makes nothing of them."""

    def __init__(self) -> None:
        self.orders: Orders | None = None

    def __call__(self, orders: Orders) -> Bundle:
        self.orders = orders
        return Bundle(path=str(orders.path))


class Acts:
    """What was done to the job, each as it was said."""

    def __init__(self) -> None:
        self.all: list[Mapping[str, Any]] = []
        self.again: Callable[[], str] | None = None

    def __call__(self, action: Mapping[str, Any], again: Callable[[], str] | None = None) -> None:
        self.all.append(action)
        self.again = again

    @property
    def words(self) -> str:
        return str(self.all[-1]["words"])


def here(at: float = 0.0) -> Moment:
    """*at* seconds from now, by the clock that processes' start times are of."""
    return replace(moment(at), boot=time.clock_gettime(time.CLOCK_BOOTTIME) + at)


def opened(at: float = 0.0) -> Incident:
    """What failed *at* seconds from now."""
    return rules.opened(ran(at=at), incident_id="i-7", node="n1", now=here(at))


@pytest.fixture
def rank() -> Iterator[subprocess.Popen[str]]:
    """A process with a secret in its environment."""
    environment = {"HF_TOKEN": "geheim", "LR": "0.1", "PATH": "/usr/bin:/bin"}
    child = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"],
        env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stdout
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def at_once(tmp_path: Path, text: str, pid: int = 0, *, at: float = 0.0, **more: Any) -> AtOnce:
    process = Processes().identify(pid)
    known: list[Process] = [process] if process else []
    given = {
        "state": tmp_path, "now": lambda: here(at), "job_of": lambda _run: "gpt",
        "registered": lambda job: known if job == "gpt" else [], "seal": Seal(),
    }  # fmt: skip
    return AtOnce(parse(text), CATALOGUE, **{**given, **more})


def test_in_a_phase_the_job_is_stopped(tmp_path: Path, rank: subprocess.Popen[str]) -> None:
    acts = Acts()

    at_once(tmp_path, STOPS, rank.pid)(opened(), None, acts)

    assert rank.wait(10) != 0
    assert (acts.all[-1]["action"], acts.all[-1]["job"]) == ("stop", "gpt")
    assert "1 processes of job gpt were asked to end" in acts.words


def test_a_stop_is_kept_before_it_begins(tmp_path: Path, rank: subprocess.Popen[str]) -> None:
    told = []

    def acted(action: Mapping[str, Any], _again: object = None) -> None:
        told.append((action["words"], rank.poll()))

    def settle() -> None:
        told.append(("on the disk", rank.poll()))

    at_once(tmp_path, STOPS, rank.pid, settle=settle)(opened(), None, acted)

    assert told[:2] == [("job gpt is being stopped", None), ("on the disk", None)]


def test_what_was_stopped_once_is_not_stopped_by_the_next_daemon(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    acts, action = Acts(), {"action": "stop", "job": "gpt", "words": "asked to end", "asked": 1}

    at_once(tmp_path, STOPS, rank.pid)(replace(opened(), action=action), None, acts)

    assert rank.poll() is None
    assert not acts.all


BEGUN = {"action": "stop", "job": "gpt", "words": "stopping", "begun": True}


def test_a_stop_that_the_daemon_did_not_survive_is_gone_on_with(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    acts = Acts()

    at_once(tmp_path, STOPS, rank.pid)(replace(opened(), action=BEGUN), None, acts)

    assert rank.wait(10) != 0
    assert "1 processes of job gpt were asked to end" in acts.words


def test_a_stop_that_the_daemon_did_not_survive_touches_nothing_new(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    acts = Acts()

    at_once(tmp_path, STOPS, rank.pid)(replace(opened(-300), action=BEGUN), None, acts)

    assert rank.poll() is None
    assert "dvfd ended while it stopped job gpt" in acts.words


def test_what_was_started_after_the_failure_is_left_alone(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    acts = Acts()

    at_once(tmp_path, STOPS, rank.pid)(opened(-300), None, acts)

    assert rank.poll() is None
    assert "1 processes of job gpt began after the failure and were left alone" in acts.words
    assert acts.again is None


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ('[node]\nphase = "production"', 0.0, "job gpt was left alone"),
        (STOPS + 'action = "notify"', 0.0, "job gpt was left alone"),
        (STOPS, LATE + 1, "noticed 10 min after it was recorded"),
    ],
)
def test_a_job_goes_on_where_it_is_only_told_of(
    tmp_path: Path, rank: subprocess.Popen[str], text: str, at: float, words: str
) -> None:
    acts = Acts()

    at_once(tmp_path, text, rank.pid, at=at)(opened(), None, acts)

    assert rank.poll() is None
    assert words in acts.words


def test_a_test_that_is_no_run_has_no_job_to_stop(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    def none(_run: str) -> str:
        raise DvfdError("no run of that name")

    acts = Acts()

    at_once(tmp_path, STOPS, rank.pid, job_of=none)(opened(), None, acts)

    assert rank.poll() is None
    assert "the test's own processes ended with it" in acts.words


def test_the_environment_is_read_before_the_stop_and_redacted(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    seal = Seal()

    at_once(tmp_path, STOPS, rank.pid, seal=seal)(opened(), None, Acts())

    assert seal.orders
    found = json.loads(seal.orders.texts[f"environment/pid-{rank.pid}.json"])
    assert (found["HF_TOKEN"], found["LR"]) == ("***", "0.1")


def test_what_a_launcher_starts_again_is_looked_for_afterwards(
    tmp_path: Path, rank: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvfd.incidents.at_once.RETURNS", 0.2)

    acts = Acts()

    at_once(tmp_path, STOPS, rank.pid)(opened(), None, acts)

    assert acts.again is not None
    assert not acts.again()  # nothing came
    process = subprocess.Popen(["/usr/bin/sleep", "60"])
    try:
        found = TABLE.identify(process.pid)
        assert found
        back = at_once(tmp_path, STOPS)._again("gpt", lambda: [found])
        assert "was started again, and stopped again" in back
    finally:
        process.kill()
        process.wait()


def test_what_people_started_before_the_stop_is_left_alone_though_it_is_heard_of_during_it(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    """As where it registers anew with a daemon that was just started."""
    theirs = subprocess.Popen(["/usr/bin/sleep", "60"])
    both = [each for each in map(TABLE.identify, (rank.pid, theirs.pid)) if each]
    mark = replace(opened().mark, boot=sum(each.start for each in both) / len(both) / TICKS)
    looks: list[int] = []

    def registered(_job: str) -> list[Process]:
        looks.append(0)
        return both if len(looks) > 2 else both[:1]

    try:
        stop = at_once(tmp_path, STOPS, registered=registered)
        stop(replace(opened(), mark=mark), None, acts := Acts())

        assert len(looks) > 2
        assert theirs.poll() is None
        assert rank.wait(10) != 0
        assert "1 processes of job gpt began after the failure" in acts.words
    finally:
        theirs.kill()
        theirs.wait()


def test_of_two_jobs_of_one_name_none_is_stopped(
    tmp_path: Path, rank: subprocess.Popen[str]
) -> None:
    acts = Acts()

    two = at_once(tmp_path, STOPS, rank.pid, named=lambda _name: ["gpt", "gpt~1000"])
    two(opened(), None, acts)

    assert rank.poll() is None
    assert "more than one job is named gpt: gpt, gpt~1000" in acts.words


def test_ranks_that_cannot_be_seen_are_told_of(tmp_path: Path) -> None:
    acts = Acts()

    at_once(tmp_path, STOPS, unseen=lambda _job: 2)(opened(), None, acts)

    assert "2 ranks of job gpt run where they cannot be seen" in acts.words


def test_a_bundle_never_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "incidents").mkdir()
    (tmp_path / "incidents" / "i-7.tar.gz").touch()
    seal = Seal()

    at_once(tmp_path, STOPS, seal=seal)(opened(), None, Acts())

    assert seal.orders
    assert seal.orders.path.name == "i-7-1800000000.tar.gz"


def test_an_environment_that_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    seal = Seal()
    gone = [Process(999_999_999, 5)]

    at_once(tmp_path, STOPS, registered=lambda _job: gone, seal=seal)(opened(), None, Acts())

    assert seal.orders
    told = json.loads(seal.orders.texts["environment/pid-999999999.json"])
    assert told == {"not readable": "No such file or directory"}


def test_the_bundle_holds_configuration_logs_kernel_and_the_window(tmp_path: Path) -> None:
    seal = Seal()
    text = (
        STOPS + 'window = 1800\nbundle_bytes = 5000000\n[[logs]]\nname = "job"\npath = "/j.log"\n'
    )
    text += '[[logs]]\nname = "unit"\njournal_unit = "trainer.service"\n'
    text += '[alerting]\nurls = ["http://u:geheim@am:9093"]\n'
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r7.log").touch()

    at_once(tmp_path, text, seal=seal)(opened(), None, Acts())

    orders = seal.orders
    assert orders
    assert orders.path == tmp_path / "incidents" / "i-7.tar.gz"
    assert (orders.limit, orders.until - orders.since) == (5_000_000, 1800.0)
    assert "geheim" not in orders.texts["configuration.json"]
    assert {"logs/job.log", "logs/run.log"} <= set(orders.files)
    assert {"kernel/dmesg.txt", "kernel/journal.txt", "logs/unit.txt"} <= set(orders.commands)
    assert "--unit=trainer.service" in orders.commands["logs/unit.txt"]
