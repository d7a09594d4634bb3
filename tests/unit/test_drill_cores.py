"""Hardware item 1: physical cores that may be used, and those of each rank."""

from __future__ import annotations

import pytest
from fakes_drills import FakeRunner, judged, said, task, verdicts
from fakes_machine import FakeMachine, child
from fakes_probes import FIXTURES

from dvfd.drills.cores import Cores, RankCores
from dvfd.drills.supervise import supervise
from dvfd.errors import ToolTimeout
from dvfd.model import Verdict

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
EIGHTS = tuple(range(first, first + 8) for first in (0, 8, 16, 24))
PARTS = (Cores(), RankCores())
RANKS = ("cores_least", "cores_most", "cores_disjoint")


@pytest.fixture
def machine(tmp_path):
    """Two packages of 16 cores with SMT, and a crew on eight cores each."""
    made = FakeMachine(tmp_path)
    made.bound(*EIGHTS)
    return made


def found(machine, **more):
    return supervise(task("hardware", machine.proc.parent, **{**machine.world, **more}), PARTS)


def results(machine, **more):
    chosen = task("hardware", machine.proc.parent, **{**machine.world, **more})
    return judged(chosen, supervise(chosen, PARTS))


def value(findings, metric):
    return {s.labels: s.value for s in findings.samples if s.metric == metric}


def only(findings, metric):
    return value(findings, metric)[()]


def fact(findings, name):
    return next(f.text for f in findings.facts if f.name == name)


# --- The node ---------------------------------------------------------------------------------


def test_siblings_count_once_and_core_ids_of_two_packages_are_two(machine):
    findings = found(machine)

    assert only(findings, "hardware_usable_cores") == 32
    assert fact(findings, "processors") == (
        "Fake CPU 32: 2 packages, 32 cores, 64 logical processors online, SMT on,"
        " 2 processors on a core"
    )


def test_enough_cores_pass_with_every_rank_on_its_own(machine):
    judgement = verdicts(results(machine))

    assert {judgement[name] for name in ("cores", *RANKS)} == {PASS}


def test_without_smt_every_processor_is_a_core(tmp_path):
    machine = FakeMachine(tmp_path, cores=16, threads=1)
    machine.bound(range(4), range(4, 8), range(8, 12), range(12, 16))

    findings = found(machine)

    assert only(findings, "hardware_usable_cores") == 16
    assert "SMT off" in fact(findings, "processors")


def test_offline_processors_are_told_and_not_counted(tmp_path):
    machine = FakeMachine(tmp_path, cores=16, threads=2, offline=[*range(4), *range(16, 20)])
    machine.bound(range(4, 8), range(8, 12), [12, 13], [14, 15])

    findings = found(machine)

    assert only(findings, "hardware_usable_cores") == 12
    assert fact(findings, "processors").endswith("offline: 0,1,2,3,16,17,18,19")


def test_too_few_cores_fail(tmp_path):
    machine = FakeMachine(tmp_path, cores=8, threads=2)
    machine.bound([0], [1], [2], [3])

    assert results(machine)["cores"].verdict is FAIL


def test_an_affinity_leaves_only_its_cores(machine):
    machine.ourselves([0, 1, 2, 3, 32, 33, 34, 35])

    result = results(machine)["cores"]

    assert (result.verdict, result.observed) == (FAIL, 4)
    assert "may run on processors 0-3,32-35, no quota" in result.note


@pytest.mark.parametrize(("groups", "quota"), [("cgroup_v1", 4), ("cgroup_v2", 3)])
def test_a_quota_caps_the_cores(machine, groups, quota):
    machine.grouped(groups)

    result = results(machine)["cores"]

    assert (result.verdict, result.observed) == (FAIL, quota)
    assert f"a quota of {quota} cores" in result.note


def test_a_quota_of_half_a_core_is_a_failure_and_not_a_riddle(machine):
    machine.grouped("cgroup_v2")
    machine.write("sys/fs/cgroup/job.slice/cpu.max", "50000 100000")

    assert results(machine)["cores"].verdict is FAIL


def test_cores_are_unknown_while_control_groups_are_hidden(machine):
    (machine.sys / "fs/cgroup").rmdir()

    result = results(machine)["cores"]

    assert result.verdict is UNKNOWN
    assert "is it mounted?" in result.reason


def test_too_few_cores_fail_whatever_a_hidden_quota_says(machine):
    machine.ourselves([0, 1])
    (machine.sys / "fs/cgroup").rmdir()

    assert results(machine)["cores"].verdict is FAIL


@pytest.mark.parametrize(
    ("hidden", "words"),
    [
        ("sys/devices/system/cpu/online", "cpu/online: no such file"),
        ("sys/devices/system/cpu/cpu3/topology/core_cpus_list", "cpu3/topology"),
    ],
)
def test_what_is_hidden_is_unknown_and_named(machine, hidden, words):
    (machine.proc.parent / hidden).unlink()

    judgement = results(machine)

    assert {judgement[name].verdict for name in ("cores", *RANKS)} == {UNKNOWN}
    assert words in judgement["cores"].reason


def test_a_proc_that_hides_ourselves_is_unknown(machine):
    (machine.proc / "self/status").unlink()

    result = results(machine)["cores"]

    assert result.verdict is UNKNOWN
    assert "self/status: no such file" in result.reason


def test_an_older_kernel_names_siblings_otherwise(machine):
    for place in machine.sys.glob("devices/system/cpu/cpu*/topology"):
        (place / "core_cpus_list").rename(place / "thread_siblings_list")

    assert only(found(machine), "hardware_usable_cores") == 32


def test_a_topology_that_contradicts_itself_is_unknown(machine):
    machine.write("sys/devices/system/cpu/cpu3/topology/core_cpus_list", "4,36")

    assert "not among its own siblings" in results(machine)["cores"].reason


def test_a_recorded_machine_is_read_as_lscpu_reads_it(tmp_path):
    place = FIXTURES / "kvm_2_cores"
    (place / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
    run = FakeRunner({"lscpu": said((place / "lscpu.json").read_text())})

    findings = supervise(
        task("hardware", tmp_path, proc=place / "proc", sys=place / "sys", run=run), PARTS
    )

    assert only(findings, "hardware_usable_cores") == 2
    assert fact(findings, "lscpu") == "agrees: 2 cores, 2 processors"


# --- lscpu ------------------------------------------------------------------------------------


def test_an_lscpu_that_counts_otherwise_makes_all_unknown(machine):
    machine.run = answering(machine, said('{"cpus": [{"cpu": 0, "core": 0, "socket": 0}]}'))

    judgement = results(machine)

    assert {judgement[name].verdict for name in ("cores", *RANKS)} == {UNKNOWN}
    assert "lscpu counts 1 cores and 1 processors, sysfs 32 and 64" in judgement["cores"].reason


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ToolTimeout("lscpu: still running after 10 s; killed"), "not asked: lscpu: still running"),
        (said("Architektur:  x86_64\nCPU(s):  64\n"), "read 'Architektur:"),
        (said('{"lscpu": []}'), "wanted JSON"),
        (said("", code=1, stderr="lscpu: unknown column: CORE"), "exit 1, read 'lscpu: unknown"),
    ],
)
def test_an_lscpu_that_says_nothing_usable_is_told_and_sysfs_stands(machine, answer, words):
    machine.run = answering(machine, answer)

    findings = found(machine)

    assert words in fact(findings, "lscpu")
    assert only(findings, "hardware_usable_cores") == 32


def test_a_node_without_lscpu_is_measured_all_the_same(machine):
    machine.run = FakeRunner(
        {"dvfd.drills.workers.crew": machine.run._answers["dvfd.drills.workers.crew"]}
    )

    findings = found(machine)

    assert "cannot be started" in fact(findings, "lscpu")
    assert only(findings, "hardware_usable_cores") == 32


def answering(machine, lscpu):
    return FakeRunner({**machine.run._answers, "lscpu": lscpu})


# --- The ranks --------------------------------------------------------------------------------


def test_ranks_that_are_not_bound_fight_and_are_told_what_to_do(machine):
    machine.bound(*[machine.online] * 4)

    judgement = results(machine)

    assert judgement["cores_disjoint"].observed == 32
    assert judgement["cores_disjoint"].verdict is FAIL
    assert judgement["cores_most"].verdict is FAIL
    note = judgement["cores_disjoint"].note
    assert "rank 0, rank 1, rank 2, rank 3 on 0-63" in note
    assert "profile.rank_cores" in note


def test_two_ranks_on_the_two_threads_of_a_core_fight_over_it(machine):
    machine.bound(range(8), [*range(8, 15), 32], EIGHTS[2], EIGHTS[3])

    result = results(machine)["cores_disjoint"]

    assert (result.verdict, result.observed) == (FAIL, 1)


def test_a_rank_with_three_cores_has_too_few(machine):
    machine.bound([0, 1, 2, 32, 33, 34], *EIGHTS[1:])

    result = results(machine)["cores_least"]

    assert (result.verdict, result.observed) == (FAIL, 3)


def test_a_rank_with_nine_cores_has_more_than_its_share(machine):
    machine.bound(range(9), range(9, 16), *EIGHTS[2:])

    result = results(machine)["cores_most"]

    assert (result.verdict, result.observed) == (FAIL, 9)


def test_ranks_share_out_a_quota(machine):
    membership = machine.grouped("cgroup_v1")
    machine.bound(*EIGHTS, cgroup=membership)

    result = results(machine)["cores_least"]

    assert (result.verdict, result.observed) == (FAIL, 1)
    assert "quota" in result.note


def test_processors_that_could_be_plugged_in_are_no_cores_of_a_rank(machine):
    machine.bound(*EIGHTS[:3], [*EIGHTS[3], *range(64, 128)])

    assert results(machine)["cores_most"].verdict is PASS


def test_the_ranks_of_a_running_job_are_looked_at_and_none_is_started(machine):
    for number, mask in enumerate(EIGHTS):
        machine.rank(800 + number, number, mask)
    machine.children = []

    findings = found(machine)

    assert set(value(findings, "hardware_rank_cores").values()) == {8}
    assert fact(findings, "ranks on cores").startswith("train.py: rank 0 (pid 800), rank 1")
    assert {argv[0] for argv in machine.run.ran} == {"lscpu"}


def test_half_a_job_is_unknown(machine):
    machine.rank(800, 0, EIGHTS[0])
    machine.rank(801, 1, EIGHTS[1])

    judgement = results(machine)

    assert {judgement[name].verdict for name in RANKS} == {UNKNOWN}
    assert "rank 1 (pid 801); the profile announces 4 ranks" in judgement["cores_least"].reason
    assert judgement["cores"].verdict is PASS


def test_two_jobs_at_once_are_unknown(machine):
    for pid, number in ((800, 0), (801, 1), (802, 0), (803, 1)):
        machine.rank(pid, number, EIGHTS[number])

    assert results(machine)["cores_disjoint"].verdict is UNKNOWN


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ('["0-7", "8-15", "16-23", "24,99"]', "gives rank 3 processors 24,99: 99 not online"),
    ],
)
def test_a_profile_that_names_cores_that_are_not_there_is_unknown(machine, lists, words):
    judgement = results(machine, toml=f"[profile]\nrank_cores = {lists}\n")

    assert {judgement[name].verdict for name in RANKS} == {UNKNOWN}
    assert words in judgement["cores_least"].reason
    assert {argv[0] for argv in machine.run.ran} == {"lscpu"}


@pytest.mark.parametrize(
    ("children", "words"),
    [
        ([child([0], pages={0: 1})] * 3, "3 children answered, wanted 4"),
        ([{"status": None}] * 4, "no status in their answer"),
        ([{"wrote": "much"}] * 4, "answered ValueError"),
        (
            [{"status": "", "stat": "", "cgroup": "", "numa_maps": ""}] * 4,
            "wanted Cpus_allowed_list",
        ),
        (["rank"] * 4, "not a mapping"),
    ],
)
def test_children_that_answer_nonsense_are_unknown(machine, children, words):
    machine.children = children

    judgement = results(machine)

    assert {judgement[name].verdict for name in RANKS} == {UNKNOWN}
    assert words in judgement["cores_least"].reason


def test_children_that_die_are_unknown_with_their_last_words(machine):
    machine.run = answering(machine, None)
    machine.run._answers["dvfd.drills.workers.crew"] = said(code=-9, stderr="out of luck\n")
    machine.run._answers["lscpu"] = ToolTimeout("lscpu")

    result = results(machine)["cores_disjoint"]

    assert result.verdict is UNKNOWN
    assert "killed by SIGKILL: out of luck" in result.reason
