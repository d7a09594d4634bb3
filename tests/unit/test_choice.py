"""Whether the backend chooses well: held against the best of all that were tried."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes_between import Cluster
from fakes_collectives import MS
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
