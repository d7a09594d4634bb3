"""The ring of four: each criterion with a sad and a silent path, and the words beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes_collectives import MS, Ranks
from fakes_drills import judged, said, task

from dvfd.drills.drill import Fact, Options
from dvfd.drills.ring import Ring
from dvfd.drills.supervise import supervise
from dvfd.model import Result

NCCL = '[profile]\nbackend = "nccl"\n'
BUCKET = 25 * 1024 * 1024
NOTE = {"time": 1.0, "rank": 1, "at": "all_reduce of 65536 bytes", "error": "closed by peer"}


def ring(directory: Path, ranks: Ranks, toml: str = "", **world: Any) -> dict[str, Result]:
    chosen = task("openmpi_gloo", directory, toml=toml, run=ranks, **world)
    results = judged(chosen, supervise(chosen, [Ring()]))
    return {name[5:]: r for name, r in results.items() if name.startswith("ring_")}


def facts(directory: Path, ranks: Ranks, toml: str = "") -> dict[str, str]:
    chosen = task("openmpi_gloo", directory, toml=toml, run=ranks)
    return {f.name: f.text for f in Ring().run(chosen) if isinstance(f, Fact)}


def test_right_sums_in_time_pass(tmp_path: Path) -> None:
    found = ring(tmp_path, Ranks({65536: 3 * MS}))
    verdicts = [found[name].verdict for name in ("correct", "failures", "latency", "latency_nccl")]
    assert verdicts == ["PASS", "PASS", "PASS", "NOT_APPLICABLE"]
    assert found["latency"].observed == pytest.approx(0.003)


def test_one_wrong_sum_fails_and_says_whose(tmp_path: Path) -> None:
    rows = {"wrong": 1, "example": "rank 2: 5 elements"}
    found = ring(tmp_path, Ranks(rows=rows))["correct"]
    assert found.verdict == "FAIL"
    assert "64KiB: 1 of 216 sums wrong; rank 2: 5 elements" in found.note


def test_a_slow_ring_fails_with_its_whole_interval_beyond_the_limit(tmp_path: Path) -> None:
    found = ring(tmp_path, Ranks({65536: 6 * MS}))["latency"]
    assert found.verdict == "FAIL"
    assert found.observed == pytest.approx(0.006)


def test_an_interval_across_the_limit_is_unknown(tmp_path: Path) -> None:
    class Wide(Ranks):
        def _row(self, exercise: Any) -> dict[str, Any]:
            row = super()._row(exercise)
            if exercise["bytes"] == 65536:
                row["slowest"] = [(4_900 + 10 * (n * 37 % 200 - 100)) * 1000 for n in range(200)]
            return row

    found = ring(tmp_path, Wide())["latency"]
    assert found.verdict == "UNKNOWN"
    assert "straddles the limit" in found.reason


def test_faster_than_expected_is_a_note(tmp_path: Path) -> None:
    found = ring(tmp_path, Ranks({65536: MS // 2}))["latency"]
    assert found.verdict == "PASS"
    assert "below the expected" in found.note


def test_a_collective_that_failed_is_a_failure_and_the_rest_unknown(tmp_path: Path) -> None:
    report = "Root Cause (first observed failure):\n  rank : 2\n  exitcode : -9 (pid: 7)\n"
    ranks = Ranks(notes={1: NOTE}, left=said(code=1, stderr=report))
    found = ring(tmp_path, ranks)
    assert [found[n].verdict for n in ("failures", "correct", "latency")] == [
        "FAIL",
        "UNKNOWN",
        "UNKNOWN",
    ]
    assert "rank 2 ended first, exit code -9" in found["failures"].note
    assert "rank 1, all_reduce of 65536 bytes: closed by peer" in found["latency"].reason


def test_ranks_that_never_met_are_unknown_in_torchruns_words(tmp_path: Path) -> None:
    found = ring(tmp_path, Ranks(left=said(code=1, stderr="ValueError: no such interface\n")))
    assert {found[n].verdict for n in ("failures", "correct", "latency")} == {"UNKNOWN"}
    assert all("no such interface" in found[n].reason for n in ("failures", "correct", "latency"))


def test_ranks_that_die_after_the_last_collective_are_not_all_green(tmp_path: Path) -> None:
    class Dies(Ranks):
        def _run(self, argv: list[str]) -> Any:
            super()._run(argv)
            return said(code=1, stderr="exit code -11\n")

    found = ring(tmp_path, Dies({65536: 3 * MS}))
    assert found["failures"].verdict == "UNKNOWN"
    assert "after the last collective: exit code -11" in found["failures"].reason
    assert found["latency"].verdict == "PASS"


def test_under_nccl_the_bucket_is_judged(tmp_path: Path) -> None:
    ranks = Ranks({BUCKET: 4 * MS, 65536: 9 * MS})
    found = ring(tmp_path, ranks, NCCL)
    assert found["latency_nccl"].verdict == "PASS"
    assert found["latency"].verdict == "NOT_APPLICABLE"
    assert found["latency_nccl"].observed == pytest.approx(0.004)


def test_a_slow_bucket_fails_under_nccl(tmp_path: Path) -> None:
    assert ring(tmp_path, Ranks({BUCKET: 90 * MS}), NCCL)["latency_nccl"].verdict == "FAIL"


def test_a_training_job_is_not_disturbed_unless_forced(tmp_path: Path) -> None:
    ranks = Ranks({65536: 3 * MS})
    found = ring(tmp_path, ranks, training="train.py: rank 0 (pid 812)")
    assert {r.verdict for name, r in found.items() if name != "latency_nccl"} == {"UNKNOWN"}
    assert "a training job runs: train.py" in found["latency"].reason
    assert not ranks.ran

    forced = ring(tmp_path, ranks, training="train.py", options=Options(force=True))
    assert forced["latency"].verdict == "PASS"


def test_one_rank_alone_makes_no_ring(tmp_path: Path) -> None:
    ranks = Ranks()
    found = ring(tmp_path, ranks, "[profile]\nprocesses_per_node = 1\n")
    assert "wanted at least two ranks" in found["correct"].reason
    assert not ranks.ran


def test_more_ranks_than_processors_is_remarked_beside_the_time(tmp_path: Path) -> None:
    two = '[profile]\nprocesses_per_node = 4\nrank_cores = ["0", "1", "0", "1"]\n'
    four = '[profile]\nprocesses_per_node = 4\nrank_cores = ["0", "1", "2", "3"]\n'
    assert "4 ranks share 2 processors" in ring(tmp_path, Ranks(), two)["latency"].note
    assert "share" not in ring(tmp_path, Ranks(), four)["latency"].note


def test_the_sweep_is_a_table_of_one_line_for_each_size(tmp_path: Path) -> None:
    found = facts(tmp_path, Ranks({65536: 2 * MS}))
    sizes = ("1KiB", "8KiB", "64KiB", "512KiB", "4MiB", "bucket")
    assert [name for name in found if name.startswith("all-reduce")] == [
        f"all-reduce of {size}" for size in sizes
    ]
    line = found["all-reduce of 64KiB"]
    assert line.startswith("median 2 ms (2 to 2), p95 2 ms, p99 2 ms")
    assert line.endswith("bus 49.2 MB/s; 200 times")


def test_gloo_is_told_of_by_the_torch_that_carries_it(tmp_path: Path) -> None:
    assert facts(tmp_path, Ranks())["Gloo"].startswith("that of torch 2.13.0, git cf30153c4c; rank")
    assert "Gloo" not in facts(tmp_path, Ranks(), NCCL)
