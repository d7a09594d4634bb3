"""The gradient validation under a real torchrun: planted faults, a killed and a stopped rank."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task

from dvfd.drills import bare, tree
from dvfd.drills.drill import Fact, Options, Remark, Trouble
from dvfd.drills.gradient import FAILURES, Gradients, collect, last_words, read
from dvfd.model import Sample, Verdict

torch = pytest.importorskip("torch")

from dvfd.drills.faults import Flips  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.torch]

SMALL = ("--width=64", "--layers=2", "--context=32", "--bucket-mib=0.1")
TRIALS = 100


def validate(
    path: Path, *options: str, ranks: int = 4, on_line: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """The worker under torchrun, run to its end; its answer."""
    argv = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}",
        bare.__file__, "dvfd.drills.workers.gradient", f"--answer={path}", *SMALL, *options,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = tree.run(argv, timeout=240, env=environment, on_line=on_line)
    assert done.code == 0, f"{last_words(done.stderr)}; {done.stdout[-1000:]}"
    return collect(path)


def planned(ledger: dict[str, Any], when: str) -> list[list[Any]]:
    """[step, bucket, [rank]] of every bit that was flipped: the plan is seeded."""
    flips, buckets = Flips(when, TRIALS), len(ledger["buckets"])
    plan = {step: flips.at(step, 4) for step in range(1, ledger["steps"] + 1)}
    return [[step, f.index(buckets), [f.rank]] for step, f in plan.items() if f]


@pytest.fixture(scope="module")
def flipped_after(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In each precision 100 steps with a bit flipped after the reduction, and 101 without."""
    path = tmp_path_factory.mktemp("after") / "a.json"
    return validate(
        path, "--flip=after", f"--flips={TRIALS}", f"--steps={2 * TRIALS + 1}", "--seconds=500"
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_flipped_bit_is_caught_in_its_step_bucket_and_rank(
    flipped_after: dict[str, Any], precision: str
) -> None:
    ledger = flipped_after["passes"][precision]
    assert len(ledger["buckets"]) > 1
    assert len(planned(ledger, "after")) == TRIALS
    assert ledger["examples"] == planned(ledger, "after")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_none_is_reported_where_none_was_flipped(
    flipped_after: dict[str, Any], precision: str
) -> None:
    ledger = flipped_after["passes"][precision]
    assert ledger["steps"] == 2 * TRIALS + 1
    assert ledger["disagreements"] == TRIALS
    assert max(step for step, _, _ in ledger["examples"]) == TRIALS + 1


def test_flipped_bits_fail_the_check(flipped_after: dict[str, Any], tmp_path: Path) -> None:
    drill = task("gradient_sync", tmp_path)
    results = judged(drill, read(flipped_after, at=drill.clock.now()))
    assert results["corruption"].verdict is results["agreement"].verdict is Verdict.FAIL
    assert "float32, step 2, bucket" in results["corruption"].note


@pytest.fixture(scope="module")
def flipped_before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every step sampled; 100 with a bit flipped in one rank before the reduction, and 21 not."""
    path = tmp_path_factory.mktemp("before") / "a.json"
    return validate(
        path, "--flip=before", f"--flips={TRIALS}", f"--steps={TRIALS + 21}",
        "--sample-every=1", "--seconds=500",
    )  # fmt: skip


@pytest.mark.long
def test_no_hash_sees_what_was_wrong_before_the_reduction(flipped_before: dict[str, Any]) -> None:
    assert flipped_before["passes"]
    for ledger in flipped_before["passes"].values():
        assert ledger["disagreements"] == 0
        assert ledger["tally"]["bounded"] == ledger["tally"]["elements"]


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_rank_that_computes_it_again_sees_every_one(
    flipped_before: dict[str, Any], precision: str
) -> None:
    tally = flipped_before["passes"][precision]["tally"]
    assert tally["recomputed"] == 4 * (TRIALS + 21)
    assert tally["recomputed_differently"] == TRIALS


@pytest.mark.long
def test_three_ranks_whose_averaging_rounds_stay_inside_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a.json.failed-0").write_text('{"rank": 0, "error": "of an earlier run"}')
    answer = validate(
        tmp_path / "a.json", "--steps=40", "--sample-every=2", "--seconds=200", ranks=3
    )
    found = list(read(answer, at=0.0))
    values = {(s.metric, s.labels): s.value for s in found if isinstance(s, Sample)}
    ratios = {value for (metric, _), value in values.items() if metric.endswith("bounded_ratio")}
    assert ratios == {1.0}
    assert values["gradient_pairs_compared", ()] > 160
    assert values["gradient_disagreements", ()] == values["collective_failures", ()] == 0


def rank_processes(path: Path, rank: int) -> list[int]:
    """The pids of *rank* of the launch that writes *path*."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"--answer={path}".encode() in (
                entry / "cmdline"
            ).read_bytes().split(b"\0"):
                environment = (entry / "environ").read_bytes().split(b"\0")
                found += [int(entry.name)] * (f"RANK={rank}".encode() in environment)
    return found


def test_a_killed_rank_ends_the_run_which_is_told_and_fails_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scratch/gradient.json"
    killed: list[float] = []

    def kill(line: str) -> None:
        if line.startswith("float32") and not killed:
            killed.append(time.monotonic())
            os.kill(rank_processes(path, 2)[0], signal.SIGKILL)

    options = Options(duration=60.0)
    drill = task("gradient_sync", tmp_path, run=tree.run, options=options, say=kill)
    found = list(Gradients().run(drill))
    assert time.monotonic() - killed[0] < 30
    results = judged(drill, found)
    assert results["failures"].verdict is Verdict.FAIL
    assert "rank 2 ended first, exit code -9 (SIGKILL)" in results["failures"].note
    assert results["agreement"].verdict is Verdict.UNKNOWN
    assert any(f.name == "coverage, float32" for f in found if isinstance(f, Fact))
    assert not [pid for rank in range(4) for pid in rank_processes(path, rank)]


def test_a_rank_that_stands_still_makes_the_others_time_out_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    stopped: list[int] = []

    def stop(line: str) -> None:
        if line.startswith("float32") and not stopped:
            stopped.extend(rank_processes(path, 1))
            os.kill(stopped[0], signal.SIGSTOP)
        elif "timeout" in line or "Timed out" in line:
            with suppress(ProcessLookupError):  # every rank says so
                os.kill(stopped[0], signal.SIGKILL)  # torchrun would wait 30 seconds for it

    with pytest.raises(AssertionError, match="ended first"):
        validate(path, "--timeout=3", "--seconds=60", on_line=stop)
    found = list(read(collect(path), at=0.0, ended="rank 1 stood still"))
    failures = [f.value for f in found if isinstance(f, Sample) and f.metric == FAILURES]
    assert failures[0] >= 1
    words = next(f.text for f in found if isinstance(f, Remark) and f.metric == FAILURES)
    assert "timeout" in words or "Timed out" in words  # Gloo says either


@pytest.mark.gpu
def test_the_same_over_nccl(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two NVIDIA GPUs")
    answer = validate(tmp_path / "a.json", "--backend=nccl", "--seconds=20", ranks=2)
    found = list(read(answer, at=0.0))
    values = {(s.metric, s.labels): s.value for s in found if isinstance(s, Sample)}
    assert not [f for f in found if isinstance(f, Trouble)]
    assert values["gradient_pairs_compared", ()] > 0
    assert values["gradient_disagreements", ()] == 0
    assert {v for (metric, _), v in values.items() if metric.endswith("bounded_ratio")} == {1.0}


WATCHED = """
import json, os, sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from dvfd.telemetry.gradient_hook import watch_gradients

class Ledger:
    last_step = -1
    told = []
    def gradient(self, value):
        self.told.append(value)

class Still(torch.optim.Optimizer):
    def step(self, closure=None):
        pass  # a flipped exponent must not reach the model, or all later steps differ

distributed.init_process_group("gloo")
rank, world, ledger = distributed.get_rank(), distributed.get_world_size(), Ledger()
torch.manual_seed(1)
model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
ddp = DistributedDataParallel(model, bucket_cap_mb=0.01, gradient_as_bucket_view=True)
watch_gradients(ddp, ledger, every=1)
optimizer = Still(ddp.parameters(), {})
dice = torch.Generator().manual_seed(1)
torch.manual_seed(rank)
victims = []
for step in range(200):
    optimizer.zero_grad()
    ddp(torch.randn(4, 64)).square().mean().backward()
    victim, layer, place, bit = (
        int(torch.randint(n, (1,), generator=dice)) for n in (world, 8, 64 * 4, 8)
    )
    victims.append(victim if step % 2 else None)
    if victims[-1] == rank:
        grad = list(model.parameters())[layer].grad
        grad.view(-1).view(torch.uint8)[place] ^= 1 << bit
    optimizer.step()
    ledger.last_step = step
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump({"told": ledger.told, "victims": victims}, file)
distributed.destroy_process_group()
os._exit(0)  # see dvfd.drills.stopping.leave
"""


def test_the_watch_in_a_job_catches_every_flipped_bit_and_reports_no_other(tmp_path: Path) -> None:
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = tree.run([*argv, str(script), str(tmp_path)], timeout=120, env=environment)
    assert done.code == 0, done.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    rows = list(zip(*(rank["told"] for rank in ranks), strict=True))
    odd = [_odd_one_out(row) for row in rows]
    assert odd == ranks[0]["victims"]
    assert (len(odd), odd.count(None)) == (200, 100)


def _odd_one_out(hashes: Sequence[int]) -> int | None:
    """The rank whose hash differs, if there is one."""
    usual = max(hashes, key=hashes.count)
    odd = [rank for rank, each in enumerate(hashes) if each != usual]
    assert len(odd) <= 1
    return odd[0] if odd else None
