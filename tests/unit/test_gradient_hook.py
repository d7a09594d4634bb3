"""What one line on a user's own DDP model promises: hashes that match, and nothing else changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
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
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.hashes: list[int] = []

    def gradient(self, value: int) -> None:
        self.hashes.append(value)


class Branches(nn.Module):
    """Four layers of 16 KB, a bucket each; the last is left out on demand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(4))

    def forward(self, x: Any, used: int = 4) -> Any:
        for layer in self.layers[:used]:
            x = layer(x).tanh()
        return x.sum()


def parallel(**options: Any) -> DistributedDataParallel:
    return DistributedDataParallel(Branches(), bucket_cap_mb=0.01, **options)


def train(model: DistributedDataParallel, steps: int, **options: Any) -> list[Any]:
    """Some steps of SGD; the gradients of each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.full((2, 64), 0.01 * (step + 1))
        model(x, **options).backward()
        found.append([p.grad.clone() for p in model.parameters()])
        optimizer.step()
    return found


@pytest.mark.parametrize("view", [False, True])
def test_gradients_stay_what_they_were_bit_by_bit(view: bool) -> None:
    plain, watched = (parallel(gradient_as_bucket_view=view) for _ in range(2))
    watch_gradients(watched, Ledger(), every=1)  # type: ignore[arg-type]
    for before, after in zip(train(plain, 5), train(watched, 5), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


class Spy:
    """A hook of the user's that notes what each bucket came to, pass by pass."""

    def __init__(self) -> None:
        self.passes: list[dict[int, int]] = []

    def __call__(self, state: Any, bucket: Any) -> Any:
        index = bucket.index()
        if index == 0:
            self.passes.append({})

        def note(future: Any) -> Any:  # those of two buckets may end in any order
            self.passes[-1][index] = hash64([future.value()])
            return future.value()

        return default_hooks.allreduce_hook(state, bucket).then(note)


def test_each_sample_is_the_hash_of_another_bucket_in_turn() -> None:
    model, ledger, spy = parallel(), Ledger(), Spy()
    watch_gradients(model, ledger, every=2, hook=spy)  # type: ignore[arg-type]
    train(model, 10)
    assert {len(buckets) for buckets in spy.passes[1:]} == {4}
    wanted = [spy.passes[n][bucket] for n, bucket in ((1, 0), (3, 2), (5, 3), (7, 0), (9, 1))]
    assert ledger.hashes == wanted


def test_nothing_is_hashed_between_the_samples() -> None:
    model, ledger = parallel(), Ledger()
    watch_gradients(model, ledger)  # type: ignore[arg-type]
    train(model, gradient_hook.EVERY - 1)
    assert ledger.hashes == []
    train(model, 1)
    assert len(ledger.hashes) == 1


def test_backward_passes_that_only_accumulate_do_not_count() -> None:
    model, ledger = parallel(), Ledger()
    watch_gradients(model, ledger, every=2)  # type: ignore[arg-type]
    for _ in range(2):
        with model.no_sync():
            train(model, 3)
        train(model, 1)
    assert len(ledger.hashes) == 1


def test_parameters_that_were_not_used_are_no_obstacle() -> None:
    model, ledger = parallel(find_unused_parameters=True), Ledger()
    watch_gradients(model, ledger, every=1)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for used in (4, 2, 3):
        optimizer.zero_grad()
        model(torch.ones(2, 64), used=used).backward()
        optimizer.step()
    assert len(ledger.hashes) == 3


def test_a_hook_that_the_model_had_still_does_its_work() -> None:
    plain, watched, ledger = parallel(), parallel(), Ledger()
    plain.register_comm_hook(None, default_hooks.fp16_compress_hook)
    watch_gradients(
        watched,
        ledger,  # type: ignore[arg-type]
        every=1,
        hook=default_hooks.fp16_compress_hook,
    )
    for before, after in zip(train(plain, 3), train(watched, 3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(ledger.hashes) == 3


def test_a_reporter_that_breaks_stops_the_watch_and_not_the_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = parallel()
    watch_gradients(model, object(), every=1)  # type: ignore[arg-type]
    assert len(train(model, 3)) == 3
    assert caplog.text.count("gradients are no longer watched") == 1


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


def test_the_file_works_alone_without_dvfd(tmp_path: Path) -> None:
    copy(gradient_hook.__file__, tmp_path)
    script = "import sys, gradient_hook; sys.exit(any(m.startswith('dvfd') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False, env={})
    assert done.returncode == 0
