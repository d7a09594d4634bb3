"""The reference training job: a small language model under DDP, and a good citizen beside others.

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nproc_per_node=4 --max-restarts=3 \
        -m dvfd.drills.reference_job --checkpoint-dir checkpoints

It registers with the daemon by reporting. SIGTERM ends it after the step under way, with a last
checkpoint. Exit codes: 0 a clean end, 1 an exception or a stop in the middle of a collective that
its peers had left, 2 usage. The loss is each rank's own; a step whose gradient is not finite is
reported as it is and not applied.
"""

from __future__ import annotations

import io
import math
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dvfd.drills import checkpoint, corpus, faults, options, world
from dvfd.drills.reduction import Reduction, ReductionTimer
from dvfd.drills.reference_model import ByteModel
from dvfd.drills.stopping import Stopping, leave
from dvfd.drills.trail import Trail
from dvfd.telemetry.gradient_hook import hash64
from dvfd.telemetry.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

WARM_UP = 50
"""Steps over which the learning rate rises: AdamW's second moments are noise before that."""

CLIP = 1.0
"""Largest global gradient norm applied; the norm before clipping is what is reported."""

VALIDATION_LIMIT = 60.0
"""Seconds that a validation may take: a busy machine needs about one."""

VALIDATION_WINDOWS = 64
"""Windows of held-out text per validation, over all ranks: a fraction of a second."""

PROBE = 64 << 10
"""Bytes of the all-reduce that `--probe-every` times: the size that a criterion is on."""

GO_ON, TIME_OVER, SIGNALLED = 0, 1, 2

ENDS = {GO_ON: "steps done", TIME_OVER: "time over", SIGNALLED: "signal"}

OWN_SIGNAL = 5.0
"""Seconds that a rank waits for its own signal, when another had one. Nodes that join make every
torchrun stop its ranks, one a moment later than the other: one whose ranks have all ended with 0 by
then believes that the job is done, and does not come to the next rendezvous.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One step: its loss, gradient norm, learning rate, seconds of forward, backward and update
    (waiting included), communication, and the hash of the reduced gradients where it was due."""

    loss: float
    norm: float
    rate: float
    seconds: float
    reduction: Reduction
    grad_hash: int | None


class Trainer:
    """One rank of the job."""

    def __init__(
        self,
        chosen: options.Options,
        place: world.World,
        *,
        reporter: Reporter,
        stopping: Stopping,
        fault: faults.Fault,
        trail: Trail,
    ) -> None:
        self._options = chosen
        self._batch = _batch(chosen, place)
        self._trail = trail
        self._world = place
        self._reporter = reporter
        self._stopping = stopping
        self._fault = fault
        self._started = time.monotonic()
        self._saved = 0
        self._printed = (0, self._started)
        self.step = 0
        self._load_text()
        self._build_model()

    def _load_text(self) -> None:
        chosen, text = self._options, corpus.load()
        self._hash = text.hash
        self._sampler = corpus.Sampler(text.train, context=chosen.context, seed=chosen.seed)
        self._held_out = corpus.Sampler(text.validation, context=chosen.context, seed=0)

    def _build_model(self) -> None:
        chosen, place = self._options, self._world
        torch.manual_seed(chosen.seed)  # the same in every rank: the same model
        model = ByteModel(width=chosen.width, layers=chosen.layers, context=chosen.context)
        self._model = model.to(place.device)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=chosen.lr)
        self._ddp = DistributedDataParallel(self._model, gradient_as_bucket_view=True)
        self._timer = ReductionTimer(place.size)
        if place.device.type == "cpu":
            self._timer.attach(self._ddp)

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> str:
        """Train to the end; return why it ended."""
        if self._options.resume:
            self._restore()
        decision = GO_ON
        while decision == GO_ON and not self._complete():
            decision = self._step()
        self._stopping.finished()
        if self._options.checkpoint_dir and self.step > self._saved:
            self._save(self._options.checkpoint_dir)
        distributed.barrier()
        return ENDS[decision]

    def _complete(self) -> bool:
        return 0 < self._options.steps <= self.step

    def _step(self) -> int:
        """Train one step and what is due after it; return what all ranks decided meanwhile."""
        began = time.monotonic()
        vote = torch.tensor([self._wish()], device=self._world.device)
        counted = distributed.all_reduce(vote, distributed.ReduceOp.MAX, async_op=True)
        self.step += 1
        self._tell(self._train())
        if self._is_due(self._options.probe_every):
            self._probe()
        if self._options.checkpoint_dir and self._is_due(self._options.checkpoint_every):
            self._save(self._options.checkpoint_dir)
        assert counted
        counted.wait()
        self._stopping.progress()
        self._throttle(began)
        return int(vote)

    def _wish(self) -> int:
        if self._stopping.reason:
            return SIGNALLED
        limit = self._options.seconds
        return TIME_OVER if 0 < limit <= time.monotonic() - self._started else GO_ON

    def _throttle(self, began: float) -> None:
        left = self._options.step_time - (time.monotonic() - began)
        if left > 0:
            time.sleep(left)

    # --- one step -----------------------------------------------------------------------------

    def _train(self) -> Measured:
        first = self._sampler.position + self._world.rank * self._batch
        windows = self._take(self._sampler, self._batch)
        rate = self._set_rate()

        began = time.perf_counter()
        loss = self._fault.loss(self._loss(windows), step=self.step, rank=self._world.rank)
        torch.autograd.backward(loss)
        seconds = time.perf_counter() - began
        reduction = self._timer.take(began + seconds)
        grad_hash = self._hash_if_due(p.grad for p in self._model.parameters())

        began = time.perf_counter()
        norm = float(torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP))
        if math.isfinite(norm):
            self._optimizer.step()
        self._optimizer.zero_grad()
        seconds += time.perf_counter() - began

        self._fault.corrupt(self._model, step=self.step, rank=self._world.rank)
        self._note(loss.item(), first)
        return Measured(loss.item(), norm, rate, seconds, reduction, grad_hash)

    def _note(self, loss: float, first: int) -> None:
        if self._trail.wanted:
            ids = [self._sampler.index(first + place) for place in range(self._batch)]
            self._trail.step(self.step, loss, first, ids)

    def _take(self, sampler: corpus.Sampler, count: int) -> torch.Tensor:
        windows = sampler.take(count, rank=self._world.rank, world=self._world.size)
        return windows.to(self._world.device)

    def _set_rate(self) -> float:
        rate = self._options.lr * min(1.0, self.step / WARM_UP)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _loss(self, windows: torch.Tensor) -> torch.Tensor:
        reduced = self._options.dtype == "bfloat16"
        with torch.autocast(self._world.device.type, dtype=torch.bfloat16, enabled=reduced):
            loss: torch.Tensor = self._ddp(windows)
        return loss

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _hash_if_due(self, tensors: Iterable[torch.Tensor | None]) -> int | None:
        if not self._is_due(self._options.hash_every):
            return None
        return hash64(tensor for tensor in tensors if tensor is not None)

    def _validate(self) -> float | None:
        """Mean loss over the same held-out windows every time, each rank taking its share."""
        if not self._is_due(self._options.validate_every):
            return None
        self._reporter.pause(VALIDATION_LIMIT, "validation")
        self._held_out.position = 0
        windows = self._take(self._held_out, max(1, VALIDATION_WINDOWS // self._world.size))
        with torch.no_grad():
            loss: torch.Tensor = self._model(windows)
        distributed.all_reduce(loss)
        return loss.item() / self._world.size

    def _tell(self, measured: Measured) -> None:
        validation = self._validate()
        timed = self._world.device.type == "cpu"
        reduction = measured.reduction
        self._reporter.step(
            self.step,
            samples=self._batch,
            loss=measured.loss,
            grad_norm=measured.norm,
            compute=measured.seconds - reduction.exposed if timed else None,
            communication=reduction.exposed if timed else None,
            allreduce=reduction.allreduce if timed else None,
            bytes=reduction.bytes if timed else None,
            lr=measured.rate,
            val_loss=validation,
            grad_hash=measured.grad_hash,
            param_hash=self._hash_if_due(self._model.parameters()),
        )
        if self._world.leads and self._is_due(self._options.print_every):
            self._print(measured, validation)

    def _probe(self) -> None:
        """Time an all-reduce that all ranks enter together; the slowest rank's time is told."""
        payload = torch.zeros(PROBE // 4, device=self._world.device)
        distributed.barrier()
        began = time.perf_counter()
        distributed.all_reduce(payload)
        payload[0].item()  # waits for a device
        took = torch.tensor([time.perf_counter() - began], device=self._world.device)
        distributed.all_reduce(took, distributed.ReduceOp.MAX)
        if self._world.leads:
            self._reporter.collective("64KiB", float(took))

    def _print(self, measured: Measured, validation: float | None) -> None:
        step, at = self._printed
        now = time.monotonic()
        each = (now - at) / max(1, self.step - step)
        self._printed = (self.step, now)
        rate = self._batch * self._world.size / each
        more = "" if validation is None else f" val_loss={validation:.4f}"
        say(
            f"step={self.step} loss={measured.loss:.4f} grad_norm={measured.norm:.4f}"
            f" lr={measured.rate:.6f} step_seconds={each:.4f} samples_per_second={rate:.1f}{more}"
        )

    # --- checkpoints --------------------------------------------------------------------------

    def _save(self, directory: Path) -> None:
        """Write a checkpoint from rank 0; a failure is reported, and the training goes on."""
        self._saved = self.step
        if not self._world.leads:
            return
        path = str(checkpoint.path_of(directory.absolute(), self.step))
        self._reporter.checkpoint_begin(path, self.step)
        try:
            checkpoint.save(directory, self.step, self._state(), keep=self._options.keep)
        except OSError as error:
            self._reporter.checkpoint_failed(path, self.step, str(error))
            say(f"checkpoint failed: {path}: {error}")
            return
        self._reporter.checkpoint_saved(path, self.step)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "position": self._sampler.position,
            "corpus": self._hash,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def _restore(self) -> None:
        """Go on from the newest whole checkpoint that rank 0 can see, if there is one."""
        began = time.monotonic()
        payload = self._world.broadcast(self._newest() if self._world.leads else b"")
        if not payload:
            return
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if state["corpus"] != self._hash:
            raise ValueError("the checkpoint was trained on other text; start with --no-resume")
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self._sampler.position = state["position"]
        self.step = self._saved = state["step"]
        self._printed = (self.step, time.monotonic())
        self._trail.resumed(self.step)
        if self._world.leads and self._options.checkpoint_dir:
            path = checkpoint.path_of(self._options.checkpoint_dir.absolute(), self.step)
            self._reporter.checkpoint_loaded(str(path), self.step, self._printed[1] - began)

    def _newest(self) -> bytes:
        directory = self._options.checkpoint_dir
        if not directory:
            return b""
        checkpoint.clean(directory)
        try:
            path, wrong = checkpoint.newest(directory)
        except FileNotFoundError as error:
            say(f"starting anew: {error}")
            return b""
        for reason in wrong:
            say(f"skipped a broken checkpoint: {reason}")
        say(f"resuming from {path.name}")
        return (path / checkpoint.STATE).read_bytes()


def _batch(chosen: options.Options, place: world.World) -> int:
    """Samples of this rank in a step. Raises ValueError if not all ranks can have as many."""
    if not chosen.global_batch:
        return chosen.batch
    batch, left = divmod(chosen.global_batch, place.size)
    if left or not batch:
        raise ValueError(f"--global-batch {chosen.global_batch} is not divisible by {place.size}")
    return batch


def say(line: str) -> None:
    """One line of progress on stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this rank to its end; the exit code is in the file's first words."""
    chosen = options.parse(arguments)
    try:
        fault = faults.planted(dict(os.environ))
    except ValueError as error:
        say(str(error))
        return 2
    _behave(chosen.nice)
    stopping = Stopping()
    stopping.install()
    place = world.join(chosen.backend, timeout=chosen.timeout)
    if place.leads and (advice := world.restart_advice(os.environ)):
        say(f"warning: {advice}")
    trail = Trail(chosen.trail)
    trail.joined(place.rank, place.size)
    every = chosen.checkpoint_every if chosen.checkpoint_dir else 0
    with Reporter(job=chosen.job, checkpoint_every=every) as reporter:
        trainer = Trainer(
            chosen, place, reporter=reporter, stopping=stopping, fault=fault, trail=trail
        )
        reason = trainer.run()
        reporter.end(reason)
    if place.leads:
        say(f"ended at step {trainer.step}: {reason}")
    distributed.destroy_process_group()
    if reason == ENDS[SIGNALLED]:
        stopping.asked(OWN_SIGNAL)
    return 0


def _behave(nice: int) -> None:
    """Yield to others: lower priority, and no more threads than OMP_NUM_THREADS says, or one."""
    os.nice(nice)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))


if __name__ == "__main__":
    leave(main())
