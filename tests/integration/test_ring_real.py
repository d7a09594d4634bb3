"""Real ranks under a real torchrun: right sums, a killed and a stopped rank."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task

from dvfd.clock import SystemClock
from dvfd.drills import collectives, tree
from dvfd.drills.collectives import measure
from dvfd.drills.drill import Fact, Task
from dvfd.drills.ring import FAILURES, SWEEP, Ring
from dvfd.drills.supervise import supervise
from dvfd.errors import ProbeError

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.torch]


def real(directory: Path, toml: str = "", say: Callable[[str], None] = print) -> Task:
    return task("openmpi_gloo", directory, toml=toml, run=tree.run, clock=SystemClock(), say=say)


def ranks_of(directory: Path, rank: int | None = None) -> list[int]:
    """The pids of processes that were told of a plan below *directory*, of one rank or all."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if (
                not entry.name.isdigit()
                or str(directory).encode() not in (entry / "cmdline").read_bytes()
            ):
                continue
            environment = (entry / "environ").read_bytes().split(b"\0")
            if rank is None or f"RANK={rank}".encode() in environment:
                found.append(int(entry.name))
    return found


def test_four_ranks_give_right_sums_and_times_that_grow_with_the_message(tmp_path: Path) -> None:
    drill = real(tmp_path)
    findings = supervise(drill, [Ring()])
    results = judged(drill, findings)
    assert [results[f"ring_{name}"].verdict for name in ("correct", "failures")] == ["PASS"] * 2
    assert results["ring_latency"].observed
    times = {dict(s.labels)["message"]: s for s in findings.samples if s.low is not None}
    assert times["bucket"].value > 5 * times["64KiB"].value
    for sample in times.values():
        assert sample.low <= sample.value <= sample.high
    named = [f.name for f in findings.facts]
    assert named == [*(f"all-reduce of {message}" for message in SWEEP), "Gloo"]


def test_two_ranks_can_be_measured_with_one_message(tmp_path: Path) -> None:
    [found] = measure(real(tmp_path), ranks=2, messages=["64KiB"])
    assert found.iterations == 100
    assert found.verified == 100 + 10 + 9  # the warm-up of the first turn and of the nine others
    assert 0 < found.low <= found.median <= found.high <= 1
    assert found.busbw == pytest.approx(found.algbw)  # 2 (n - 1) / n is 1 for two


def test_the_interface_that_is_named_is_the_one_that_is_spoken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    found = collectives.benchmark(real(tmp_path), ranks=2, messages=["1KiB"])
    assert found.addresses == ("127.0.0.1",)


def test_an_interface_that_is_not_there_leaves_no_figures_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "none7")
    with pytest.raises(ProbeError, match="none7"):
        measure(real(tmp_path), ranks=2, messages=["1KiB"])


def failed_by(what: signal.Signals, directory: Path) -> tuple[dict[str, Any], list[float], Any]:
    """The results where rank 2 gets a signal in the second turn, and when that was."""
    hit: list[tuple[int, float]] = []

    def watch(line: str) -> None:
        if "turn 2" in line and not hit:
            hit.append((ranks_of(directory, 2)[0], time.monotonic()))
            os.kill(hit[0][0], what)
        elif line.startswith("rank ") and what is signal.SIGSTOP:
            os.kill(hit[0][0], signal.SIGKILL)  # torchrun would wait 30 seconds for it

    drill = real(directory, say=watch)
    findings = supervise(drill, [Ring()])
    return judged(drill, findings), [at for _, at in hit], findings


def test_a_killed_rank_fails_the_check_in_the_others_words_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    results, [killed], findings = failed_by(signal.SIGKILL, tmp_path)
    assert time.monotonic() - killed < 30
    assert results["ring_failures"].verdict == "FAIL"
    assert "rank 2 ended first, exit code -9 (SIGKILL)" in results["ring_failures"].note
    assert results["ring_correct"].verdict == results["ring_latency"].verdict == "UNKNOWN"
    assert "all_reduce of" in results["ring_latency"].reason
    counts = [s.value for s in findings.samples if s.metric == FAILURES]
    assert 1 <= counts[0] <= 3
    assert not ranks_of(tmp_path)
    assert not [f for f in findings.facts if isinstance(f, Fact)]


def test_a_rank_that_stands_still_makes_the_others_time_out_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collectives, "TIMEOUT", 3.0)
    results, [stopped], _ = failed_by(signal.SIGSTOP, tmp_path)
    assert time.monotonic() - stopped < 30
    assert results["ring_failures"].verdict == "FAIL"
    note = results["ring_failures"].note
    assert "timeout" in note.lower() or "timed out" in note.lower()  # Gloo says either
    assert not ranks_of(tmp_path)


@pytest.mark.gpu
def test_the_same_over_nccl(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two NVIDIA GPUs")
    toml = '[profile]\nbackend = "nccl"\nprocesses_per_node = 2\n'
    drill = real(tmp_path, toml)
    results = judged(drill, supervise(drill, [Ring()]))
    assert [results[f"ring_{name}"].verdict for name in ("correct", "failures")] == ["PASS"] * 2
    assert results["ring_latency_nccl"].observed
