"""OpenMPI, torch and the launchers: what is there is told as it is, what is not seen stays open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, said, task
from fakes_software import THERE, TORCH, Software, by_mpirun, by_torchrun, which

from dvfd.clock import SystemClock
from dvfd.drills.drill import Options, Task
from dvfd.drills.interface import VARIABLE, GlooInterface
from dvfd.drills.launchers import Mpirun, Torchrun
from dvfd.drills.memo import KEPT
from dvfd.drills.openmpi import OpenMpi
from dvfd.drills.pytorch import Threads, TorchInside, VisibleCores
from dvfd.drills.supervise import supervise
from dvfd.drills.version import encode
from dvfd.errors import ProbeError, ToolError, ToolTimeout
from dvfd.model import Result, labels

MPI = which("ompi_info", "mpirun")
SEGFAULT = said(code=-11)
HANGS = ToolTimeout("python: still running after 120 s; killed")
ABSENT = ToolError("/opt/none/bin/python: cannot be started: No such file or directory")
FRAME = "-" * 74 + "\n"
TWO_NODES = "[profile]\nnodes = 2\n"


def world(directory: Path, check: str = "openmpi_gloo", toml: str = "", **software: Any) -> Task:
    return task(check, directory, toml=toml, run=Software(**software), sys=directory / "sys")


def ran(part: Any, task: Task) -> dict[str, Result]:
    return judged(task, supervise(task, [part]))


# --- Versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4.1.6", 4.001006),
        ("v5.0.3", 5.000003),
        ("2.13.0+cpu", 2.013),
        ("2.1", 2.001),
        ("2.1.0.post1", 2.001),
        ("4.1.2-1ubuntu1", 4.001002),
        ("4.1.0rc3", 4.0009995),
        ("2.1.0a0+git1234", 2.0009995),
        ("2.4.0.dev20240601+cu121", 2.0039995),
    ],
)
def test_a_version_is_a_number_that_compares(text: str, value: float) -> None:
    assert encode(text) == value


def test_ten_comes_after_nine_and_a_candidate_before_its_release() -> None:
    order = ["2.0.1", "2.1.0a0", "2.1.0", "2.1.1", "2.9.0", "2.10.0rc1", "2.10.0", "10.0.0"]
    assert sorted(order, key=encode) == order


@pytest.mark.parametrize("text", ["", "four", "4", "4.1.x", "2.1.0~odd", "4.1234.0", "-1.2.3"])
def test_what_is_no_version_is_not_made_one(text: str) -> None:
    with pytest.raises(ProbeError, match="read"):
        encode(text)


# --- OpenMPI ------------------------------------------------------------------------------------


def test_openmpi_of_today_passes(tmp_path: Path) -> None:
    result = ran(OpenMpi(MPI), world(tmp_path))["openmpi"]
    assert (result.verdict, result.observed) == ("PASS", 4.001004)


@pytest.mark.parametrize("old", ["4.0.7", "3.1.6", "4.1.0rc2"])
def test_an_old_openmpi_fails(tmp_path: Path, old: str) -> None:
    chosen = world(tmp_path, openmpi=f"Open MPI v{old}\n")
    assert ran(OpenMpi(MPI), chosen)["openmpi"].verdict == "FAIL"


def test_no_openmpi_fails_and_says_what_to_install(tmp_path: Path) -> None:
    result = ran(OpenMpi(which()), world(tmp_path))["openmpi"]
    assert (result.verdict, result.observed) == ("FAIL", 0.0)
    assert "apt-get install openmpi-bin" in result.note


@pytest.mark.parametrize("path", [MPI, which()])
def test_openmpi_that_the_site_does_without_is_not_applicable(tmp_path: Path, path: Any) -> None:
    chosen = world(tmp_path, toml='[profile]\nopenmpi = "optional"\n')
    assert ran(OpenMpi(path), chosen)["openmpi"].verdict == "NOT_APPLICABLE"
    assert ran(Mpirun(which=path), chosen)["environment_mpirun"].verdict == "NOT_APPLICABLE"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Open MPI vfour\n", "'four'"),
        ("HYDRA build details:\n    Version: 4.1.2\n", "wanted Open MPI"),
        ("", "wanted Open MPI"),
        (said(code=127, stderr="ompi_info: error while loading libopen-pal.so\n"), "libopen-pal"),
        (SEGFAULT, "killed by SIGSEGV"),
        (ToolTimeout("ompi_info: still running after 30 s; killed"), "still running"),
    ],
)
def test_an_openmpi_that_cannot_be_asked_is_unknown(
    tmp_path: Path, answer: Any, words: str
) -> None:
    result = ran(OpenMpi(MPI), world(tmp_path, openmpi=answer))["openmpi"]
    assert result.verdict == "UNKNOWN"
    assert words in result.reason


def test_an_openmpi_that_cannot_be_asked_leaves_torch_alone(tmp_path: Path) -> None:
    chosen = world(tmp_path, openmpi=SEGFAULT)
    results = judged(chosen, supervise(chosen, [OpenMpi(MPI), TorchInside()]))
    assert results["gloo_carrier"].verdict == "PASS"


# --- mpirun -------------------------------------------------------------------------------------


def mpi(chosen: Task) -> Result:
    return ran(Mpirun(which=MPI, there=lambda: THERE), chosen)["environment_mpirun"]


def test_a_universe_of_the_worlds_size_is_correct(tmp_path: Path) -> None:
    assert mpi(world(tmp_path)).verdict == "PASS"


@pytest.mark.parametrize(
    ("children", "words"),
    [
        (by_mpirun(OMPI_UNIVERSE_SIZE=None), "OMPI_UNIVERSE_SIZE is not set, wanted 4"),
        (by_mpirun(OMPI_UNIVERSE_SIZE="2"), "OMPI_UNIVERSE_SIZE is 2, wanted 4"),
        (by_mpirun(OMPI_UNIVERSE_SIZE="four"), "OMPI_UNIVERSE_SIZE is four"),
        (by_mpirun(OMPI_COMM_WORLD_SIZE="1"), "OMPI_COMM_WORLD_SIZE is 1"),
        (by_mpirun(OMPI_COMM_WORLD_RANK="0"), "OMPI_COMM_WORLD_RANK is 0, 0, 0, 0, wanted 0 to 3"),
        (by_mpirun()[:3], "3 of 4 processes answered"),
    ],
)
def test_a_universe_that_is_not_the_world_fails(tmp_path: Path, children: Any, words: str) -> None:
    result = mpi(world(tmp_path, mpi=children))
    assert result.verdict == "FAIL"
    assert words in result.note


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    children = by_mpirun(OMPI_UNIVERSE_SIZE="2", OMPI_COMM_WORLD_SIZE=None)
    note = mpi(world(tmp_path, mpi=children, include="eth7")).note
    assert all(w in note for w in ("UNIVERSE_SIZE is 2", "WORLD_SIZE is not set", "'eth7'"))


@pytest.mark.parametrize("include", ["eth0", "lo,eth0", "192.0.2.0/24", "fd00::/64"])
def test_interfaces_and_networks_that_exist_are_correct_for_mpi(
    tmp_path: Path, include: str
) -> None:
    assert mpi(world(tmp_path, include=include)).verdict == "PASS"


@pytest.mark.parametrize("include", ["eth7", "eth0,203.0.113.0/24", "10.0.0.300/8"])
def test_interfaces_and_networks_that_are_not_there_fail_for_mpi(
    tmp_path: Path, include: str
) -> None:
    result = mpi(world(tmp_path, include=include))
    assert result.verdict == "FAIL"
    assert "no interface or network here" in result.note


def test_no_mpirun_fails_and_says_what_to_install(tmp_path: Path) -> None:
    result = ran(Mpirun(which=which("ompi_info")), world(tmp_path))["environment_mpirun"]
    assert result.verdict == "FAIL"
    assert "apt-get install openmpi-bin" in result.note


@pytest.mark.parametrize(
    ("software", "words"),
    [
        ({"mpirun": "HYDRA build details:\n"}, "wanted Open MPI"),
        ({"mpi": ToolTimeout("mpirun: still running after 60 s; killed")}, "still running"),
        ({"mpi": ([], said(code=1, stderr=f"{FRAME}no slots\n{FRAME}\nmore\n"))}, "1: no slots"),
        ({"mpi": ([], said(code=1, stderr="mpirun: no memory\n"))}, "mpirun: no memory"),
        ({"mpi": (by_mpirun(), said(code=-11))}, "killed by SIGSEGV"),
        ({"mpi": [*by_mpirun()[:3], "{half"]}, "cannot be read"),
        ({"mpi": [*by_mpirun()[:3], {"environment": {}}]}, "lacks something"),
        ({"mpi": [*by_mpirun()[:3], []]}, "no table"),
    ],
)
def test_an_mpirun_that_could_not_be_looked_at_is_unknown(
    tmp_path: Path, software: dict[str, Any], words: str
) -> None:
    result = mpi(world(tmp_path, **software))
    assert result.verdict == "UNKNOWN"
    assert words in result.reason


# --- torchrun -----------------------------------------------------------------------------------


def elastic(chosen: Task) -> Result:
    return ran(Torchrun(), chosen)["environment_torchrun"]


def test_a_complete_torchrun_is_correct(tmp_path: Path) -> None:
    assert elastic(world(tmp_path)).verdict == "PASS"


@pytest.mark.parametrize(
    ("children", "words"),
    [
        (by_torchrun(RANK="2"), "RANK is 2, 2, 2, 2, wanted 0 to 3"),
        (by_torchrun(RANK=None), "RANK is not set"),
        (by_torchrun(LOCAL_RANK="0"), "LOCAL_RANK is 0, 0, 0, 0"),
        (by_torchrun(WORLD_SIZE="8"), "WORLD_SIZE is 8, wanted 4"),
        (by_torchrun(LOCAL_WORLD_SIZE="2"), "LOCAL_WORLD_SIZE is 2, wanted 4"),
        (by_torchrun(MASTER_ADDR=None), "MASTER_ADDR is not set"),
        (by_torchrun(MASTER_PORT="none"), "MASTER_PORT is 'none': no port"),
        (by_torchrun(MASTER_PORT="70000"), "MASTER_PORT is '70000': no port"),
        ([*by_torchrun()[:3], by_torchrun(MASTER_PORT="29501")[3]], "29500 and 29501"),
        ([r | {"master": "'head' does not resolve: Name"} for r in by_torchrun()], "'head' does"),
        (by_torchrun()[:2], "2 of 4 processes answered"),
    ],
)
def test_a_torchrun_that_is_not_complete_fails(tmp_path: Path, children: Any, words: str) -> None:
    result = elastic(world(tmp_path, elastic=children))
    assert result.verdict == "FAIL"
    assert words in result.note


def test_without_torch_there_is_no_torchrun_either(tmp_path: Path) -> None:
    result = elastic(world(tmp_path, torch=TORCH | {"version": "", "backends": {}}))
    assert result.verdict == "FAIL"
    assert "pip install 'torch>=2.1'" in result.note


@pytest.mark.parametrize(
    ("software", "words"),
    [
        ({"elastic": HANGS}, "still running"),
        (
            {"elastic": ([], said(code=1, stderr="No module named torch.distributed\n"))},
            "No module",
        ),
        ({"torch": SEGFAULT}, "killed by SIGSEGV"),
        ({"torch": ABSENT}, "[drills] python"),
    ],
)
def test_a_torchrun_that_could_not_be_looked_at_is_unknown(
    tmp_path: Path, software: dict[str, Any], words: str
) -> None:
    result = elastic(world(tmp_path, **software))
    assert result.verdict == "UNKNOWN"
    assert words in result.reason


def test_a_rank_that_dies_of_torch_has_told_its_environment(tmp_path: Path) -> None:
    dies = said(code=1, stderr="  exitcode  : -11 (pid: 7)\n=====\n")
    chosen = world(tmp_path, elastic=(by_torchrun(threads=None), dies))
    result = elastic(chosen)
    assert result.verdict == "PASS"
    assert "torchrun itself: exit code 1" in result.note
    result = threads(world(tmp_path, "pytorch", elastic=(by_torchrun(None), dies)))
    assert result.verdict == "UNKNOWN"
    assert "exitcode  : -11" in result.reason


# --- The interface of Gloo ----------------------------------------------------------------------


def gloo(chosen: Task, **environ: str) -> Result:
    part = GlooInterface(there=lambda: THERE, environ=environ)
    return ran(part, chosen)["environment_interface"]


def port(directory: Path, name: str) -> None:
    (directory / "sys/class/net" / name / "device").mkdir(parents=True)


def test_an_interface_that_was_named_is_there(tmp_path: Path) -> None:
    assert gloo(world(tmp_path), **{VARIABLE: "eth0"}).verdict == "PASS"


def test_several_interfaces_may_be_named(tmp_path: Path) -> None:
    assert gloo(world(tmp_path), **{VARIABLE: "eth0,lo"}).verdict == "PASS"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("eth7", "no interface 'eth7'; there are docker0, eth0"),
        ("eth0,eth7", "no interface 'eth7'"),
        ("eth0, lo", "no interface ' lo', and Gloo takes plain names"),
        ("^docker", "Gloo takes plain names, no patterns"),
        ("eth1", "eth1 is down: ip link set eth1 up"),
        ("ib0", "ib0 has no address"),
    ],
)
def test_an_interface_that_cannot_carry_the_ranks_fails(
    tmp_path: Path, named: str, words: str
) -> None:
    result = gloo(world(tmp_path), **{VARIABLE: named})
    assert result.verdict == "FAIL"
    assert words in result.note


def test_without_a_name_the_nodes_own_address_decides(tmp_path: Path) -> None:
    chosen = world(tmp_path)
    findings = supervise(chosen, [GlooInterface(there=lambda: THERE, environ={})])
    assert judged(chosen, findings)["environment_interface"].verdict == "PASS"
    assert "eth0: GLOO_SOCKET_IFNAME is not set" in findings.facts[0].text


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1"])
def test_loopback_serves_one_node_and_not_two(tmp_path: Path, address: str) -> None:
    answer = {"host": "node7", "address": address, "why": ""}
    assert gloo(world(tmp_path, address=answer)).verdict == "PASS"
    result = gloo(world(tmp_path, toml=TWO_NODES, address=answer))
    assert result.verdict == "FAIL"
    assert "lo reaches no other of the 2 nodes" in result.note


def test_a_bridge_among_several_nodes_is_remarked_on(tmp_path: Path) -> None:
    port(tmp_path, "eth0")
    result = gloo(world(tmp_path, toml=TWO_NODES), **{VARIABLE: "docker0"})
    assert result.verdict == "PASS"
    assert "docker0 is no port of this node" in result.note
    assert gloo(world(tmp_path, toml=TWO_NODES), **{VARIABLE: "eth0"}).note == ""


def test_a_name_that_does_not_resolve_is_told(tmp_path: Path) -> None:
    answer = {"host": "node7", "address": "127.0.0.1", "why": "Name or service not known"}
    result = gloo(world(tmp_path, toml=TWO_NODES, address=answer))
    assert "node7 has no usable address (Name or service not known)" in result.note


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ToolTimeout("python: still running after 30 s; killed"), "still running"),
        ({"host": "node7", "address": "203.0.113.9", "why": ""}, "is on no interface"),
        ({"host": "node7"}, "lacks something"),
        (said(code=1, stderr="ImportError: no _socket\n"), "no _socket"),
    ],
)
def test_an_address_that_could_not_be_found_out_is_unknown(
    tmp_path: Path, answer: Any, words: str
) -> None:
    result = gloo(world(tmp_path, address=answer))
    assert result.verdict == "UNKNOWN"
    assert words in result.reason


# --- torch --------------------------------------------------------------------------------------


def inside(chosen: Task) -> dict[str, Result]:
    return ran(TorchInside(), chosen)


def test_torch_with_gloo_passes(tmp_path: Path) -> None:
    results = inside(world(tmp_path, "pytorch"))
    assert [results[c].verdict for c in ("version", "gloo", "backend")] == ["PASS"] * 3


@pytest.mark.parametrize("old", ["2.0.1+cu118", "1.13.1", "2.1.0a0+32f93b1", "2.1.0rc6"])
def test_a_torch_before_the_limit_fails(tmp_path: Path, old: str) -> None:
    results = inside(world(tmp_path, "pytorch", torch=TORCH | {"version": old}))
    assert results["version"].verdict == "FAIL"


def test_no_torch_in_an_interpreter_that_works_fails(tmp_path: Path) -> None:
    none = TORCH | {"version": "", "backends": {}}
    results = inside(world(tmp_path, "pytorch", torch=none))
    assert {results[c].verdict for c in ("version", "gloo", "backend")} == {"FAIL"}
    assert "has no torch: pip install" in results["version"].note


def test_a_torch_without_the_profiles_backend_fails(tmp_path: Path) -> None:
    chosen = world(tmp_path, "pytorch", toml='[profile]\nbackend = "nccl"\n')
    results = inside(chosen)
    assert results["backend_nccl"].verdict == "FAIL"
    assert "was built without nccl" in results["backend_nccl"].note
    assert results["backend"].verdict == "NOT_APPLICABLE"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SEGFAULT, "killed by SIGSEGV"),
        (HANGS, "still running"),
        (ABSENT, "[drills] python"),
        (said(code=1, stderr="python is Python 3.8.10: dvfd needs 3.11 or newer\n"), "needs 3.11"),
        ("<html>", "cannot be read"),
        ('"2.13.0"', "no table"),
        (said("2.13.0\n"), "left no answer"),
        ({"version": "2.13.0"}, "lacks something"),
        (TORCH | {"backends": None}, "lacks something"),
        (TORCH | {"version": "HEAD"}, "wanted a version"),
        (TORCH | {"broken": "OSError: libmkl.so: no such file"}, "libmkl.so"),
    ],
)
def test_a_torch_that_could_not_be_asked_is_unknown(
    tmp_path: Path, answer: Any, words: str
) -> None:
    results = inside(world(tmp_path, "pytorch", torch=answer))
    for criterion in ("version", "gloo", "backend"):
        assert results[criterion].verdict == "UNKNOWN"
        assert words in results[criterion].reason


def test_gloos_own_version_is_never_made_up(tmp_path: Path) -> None:
    findings = supervise(world(tmp_path), [TorchInside()])
    gloo = labels(package="gloo")
    assert gloo not in {s.labels for s in findings.samples}
    assert "Gloo cannot be asked" in next(t.text for t in findings.troubles if t.labels == gloo)


# --- Processors and threads ---------------------------------------------------------------------


def test_the_processors_that_the_interpreter_sees(tmp_path: Path) -> None:
    assert ran(VisibleCores(), world(tmp_path, "pytorch"))["cores"].verdict == "PASS"
    few = world(tmp_path, "pytorch", torch=TORCH | {"processors": 2})
    assert ran(VisibleCores(), few)["cores"].verdict == "FAIL"


def test_processors_that_may_not_be_used_are_remarked_on(tmp_path: Path) -> None:
    result = ran(VisibleCores(), world(tmp_path, "pytorch", torch=TORCH | {"usable": 8}))["cores"]
    assert (result.verdict, result.observed) == ("PASS", 32)
    assert "allows 8 of 32" in result.note


def test_processors_that_nobody_could_count_are_unknown(tmp_path: Path) -> None:
    silent = world(tmp_path, "pytorch", torch=TORCH | {"processors": None})
    assert ran(VisibleCores(), silent)["cores"].verdict == "UNKNOWN"


def threads(chosen: Task) -> Result:
    return ran(Threads(), chosen)["threads"]


def test_one_thread_on_eight_cores_is_an_eighth_and_a_warning(tmp_path: Path) -> None:
    result = threads(world(tmp_path, "pytorch"))
    assert (result.verdict, result.observed) == ("FAIL", 0.125)
    assert "export OMP_NUM_THREADS=8" in result.note


def test_as_many_threads_as_cores_pass(tmp_path: Path) -> None:
    assert threads(world(tmp_path, "pytorch", elastic=by_torchrun(8))).verdict == "PASS"


def test_two_hardware_threads_are_one_core(tmp_path: Path) -> None:
    for cpu in range(32):
        place = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{cpu % 16},{cpu % 16 + 16}\n")
    assert threads(world(tmp_path, "pytorch", elastic=by_torchrun(4))).observed == 1.0


def test_cores_that_the_profile_gives_count(tmp_path: Path) -> None:
    cores = '[profile]\nrank_cores = ["0-3", "4-7", "8-11", "12-15"]\n'
    assert threads(world(tmp_path, "pytorch", toml=cores)).observed == 0.25


def test_pinned_ranks_have_what_they_are_pinned_to(tmp_path: Path) -> None:
    pinned = [r | {"processors": [2 * n, 2 * n + 1]} for n, r in enumerate(by_torchrun(2))]
    assert threads(world(tmp_path, "pytorch", elastic=pinned)).observed == 1.0


def test_a_quota_bounds_what_a_rank_has(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/job"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("800000 100000\n")
    inside_group = [r | {"cgroup": "0::/job\n"} for r in by_torchrun(1)]
    assert threads(world(tmp_path, "pytorch", elastic=inside_group)).observed == 0.5


def test_one_silent_rank_of_four_keeps_the_rest_from_passing(tmp_path: Path) -> None:
    children = by_torchrun(8)
    children[2] = by_torchrun(None)[2] | {"trouble": "OSError: libtorch_cpu.so"}
    result = threads(world(tmp_path, "pytorch", elastic=children))
    assert result.verdict == "UNKNOWN"
    assert "libtorch_cpu.so" in result.reason


def test_threads_without_torch_are_unknown(tmp_path: Path) -> None:
    none = TORCH | {"version": "", "backends": {}}
    assert threads(world(tmp_path, "pytorch", torch=none)).verdict == "UNKNOWN"


# --- Asking once --------------------------------------------------------------------------------


def starts(chosen: Task) -> int:
    return sum("torch.distributed.run" in argv for argv in chosen.run.ran)  # type: ignore[attr-defined]


def test_one_start_of_torchrun_serves_both_checks(tmp_path: Path) -> None:
    chosen = world(tmp_path, "pytorch")
    supervise(chosen, [TorchInside(), Torchrun(), VisibleCores(), Threads()])
    assert starts(chosen) == 1


def test_a_torchrun_that_hung_is_not_waited_for_again(tmp_path: Path) -> None:
    chosen = world(tmp_path, "pytorch", elastic=HANGS)
    supervise(chosen, [Torchrun(), Threads()])
    assert starts(chosen) == 1


def test_an_old_answer_is_asked_for_again(tmp_path: Path) -> None:
    chosen = world(tmp_path, "pytorch")
    list(Threads().run(chosen))
    chosen.clock.advance(KEPT + 1)  # type: ignore[attr-defined]
    list(Threads().run(chosen))
    assert starts(chosen) == 2


def test_the_checks_of_one_command_share_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvfd.cli import checks

    memos = []

    def conducts(check: Any, *_args: Any, memo: Any, **_more: Any) -> Any:
        memos.append(memo)
        return supervise(task(check.id, tmp_path, clock=SystemClock()), [])

    monkeypatch.setattr("dvfd.log.setup", lambda _level: None)  # for good, in this process
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("dvfd.drills.conduct.conduct", conducts)
    monkeypatch.setattr("dvfd.drills.conduct.LOCK", f"\0{tmp_path}")  # not the node's
    with pytest.raises(SystemExit):
        checks.judged(["openmpi_gloo", "pytorch"], "json", Options())
    assert len(memos) == 2
    assert memos[0] is memos[1]
