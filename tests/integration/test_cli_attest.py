"""`dvfd attest` as a person types it, with a daemon and without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path

import pytest
from node import Node, running

WORDS = ("attest", "team_feedback", "--yes", "--name", "Ann Lee", "--role", "cto")


def dvfd(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *arguments],
        env=node.environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def alone(tmp_path: Path) -> Node:
    return Node(tmp_path, [])


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Node]:
    with running(Node(tmp_path, [])) as node:
        yield node


def state(node: Node, item: str = "team_feedback") -> dict[str, object]:
    found = json.loads(dvfd(node, "attestations", "-o", "json").stdout)
    return next(each for each in found["items"] if each["item"] == item)


def test_without_a_store_nobody_has_said_a_thing(alone: Node) -> None:
    assert state(alone)["state"] == "nobody"
    assert not (alone.directory / "state").exists()


def test_without_a_daemon_it_goes_to_the_store_and_is_judged_from_there(alone: Node) -> None:
    done = dvfd(alone, *WORDS, "-o", "json")
    made = json.loads(done.stdout)
    assert (made["role"], made["submitted"]) == ("CTO", getuser())

    report = json.loads(dvfd(alone, "checklist", "monthly", "-o", "json").stdout)
    reasons = {r["criterion"]: (r["verdict"], r["reason"]) for r in report["results"]}
    verdict, reason = reasons["monthly.team_feedback"]
    assert verdict == "PASS"
    assert "Ann Lee (CTO) says yes, until" in reason


def test_a_daemon_keeps_it_and_its_next_report_rests_on_it(watched: Node) -> None:
    assert "until" in dvfd(watched, *WORDS, "--days", "5").stdout
    assert dvfd(watched, *WORDS[:2], "--no", *WORDS[3:]).returncode == 0

    report = watched.ask("check", check="monthly")
    row = next(r for r in report["results"] if r["criterion"] == "monthly.team_feedback")
    assert row["verdict"] == "FAIL"
    assert len(state(watched)["history"]) == 2  # type: ignore[arg-type]
    assert "before: Ann Lee (CTO) said yes" in dvfd(watched, "attestations", "--history").stdout


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--days", "3", "--expires", "2999-01-01"), "give one of them"),
        (("--expires", "2001-01-01"), "is past"),
        (("--expires", "soon"), "a day like 2027-01-31 wanted"),
        (("--days", "0"), "Invalid value for '--days'"),
        (("--days", "1e30"), "no moment"),
    ],
)
def test_a_wrong_end_is_refused_in_words(alone: Node, more: tuple[str, ...], says: str) -> None:
    done = dvfd(alone, *WORDS, *more)
    assert done.returncode == 3
    assert says in done.stderr
    assert state(alone)["state"] == "nobody"


def test_neither_yes_nor_no_is_no_statement(alone: Node) -> None:
    done = dvfd(alone, *(w for w in WORDS if w != "--yes"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "--yes or --no" in done.stderr
