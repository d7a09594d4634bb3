"""The real mpirun, torchrun and interpreters: what a part says of them is so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes_drills import judged, task
from testbed import need

from dvfd.clock import SystemClock
from dvfd.drills import tree
from dvfd.drills.drill import Task
from dvfd.drills.interface import chosen, interfaces
from dvfd.drills.interpreter import BARE, torch
from dvfd.drills.launchers import Mpirun, Torchrun, torchrun
from dvfd.drills.openmpi import OpenMpi, tcp_interfaces
from dvfd.drills.pytorch import Threads, TorchInside, VisibleCores
from dvfd.drills.supervise import supervise
from dvfd.errors import ProbeError, ToolError

LISTENS = """
import os, socket, torch.distributed
device = torch.distributed.ProcessGroupGloo.create_default_device()
inodes = {os.stat(f"/proc/self/fd/{n}").st_ino for n in os.listdir("/proc/self/fd")
          if os.path.exists(f"/proc/self/fd/{n}")}
for line in open("/proc/self/net/tcp").readlines()[1:]:
    field = line.split()
    if field[3] == "0A" and int(field[9]) in inodes:
        print(socket.inet_ntoa(bytes.fromhex(field[1].partition(":")[0])[::-1]))
"""
"""The IPv4 address that Gloo's own device listens on."""


def real(directory: Path, check: str, toml: str = "") -> Task:
    return task(check, directory, toml=toml, run=tree.run, clock=SystemClock())


def interpreter(directory: Path, script: str) -> str:
    """An executable in the place of the job's interpreter, as TOML."""
    path = directory / "python"
    path.write_text(script)
    path.chmod(0o755)
    return f'[drills]\npython = "{path}"\n'


def test_openmpi_here_is_the_one_that_apt_knows(tmp_path: Path) -> None:
    need("ompi_info")
    chosen_task = real(tmp_path, "openmpi_gloo")
    result = judged(chosen_task, supervise(chosen_task, [OpenMpi()]))["openmpi"]
    line = subprocess.run(["ompi_info"], capture_output=True, text=True, check=True).stdout
    shown = next(row for row in line.splitlines() if "Open MPI:" in row).split()[-1]
    major, minor, patch = map(int, shown.split("."))
    assert result.observed == pytest.approx(major + minor / 1e3 + patch / 1e6, abs=1e-9)


def test_a_real_mpirun_gives_the_universe(tmp_path: Path) -> None:
    need("mpirun")
    chosen_task = real(tmp_path, "openmpi_gloo")
    result = judged(chosen_task, supervise(chosen_task, [Mpirun()]))["environment_mpirun"]
    assert result.verdict == "PASS", (result.reason, result.note)


def test_a_real_mpirun_is_told_of_interfaces_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("mpirun")
    monkeypatch.setenv("OMPI_MCA_btl_tcp_if_include", "lo,none7")
    chosen_task = real(tmp_path, "openmpi_gloo")
    assert tcp_interfaces(chosen_task) == ("lo", "none7")
    result = judged(chosen_task, supervise(chosen_task, [Mpirun()]))["environment_mpirun"]
    assert result.verdict == "FAIL"
    assert "'none7'" in result.note


def test_a_real_mpirun_with_fewer_slots_than_ranks_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The universe is then two, the world four: what a job without enough slots really gets."""
    mpirun = need("mpirun")
    wrapper = tmp_path / "bin/mpirun"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {mpirun} --version\nshift 2\n'
        f'exec {mpirun} --oversubscribe --host localhost:2 "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    chosen_task = real(tmp_path, "openmpi_gloo")
    result = judged(chosen_task, supervise(chosen_task, [Mpirun()]))["environment_mpirun"]
    assert result.verdict == "FAIL"
    assert "OMPI_UNIVERSE_SIZE is 2, wanted 4" in result.note


def test_a_real_mpirun_that_cannot_start_tells_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("mpirun")
    monkeypatch.setenv("TMPDIR", "/proc/none")  # not even root makes a directory there
    chosen_task = real(tmp_path, "openmpi_gloo")
    result = judged(chosen_task, supervise(chosen_task, [Mpirun()]))["environment_mpirun"]
    assert result.verdict == "UNKNOWN"
    assert "mkdir was unable to create the desired directory" in result.reason


@pytest.mark.slow
@pytest.mark.torch
def test_one_real_torchrun_serves_both_checks(tmp_path: Path) -> None:
    first = real(tmp_path, "openmpi_gloo")
    second = real(tmp_path, "pytorch")
    second = task("pytorch", tmp_path, run=tree.run, clock=SystemClock(), memo=first.memo)
    left = judged(first, supervise(first, [TorchInside(), Torchrun()]))
    assert left["environment_torchrun"].verdict == "PASS", left["environment_torchrun"]

    launch = torchrun(first)
    right = judged(second, supervise(second, [TorchInside(), VisibleCores(), Threads()]))
    assert torchrun(second) is launch
    assert [right[c].verdict for c in ("version", "gloo", "backend")] == ["PASS"] * 3
    assert right["cores"].observed == os.cpu_count()
    assert {r.threads for r in launch.ranks} == {int(os.environ.get("OMP_NUM_THREADS", "1"))}


@pytest.mark.slow
@pytest.mark.torch
def test_the_address_is_the_one_that_gloo_itself_listens_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    there = interfaces()
    choice = chosen(real(tmp_path, "openmpi_gloo"), there, {})
    listening = subprocess.run(
        [sys.executable, "-c", LISTENS], capture_output=True, text=True, check=True
    ).stdout.split()
    if not listening:
        pytest.skip("this node's own name has an IPv6 address first")
    assert listening[0] in there[choice.names[0]].addresses


@pytest.mark.torch
def test_an_interpreter_without_torch_is_known_by_asking_it(tmp_path: Path) -> None:
    script = f'#!/bin/sh\nexec {sys.executable} -S "$@"\n'  # no site-packages: no torch
    assert torch(real(tmp_path, "pytorch", interpreter(tmp_path, script))).version == ""


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nkill -SEGV $$\n", "killed by SIGSEGV"),
        ("#!/bin/sh\necho junk\n", "left no answer"),
        ("#!/bin/sh\necho 'bad interpreter' >&2; exit 126\n", "exit code 126: bad interpreter"),
    ],
)
def test_a_broken_interpreter_is_told_in_words(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(ProbeError, match=words):
        torch(real(tmp_path, "pytorch", interpreter(tmp_path, script)))


def test_an_interpreter_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    nowhere = '[drills]\npython = "/nonexistent/python"\n'
    with pytest.raises(ToolError, match=r"No such file.*\[drills\] python"):
        torch(real(tmp_path, "pytorch", nowhere))


def test_the_nodes_own_name_is_resolved_as_libc_does(tmp_path: Path) -> None:
    path = tmp_path / "address.json"
    done = subprocess.run(
        [sys.executable, str(BARE), "dvfd.drills.workers.address", str(path)], check=True
    )
    assert done.returncode == 0
    assert socket.gethostname() in path.read_text()
