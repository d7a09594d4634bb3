"""Hardware item 2: what does not fit is not tried; what was held is judged with its incidents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes_drills import FakeRunner, judged, task
from fakes_machine import FakeMachine

from dvfd.drills.allocation import Allocation
from dvfd.drills.drill import Options
from dvfd.drills.supervise import supervise
from dvfd.drills.workers.pattern import BLOCK, PAGE, Memory
from dvfd.errors import ToolTimeout
from dvfd.model import Verdict

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
MEMORY = ("memory_rank", "memory_total", "memory_incidents")
GB = 10**9
SMALL = """
[override]
"hardware.memory_rank" = {limit = 0.5e9, reason = "a small node"}
"hardware.memory_total" = {limit = 2e9, reason = "a small node"}
"""


@pytest.fixture
def machine(tmp_path):
    """512 GB are free, and each of four children gets what it is told to."""
    made = FakeMachine(tmp_path, cores=8, threads=1, nodes=1)
    made.children = [{}, {}, {}, {}]
    return made


def found(machine, **more):
    chosen = task("hardware", machine.proc.parent, **{**machine.world, **more})
    return supervise(chosen, [Allocation()])


def results(machine, **more):
    chosen = task("hardware", machine.proc.parent, **{**machine.world, **more})
    return judged(chosen, supervise(chosen, [Allocation()]))


def plan(machine):
    return json.loads((machine.proc.parent / "scratch/crew-plan.json").read_text())


def outcome(judgement):
    return {name: judgement[name].verdict for name in MEMORY}


# --- What fits --------------------------------------------------------------------------------


def test_what_every_rank_held_while_all_did_passes(machine):
    judgement = results(machine)

    assert outcome(judgement) == dict.fromkeys(MEMORY, PASS)
    assert judgement["memory_total"].observed == 256e9


def test_every_rank_takes_what_its_criterion_wants_for_ten_seconds(machine):
    results(machine)

    assert (plan(machine)["bytes"], plan(machine)["hold"]) == (64 * GB, 10)
    assert plan(machine)["ranks"] == [None] * 4


def test_fewer_ranks_take_more_each_so_that_all_together_have_the_total(machine):
    machine.children = [{}, {}]

    judgement = results(machine, toml="[profile]\nprocesses_per_node = 2\n")

    assert plan(machine)["bytes"] == 128 * GB
    assert judgement["memory_total"].verdict is PASS


def test_ranks_are_bound_as_the_profile_says(machine):
    results(machine, toml='[profile]\nrank_cores = ["0-1", "2-3", "4", "5"]\n')

    assert plan(machine)["ranks"] == [[0, 1], [2, 3], [4], [5]]


def test_memory_that_lies_on_two_nodes_is_told(machine):
    text = "7f00 default anon=9 N0=3000000 N1=1000000 kernelpagesize_kB=4"
    machine.children[1] = {"numa_maps": text}
    machine.children[2] = {"numa_maps": text.replace("N1=1000000", "N1=100")}

    note = results(machine)["memory_rank"].note

    assert "rank 1: 12.29 GB on NUMA node 0, 4.096 GB on NUMA node 1" in note
    assert "rank 2" not in note


# --- What does not fit ------------------------------------------------------------------------


def test_what_does_not_fit_fails_and_nothing_is_allocated(machine):
    machine.memory(21 * GB)

    judgement = results(machine)

    assert outcome(judgement) == {
        "memory_rank": FAIL,
        "memory_total": FAIL,
        "memory_incidents": UNKNOWN,
    }
    assert judgement["memory_rank"].observed == 0
    assert "insufficient: needs 256 GB, free are 21 GB (MemAvailable)" in (
        judgement["memory_rank"].note
    )
    assert machine.run.ran == []


@pytest.mark.parametrize(("free", "verdict"), [(284, FAIL), (285, PASS)])
def test_a_tenth_of_what_is_free_stays_free(machine, free, verdict):
    machine.memory(free * GB)

    assert results(machine)["memory_total"].verdict is verdict


@pytest.mark.parametrize(("groups", "free"), [("cgroup_v1", "270 GB"), ("cgroup_v2", "260 GB")])
def test_the_limit_of_a_control_group_or_one_above_it_counts(machine, groups, free):
    machine.grouped(groups)

    result = results(machine)["memory_total"]

    assert result.verdict is FAIL
    assert f"free are {free} (the limit of control group" in result.note
    assert machine.run.ran == []


@pytest.mark.parametrize("name", ["address space", "data size"])
def test_a_limit_of_each_process_counts_once_for_each(machine, name):
    limits = (machine.proc / "self/limits").read_text()
    machine.write("proc/self/limits", limits.replace(f"{name}  unlimited", f"{name}  {50 * GB}"))

    result = results(machine)["memory_rank"]

    assert result.verdict is FAIL
    assert "free are 200 GB (RLIMIT_" in result.note


def test_a_kernel_that_counts_its_promises_counts(machine):
    machine.write("proc/sys/vm/overcommit_memory", 2)
    meminfo = (machine.proc / "meminfo").read_text()
    machine.write("proc/meminfo", f"{meminfo}CommitLimit: 300000000 kB\nCommitted_AS: 200000000 kB")

    assert "CommitLimit" in results(machine)["memory_rank"].note


@pytest.mark.parametrize(
    ("hidden", "words"),
    [
        ("proc/meminfo", "proc/meminfo: no such file"),
        ("proc/self/limits", "self/limits: no such file"),
        ("sys/fs/cgroup", "is it mounted?"),
    ],
)
def test_room_that_cannot_be_seen_is_unknown_and_not_taken(machine, hidden, words):
    place = machine.proc.parent / hidden
    place.rmdir() if place.is_dir() else place.unlink()

    judgement = results(machine)

    assert outcome(judgement) == dict.fromkeys(MEMORY, UNKNOWN)
    assert words in judgement["memory_rank"].reason
    assert machine.run.ran == []


def test_groups_of_memory_that_are_hidden_beside_others_are_unknown(machine):
    machine.grouped("cgroup_v1")
    (machine.sys / "fs/cgroup/memory").rename(machine.sys / "gone")

    assert "is it mounted?" in results(machine)["memory_rank"].reason


# --- What is refused or cut short -------------------------------------------------------------


def test_beside_a_training_job_nothing_is_allocated(machine):
    judgement = results(machine, training="train.py: rank 0 (pid 800)")

    assert outcome(judgement) == dict.fromkeys(MEMORY, UNKNOWN)
    assert "a training job runs: train.py: rank 0 (pid 800); --force" in (
        judgement["memory_rank"].reason
    )
    assert machine.run.ran == []


def test_force_allocates_beside_a_training_job(machine):
    judgement = results(machine, training="train.py", options=Options(force=True))

    assert outcome(judgement) == dict.fromkeys(MEMORY, PASS)


def test_interpreters_that_may_not_be_looked_into_are_told(machine, monkeypatch):
    for pid, command in ((800, "python3.12"), (801, "sshd")):
        machine.write(f"proc/{pid}/stat", f"{pid} (x) S 1 0")
        machine.write(f"proc/{pid}/comm", command)
        machine.write(f"proc/{pid}/environ", "")
    refused = Path.read_bytes

    def read_bytes(path):
        if path.name == "environ":
            raise PermissionError(13, "Permission denied")
        return refused(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)

    note = results(machine)["memory_rank"].note

    assert note == "pid 800: not ours to look into: does one train?"


def test_without_soak_much_memory_is_left_out_and_said_so(machine):
    judgement = results(machine, options=Options(soak=False))

    assert outcome(judgement) == dict.fromkeys(MEMORY, UNKNOWN)
    assert "left out: --no-soak, and 256 GB may take 21" in judgement["memory_rank"].reason
    assert machine.run.ran == []


def test_without_soak_a_little_is_held_for_a_moment_and_said_so(machine):
    judgement = results(machine, options=Options(soak=False), toml=SMALL)

    assert outcome(judgement) == dict.fromkeys(MEMORY, PASS)
    assert plan(machine)["hold"] == 1
    assert "held for 1 s instead of 10" in judgement["memory_rank"].note


def test_without_soak_too_little_memory_still_fails(machine):
    machine.memory(21 * GB)

    assert results(machine, options=Options(soak=False))["memory_total"].verdict is FAIL


# --- Incidents --------------------------------------------------------------------------------


def test_pages_that_come_back_wrong_fail(machine):
    machine.children[2] = {"wrong": 3}

    result = results(machine)["memory_incidents"]

    assert (result.verdict, result.observed) == (FAIL, 3)
    assert "{kind=wrong_page}" in result.reason


def test_pages_swapped_in_meanwhile_fail(machine):
    machine.memory(512 * GB, swapped=40)
    machine.meanwhile = lambda: machine.memory(200 * GB, swapped=47)

    result = results(machine)["memory_incidents"]

    assert (result.verdict, result.observed) == (FAIL, 7)
    assert "{kind=swap_in}" in result.reason


def test_a_rank_that_the_kernel_killed_for_want_of_memory_fails_and_is_named(machine):
    machine.memory(512 * GB, kills=2)
    machine.meanwhile = lambda: machine.memory(512 * GB, kills=3)
    machine.children[2] = {"wrote": 9 * GB, "ended": "killed"}
    machine.lost = "killed"

    judgement = results(machine)

    assert outcome(judgement) == dict.fromkeys(MEMORY, FAIL)
    assert "rank 2: killed after 9 GB" in judgement["memory_rank"].note
    assert "{kind=oom_kill}" in judgement["memory_incidents"].reason


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("cgroup_v1", "memory/gpt/memory.oom_control"),
        ("cgroup_v2", "job.slice/gpt.scope/memory.events"),
    ],
)
def test_a_kill_that_only_a_control_group_counts_fails(machine, groups, file):
    machine.grouped(groups)
    machine.write("proc/vmstat", "pgfault 12\npswpin 0")
    machine.meanwhile = lambda: machine.write(f"sys/fs/cgroup/{file}", "oom_kill 4")

    result = results(machine, toml=SMALL)["memory_incidents"]

    assert (result.verdict, result.observed) == (FAIL, 1)


def test_a_rank_that_somebody_killed_is_unknown(machine):
    machine.children[2] = {"wrote": 9 * GB, "wrong": None, "ended": "killed"}
    machine.lost = "killed"

    judgement = results(machine)

    assert outcome(judgement) == dict.fromkeys(MEMORY, UNKNOWN)
    assert "rank 2: killed after it wrote 9 GB" in judgement["memory_incidents"].reason


def test_a_rank_that_the_kernel_refuses_memory_fails(machine):
    machine.children[1] = {"wrote": 0, "ended": "[Errno 12] Cannot allocate memory"}
    machine.lost = "[Errno 12] Cannot allocate memory"

    result = results(machine)["memory_rank"]

    assert (result.verdict, result.observed) == (FAIL, 0)
    assert "rank 1: [Errno 12] Cannot allocate memory" in result.note


def test_ranks_that_stopped_because_others_took_memory_are_unknown(machine):
    machine.lost = "stopped: 11.0 GB are left"

    judgement = results(machine)

    assert outcome(judgement) == dict.fromkeys(MEMORY, UNKNOWN)
    assert "all ranks stopped: stopped: 11.0 GB are left" in judgement["memory_total"].reason


def test_a_kernel_that_counts_no_kills_leaves_incidents_unknown(machine):
    machine.write("proc/vmstat", "pgfault 12\npswpin 0")

    judgement = results(machine)

    assert judgement["memory_incidents"].verdict is UNKNOWN
    assert "oom_kill: not counted by this kernel" in judgement["memory_incidents"].reason
    assert judgement["memory_rank"].verdict is PASS


def test_counters_that_are_hidden_leave_incidents_unknown(machine):
    (machine.proc / "vmstat").unlink()

    assert "swap_in: not counted" in results(machine)["memory_incidents"].reason


def test_children_that_hang_are_unknown(machine):
    run = FakeRunner({"dvfd.drills.workers.crew": ToolTimeout("python: still running; killed")})

    assert outcome(results(machine, run=run)) == dict.fromkeys(MEMORY, UNKNOWN)


def test_a_person_is_told_how_far_it_is(machine):
    lines: list[str] = []

    found(machine, say=lines.append)

    assert lines[-1] == "memory: 1e-06 GB of 64 GB written in each rank"


# --- The pattern ------------------------------------------------------------------------------


@pytest.fixture
def memory():
    made = Memory(3 * BLOCK + PAGE + 1, seed=7)
    made.write(0, made.size)
    return made


def test_what_was_written_comes_back(memory):
    assert memory.size == 3 * BLOCK + 2 * PAGE
    assert memory.wrong() == 0


def test_memory_that_was_not_written_is_wrong():
    assert Memory(BLOCK, seed=7).wrong() == BLOCK // PAGE


@pytest.mark.parametrize("at", [0, PAGE - 1, 2 * BLOCK + 5, 3 * BLOCK + 2 * PAGE - 1])
def test_one_flipped_bit_is_one_wrong_page(memory, at):
    memory.bytes[at] ^= 0x10

    assert memory.wrong() == 1


def test_a_bit_that_is_stuck_is_found_by_the_pattern_or_by_its_complement(memory):
    def stuck() -> int:
        memory.bytes[BLOCK] |= 0x04
        return memory.wrong()

    first = stuck()
    memory.invert()
    memory.write(0, memory.size)

    assert first + stuck() == 1


def test_a_page_that_answers_for_another_is_noticed(memory):
    memory.bytes[BLOCK : BLOCK + PAGE] = memory.bytes[:PAGE]

    assert memory.wrong() == 1
