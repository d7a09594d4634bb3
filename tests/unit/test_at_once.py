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
from dvfd.evidence.chain import Record
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


# --- What is said and what goes into the bundle, to the letter -----------------------------------


def record(**body: Any) -> Record:
    return Record(
        number=7, at=1_800_000_000.0, kind="run", subject="c", body=body, node="n1",
        submitted="ann", previous="0" * 64, sha256="b" * 64,
    )  # fmt: skip


def ordered(tmp_path: Path, text: str = STOPS, found: Record | None = None, **more: Any) -> Orders:
    seal = Seal()
    at_once(tmp_path, text, seal=seal, **more)(opened(), found, Acts())
    assert seal.orders
    return seal.orders


def test_a_bundle_is_of_the_incident_and_of_the_window_before_its_end(tmp_path: Path) -> None:
    orders = ordered(tmp_path, STOPS + "window = 1800\nfree_bytes = 7000000\n")

    assert (orders.incident, orders.node, orders.at) == ("i-7", "n1", 1_800_000_000.0)
    assert (orders.since, orders.until) == (1_799_998_200.0, 1_800_000_000.0)
    assert (orders.spare, orders.store) == (7_000_000, tmp_path / "dvfd.db")
    assert orders.metrics is CATALOGUE.metrics


def test_a_run_that_ended_after_it_was_recorded_has_its_window_to_its_end(tmp_path: Path) -> None:
    late = replace(ran(), ended=ran().at + 5)
    incident = rules.opened(late, incident_id="i-7", node="n1", now=here())
    orders = at_once(tmp_path, STOPS).orders(incident, None, {})
    assert orders.until == 1_800_000_005.0


def test_a_window_does_not_begin_before_time_did(tmp_path: Path) -> None:
    early = replace(ran(), ended=10.0, at=10.0, began=5.0)
    incident = rules.opened(early, incident_id="i-7", node="n1", now=here())
    assert at_once(tmp_path, STOPS).orders(incident, None, {}).since == 0.0


def test_the_texts_of_a_bundle_are_what_they_are_called(tmp_path: Path) -> None:
    orders = ordered(tmp_path, found=record(run="r7"), status=lambda: {"health": "ok"})
    read = {name: json.loads(text) for name, text in orders.texts.items()}

    assert set(read) == {
        "incident.json", "record.json", "configuration.json", "catalogue.json", "status.json",
        "environment/node.json",
    }  # fmt: skip
    assert (read["incident.json"]["id"], read["record.json"]["body"]) == ("i-7", {"run": "r7"})
    assert read["catalogue.json"] == {
        "hash": CATALOGUE.hash, "overrides": list(CATALOGUE.overrides)
    }  # fmt: skip
    assert read["status.json"] == {"health": "ok"}
    assert read["configuration.json"]["incidents"]["grace"] == 20
    assert "kernel" in read["environment/node.json"]


def test_without_a_record_a_bundle_says_so_and_has_no_report(tmp_path: Path) -> None:
    orders = ordered(tmp_path)
    assert json.loads(orders.texts["record.json"]) == {}
    assert orders.files == {}


@pytest.mark.parametrize(
    ("body", "where"),
    [({"report": {"where": "runs/r7.json"}}, "runs/r7.json"), ({"report": None}, ""), ({}, ""),
     ({"report": {"sha256": "0"}}, "")],
)  # fmt: skip
def test_the_report_of_the_run_goes_in_where_there_is_one(
    tmp_path: Path, body: dict[str, Any], where: str
) -> None:
    files = ordered(tmp_path, found=record(**body)).files
    assert files == ({"report.json": tmp_path / where} if where else {})


def test_the_logs_go_in_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r7.log").touch()
    text = STOPS + '[[logs]]\nname = "job"\npath = "/j.log"\n'
    assert ordered(tmp_path, text).files == {
        "logs/job.log": Path("/j.log"), "logs/run.log": tmp_path / "runs" / "r7.log"
    }  # fmt: skip


def test_the_kernel_and_the_units_are_asked_from_a_minute_before_the_run(tmp_path: Path) -> None:
    text = STOPS + '[[logs]]\nname = "unit"\njournal_unit = "trainer.service"\n'
    text += '[[logs]]\nname = "core"\njournal_unit = "kernel"\n'
    journal = ("journalctl", "--no-pager", "--output=short-iso", "--since=@1799996340")

    assert ordered(tmp_path, text).commands == {
        "kernel/dmesg.txt": ("dmesg", "--ctime"),
        "kernel/journal.txt": (*journal, "--dmesg"),
        "logs/dvfd.txt": (*journal, "--unit=dvfd"),
        "logs/unit.txt": (*journal, "--unit=trainer.service"),
        "logs/core.txt": (*journal, "--dmesg"),
    }


def test_of_a_run_that_does_not_say_when_it_began_the_window_is_asked_for(tmp_path: Path) -> None:
    run = replace(ran(), began=0.0)
    incident = rules.opened(run, incident_id="i-7", node="n1", now=here())
    text = STOPS + "window = 1800\n"
    said = at_once(tmp_path, text).orders(incident, None, {}).commands["logs/dvfd.txt"]
    assert "--since=@1799998140" in said


def test_a_bundle_comes_back_as_a_document(tmp_path: Path) -> None:
    found = at_once(tmp_path, STOPS)(opened(), None, Acts())
    assert found == {
        "path": str(tmp_path / "incidents" / "i-7.tar.gz"), "sha256": "", "bytes": 0, "parts": 0,
        "missing": (),
    }  # fmt: skip


def test_a_job_that_is_left_alone_is_said_to_be_with_the_reason(tmp_path: Path) -> None:
    for text, action, words in (
        (STOPS + 'action = "notify"', "notify",
         "job gpt was left alone: [incidents] action is notify here"),
        (STOPS, "stop",
         "nothing was stopped: more than one job is named gpt: a, b; end the one that failed"),
    ):  # fmt: skip
        acts = Acts()
        at_once(tmp_path, text, named=lambda _name: ["a", "b"])(opened(), None, acts)
        assert acts.all == [{"action": action, "job": "gpt", "words": words}]


def test_of_a_test_without_a_job_nothing_is_stopped(tmp_path: Path) -> None:
    acts = Acts()
    at_once(tmp_path, STOPS, job_of=lambda _run: "")(opened(), None, acts)
    assert acts.all == [{
        "action": "stop", "job": "",
        "words": "nothing to stop: the test's own processes ended with it",
    }]  # fmt: skip


def test_a_stop_says_how_many_were_asked(tmp_path: Path, rank: subprocess.Popen[str]) -> None:
    acts = Acts()
    at_once(tmp_path, STOPS, rank.pid)(opened(), None, acts)

    assert acts.all[0] == {
        "action": "stop", "job": "gpt", "begun": True, "words": "job gpt is being stopped"
    }  # fmt: skip
    assert acts.all[1]["asked"] == 1
    assert "begun" not in acts.all[1]


def test_the_job_of_the_failed_run_is_stopped_by_its_label(tmp_path: Path) -> None:
    asked: list[str] = []

    def registered(label: str) -> list[Process]:
        asked.append(label)
        return []

    known = {"job_of": lambda run: f"job-of-{run}", "named": lambda name: [f"{name}~1000"]}
    at_once(tmp_path, STOPS, registered=registered, **known)(opened(), None, Acts())
    assert set(asked) == {"job-of-r7~1000"}


def test_what_waits_is_written_before_the_bundle_is_made(tmp_path: Path) -> None:
    told: list[str] = []

    def seal(orders: Orders) -> Bundle:
        told.append("sealed")
        return Bundle(path=str(orders.path))

    text = STOPS + 'action = "notify"'
    at_once(tmp_path, text, settle=lambda: told.append("on the disk"), seal=seal)(
        opened(), None, Acts()
    )
    assert told == ["on the disk", "sealed"]


def test_an_environment_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "environ").write_bytes(b"A=1=2\0odd\0B=\xff\0C=\0")
    found = at_once(tmp_path, STOPS, registered=lambda _job: [Process(5, 9)], proc=tmp_path)
    told = json.loads(found._environments(["gpt"])["environment/pid-5.json"])
    assert told == {"A": "1=2", "B": "\ufffd", "C": ""}


def test_ranks_are_looked_for_under_the_label_of_the_job(tmp_path: Path) -> None:
    acts = Acts()
    at_once(tmp_path, STOPS, unseen=lambda label: 2 * (label == "gpt"))(opened(), None, acts)
    assert acts.words.endswith(
        "2 ranks of job gpt run where they cannot be seen from here: end them yourself"
    )


@pytest.mark.slow
def test_what_came_back_is_told_of_by_the_name_of_its_job(
    tmp_path: Path, rank: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvfd.incidents.at_once.RETURNS", 20.0)
    first, acts = TABLE.identify(rank.pid), Acts()
    assert first
    known = [first]
    at_once(tmp_path, STOPS, registered=lambda _job: list(known))(opened(), None, acts)
    back = subprocess.Popen(["/usr/bin/sleep", "60"])
    try:
        known += [each for each in [TABLE.identify(back.pid)] if each]
        assert acts.again is not None
        monkeypatch.setattr("dvfd.incidents.at_once.between", lambda *_given, **_more: False)
        words = acts.again()
    finally:
        back.kill()
        back.wait()
    assert words.startswith("job gpt was started again, and stopped again: 1 processes of job gpt")


def test_what_json_does_not_know_stands_in_a_bundle_as_its_words(tmp_path: Path) -> None:
    told = ordered(tmp_path, status=lambda: {"where": Path("/x"), "who": "José"})
    assert json.loads(told.texts["status.json"]) == {"where": "/x", "who": "José"}
    assert "José" in told.texts["status.json"]
