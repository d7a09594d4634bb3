"""Whether the backend chooses well: held against the best of all that were tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes_between import Cluster
from fakes_collectives import MS, spread
from fakes_drills import judged

from dvfd.drills.choice import TRIED
from dvfd.model import Result

NCCL = '[profile]\nbackend = "nccl"\n'


def choice(directory: Path, cluster: Cluster, toml: str = "", check: str = "3") -> Result:
    return judged(*cluster.tried(f"topology_{check}node", directory, toml))["choice"]


@pytest.mark.parametrize("check", ["3", "4"])
def test_a_backend_that_nothing_beats_passes(tmp_path: Path, check: str) -> None:
    times = {("builtin", "bucket"): 10 * MS, ("ring", "bucket"): 11 * MS}
    times |= {(name, "bucket"): 20 * MS for name in TRIED if name not in {"builtin", "ring"}}
    found = choice(tmp_path, Cluster(times), check=check)
    assert (found.verdict, found.observed) == ("PASS", pytest.approx(10 / 11))
    assert "best of 5 others: ring" in found.note


def test_a_backend_that_another_algorithm_beats_by_more_than_a_tenth_fails(tmp_path: Path) -> None:
    times = {(name, "bucket"): 12 * MS for name in TRIED} | {("ring across", "bucket"): 10 * MS}
    found = choice(tmp_path, Cluster(times))
    assert found.verdict == "FAIL"
    assert "ring across" in found.note


def test_a_time_of_wrong_sums_does_not_count(tmp_path: Path) -> None:
    wrong = {("all_reduce", "tree"): {"wrong": 1, "example": "rank 2: 4 elements"}}
    found = choice(tmp_path, Cluster(rows=wrong))
    assert found.verdict == "UNKNOWN"
    assert "tree: 1 sums wrong; rank 2: 4 elements" in found.reason


def test_nccl_that_does_not_say_which_graph_it_took_does_not_pass(tmp_path: Path) -> None:
    assert choice(tmp_path, Cluster(), NCCL).verdict == "UNKNOWN"
    told = Cluster(graphs=("ring: 2 channels",))
    assert choice(tmp_path, told, NCCL).verdict == "PASS"
    assert ("NCCL 1", "ring: 2 channels") in told.tried("topology_3node", tmp_path, NCCL)[
        1
    ].run.facts


def short(often: int, seconds: float) -> dict[str, Any]:
    """What ranks say that had no time for more."""
    paced = {"iterations": often, "seconds": seconds}
    return {"slowest": spread(2 * MS, often), "paced": paced}


def test_an_algorithm_that_there_was_no_time_for_keeps_it_from_passing(tmp_path: Path) -> None:
    found = choice(tmp_path, Cluster(rows={("all_reduce", "ring across"): short(0, 6.2)}))
    assert found.verdict == "UNKNOWN"
    assert "ring across was not timed: a part of it lets expect 6.2 s each" in found.reason


def test_one_that_beats_it_fails_it_whatever_else_was_not_timed(tmp_path: Path) -> None:
    rows = {("all_reduce", "doubling"): short(0, 8.2)}
    times = {(name, "bucket"): 12 * MS for name in TRIED} | {("ring", "bucket"): 10 * MS}
    found = choice(tmp_path, Cluster(times, rows=rows))
    assert found.verdict == "FAIL"


def test_fewer_times_are_said_and_count(tmp_path: Path) -> None:
    rows = {("all_reduce", name): short(5, 2.0) for name in TRIED}
    found = choice(tmp_path, Cluster(rows=rows))
    assert (found.verdict, found.observed) == ("PASS", pytest.approx(1.0))
    assert "5 times" in found.note


def test_nothing_is_compared_with_nothing(tmp_path: Path) -> None:
    rows = {("all_reduce", name): short(0, 9.0) for name in TRIED}
    found = choice(tmp_path, Cluster(rows=rows))
    assert found.verdict == "UNKNOWN"
    assert "9 s each; 7.5 s are the most" in found.reason


def test_more_times_than_were_asked_for_are_not_believed(tmp_path: Path) -> None:
    rows = {("all_reduce", name): short(20, 2.0) for name in TRIED}
    found = choice(tmp_path, Cluster(rows=rows))
    assert found.verdict == "UNKNOWN"
    assert "20 times are no fewer than 20" in found.reason
