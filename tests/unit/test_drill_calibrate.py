"""What a calibration measures, in which order, and what ends it before a file is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes_calibration import node, put
from fakes_drills import FakeRunner, said, task
from fakes_software import written

from dvfd.drills import bandwidth, calibrate, collectives, known_answers
from dvfd.drills.calibrate import Wish, alone
from dvfd.drills.known_answers import CoreAnswer
from dvfd.drills.trial import Throughput
from dvfd.errors import ProbeError, ToolError


def throughput(rate: float, processes: int) -> Throughput:
    return Throughput(
        median=rate, low=rate - 1, high=rate + 1, windows=15, steps=100, seconds=30.0,
        processes=processes, job="gpt", command=("train",),
    )  # fmt: skip


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A node on which everything measures; the trainings that were run."""
    ran: list[list[str]] = []

    def trial(_task: Any, command: Any, *, processes: int, **_more: Any) -> Throughput:
        ran.append(list(command))
        return throughput(62.5 * processes, processes)

    monkeypatch.setattr(calibrate, "trial", trial)
    monkeypatch.setattr(known_answers, "measure", lambda _task: [CoreAnswer(0, 1.2)])
    monkeypatch.setattr(bandwidth, "measure", lambda _task: [])
    found = collectives.Benchmark()
    monkeypatch.setattr(collectives, "benchmark", lambda *_a, **_k: found)
    return ran


TRAIN = ("torchrun", "--nproc_per_node=4", "train.py", "--batch=8")


def measure(directory: Path, wish: Wish, toml: str = "") -> calibrate.Found:
    return calibrate.measure(task("openmpi_gloo", directory, toml=toml), wish)


def test_both_trainings_give_the_profile(tmp_path: Path, well: list[list[str]]) -> None:
    found = measure(tmp_path, Wish(command=TRAIN))
    assert found.profile == {
        "expected_throughput": 250.0,
        "single_process_throughput": 62.5,
    }
    assert well == [list(TRAIN), ["torchrun", "--nproc_per_node=1", "train.py", "--batch=8"]]
    assert found.figures["core"] == [{"cpu": 0, "seconds": 1.2}]


def test_without_a_command_it_is_the_reference_job(tmp_path: Path, well: list[list[str]]) -> None:
    measure(tmp_path, Wish())
    assert [("--nproc_per_node=4" in c, "--nproc_per_node=1" in c) for c in well] == [
        (True, False),
        (False, True),
    ]
    assert all("dvfd.drills.reference_job" in command for command in well)


def test_a_core_that_computes_wrongly_ends_it(
    tmp_path: Path, well: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = [CoreAnswer(0, 1.2), CoreAnswer(1, 1.2, ("FFT gave other bits",))]
    monkeypatch.setattr(known_answers, "measure", lambda _task: wrong)
    found = measure(tmp_path, Wish(command=TRAIN))
    assert found.ill == ("processor 1: FFT gave other bits",)
    assert not well


def test_a_wrong_sum_ends_it(
    tmp_path: Path, well: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = collectives.Measured(
        operation="all_reduce", algorithm="builtin", message="64KiB", bytes=65536, iterations=100,
        median=0.002, mad=0.0, p95=0.003, p99=0.004, algbw=1.0, busbw=1.5, low=0.001, high=0.003,
        verified=120, wrong=1, turns=(), example="rank 2: 1 elements",
    )  # fmt: skip
    found = collectives.Benchmark(measured=(row,))
    monkeypatch.setattr(collectives, "benchmark", lambda *_a, **_k: found)
    assert measure(tmp_path, Wish(command=TRAIN)).ill == (
        "all-reduce of 64KiB: 1 of 120 sums are wrong; rank 2: 1 elements",
    )
    assert not well


def failing(_task: Any, *_a: Any, **_k: Any) -> Any:
    raise ToolError("it broke")


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ((known_answers, "measure"), "cores: it broke"),
        ((collectives, "benchmark"), "all-reduce: it broke"),
        ((bandwidth, "measure"), "memory: it broke"),
    ],
)
def test_what_could_not_be_measured_is_left_out_and_named(
    tmp_path: Path, well: list[list[str]], monkeypatch: pytest.MonkeyPatch, what: tuple[Any, str],
    left: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(*what, failing)
    found = measure(tmp_path, Wish(command=TRAIN))
    assert found.left_out == (left,)
    assert found.profile["expected_throughput"] == 250.0


def test_ranks_that_failed_have_no_all_reduce(
    tmp_path: Path, well: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = collectives.Failure(1, "all_reduce of 1024 bytes", "Connection closed by peer")
    found = collectives.Benchmark(failures=(failure,), ended="rank 2 ended first")
    monkeypatch.setattr(collectives, "benchmark", lambda *_a, **_k: found)
    left_out = measure(tmp_path, Wish(command=TRAIN)).left_out[0]
    assert "rank 2 ended first; rank 1, all_reduce of 1024 bytes: Connection closed" in left_out


def test_without_a_throughput_there_is_no_calibration(
    tmp_path: Path, well: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "trial", failing)
    with pytest.raises(ToolError):
        measure(tmp_path, Wish(command=TRAIN))


def test_a_command_that_does_not_say_how_many_has_no_single(
    tmp_path: Path, well: list[list[str]]
) -> None:
    found = measure(tmp_path, Wish(command=("sh", "start.sh")))
    assert found.profile == {"expected_throughput": 250.0}
    assert "--single COMMAND" in found.left_out[0]
    given = measure(tmp_path, Wish(command=("sh", "start.sh"), single=("sh", "one.sh")))
    assert well[-1] == ["sh", "one.sh"]
    assert given.profile["single_process_throughput"] == 62.5


def test_one_process_is_both(tmp_path: Path, well: list[list[str]]) -> None:
    toml = "[profile]\nprocesses_per_node = 1\n"
    found = measure(tmp_path, Wish(command=("python", "train.py")), toml)
    assert len(well) == 1
    assert found.profile["expected_throughput"] == found.profile["single_process_throughput"]


def test_on_several_nodes_a_command_is_needed(tmp_path: Path) -> None:
    chosen = task("openmpi_gloo", tmp_path, toml="[profile]\nnodes = 2\n")
    with pytest.raises(ProbeError, match=r"profile\.nodes is 2: give the command"):
        calibrate.steps(chosen, Wish())


@pytest.mark.parametrize(
    ("command", "one"),
    [
        ("torchrun --nproc-per-node 4 t.py", "torchrun --nproc-per-node 1 t.py"),
        ("torchrun --nproc_per_node=gpu t.py", "torchrun --nproc_per_node=1 t.py"),
        ("python -m torch.distributed.run --nproc_per_node=8 t.py -n 4",
         "python -m torch.distributed.run --nproc_per_node=1 t.py -n 4"),
        ("mpirun -np 4 python t.py", "mpirun -np 1 python t.py"),
        ("/opt/mpi/bin/mpirun -n 4 python t.py -n 9", "/opt/mpi/bin/mpirun -n 1 python t.py -n 9"),
        ("python t.py -n 4", ""),
        ("torchrun t.py", ""),
    ],
)  # fmt: skip
def test_one_process_in_place_of_several(command: str, one: str) -> None:
    assert " ".join(alone(command.split())) == one


def test_the_plan_takes_about_as_long_as_it_says(tmp_path: Path) -> None:
    planned = calibrate.steps(task("openmpi_gloo", tmp_path), Wish(command=TRAIN))
    assert [s.name for s in planned] == ["cores", "all-reduce", "memory", "training", "one process"]
    assert 120 <= calibrate.duration(planned) <= 180


# --- Memory -----------------------------------------------------------------------------------


def caches(root: Path) -> Path:
    """Two last-level caches of 32 MiB, a unified level 2 and an instruction cache below them."""
    for cpu in range(4):
        base = root / f"sys/devices/system/cpu/cpu{cpu}/cache"
        for index, (level, kind, size, shared) in enumerate([
            (1, "Instruction", "900M", cpu), (2, "Unified", "2048K", cpu),
            (3, "Unified", "32768K", cpu // 2),
        ]):  # fmt: skip
            for name, text in {"level": level, "type": kind, "size": size,
                               "shared_cpu_list": shared}.items():  # fmt: skip
                put(base / f"index{index}" / name, f"{text}\n")
    return root / "sys"


def test_arrays_are_four_times_all_last_level_caches(tmp_path: Path) -> None:
    sys = caches(node(tmp_path, cores=2))
    assert bandwidth.last_level(sys) == 64 << 20
    assert bandwidth.array(tmp_path / "proc", sys) == 256 << 20


def test_a_cache_for_instructions_is_none(tmp_path: Path) -> None:
    base = tmp_path / "sys/devices/system/cpu/cpu0/cache"
    for index, kind in enumerate(["Data", "Instruction"]):
        words = {"level": "1", "type": kind, "size": "32K", "shared_cpu_list": f"{index}"}
        for name, text in words.items():
            put(base / f"index{index}" / name, f"{text}\n")
    assert bandwidth.last_level(tmp_path / "sys") == 32 << 10


def test_arrays_never_take_more_than_their_share_of_memory(tmp_path: Path) -> None:
    sys = caches(node(tmp_path, cores=2))
    put(tmp_path / "proc/meminfo", "MemAvailable: 3145728 kB\n")
    assert bandwidth.array(tmp_path / "proc", sys) == (3 << 30) // 24


def test_where_only_the_caches_would_be_measured_nothing_is(tmp_path: Path) -> None:
    sys = caches(node(tmp_path, cores=2))
    put(tmp_path / "proc/meminfo", "MemAvailable: 1048576 kB\n")
    with pytest.raises(ProbeError, match="would fit the caches"):
        bandwidth.array(tmp_path / "proc", sys)


def test_without_a_cache_in_sysfs_a_usual_one_is_taken(tmp_path: Path) -> None:
    node(tmp_path)
    assert bandwidth.last_level(tmp_path / "sys") == 0
    assert bandwidth.array(tmp_path / "proc", tmp_path / "sys") == 256 << 20


def rows(change: Callable[[list[dict[str, Any]]], Any] = lambda rows: rows) -> FakeRunner:
    """A worker whose every round of a GB takes 0.1 s."""

    def work(argv: list[str]) -> Any:
        plan = json.loads(Path(argv[-1]).read_text())
        found = [
            {"operation": kernel, "ranks": ranks, "bytes": 10**9, "nanoseconds": [10**8] * 10}
            for ranks in plan["ranks"]
            for kernel in ("copy", "triad")
        ]
        return written(Path(plan["answer"]), {"rows": change(found)})

    return FakeRunner({bandwidth.WORKER: work})


def test_bandwidth_is_bytes_over_seconds(tmp_path: Path) -> None:
    node(tmp_path)
    world = {"proc": tmp_path / "proc", "sys": tmp_path / "sys"}
    found = bandwidth.measure(task("openmpi_gloo", tmp_path, run=rows(), **world))
    assert {(row.operation, row.ranks) for row in found} == {
        ("copy", 1), ("triad", 1), ("copy", 4), ("triad", 4),
    }  # fmt: skip
    assert {row.median for row in found} == {1e10}


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[1:],
        lambda found: None,
        lambda found: [{**row, "nanoseconds": [0] * 10} for row in found],
        lambda found: [{**row, "nanoseconds": [1]} for row in found],
        lambda found: [{k: v for k, v in row.items() if k != "bytes"} for row in found],
    ],
)
def test_an_answer_that_cannot_be_is_no_bandwidth(tmp_path: Path, change: Any) -> None:
    node(tmp_path)
    world = {"proc": tmp_path / "proc", "sys": tmp_path / "sys"}
    with pytest.raises(ProbeError):
        bandwidth.measure(task("openmpi_gloo", tmp_path, run=rows(change), **world))


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    node(tmp_path)
    run = FakeRunner({bandwidth.WORKER: said(code=1, stderr="MemoryError\n")})
    world = {"proc": tmp_path / "proc", "sys": tmp_path / "sys", "run": run}
    with pytest.raises(ToolError, match="MemoryError"):
        bandwidth.measure(task("openmpi_gloo", tmp_path, **world))
