"""Real children with real memory: killed, refused, stopped or well, none is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task
from testbed import eventually

from dvfd.clock import SystemClock
from dvfd.drills import crew, tree
from dvfd.drills.allocation import Allocation
from dvfd.drills.drill import Options, Task
from dvfd.drills.supervise import supervise
from dvfd.errors import ToolTimeout
from dvfd.model import Verdict
from dvfd.shell import Output

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
MEMORY = ("memory_rank", "memory_total", "memory_incidents")
MB = 10**6
WITNESS = "DVFD_TEST_WITNESS"


class Runner:
    """The real runner; what it started can be found again. `on_ranks` gets the ranks' pids."""

    def __init__(
        self, *before: str, on_ranks: Callable[[list[int]], None] = lambda _: None
    ) -> None:
        self._before, self._on_ranks = before, on_ranks
        self._witness = f"{os.getpid()}-{id(self)}"

    def __call__(
        self, argv: Sequence[str], *, timeout: float, on_line: Any = None, **_: Any
    ) -> Output:
        def heard(line: str) -> None:
            if line.startswith("ranks "):
                self._on_ranks([int(pid) for pid in line.split()[1:]])
            elif on_line:
                on_line(line)

        environment = {**os.environ, WITNESS: self._witness}
        command = [*self._before, *argv]
        return tree.run(command, timeout=timeout, env=environment, on_line=heard)

    def left(self) -> list[str]:
        """What of it still runs."""
        wanted, found = f"{WITNESS}={self._witness}".encode(), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes():
                    found.append(entry.name)
        return found


def two_ranks(directory: Path, run: Runner, *, each: int = MB, profile: str = "") -> Task:
    """A task of two ranks with *each* bytes, held for a moment."""
    toml = f"""
        [profile]
        processes_per_node = 2
        {profile}
        [override]
        "hardware.memory_rank" = {{limit = {each}, reason = "a test"}}
        "hardware.memory_total" = {{limit = {2 * each}, reason = "a test"}}
    """
    options = Options(soak=False)
    return task("hardware", directory, toml=toml, run=run, clock=SystemClock(), options=options)


def outcome(chosen: Task) -> tuple[dict[str, Verdict], str]:
    """The verdicts on memory, and all reasons and notes."""
    results = judged(chosen, supervise(chosen, [Allocation()]))
    words = "\n".join(f"{results[name].reason}\n{results[name].note}" for name in MEMORY)
    return {name: results[name].verdict for name in MEMORY}, words


def soon(pid: int, number: int) -> None:
    """Signal *pid* when it is in the middle of its work."""
    time.sleep(0.2)
    os.kill(pid, number)


def test_memory_that_is_there_is_held_by_all_and_given_back(tmp_path: Path) -> None:
    run = Runner()

    verdicts, words = outcome(two_ranks(tmp_path, run, each=64 * MB))

    assert verdicts == dict.fromkeys(MEMORY, PASS), words
    assert run.left() == []


def test_a_rank_killed_in_the_middle_is_unknown_and_takes_the_others_with_it(
    tmp_path: Path,
) -> None:
    run = Runner(on_ranks=lambda pids: soon(pids[1], signal.SIGKILL))

    verdicts, words = outcome(two_ranks(tmp_path, run, each=400 * MB))

    assert verdicts == dict.fromkeys(MEMORY, UNKNOWN)
    assert "rank 1: killed after it wrote 0 GB" in words
    assert run.left() == []


def test_ranks_end_with_the_process_that_leads_them(tmp_path: Path) -> None:
    def behead(pids: list[int]) -> None:
        stat = Path(f"/proc/{pids[0]}/stat").read_text()
        soon(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)

    run = Runner(on_ranks=behead)

    verdicts, words = outcome(two_ranks(tmp_path, run, each=400 * MB))

    assert verdicts == dict.fromkeys(MEMORY, UNKNOWN)
    assert "killed by SIGKILL" in words
    assert run.left() == []


def test_a_rank_that_stands_still_is_ended_with_the_rest(tmp_path: Path) -> None:
    run = Runner(on_ranks=lambda pids: soon(pids[0], signal.SIGSTOP))

    with pytest.raises(ToolTimeout):
        crew.muster(two_ranks(tmp_path, run), size=400 * MB, timeout=3)

    assert run.left() == []


def test_address_space_that_the_kernel_refuses_fails(tmp_path: Path) -> None:
    run = Runner("sh", "-c", 'ulimit -v 500000; exec "$@"', "sh")

    verdicts, words = outcome(two_ranks(tmp_path, run, each=800 * MB))

    assert (verdicts["memory_rank"], verdicts["memory_incidents"]) == (FAIL, UNKNOWN)
    assert "Cannot allocate memory" in words
    assert run.left() == []


def test_ranks_stop_before_the_node_runs_out(tmp_path: Path) -> None:
    answer = crew.muster(two_ranks(tmp_path, Runner()), size=MB, floor=10**15)

    assert answer.lost.startswith("stopped: ")
    assert [held.wrote for held in answer.held] == [0, 0]


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 200 MB of memory."""
    for base, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup", base, f"dvfd-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(200 * MB))
            yield group
        except FileNotFoundError:
            continue
        else:
            return
        finally:
            eventually(lambda group=group: not (group / "cgroup.procs").read_text(), 5)
            group.rmdir()
    pytest.skip("needs root and a memory control group that can be written")


def test_a_rank_killed_for_want_of_memory_fails_and_only_ranks_are_killed(
    tmp_path: Path, small_group: Path
) -> None:
    run = Runner("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(small_group))

    verdicts, words = outcome(two_ranks(tmp_path, run, each=300 * MB))

    assert verdicts == dict.fromkeys(MEMORY, FAIL), words
    assert ": killed after 0 GB" in words
    assert "{kind=oom_kill}" in words
    assert run.left() == []


def test_children_run_where_the_profile_binds_them(tmp_path: Path) -> None:
    first, *_, last = sorted(os.sched_getaffinity(0))
    bound = f'rank_cores = ["{first}", "{last}"]'

    answer = crew.muster(two_ranks(tmp_path, Runner(), profile=bound))

    assert f"Cpus_allowed_list:\t{first}\n" in answer.ranks[0]["status"]
    assert f"Cpus_allowed_list:\t{last}\n" in answer.ranks[1]["status"]


def test_the_ranks_of_a_real_job_are_found_and_left_alone(tmp_path: Path) -> None:
    line = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    # The shell has the environment too: of both the topmost counts.
    starter = ["sh", "-c", '"$@" & echo $!; wait', "sh", *line]
    jobs = [_started(starter, rank) for rank in ("0", "1")]
    try:
        for job in jobs:
            assert job.stdout
            assert job.stdout.readline()
            assert job.stdout.readline()
        code = (
            "from dvfd.drills.training import training; print([r.rank for r in training()"
            f" if r.pid in {[job.pid for job in jobs]}])"
        )
        # Asked by a process that is not their ancestor.
        asked = subprocess.run(["setsid", "--fork", sys.executable, "-c", code],
                               capture_output=True, text=True, check=True)  # fmt: skip
        assert asked.stdout == "[0, 1]\n"
        assert all(job.poll() is None for job in jobs)
    finally:
        for job in jobs:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()


def _started(command: list[str], rank: str) -> subprocess.Popen[str]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
    return subprocess.Popen(
        command, env={**os.environ, **place}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
