"""`dvfd gate`, `dvfd sign` and `dvfd summary` as a person types them, with a daemon and without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path
from urllib.request import urlopen

import pytest
from fakes_output import valid
from node import Node, running

PROGRAMME = "[programme]\nstart = 2026-03-02\n"
SIGN = ("sign", "phase1", "--name", "Ann Lee", "--role", "vp engineering")
SPITE = ("--override", "--reason", "the board wants it")


def dvfd(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *arguments],
        env=node.environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def alone(tmp_path: Path) -> Node:
    return Node(tmp_path, [], PROGRAMME)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(tmp_path_factory.mktemp("node"), [], PROGRAMME)) as node:
        yield node


def test_without_a_ledger_every_gate_is_hold_and_nothing_is_made(alone: Node) -> None:
    done = dvfd(alone, "gate")
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["phase1", "HOLD"], ["phase2a", "HOLD"], ["phase2b", "HOLD"], ["phase2c", "HOLD"],
    ]  # fmt: skip
    assert "due 2026-03-13" in done.stdout
    assert not (alone.directory / "state").exists()


def test_one_gate_says_what_is_open_and_what_to_type(alone: Node) -> None:
    done = dvfd(alone, "gate", "phase1")
    assert done.returncode == 1
    assert "UNKNOWN  hardware: not run yet   > dvfd check hardware" in done.stdout
    assert done.stdout.endswith("next: dvfd check hardware\n")


def test_an_unknown_gate_is_a_mistake_that_names_the_nearest(alone: Node) -> None:
    done = dvfd(alone, "gate", "phase2")
    assert (done.returncode, "did you mean 'phase2" in done.stderr) == (3, True)


def test_without_a_daemon_a_signature_is_refused_or_goes_to_the_ledger_on_disk(
    alone: Node,
) -> None:
    refused = dvfd(alone, *SIGN)
    assert refused.returncode == 3
    assert "phase1 is HOLD" in refused.stderr

    signed = dvfd(alone, *SIGN, *SPITE)
    assert signed.returncode == 0
    assert "IN SPITE OF HOLD: the board wants it" in " ".join(signed.stdout.split())

    summary = " ".join(dvfd(alone, "summary").stdout.split())
    assert "IN SPITE OF HOLD: the board wants it" in summary
    document = json.loads(dvfd(alone, "summary", "-o", "json").stdout)
    valid(document, "gates")
    assert document["gates"][0]["authorised"]

    ledger = alone.directory / "state" / "evidence" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"Ann Lee", b"Eve Lee"))
    summary = dvfd(alone, "summary")
    assert (summary.returncode, "PASS" in summary.stdout) == (3, False)
    assert summary.stdout.startswith("the ledger is not as it was written")
    assert dvfd(alone, "gate").returncode == 1


def test_a_daemon_decides_signs_and_shows_the_same(watched: Node) -> None:
    attested = ("--yes", "--name", "Ann", "--role", "CTO")
    assert dvfd(watched, "attest", "team_trained", *attested).returncode == 0
    document = json.loads(dvfd(watched, "gate", "-o", "json").stdout)
    valid(document, "gates")
    team = next(line for line in document["gates"][0]["lines"] if line["id"] == "team")
    assert [each["verdict"] for each in team["evidence"]] == ["PASS", "UNKNOWN"]

    made = json.loads(dvfd(watched, *SIGN, *SPITE, "-o", "json").stdout)
    assert (made["role"], made["authorised"]) == ("VP Engineering", True)
    assert made["evidence"] == [team["evidence"][0]["record"]]

    status = json.loads(dvfd(watched, "status", "-o", "json").stdout)
    valid(status, "status")
    assert [gate["authorised"] for gate in status["gates"]] == [True, False, False, False]
    assert status["gates"][0]["overridden"]

    address = f"http://{watched.address}"
    with urlopen(f"{address}/api/v1/gates", timeout=10) as answer:
        told = json.load(answer)["data"]
    assert told["gates"][0]["signatures"][0]["override"] == "the board wants it"
    with urlopen(f"{address}/gates?gate=phase1", timeout=10) as page:
        assert "Signed in spite of HOLD" in page.read().decode()
    records = json.loads(dvfd(watched, "evidence", "list", "-o", "json").stdout)
    assert getuser() in json.dumps(records)


def test_on_a_node_that_does_not_lead_the_commands_name_the_lead(tmp_path: Path) -> None:
    cluster = '[cluster]\nlead = "n1"\n' + "".join(
        f'[[cluster.nodes]]\nname = "{name}"\naddress = "{name}"\n' for name in ("n1", "n2")
    )
    node = Node(tmp_path, [], cluster, name="n2")
    for words in (("gate",), ("gate", "phase1"), ("summary",), (*SIGN, *SPITE)):
        done = dvfd(node, *words)
        assert (done.returncode, "n1" in done.stderr) == (3, True), words
