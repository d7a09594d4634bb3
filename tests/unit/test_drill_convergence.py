"""The convergence drill: what it trains, what it keeps, and what its figures come to."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fakes_drills import judged, task, verdicts
from fakes_training import FakeWorker, falling

from dvfd.drills.convergence import Convergence, cause
from dvfd.drills.curve import Configuration
from dvfd.drills.drill import Options
from dvfd.drills.findings import Findings
from dvfd.drills.supervise import supervise
from dvfd.model import Verdict
from dvfd.shell import Output

TWO = "[profile]\nprocesses_per_node = 2\n"
WHOLE = 57600.0
SPED = {1: 1.0, 2: 1.5}
"""Samples a second so few that 16 h are some thousand steps."""


def drilled(directory: Path, worker: FakeWorker, *, toml: str = TWO, **world):
    worker.speeds = SPED
    return supervise(chosen(directory, worker, toml, **world), [Convergence()])


def chosen(directory: Path, worker: FakeWorker, toml: str = TWO, **world):
    return task("loss_convergence", directory, toml=toml, run=worker, **world)


def results(directory: Path, worker: FakeWorker, **world):
    return judged(chosen(directory, worker), drilled(directory, worker, **world))


def gap(share: float, *, spread: float = 0.0):
    """Distributed losses that lie a share above the baseline's, with a deviation over seeds."""

    def losses(processes: int, seed: int, steps: int) -> np.ndarray:
        own = np.random.default_rng(seed + 100).normal(share, spread)
        return falling(processes, seed, steps) * (1.0 + (own if processes > 1 else 0.0))

    return losses


def late(change):
    """Distributed losses that are changed by *change* of an array; the baseline's are not."""

    def losses(processes: int, seed: int, steps: int) -> np.ndarray:
        found = falling(processes, seed, steps)
        return change(found.copy()) if processes > 1 else found

    return losses


def test_equal_training_passes_every_criterion(tmp_path: Path) -> None:
    assert set(verdicts(results(tmp_path, FakeWorker())).values()) == {Verdict.PASS}


def test_one_pair_is_marked_descriptive(tmp_path: Path) -> None:
    assert "1 seed: descriptive" in results(tmp_path, FakeWorker())["final"].note


def test_a_gap_of_two_percent_fails_curve_and_end(tmp_path: Path) -> None:
    found = verdicts(results(tmp_path, FakeWorker(gap(0.02))))

    assert found["curve"] is found["curve_maximum"] is found["final"] is Verdict.FAIL


def test_the_curve_fails_by_its_95th_percentile_and_not_by_its_maximum(tmp_path: Path) -> None:
    def bump(losses):
        losses[len(losses) // 2 :][: len(losses) // 50] *= 1.03
        return losses

    found = verdicts(results(tmp_path, FakeWorker(late(bump))))

    assert found["curve"] is Verdict.PASS
    assert found["curve_maximum"] is Verdict.FAIL


def test_a_loss_that_never_gets_there_fails_speed_in_words(tmp_path: Path) -> None:
    found = results(tmp_path, FakeWorker(gap(0.05)))["speed_slowest"]

    assert found.verdict is Verdict.FAIL
    assert "never reached" in found.note


def stretched(times: float):
    def losses(processes: int, seed: int, steps: int) -> np.ndarray:
        whole = falling(processes, seed, steps, noise=0.001)
        at = np.arange(steps) * (times if processes > 1 else 1.0)
        return np.interp(at, np.arange(steps), whole)

    return losses


def test_slow_learning_fails_and_so_does_learning_that_is_too_fast(tmp_path: Path) -> None:
    slow = verdicts(results(tmp_path / "slow", FakeWorker(stretched(0.8))))
    fast = verdicts(results(tmp_path / "fast", FakeWorker(stretched(1.25))))

    assert slow["speed_slowest"] is fast["speed_fastest"] is Verdict.FAIL
    assert slow["speed_fastest"] is fast["speed_slowest"] is Verdict.PASS


def test_a_loss_that_rises_at_the_end_fails_divergence(tmp_path: Path) -> None:
    def rise(losses):
        return losses + np.linspace(-2, 0.5, len(losses)).clip(0)

    assert verdicts(results(tmp_path, FakeWorker(late(rise))))["divergence"] is Verdict.FAIL


def test_nan_fails_and_leaves_the_comparisons_unknown(tmp_path: Path) -> None:
    def nan(losses):
        losses[700] = math.nan
        return losses

    found = results(tmp_path, FakeWorker(late(nan)))

    assert found["finite"].verdict is found["divergence"].verdict is Verdict.FAIL
    assert found["curve"].verdict is found["final"].verdict is Verdict.UNKNOWN
    assert "no finite loss after" in found["curve"].reason


def test_a_nan_of_the_baseline_fails_finite_too(tmp_path: Path) -> None:
    def nan(processes: int, seed: int, steps: int) -> np.ndarray:
        return falling(processes, seed, steps) * (math.nan if processes == 1 else 1.0)

    assert verdicts(results(tmp_path, FakeWorker(nan)))["finite"] is Verdict.FAIL


def test_a_spike_that_only_the_distributed_run_has_fails_oscillation(tmp_path: Path) -> None:
    def spike(losses):
        losses[1000] += 1.0
        return losses

    assert verdicts(results(tmp_path, FakeWorker(late(spike))))["oscillation"] is Verdict.FAIL


def test_a_spike_that_the_text_makes_is_no_oscillation(tmp_path: Path) -> None:
    def both(processes: int, seed: int, steps: int) -> np.ndarray:
        losses = falling(processes, seed, steps)
        losses[1000] += 1.0
        return losses

    assert verdicts(results(tmp_path, FakeWorker(both)))["oscillation"] is Verdict.PASS


def test_without_validation_losses_overfitting_is_unknown(tmp_path: Path) -> None:
    worker = FakeWorker()
    worker.gaps = {}
    found = results(tmp_path, worker)["overfitting"]

    assert found.verdict is Verdict.UNKNOWN
    assert "no validation loss" in found.reason


def test_a_wider_gap_than_the_baselines_fails_overfitting(tmp_path: Path) -> None:
    worker = FakeWorker()
    worker.gaps = {1: 0.1, 2: 0.2}

    assert verdicts(results(tmp_path, worker))["overfitting"] is Verdict.FAIL


# --- Seeds --------------------------------------------------------------------------------------


def several(directory: Path, worker: FakeWorker, count: int):
    for _ in range(count):
        found = results(directory, worker)
    return found


def test_each_run_adds_a_pair_with_its_own_seed(tmp_path: Path) -> None:
    worker = FakeWorker()

    several(tmp_path, worker, 3)

    assert worker.trained == [(1, 2), (1, 1), (2, 2), (2, 1), (3, 2), (3, 1)]


def test_seeds_that_agree_pass_by_their_interval(tmp_path: Path) -> None:
    found = several(tmp_path, FakeWorker(gap(0.0, spread=0.001)), 3)["final"]

    assert found.verdict is Verdict.PASS
    assert "3 seeds" in found.note


def test_seeds_that_differ_too_much_are_not_enough_and_say_how_many_are(tmp_path: Path) -> None:
    found = several(tmp_path, FakeWorker(gap(0.0, spread=0.01)), 3)["final"]

    assert found.verdict is Verdict.UNKNOWN
    assert "not enough seeds, 90 % power for a margin of 0.01 wants" in found.note


def test_seeds_that_agree_on_a_gap_fail(tmp_path: Path) -> None:
    found = several(tmp_path, FakeWorker(gap(0.03, spread=0.001)), 3)["final"]

    assert found.verdict is Verdict.FAIL


# --- What is kept, what is refused ------------------------------------------------------------


def files(directory: Path) -> list[Path]:
    return sorted((directory / "state").glob("*/seed-*.json"))


def test_an_interrupted_pair_goes_on_where_it_stopped(tmp_path: Path) -> None:
    worker = FakeWorker()
    drilled(tmp_path, worker)
    files(tmp_path)[0].unlink()  # the single-process run of seed 1 never ended

    found = results(tmp_path, worker)

    assert worker.trained == [(1, 2), (1, 1), (1, 1)]
    assert found["curve"].verdict is Verdict.PASS


def test_runs_of_another_torch_are_refused_and_named(tmp_path: Path) -> None:
    worker = FakeWorker()
    drilled(tmp_path, worker)
    (old,) = {path.parent.name for path in files(tmp_path)}
    worker.torch = "2.14.0"

    found = drilled(tmp_path, worker)

    assert worker.trained == [(1, 2), (1, 1), (1, 2), (1, 1)]
    assert any(old in fact.text for fact in found.facts)


def test_a_file_of_another_configuration_in_our_place_is_refused(tmp_path: Path) -> None:
    worker = FakeWorker()
    drilled(tmp_path, worker)
    mine = files(tmp_path)[0]
    mine.write_text(mine.read_text().replace(mine.parent.name, "0" * 12))

    found = drilled(tmp_path, worker)

    assert worker.trained[2:] == [(1, 1)]
    assert "refused" in found.facts[0].text


def test_a_curve_cut_in_half_is_trained_again(tmp_path: Path) -> None:
    worker = FakeWorker()
    drilled(tmp_path, worker)
    cut(files(tmp_path)[1])

    found = results(tmp_path, worker)

    assert worker.trained[2:] == [(1, 2)]
    assert found["curve"].verdict is Verdict.PASS
    assert list((tmp_path / "state").glob("*/*.refused-*"))


def test_a_damaged_pair_costs_the_others_nothing(tmp_path: Path) -> None:
    worker = FakeWorker()
    several(tmp_path, worker, 3)
    cut(files(tmp_path)[0])

    found = drilled(tmp_path, worker)

    assert worker.trained[6:] == [(1, 1)]
    assert any(fact.text.startswith("3 pairs") for fact in found.facts)


def cut(path: Path) -> None:
    path.write_text(path.read_text()[: path.stat().st_size // 2])


def test_a_curve_cut_in_half_under_our_hands_is_unknown_in_words(tmp_path: Path) -> None:
    worker = FakeWorker()
    worker.spoil = cut

    found = results(tmp_path, worker)

    assert set(verdicts(found).values()) == {Verdict.UNKNOWN}
    assert "cut or damaged" in found["curve"].reason


def test_fresh_begins_anew_and_keeps_the_old_aside(tmp_path: Path) -> None:
    worker = FakeWorker()
    drilled(tmp_path, worker)

    drilled(tmp_path, worker, options=Options(fresh=True))

    assert worker.trained == [(1, 2), (1, 1), (1, 2), (1, 1)]
    assert list((tmp_path / "state").glob("aside-*/*/seed-1-processes-1.json"))


def test_both_sides_see_the_same_number_of_samples_and_share_the_planned_time(
    tmp_path: Path,
) -> None:
    found = drilled(tmp_path, FakeWorker())

    steps = int(WHOLE / (1 / SPED[1] + 1 / SPED[2]) / 8)
    assert f"{8 * steps} samples each in {steps} steps" in found.facts[0].text
    assert found.ran == WHOLE


def test_a_shorter_run_is_labelled_and_passes_nothing(tmp_path: Path) -> None:
    options = Options(duration=WHOLE / 10)
    found = drilled(tmp_path, FakeWorker(), options=options)

    assert found.shortened == "96 min of 16 h"
    assert Verdict.PASS not in verdicts(judged(chosen(tmp_path, FakeWorker()), found)).values()


def test_a_run_that_was_over_too_soon_counts_only_what_it_took(tmp_path: Path) -> None:
    class Hurried(FakeWorker):
        def train(self, given, many, answer):
            self.speeds = {1: 2.0, 2: 3.0}  # twice what was measured
            super().train(given, many, answer)

    assert drilled(tmp_path, Hurried()).ran == pytest.approx(WHOLE / 2, rel=0.01)


def test_a_duration_of_too_few_steps_says_which_would_do(tmp_path: Path) -> None:
    found = drilled(tmp_path, FakeWorker(), options=Options(duration=600.0))

    assert "wanted at least 200: give --duration" in found.troubles[0].text


# --- What is not trained ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "toml", "words"),
    [
        ({"options": Options(soak=False)}, TWO, "left out: --no-soak"),
        ({"training": "job gpt, 4 ranks"}, TWO, "job gpt, 4 ranks; --force"),
        ({}, "[profile]\nprocesses_per_node = 1\n", "nothing to compare"),
    ],
)
def test_what_is_left_out_is_unknown_and_says_why(
    tmp_path: Path, world: dict, toml: str, words: str
) -> None:
    worker = FakeWorker()
    found = drilled(tmp_path, worker, toml=toml, **world)

    assert not worker.trained
    assert not found.samples
    assert {t.metric for t in found.troubles} == set(Convergence.metrics)
    assert all(words in t.text for t in found.troubles)


def test_force_trains_beside_a_job(tmp_path: Path) -> None:
    worker = FakeWorker()
    drilled(tmp_path, worker, training="job gpt", options=Options(force=True))

    assert worker.trained


def test_a_child_of_a_rank_does_not_think_that_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    worker = FakeWorker()
    drilled(tmp_path, worker)

    assert worker.environments
    assert not [e for e in worker.environments if {"RANK", "MASTER_ADDR"} & e.keys()]


DIED = """
[rank1]: Traceback (most recent call last):
[rank1]: RuntimeError: [../gloo/pair.cc:534] Connection closed by peer
E1125 failed (exitcode: -9) local_rank: 1 (pid: 77)
Root Cause (first observed failure):
[0]:
  time      : 2026-11-25_16:00:00
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 77)
  traceback : Signal 9 (SIGKILL) received by PID 77
============================================================
"""


def test_a_rank_that_died_is_named_with_how(tmp_path: Path) -> None:
    worker = FakeWorker()
    worker.ends = Output(1, "", DIED, 3.0)

    found = results(tmp_path, worker)

    assert set(verdicts(found).values()) == {Verdict.UNKNOWN}
    assert "rank 1 ended first, exit code -9" in found["final"].reason


def test_an_interpreter_without_torch_says_so() -> None:
    words = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'torch'\n"

    assert cause(Output(1, "", words, 0.1)) == "ModuleNotFoundError: No module named 'torch'"


class FakeSide:
    """Ranks that were started by others; keeps the order of what happened."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker
        self.closed_after: list[int] = []

    def train(self, task, arguments, *, limit):
        task.run(["--nproc_per_node=2", *arguments], timeout=limit, env={})

    def close(self):
        self.closed_after.append(len(self.worker.trained))


def test_ranks_are_let_go_before_one_process_trains_for_hours(tmp_path: Path) -> None:
    worker = FakeWorker()
    worker.speeds = SPED
    side = FakeSide(worker)

    supervise(chosen(tmp_path, worker), [Convergence(side)])

    assert side.closed_after[0] == 1
    assert worker.trained == [(1, 2), (1, 1)]


def test_ranks_are_let_go_where_nothing_is_trained(tmp_path: Path) -> None:
    side = FakeSide(FakeWorker())

    supervise(chosen(tmp_path, side.worker, training="job gpt"), [Convergence(side)])

    assert side.closed_after == [0]


# --- What the analysis says is distrusted -----------------------------------------------------


@pytest.mark.parametrize(
    "said",
    ["", "[]", "{}", '{"figures": {"loss_diverged": [{"value": 0}]}}', '{"figures": 3}'],
)
def test_an_answer_that_is_none_of_the_analysis_is_unknown(tmp_path: Path, said: str) -> None:
    class Babbles(FakeWorker):
        def __call__(self, argv, *, timeout, **how):
            if "dvfd.analysis" in argv:
                return Output(0, said, "", 0.1)
            return super().__call__(argv, timeout=timeout, **how)

    found = results(tmp_path, Babbles())

    assert set(verdicts(found).values()) == {Verdict.UNKNOWN}
    assert "dvfd.analysis: its answer" in found["curve"].reason


def test_the_samples_of_the_curve_stand_inside_the_window(tmp_path: Path) -> None:
    found: Findings = drilled(tmp_path, FakeWorker())
    curve = [s for s in found.samples if s.metric == "loss_curve_difference_ratio"]

    assert len(curve) == len({s.at for s in curve}) == 201
    assert found.ended - 1 < min(s.at for s in curve)


def test_runs_of_different_settings_have_different_hashes() -> None:
    changed = [Configuration(**{k: v}) for k, v in
               {"width": 64, "rate": 1e-3, "precision": "bfloat16", "batch": 8, "samples": 1,
                "torch": "2", "text": "x", "optimiser": "SGD"}.items()]  # fmt: skip

    assert len({c.hash for c in [Configuration(), *changed]}) == len(changed) + 1
