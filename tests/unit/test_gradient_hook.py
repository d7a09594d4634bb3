"""What one line on a user's own DDP model promises: hashes that match, and nothing else changed."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import distributed, nn  # noqa: E402
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from dvfd.drills import world  # noqa: E402
from dvfd.telemetry import gradient_hook  # noqa: E402
from dvfd.telemetry.gradient_hook import hash64, watch_gradients  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    world.join("gloo", timeout=10)
    yield
    distributed.destroy_process_group()


class Ledger:
    """A reporter that keeps which hash goes with which step."""

    def __init__(self, first: int = 0) -> None:
        self.last_step: int | None = first or None
        self.hashes: dict[int, int] = {}
        self._given: int | None = None

    def gradient(self, value: int) -> None:
        self._given = value

    def step(self, step: int) -> None:
        if self._given is not None:
            self.hashes[step] = self._given
        self.last_step, self._given = step, None


class Branches(nn.Module):
    """Four layers of 16 KB; the last are left out on demand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(4))

    def forward(self, x: Any, used: int = 4) -> Any:
        for layer in self.layers[:used]:
            x = layer(x).tanh()
        return x.sum()


LAYER = 64 * 64 * 4


def parallel(**options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(Branches(), bucket_cap_mb=0.01, **options)


@pytest.fixture
def watch() -> Iterator[Callable[..., Ledger]]:
    """Watch a model, until the test is over."""
    handles = []

    def begin(model: Any, *, first: int = 0, reporter: Any = None, **options: Any) -> Ledger:
        ledger = reporter or Ledger(first)
        handles.append(watch_gradients(model, ledger, **options))
        return ledger

    yield begin
    for handle in filter(None, handles):
        handle.remove()


def train(model: Any, steps: int, ledger: Any = None, *, first: int = 1, used: int = 4) -> Any:
    """Some steps, clipped, as jobs do it; the gradients that each step used, by its number."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = {}
    for step in range(first, first + steps):
        model(torch.full((2, 64), 0.01 * step), used=used).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        found[step] = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        optimizer.step()
        optimizer.zero_grad()
        if ledger is not None:
            ledger.step(step)
    return found


@pytest.mark.slow
def test_each_sample_is_the_hash_of_other_gradients_in_turn(watch: Any) -> None:
    model = parallel()
    ledger = watch(model, every=2, limit=LAYER)
    used = train(model, 9, ledger)
    turns = {2: 0, 3: 1, 5: 2, 7: 3, 9: 0}  # after the first report, then whenever two more came
    assert ledger.hashes == {step: hash64([used[step][layer]]) for step, layer in turns.items()}


@pytest.mark.slow
def test_small_gradients_share_a_hash_up_to_the_limit(watch: Any) -> None:
    model = parallel()
    ledger = watch(model, every=2, limit=3 * LAYER)
    used = train(model, 3, ledger)
    assert ledger.hashes == {2: hash64(used[2][:3]), 3: hash64(used[3][3:])}


def test_nothing_is_hashed_between_the_samples(watch: Any) -> None:
    model = parallel()
    ledger = watch(model)
    train(model, 102, ledger)
    assert list(ledger.hashes) == [2, gradient_hook.EVERY + 1, 2 * gradient_hook.EVERY + 1]


def test_what_is_sampled_follows_from_the_step_wherever_the_job_resumed(watch: Any) -> None:
    whole, resumed = parallel(), parallel()
    ledgers = [watch(whole, every=4, limit=LAYER), watch(resumed, first=7, every=4, limit=LAYER)]
    used = [train(whole, 14, ledgers[0]), train(resumed, 7, ledgers[1], first=8)]
    for ledger, gradients in zip(ledgers, used, strict=True):
        assert ledger.hashes[13] == hash64([gradients[13][3]])


def test_nothing_is_hashed_before_a_first_step_was_reported(watch: Any) -> None:
    model = parallel()
    ledger = watch(model, every=1)
    train(model, 3)
    assert ledger.hashes == {}


@pytest.mark.parametrize("view", [False, True])
def test_gradients_stay_what_they_were_bit_by_bit(watch: Any, view: bool) -> None:
    plain, watched = (parallel(gradient_as_bucket_view=view) for _ in range(2))
    ledger = watch(watched, every=1)
    for before, after in zip(
        train(plain, 5).values(), train(watched, 5, ledger).values(), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(ledger.hashes) == 4


def test_accumulated_gradients_are_hashed_as_they_are_used(watch: Any) -> None:
    model, x = parallel(), torch.ones(2, 64)
    ledger = watch(model, first=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with model.no_sync():
        model(x).backward()
    model(x).backward()
    used = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    ledger.step(2)
    assert ledger.hashes == {2: hash64(used)}


def test_parameters_that_were_not_used_are_left_out(watch: Any) -> None:
    model = parallel(find_unused_parameters=True)
    ledger = watch(model)
    used = train(model, 2, ledger, used=2)
    assert ledger.hashes == {2: hash64(used[2][:2])}


def test_a_hook_that_the_model_has_stays(watch: Any) -> None:
    plain, watched = parallel(), parallel()
    for model in (plain, watched):
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    ledger = watch(watched)
    wanted = train(plain, 2)
    train(watched, 2, ledger)
    assert ledger.hashes == {2: hash64(wanted[2])}


def test_other_models_of_the_process_are_left_alone(watch: Any) -> None:
    model, other = parallel(), parallel()
    ledger = watch(model, first=1)
    train(other, 2, ledger, first=2)
    assert ledger.hashes == {}


@pytest.mark.slow
def test_a_model_that_is_no_more_is_not_kept(watch: Any) -> None:
    model = parallel()
    watch(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_reporter_that_breaks_stops_the_watch_and_not_the_job(
    watch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = parallel()
    watch(model, reporter=SimpleNamespace(last_step=3), every=1)
    assert len(train(model, 3)) == 3
    assert caplog.text.count("gradients are no longer watched") == 1


def test_ranks_with_other_models_are_not_watched(
    watch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = Branches()
    ledger = watch(model, first=1)
    train(model, 2, ledger, first=2)
    assert ledger.hashes == {}
    assert "gradients are not watched: Branches is no DistributedDataParallel" in caplog.text


def test_a_flipped_bit_changes_the_hash_whatever_the_type() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tensor = torch.ones(7, dtype=dtype)
        before = hash64([tensor])
        tensor.view(torch.uint8)[3] ^= 1
        assert hash64([tensor]) != before
        tensor.view(torch.uint8)[3] ^= 1
        assert hash64([tensor]) == before


def test_a_tensor_that_is_not_contiguous_is_hashed_as_what_it_holds() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    assert hash64([tensor.t()]) == hash64([tensor.t().contiguous()]) != hash64([tensor])


@pytest.mark.slow
def test_the_file_works_alone_without_dvfd(tmp_path: Path) -> None:
    copy(gradient_hook.__file__, tmp_path)
    script = "import sys, gradient_hook; sys.exit(any(m.startswith('dvfd') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False, env={})
    assert done.returncode == 0
