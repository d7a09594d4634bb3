"""Collectives between two hosts: real ranks under a real torchrun, one that dies, a bare line."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hosts import Ended, Host, Lan, hosts, together

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch]

TESTS = Path(__file__).parents[1]
NODE = [sys.executable, TESTS / "between_node.py", "check", "gloo_multi_node", "--force"]
TOML = "[profile]\nprocesses_per_node = 2\n"


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with hosts(2, TOML) as found:
        yield found


def start(host: Host, argv: list[Any], **variables: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return host.popen([*argv, "-o", "json"], env={"PYTHONPATH": path, **variables})


def results(ended: Ended) -> dict[str, Any]:
    assert ended.out, ended.err
    rows = json.loads(ended.out)["results"]
    return {row["criterion"].partition(".")[2]: row for row in rows}


def facts(ended: Ended) -> dict[str, str]:
    return {fact["name"]: fact["text"] for fact in json.loads(ended.out)["drill"]["facts"]}


@pytest.fixture(scope="module")
def reports(lan: Lan) -> Mapping[str, Ended]:
    """Of both nodes, of one test."""
    return together({host.name: start(host, NODE) for host in lan}, 250)


def test_every_sum_and_every_copy_comes_out_right_and_barriers_hold(
    reports: Mapping[str, Ended],
) -> None:
    found = results(reports["n1"])
    held = ("ring_correct", "tree_correct", "gather_correct", "barrier_holds", "barrier_latency")
    assert {found[name]["verdict"] for name in held} == {"PASS"}, found
    assert found["gather_whole"]["observed"] == 4  # ranks here; 8 are wanted


def test_both_nodes_judge_the_same_evidence(reports: Mapping[str, Ended]) -> None:
    one, other = (
        {name: (row["verdict"], row["observed"]) for name, row in results(ended).items()}
        for ended in reports.values()
    )
    assert one == other


def test_every_algorithm_is_timed_over_the_network_between_the_nodes(
    reports: Mapping[str, Ended],
) -> None:
    told = facts(reports["n2"])
    assert told["ranks of n1 listen on"] == "10.77.0.1"
    assert told["ranks of n2 listen on"] == "10.77.0.2"
    for message in ("64KiB", "bucket"):
        text = told[f"all-reduce of {message}"]
        assert all(name in text for name in ("builtin", "ring", "tree", "doubling", "hierarchical"))
        assert text.startswith("fastest by")


def test_bandwidth_is_that_of_a_plain_loop(reports: Mapping[str, Ended]) -> None:
    pairs = json.loads(facts(reports["n1"])["plain"])
    ratios = sorted(plain / ours for ours, plain in pairs)
    assert len(ratios) == 10
    # On two busy cores a pair may lie a third off, to either side. What is off by more than a tenth
    # by itself has no pair on the other side of it.
    assert ratios[0] < 1.1, ratios
    assert ratios[-1] > 0.9, ratios


@pytest.mark.long
def test_over_a_link_that_is_the_limit_bandwidth_is_a_plain_loops_within_a_tenth() -> None:
    """The processors, busy or not, have no part in it."""
    with hosts(2, TOML) as two:
        two.shape("200mbit")
        ended = together({h.name: start(h, NODE, ONLY_PLAIN="1") for h in two}, 200)
    pairs = json.loads(facts(ended["n1"])["plain"])
    assert statistics.median(plain / ours for ours, plain in pairs) == pytest.approx(1, abs=0.1)
    rate = 1.5 * (1 << 20) / statistics.median(ours for ours, _ in pairs)  # busbw of four ranks
    assert 12e6 < rate < 35e6, "the link, of 25 MB/s and bursts of 256 kB, was not the limit"


def test_training_on_four_ranks_is_compared_with_one(reports: Mapping[str, Ended]) -> None:
    told = facts(reports["n1"])["speed-up of training"]
    assert "samples/s on 4 processes" in told
    assert (
        "no sample of scaling_speedup_ratio{processes=8}"
        in (results(reports["n1"])["speedup"]["reason"])
    )


# --- What goes wrong ------------------------------------------------------------------------------


def ranks(host: Host) -> dict[int, int]:
    """The pids of the ranks that run on *host*, by rank."""
    found = {}
    listed = ["ip", "netns", "pids", host.namespace]
    pids = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    for pid in pids.split():
        with suppress(OSError):
            environment = Path("/proc", pid, "environ").read_bytes().split(b"\0")
            ours = [e for e in environment if e.startswith(b"RANK=")]
            if ours and b"dvfd.drills.workers.fleet" in Path("/proc", pid, "cmdline").read_bytes():
                found[int(ours[0][5:])] = int(pid)
    return found


@pytest.mark.long
def test_a_rank_that_dies_in_the_middle_leaves_nothing_green_and_is_named(lan: Lan) -> None:
    here, there = lan
    nodes = {host.name: start(host, NODE) for host in lan}
    try:
        while "turn 3" not in said(nodes["n1"]):
            pass
        os.kill(ranks(there)[3], signal.SIGKILL)
    finally:
        ended = together(nodes, 200)
    for report in ended.values():
        assert {row["verdict"] for row in results(report).values()} == {"UNKNOWN"}, report.err
    assert "rank 3 (n2)" in results(ended["n1"])["busbw"]["reason"]
    assert not ranks(here)
    assert not ranks(there)


def said(node: subprocess.Popen[str]) -> str:
    """Its next line of progress."""
    assert node.stderr
    line = node.stderr.readline()
    assert line, "it ended before its time"
    return line


def test_a_line_that_a_person_typed_is_told_of_an_interface_that_leads_nowhere(lan: Lan) -> None:
    line = [
        sys.executable, "-m", "dvfd", "cluster", "env", sys.executable, "-m",
        "torch.distributed.run", "--nnodes=2", "--nproc_per_node=2",
        TESTS / "gloo_multi_node_test.py", "--backend=gloo", "--force",
    ]  # fmt: skip
    one, other = lan
    wrong = [*line[:5], "env", "GLOO_SOCKET_IFNAME=lo", *line[5:]]
    ended = together({"n1": start(one, line), "n2": start(other, wrong)}, 150)
    found = results(ended["n1"])
    assert {row["verdict"] for row in found.values()} == {"UNKNOWN"}
    assert "n2: GLOO_SOCKET_IFNAME=lo: lo never leaves this node" in found["busbw"]["reason"]


def test_a_backend_that_is_not_the_profiles_is_refused(lan: Lan) -> None:
    script = [sys.executable, TESTS / "gloo_multi_node_test.py", "--backend=nccl"]
    ended = next(iter(lan)).run(script, env={"PYTHONPATH": str(TESTS.parent)})
    assert ended.code == 1
    assert "the profile says gloo" in ended.err


# --- One rank -------------------------------------------------------------------------------------


def alone(backend: str, directory: Path) -> dict[str, Any]:
    """What a crew of one says."""
    answer = directory / "answer.json"
    argv = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1",
        TESTS / "crew_of_one.py", backend, answer,
    ]  # fmt: skip
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    subprocess.run(list(map(str, argv)), env={**os.environ, "PYTHONPATH": path}, check=True)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def held(found: dict[str, Any]) -> None:
    for row in found["collectives"]["exercises"]:
        assert len(row["slowest"]) == 20
        assert row["verified"] == 41  # 20, 19 to warm up, 2 to estimate
        assert row["wrong"] == 0, row
    assert found["collectives"]["whole"] == {"65536": 1}
    assert found["barriers"]["early"] == 0
    assert len(found["barriers"]["slowest"]) == 50
    assert all(speed > 0 for speeds in found["speed-up"].values() for speed in speeds)


@pytest.mark.long
def test_a_single_rank_does_all_of_it_by_itself(tmp_path: Path) -> None:
    held(alone("gloo", tmp_path))


@pytest.mark.gpu
def test_the_same_over_nccl_which_tells_its_graphs(tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    found = alone("nccl", tmp_path)
    held(found)
    assert any(line.startswith("ring: ") for line in found["collectives"]["graphs"])
