"""Tests between nodes on real hosts: the same answer everywhere, and what is said of who fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, Lan, hosts, together
from testbed import eventually

pytestmark = [pytest.mark.slow, pytest.mark.torch]

TESTS = Path(__file__).parents[1]
COMMAND = [sys.executable, TESTS / "fleet_exercises.py"]


def todo(what: str, **more: Any) -> str:
    return json.dumps({"what": what, "more": more})


def begun(host: Host, *names: str, check: str = "network", **env: str) -> subprocess.Popen[str]:
    """The node's command on *host*, under way."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return host.popen([*COMMAND, check, *names], env={"PYTHONPATH": path, **env})


def answers(commands: dict[str, subprocess.Popen[str]], timeout: float = 150) -> dict[str, Any]:
    """What each node's command printed."""
    ended = together(commands, timeout)
    assert all(e.out for e in ended.values()), {n: e.err[-2000:] for n, e in ended.items()}
    return {name: json.loads(e.out) for name, e in ended.items()}


def on_all(lan: Iterable[Host], *names: str, **env: str) -> dict[str, Any]:
    return answers({host.name: begun(host, *names, **env) for host in lan})


@pytest.fixture(scope="module")
def two() -> Iterator[Lan]:
    with hosts(2) as lan:
        yield lan


@pytest.fixture(scope="module")
def whole(two: Lan) -> dict[str, Any]:
    """What two nodes found who stumbled once on their way."""
    return on_all(two, todo("greet"), todo("stumble", rank=1), todo("greet"))


def test_every_node_has_the_same_answer(whole: dict[str, Any]) -> None:
    assert whole["n1"] == whole["n2"]
    greeted = whole["n1"]["heard"]["0 greet"]
    assert greeted["failures"] == {}
    assert greeted["values"]["1"]["said"] == ["n1 says hello", "n2 says hello"]


def test_the_nodes_come_in_the_order_of_the_configuration(whole: dict[str, Any]) -> None:
    assert [n["name"] for n in whole["n2"]["nodes"]] == ["n1", "n2"]
    assert {n["interface"] for n in whole["n2"]["nodes"]} == {"eth0"}


def test_what_fails_in_one_rank_is_told_to_all_and_costs_this_exercise_only(
    whole: dict[str, Any],
) -> None:
    failures = whole["n1"]["heard"]["1 stumble"]["failures"]
    assert failures == {
        "0": "rank 1 (n2) gave up: ValueError: a stone lay there",
        "1": "ValueError: a stone lay there",
    }
    assert whole["n1"]["heard"]["2 greet"]["failures"] == {}


def test_what_speaks_against_it_on_one_node_stops_it_on_all(two: Lan) -> None:
    a, b = two
    found = answers(
        {
            "n1": begun(a, todo("greet")),
            "n2": begun(b, todo("greet"), todo("greet"), TRAINING="train.py: rank 0 (pid 7)"),
        }
    )
    assert found["n1"] == found["n2"]
    said = found["n1"]["error"]
    assert "n2: a training job runs: train.py: rank 0 (pid 7); --force" in said
    assert "what is to be done differs between the nodes: n1: " in said


def test_a_rank_that_dies_is_named_and_the_rest_goes_on(two: Lan) -> None:
    found = on_all(two, todo("die", rank=1), todo("greet"))
    survivor = next(f for f in found.values() if "heard" in f)
    lost = next(f for f in found.values() if "error" in f)
    died = survivor["heard"]["0 die"]["failures"]
    assert died["0"] == "rank 1 (n2) gave no sign of life for 20 s at 'together'"
    assert died["1"].startswith("rank 1 (n2) ")
    assert "rank 1 ended first, exit code -9" in lost["error"]


def test_a_cable_that_is_pulled_in_the_middle_is_noticed_on_both_ends(tmp_path: Path) -> None:
    with hosts(3) as lan:
        names = (todo("greet"), lingering(tmp_path))
        commands = {h.name: begun(h, *names, NODES="3") for h in lan}
        eventually(lambda: len(list(tmp_path.iterdir())) == 3, 90, every=0.1)
        lan.cut(lan.hosts[2])
        (tmp_path / "go").touch()
        began = time.monotonic()
        found = answers(commands)
        assert time.monotonic() - began < 100
    for each in found.values():
        assert each["heard"]["0 greet"]["failures"] == {}
    ranks = {n["name"]: str(n["ranks"][0]) for n in found["n1"]["nodes"]}
    missed = found["n2"]["heard"]["1 linger"]["failures"]
    assert f"rank {ranks['n3']} (n3)" in missed[ranks["n2"]]
    cut_off = found["n3"]["heard"]["1 linger"]["failures"]
    assert "the store of the rendezvous" in cut_off[ranks["n3"]] or "n1" in cut_off[ranks["n3"]]


def lingering(place: Path) -> str:
    return todo("linger", place=str(place))


def test_a_node_that_does_not_come_is_waited_for_and_then_told(two: Lan) -> None:
    a, _ = two
    text = a.config.read_text()
    a.config.write_text(text.replace("wait = 60", "wait = 8"))
    try:
        found = answers({"n1": begun(a, todo("greet"))}, timeout=90)
    finally:
        a.config.write_text(text)
    assert "2 nodes did not meet at n1, 10.77.0.1:29511, within 8 s" in found["n1"]["error"]


def test_a_port_that_is_taken_a_name_without_address_and_a_wrong_interface_are_told_at_once(
    two: Lan,
) -> None:
    a, b = two
    with a.popen(["iperf3", "-s", "-1", "-p", "29511", "--forceflush"]) as holder:
        assert holder.stdout
        eventually(lambda: "listening" in holder.stdout.readline().lower(), 60)
        taken = answers({"n1": begun(a, todo("greet"))}, timeout=60)
        holder.kill()
    assert "port 29511 of the rendezvous: Address already in use" in taken["n1"]["error"]
    text = b.config.read_text()
    wrong = {
        "address = '10.77.0.1'": (
            "address = 'nowhere.invalid'",
            "nowhere.invalid does not resolve",
        ),
        "address = '10.77.0.2'": ("address = '10.77.0.9'", "is on no interface: there are"),
        "wait = 60": ("wait = 60\ninterface = 'ib7'", "cluster.interface 'ib7' is none of eth0"),
    }
    for old, (new, said) in wrong.items():
        b.config.write_text(text.replace(old, new))
        found = answers({"n2": begun(b, todo("greet"))}, timeout=60)
        assert said in found["n2"]["error"]
    b.config.write_text(text)


def test_two_tests_of_one_cluster_do_not_run_at_once(tmp_path: Path) -> None:
    with hosts(4) as lan:
        a, b, c, d = lan
        first = {h.name: begun(h, lingering(tmp_path), NODES="2") for h in (a, b)}
        eventually(lambda: len(list(tmp_path.iterdir())) == 2, 90, every=0.1)
        second = answers(
            {h.name: begun(h, todo("greet"), check="topology_3node", NODES="2") for h in (c, d)}
        )
        (tmp_path / "go").touch()
        found = answers(first)
    said = second["n3"]["error"]
    assert "another test of this cluster is on: network, rank 0 on" in said
    assert found["n1"]["heard"]["0 linger"]["failures"] == {}
