"""The convergence worker: the same samples, start and rate whatever the number of processes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dvfd.drills import checkpoint, corpus  # noqa: E402
from dvfd.drills.curve import Configuration, read  # noqa: E402
from dvfd.drills.workers import convergence  # noqa: E402
from dvfd.drills.workers.convergence import Order, Training  # noqa: E402
from dvfd.drills.world import World  # noqa: E402

pytestmark = pytest.mark.torch

ALONE = World(0, 1, torch.device("cpu"))
TINY = Configuration(width=32, layers=1, context=16, batch=4, samples=4 * 60, warm_up=40)


@pytest.fixture(scope="module", autouse=True)
def small():
    """A text of two hundred thousand bytes, and one thread: more spin where others work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        whole = corpus.load()
        short = corpus.Corpus(whole.train[:200_000], whole.validation[:20_000], "short")
        patch.setattr(corpus, "load", lambda: short)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def planned() -> Configuration:
    return Training(TINY, ALONE, 1).here


def finished(planned: Configuration, seed: int = 1, directory: Path | None = None) -> Training:
    training = Training(planned, ALONE, seed)
    training.resume(directory)
    training.finish(directory)
    return training


@pytest.mark.slow
def test_four_ranks_see_what_one_process_sees() -> None:
    text = corpus.load().train
    ranks = [corpus.Sampler(text, context=16, seed=3) for _ in range(4)]
    one = corpus.Sampler(text, context=16, seed=3)

    for _ in range(5):
        shared = torch.cat([s.take(4, rank=r, world=4) for r, s in enumerate(ranks)])
        assert torch.equal(shared, one.take(16, rank=0, world=1))


@pytest.mark.slow
def test_a_seed_decides_the_whole_run(planned: Configuration) -> None:
    first, again, other = (finished(planned, seed).losses for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_every_step_has_a_loss_and_the_last_one_a_validation(planned: Configuration) -> None:
    training = finished(planned)

    assert len(training.losses) == 60
    assert training.validation[-1][0] == 240.0
    assert training.nonfinite == 0


def test_the_rate_rises_then_falls_by_samples_alone(planned: Configuration) -> None:
    training = Training(planned, ALONE, 1)
    wider = Training(replace(planned, batch=8), ALONE, 1)

    rates = [training.rate(seen) for seen in range(0, 241, 8)]

    assert rates == [wider.rate(seen) for seen in range(0, 241, 8)]
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(planned.rate, rel=0.1)
    assert rates[-1] == pytest.approx(convergence.LOWEST * planned.rate)


def test_an_interrupted_run_ends_like_one_that_was_not(
    planned: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convergence, "SAVE", 0.0)

    class Interrupted(Training):
        def advance(self):
            if self.step == 55:
                raise KeyboardInterrupt
            super().advance()

    with pytest.raises(KeyboardInterrupt):
        Interrupted(planned, ALONE, 1).finish(tmp_path)
    assert checkpoint.saved(tmp_path)[0].name == "step-000000050"
    resumed = finished(planned, 1, tmp_path)

    whole = finished(planned)
    assert resumed.losses == whole.losses
    assert resumed.validation == whole.validation


def test_a_checkpoint_of_another_run_is_not_gone_on_from(
    planned: Configuration, tmp_path: Path
) -> None:
    finished(planned, 1, tmp_path)

    training = Training(planned, ALONE, 2)
    training.resume(tmp_path)

    assert training.step == 0


def test_losses_and_norms_that_are_not_finite_are_counted_and_not_learned_from(
    planned: Configuration,
) -> None:
    training = Training(planned, ALONE, 1)
    with torch.no_grad():
        training.model.last.weight.fill_(float("inf"))
    before = training.model.tokens.weight.clone()

    training.advance()
    training.gather()

    assert training.nonfinite == 2
    assert torch.equal(training.model.tokens.weight, before)


def order(directory: Path, planned: Configuration, measure: float | None = None) -> Order:
    (directory / "plan.json").write_text(json.dumps(asdict(planned)))
    answer = directory / "answer.json"
    return Order(directory / "plan.json", answer, None, 1, "gloo", measure)


def test_a_run_leaves_its_curve(planned: Configuration, tmp_path: Path) -> None:
    given = order(tmp_path, planned)

    convergence.work(given, ALONE)

    found = read(given.answer)
    assert (found.hash, found.seed, found.processes) == (planned.hash, 1, 1)
    assert len(found.losses) == planned.steps


def test_a_plan_for_another_torch_is_refused(planned: Configuration, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not what was planned"):
        convergence.work(order(tmp_path, replace(planned, torch="1.0")), ALONE)


def test_measuring_says_what_is_here_and_how_fast(tmp_path: Path) -> None:
    given = order(tmp_path, TINY, measure=0.05)

    convergence.work(given, ALONE)

    said = json.loads(given.answer.read_text())
    assert said["torch"] == str(torch.__version__)
    assert said["speed"] > 0


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be shared by 3"):
        Training(TINY, World(0, 3, torch.device("cpu")), 1)
