"""Processor shares: of the node, and of each rank against what it is allotted."""

from __future__ import annotations

import re

import pytest
from fakes import FakeClock
from fakes_probes import FIXTURES, measure, tree, values

from dvfd.errors import ProbeError
from dvfd.model import labels
from dvfd.probes import cgroups, files
from dvfd.probes.cpu import (
    Bounds,
    Cpu,
    Ticks,
    allotments,
    node_times,
    process_use,
    processor_times,
)

RANK0, RANK1 = labels(job="gpt", rank=0), labels(job="gpt", rank=1)


class Node:
    """A fixture tree whose processes can be made to work."""

    def __init__(self, root, *ranks):
        self.root, self.clock = root, FakeClock()
        self.ranks = list(ranks) or [("gpt", 0, 101, 0.0), ("gpt", 1, 102, 0.0)]
        self.probe = Cpu(lambda: self.ranks, clock=self.clock, proc=root / "proc", sys=root / "sys")

    def work(self, pid, *, ticks, started=None):
        path = self.root / f"proc/{pid}/stat"
        name, _, rest = path.read_text().rpartition(")")
        fields = rest.split()
        fields[11] = str(int(fields[11]) + ticks)
        fields[19] = str(started or fields[19])
        path.write_text(f"{name}) {' '.join(fields)}")

    def after(self, seconds=5.0):
        self.clock.advance(seconds)
        return measure(self.probe)


@pytest.fixture
def v2(tmp_path):
    return Node(tree(tmp_path, "cgroup_v2"))


def test_the_first_look_brings_nothing(v2):
    assert measure(v2.probe) == ([], "")


def test_the_node_is_busy_when_neither_idle_nor_waiting_for_disks(v2):
    measure(v2.probe)
    (v2.root / "proc/stat").write_text("cpu  1060 0 500 8030 410 50 50 0 0 0\n")

    samples, _ = v2.after()

    assert values(samples, "node_cpu_ratio") == {(): pytest.approx(0.6)}


def test_idle_time_that_runs_backwards_is_not_negative_work(v2):
    measure(v2.probe)
    (v2.root / "proc/stat").write_text("cpu  1000 0 500 8100 300 50 50 1 0 0\n")

    samples, _ = v2.after()

    assert 0 <= values(samples, "node_cpu_ratio")[()] <= 1


def test_a_quota_of_cgroup_v2_is_shared_by_the_ranks_under_it(v2):
    measure(v2.probe)
    v2.work(101, ticks=600)  # 6 s of 5 s x 1.5 cores

    samples, _ = v2.after()

    assert values(samples, "rank_cpu_ratio") == {RANK0: pytest.approx(0.8), RANK1: 0.0}


def test_a_quota_of_cgroup_v1_is_shared_by_the_ranks_under_it(tmp_path):
    node = Node(tree(tmp_path, "cgroup_v1"))
    measure(node.probe)
    node.work(102, ticks=900)  # 9 s of 5 s x 2 cores

    samples, _ = node.after()

    assert values(samples, "rank_cpu_ratio") == {RANK0: 0.0, RANK1: pytest.approx(0.9)}


def test_cores_that_the_caller_gives_are_taken(tmp_path):
    node = Node(tree(tmp_path, "cgroup_v2"), ("gpt", 0, 101, 4.0))
    measure(node.probe)
    node.work(101, ticks=1000)

    samples, _ = node.after()

    assert values(samples, "rank_cpu_ratio") == {RANK0: pytest.approx(0.5)}


def test_a_later_process_of_the_same_pid_is_not_the_rank(v2):
    measure(v2.probe)
    v2.work(101, ticks=100_000, started=9999)

    samples, _ = v2.after()

    assert RANK0 not in values(samples, "rank_cpu_ratio")
    assert RANK0 in values(v2.after()[0], "rank_cpu_ratio")


def test_a_rank_that_is_gone_leaves_the_others(v2):
    measure(v2.probe)
    for file in (v2.root / "proc/101").iterdir():
        file.unlink()

    samples, error = v2.after()

    assert list(values(samples, "rank_cpu_ratio")) == [RANK1]
    assert "gpt rank 0 (pid 101)" in v2.probe.gaps["rank_cpu_ratio"]
    assert error == ""


def test_a_rank_whose_processors_cannot_be_read_is_named(v2):
    (v2.root / "proc/101/status").write_text("Name: python3\n")
    measure(v2.probe)

    samples, _ = v2.after()

    assert list(values(samples, "rank_cpu_ratio")) == [RANK1]
    assert "gpt rank 0" in v2.probe.gaps["rank_cpu_ratio"]


def test_a_node_without_ranks_says_so(v2):
    v2.ranks = []
    measure(v2.probe)

    assert v2.probe.gaps == {"rank_cpu_ratio": "no rank is known here"}


def test_a_zombie_is_no_rank():
    assert process_use("7 (python3) Z " + "0 " * 30, 1.0) is None


def test_ranks_that_share_processors_share_them_evenly():
    all_of_it, half = frozenset(range(4)), frozenset(range(2))

    cores = allotments({1: Bounds(all_of_it, {}), 2: Bounds(half, {})})

    assert cores == {1: 3.0, 2: 1.0}


def test_the_tightest_quota_above_a_rank_decides():
    mask = frozenset(range(8))

    assert allotments({1: Bounds(mask, {"/a": 6.0, "/a/b": 2.5})}) == {1: 2.5}


def test_processors_that_are_not_plugged_in_are_not_allotted(v2):
    (v2.root / "sys/fs/cgroup/job.slice/gpt.scope/cpu.max").write_text("max 100000")
    measure(v2.probe)
    v2.work(101, ticks=1000)  # 10 s of 5 s x 8 / 2 cores

    samples, _ = v2.after()

    assert values(samples, "rank_cpu_ratio")[RANK0] == pytest.approx(0.5)


def test_a_group_of_another_container_shows_no_quota():
    assert cgroups.quotas("0::/../other", FIXTURES / "cgroup_v2/sys") == {}


def test_unreadable_proc_is_named(tmp_path):
    probe = Cpu(list, clock=FakeClock(), proc=tmp_path, sys=tmp_path)

    with pytest.raises(ProbeError, match=re.escape(f"{tmp_path}/stat: no such file")):
        list(probe.sample(0))


@pytest.mark.parametrize("stat", ["", "cpu", "intr 1 2 3 4", "cpu 1 2"])
def test_a_stat_without_times_is_an_error(stat):
    with pytest.raises(ProbeError):
        node_times(stat)


def test_kernel_lists_are_read():
    assert files.cpus("0-2,8") == {0, 1, 2, 8}
    with pytest.raises(ProbeError, match="wanted a list"):
        files.cpus("0-x")


def test_each_processor_has_its_own_times_and_what_the_host_took():
    stat = "cpu 9 9 9 9\ncpu0 1 2 3 40 5 6 7 8 9 9\ncpu12 1 2 3 40\nintr 5"

    assert processor_times(stat) == {0: Ticks(45, 8, 72), 12: Ticks(40, 0, 46)}


def test_times_of_no_processor_are_an_error():
    with pytest.raises(ProbeError, match="wanted 'cpu0'"):
        processor_times("cpu 1 2 3 4")
