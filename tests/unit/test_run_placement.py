"""Where ranks of a run may run: cores of their own on one NUMA node, else in words what is not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fakes_machine import FakeMachine

from dvfd.runs.placement import misplaced


def found(directory: Path, *masks: Iterable[int], **machine: int) -> str:
    """What is said of ranks on these processors; 8 cores of two threads on two nodes."""
    given = {"packages": 2, "cores": 8, "threads": 2, "nodes": 2, **machine}
    fake = FakeMachine(directory, **given)
    for rank, mask in enumerate(masks):
        fake.rank(100 + rank, rank, list(mask))
    pids = {rank: 100 + rank for rank in range(len(masks))}
    return "; ".join(misplaced(pids, proc=fake.proc, sys=fake.sys))


def test_ranks_on_cores_of_their_own_are_well_placed(tmp_path: Path) -> None:
    assert found(tmp_path, {0, 1}, {2, 3}, {4, 5}, {6, 7}) == ""


def test_two_ranks_on_one_core_are_named(tmp_path: Path) -> None:
    assert "ranks 0 and 2 may both run on core 1" in found(tmp_path, {0, 1}, {2, 3}, {1})


def test_two_threads_of_one_core_are_one_core(tmp_path: Path) -> None:
    assert "ranks 0 and 1 may both run on core 2" in found(tmp_path, {2}, {10})


def test_ranks_that_nobody_bound_are_one_line(tmp_path: Path) -> None:
    said = found(tmp_path, range(16), range(16), range(16))
    assert said.startswith("ranks 0-2 may all run on the cores 0-7; rank 0 may run on the NUMA")


def test_a_rank_over_two_numa_nodes_is_named(tmp_path: Path) -> None:
    assert "rank 1 may run on the NUMA nodes 0-1" in found(tmp_path, {0, 1}, {3, 4})


def test_what_cannot_be_seen_is_not_well(tmp_path: Path) -> None:
    fake = FakeMachine(tmp_path)
    assert "cannot be seen" in misplaced({0: 4242}, proc=fake.proc, sys=fake.sys)[0]
