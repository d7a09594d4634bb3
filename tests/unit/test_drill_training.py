"""Ranks of a running job are found by their environment; what is ours or only looks so is not."""

from __future__ import annotations

import os

import pytest

from dvfd.drills.training import Rank, training, words


class FakeProc:
    """A /proc of processes with a parent, an environment and a command line."""

    def __init__(self, root):
        self.root = root

    def add(self, pid, *, parent=1, command="python train.py", state="S", **environment):
        entry = self.root / str(pid)
        entry.mkdir()
        (entry / "stat").write_text(f"{pid} (py (3)) {state} {parent} 1 1")
        (entry / "cmdline").write_text("\0".join([*command.split(), ""]))
        text = "\0".join(f"{name}={value}" for name, value in environment.items())
        (entry / "environ").write_text(text)


@pytest.fixture
def proc(tmp_path):
    return FakeProc(tmp_path)


def rank(number, **more):
    return {"RANK": number, "LOCAL_RANK": number % 4, "WORLD_SIZE": 8, **more}


def test_ranks_of_a_job_are_found_in_their_order(proc):
    proc.add(101, **rank(5))
    proc.add(102, **rank(4), command="python -m recipes.train --token hush")

    assert training(proc.root) == [
        Rank(102, 4, 0, 8, "recipes.train"),
        Rank(101, 5, 1, 8, "train.py"),
    ]


def test_ranks_that_mpirun_started_are_found(proc):
    mpi = {"RANK": 3, "LOCAL_RANK": 3, "SIZE": 4}
    proc.add(101, **{f"OMPI_COMM_WORLD_{name}": value for name, value in mpi.items()})

    assert training(proc.root) == [Rank(101, 3, 3, 4, "train.py")]


def test_what_a_rank_started_counts_as_that_rank(proc):
    proc.add(101, **rank(0))
    proc.add(150, parent=101, command="loader", **rank(0))
    proc.add(160, parent=150, command="loader", **rank(0))

    assert [r.pid for r in training(proc.root)] == [101]


def test_an_agent_with_a_rank_of_its_own_is_none_where_its_ranks_are_seen(proc):
    proc.add(100, command="torchrun train.py", RANK=0, WORLD_SIZE=2)
    proc.add(101, parent=100, **rank(0))
    proc.add(102, parent=100, **rank(1))

    assert [r.pid for r in training(proc.root)] == [101, 102]


def test_a_rank_whose_launcher_gives_no_local_rank_is_found(proc):
    proc.add(101, RANK=2, WORLD_SIZE=4)

    assert training(proc.root) == [Rank(101, 2, 2, 4, "train.py")]


def test_the_processes_of_a_drill_are_no_job(proc):
    proc.add(101, **rank(0, DVFD_DRILL="1f"))

    assert training(proc.root) == []


def test_the_training_of_a_stability_run_is_a_job(proc):
    proc.add(101, **rank(0, DVFD_DRILL="stability.phase1_x"))

    assert [r.pid for r in training(proc.root)] == [101]


def test_neither_we_nor_our_ancestors_nor_our_children_are_a_job(proc):
    proc.add(1, parent=0)
    proc.add(os.getpid() + 1, parent=1, **rank(0))
    proc.add(os.getpid(), parent=os.getpid() + 1, **rank(0))
    proc.add(os.getpid() + 2, parent=os.getpid(), **rank(1))

    assert training(proc.root) == []


@pytest.mark.parametrize("environment", [{}, {"RANK": 0}, {"RANK": "first", "WORLD_SIZE": 2}])
def test_a_process_without_a_whole_place_is_no_rank(proc, environment):
    proc.add(101, **environment)

    assert training(proc.root) == []


def test_a_process_that_has_ended_is_no_rank(proc):
    proc.add(101, state="Z", **rank(0))

    assert training(proc.root) == []


def test_a_process_that_hides_its_environment_is_passed_over(proc):
    proc.add(101, **rank(0))
    (proc.root / "101/environ").unlink()
    proc.add(102, **rank(1))

    assert [r.pid for r in training(proc.root)] == [102]


def test_a_job_is_told_by_its_script_and_never_by_its_arguments(proc):
    proc.add(101, command="python train.py --password hush", **rank(0))
    proc.add(102, command="python train.py --password hush", **rank(1))

    assert words(training(proc.root)) == "train.py: rank 0 (pid 101), rank 1 (pid 102)"


def test_on_this_machine_the_tests_own_processes_are_no_job():
    assert os.getpid() not in [r.pid for r in training()]
