"""A dry run says what would be done, as the doing would, and asks the daemon for no change."""

import json

import pytest
from fakes_sinks import Health, criterion, sources, state
from fakes_sinks import check as a_check

from dvfd import cli
from dvfd.control import ControlServer, Operation
from dvfd.state import Delivery, Peer
from dvfd.status import document

JOB = {"job": "gpt", "state": "running", "summary": "4 of 4 ranks alive"}


class World:
    """What the daemon says of itself, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.peers = (Peer(url="http://a:9093"), Peer(url="http://b:9093"))
        self.notice = "the store was lost: a new one was begun"

    def answer(self, request, peer):
        self.asked.append(request["op"])
        if request["op"] != "status":
            return [] if request["op"] == "alerts_test" else "done"
        found = sources(
            jobs=lambda: [JOB],
            delivery=lambda: Delivery(peers=self.peers),
            store=lambda: Health(reason=self.notice),
        )
        live = a_check("live", criterion(), watch=True)
        return document(state(live, of=found).snapshot(), running=True)


@pytest.fixture
def world(tmp_path):
    world = World()
    operations = ("status", "forget", "alerts_test", "acknowledge")
    server = ControlServer(
        tmp_path / "control.sock", {op: Operation(world.answer, changes=True) for op in operations}
    )
    server.start()
    yield world
    server.stop()


@pytest.fixture
def dvfd(world, monkeypatch, capsys, tmp_path):
    """Call a command as typed; its exit code, stdout and stderr."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))

    def call(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dvfd", *command.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("job forget gpt", "would forget job gpt: 4 of 4 ranks alive"),
        ("alerts test", "would send a test alert to http://a:9093"),
        ("alerts test", "would send a test alert to http://b:9093"),
        ("store acknowledge", "would acknowledge: the store was lost"),
    ],
)
def test_a_dry_run_says_what_it_would_do_and_only_reads(command, says, dvfd, world):
    code, out, _ = dvfd(f"{command} --dry-run")

    assert (code, says in out) == (0, True)
    assert world.asked == ["status"]


@pytest.mark.parametrize(
    ("command", "op"),
    [
        ("job forget gpt", "forget"),
        ("alerts test", "alerts_test"),
        ("store acknowledge", "acknowledge"),
    ],
)
def test_without_it_the_change_is_asked_for(command, op, dvfd, world):
    dvfd(command)

    assert world.asked == [op]


def test_a_job_that_is_not_there_would_not_be_forgotten(dvfd, world):
    code, out, err = dvfd("job forget gtp --dry-run")

    assert (code, out) == (3, "")
    assert "no job 'gtp' is known here" in err


def test_with_nobody_to_alert_a_dry_run_fails_as_the_test_would(dvfd, world):
    world.peers = ()

    assert [dvfd(f"alerts test{dry}")[:2] for dry in ("", " --dry-run")] == [
        (2, "no Alertmanager is configured: breaches go to the log only ([alerting] urls)\n")
    ] * 2


def test_nothing_to_acknowledge_is_said(dvfd, world):
    world.notice = ""

    assert dvfd("store acknowledge --dry-run")[1] == "there is nothing to acknowledge\n"


def test_as_json_a_dry_run_is_versioned_and_tells_itself_from_a_real_one(dvfd, world):
    dry, real = (json.loads(dvfd(f"alerts test -o json{d}")[1]) for d in (" --dry-run", ""))

    assert dry == {"schema": 1, "would_ask": ["http://a:9093", "http://b:9093"]}
    assert real == {"schema": 1, "answers": []}
