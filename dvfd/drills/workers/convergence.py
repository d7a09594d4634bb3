"""Train one run of the convergence drill, as one process or as a rank under torchrun.

Every process count sees the same samples in the same order, starts from the same parameters and
has the same learning rate after the same number of samples. Goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from dvfd.drills import checkpoint, corpus, curve, stopping, world
from dvfd.drills.reference_model import ByteModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.drills.curve import Configuration

COLLECTIVE = 120.0
"""Seconds that a collective may take: a busy machine starts its ranks one after the other."""

WAITING = 600.0
"""The same inside somebody's torchrun, where ranks also wait for orders."""

GATHER = 50
"""Steps whose losses are averaged over the ranks together: one small all-reduce instead of 50."""

SAVE = 60.0
"""Seconds between checkpoints: what an interruption costs."""

TELL = 10.0
"""Seconds between lines of progress."""

VALIDATIONS = 50
VALIDATION_STEPS = 4
"""Held-out losses taken in a run, and batches of each: a tenth of a short run, nothing of a long
one. All are of the same windows."""

LOWEST = 0.1
"""What is left of the learning rate at the end: a cosine falls to it, so that the last losses are
less noisy than the limit that they are held against."""

BEFORE = 5
"""Steps left out of a measured speed: the first ones allocate."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do: train *seed*, or measure the speed for *measure* seconds."""

    plan: Path
    answer: Path
    checkpoints: Path | None
    seed: int
    backend: str
    measure: float | None


def parse(arguments: Sequence[str] | None = None) -> Order:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="the configuration, JSON")
    parser.add_argument("--answer", type=Path, required=True, help="the file to write")
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo")
    parser.add_argument("--measure", type=float, help="seconds; 0: say only what is here")
    return Order(**vars(parser.parse_args(arguments)))


class Training:
    """One rank of one run."""

    def __init__(self, configuration: Configuration, place: world.World, seed: int) -> None:
        self.text = corpus.load()
        self.wanted = configuration
        self.place = place
        self.seed = seed
        self.step = self.nonfinite = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.validation: list[tuple[float, float]] = []
        self._own: list[torch.Tensor] = []
        self._build()

    @property
    def here(self) -> Configuration:
        """The configuration as it is here: with this torch, on this text."""
        return replace(self.wanted, torch=str(torch.__version__), text=self.text.hash)

    def _build(self) -> None:
        wanted, place = self.wanted, self.place
        if wanted.batch % place.size:
            raise ValueError(f"{wanted.batch} samples a step cannot be shared by {place.size}")
        self._each = wanted.batch // place.size
        self._sampler = corpus.Sampler(self.text.train, context=wanted.context, seed=self.seed)
        self._held_out = corpus.Sampler(self.text.validation, context=wanted.context, seed=0)
        torch.manual_seed(self.seed)
        model = ByteModel(width=wanted.width, layers=wanted.layers, context=wanted.context)
        self.model = model.to(place.device)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=wanted.rate)
        self._parallel = self.parallel() if place.size > 1 else self.model

    def parallel(self) -> torch.nn.Module:
        """The model as the ranks train it together."""
        return DistributedDataParallel(self.model, gradient_as_bucket_view=True)

    def rate(self, seen: int) -> float:
        """The learning rate after *seen* samples."""
        wanted = self.wanted
        warm = min(1.0, seen / wanted.warm_up)
        done = seen / wanted.samples if wanted.samples else 0.0
        fall = LOWEST + (1.0 - LOWEST) * (1.0 + math.cos(math.pi * min(1.0, done))) / 2.0
        return wanted.rate * warm * fall

    def advance(self) -> None:
        """Train one step; its loss waits for `gather`."""
        self.step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(self.step * self.wanted.batch)
        loss = self._parallel(self._take(self._sampler, self._each))
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.wanted.clip))
        if math.isfinite(norm):
            self._optimizer.step()
        else:
            self.nonfinite += 1
        self._optimizer.zero_grad()
        self._own.append(loss.detach())

    def _take(self, sampler: corpus.Sampler, count: int) -> torch.Tensor:
        windows = sampler.take(count, rank=self.place.rank, world=self.place.size)
        return windows.to(self.place.device)

    def gather(self) -> None:
        """Average the waiting losses over the ranks: batches are equal, so this is their mean."""
        if not self._own:
            return
        mean = self._mean(torch.stack(self._own))
        self._own.clear()
        self.losses += mean.tolist()
        self.nonfinite += int((~torch.isfinite(mean)).sum())

    def _mean(self, own: torch.Tensor) -> torch.Tensor:
        values = own.double()
        if self.place.size > 1:
            distributed.all_reduce(values)
        return values / self.place.size

    def agreed(self, wish: bool) -> bool:  # a vote
        """Whether rank 0 wishes it: clocks differ, and all must do as many steps."""
        vote = torch.tensor([int(wish)], device=self.place.device)
        if self.place.size > 1:
            distributed.broadcast(vote, 0)
        return bool(vote)

    def validate(self) -> None:
        """Take the mean loss of the held-out windows, each rank its share."""
        self._held_out.position = 0
        with torch.no_grad():
            shares = [
                self.model(self._take(self._held_out, self._each)) for _ in range(VALIDATION_STEPS)
            ]
        mean = float(self._mean(torch.stack(shares)).mean())
        self.validation.append((float(self.step * self.wanted.batch), mean))

    # --- to its end and back ------------------------------------------------------------------

    def finish(self, directory: Path | None) -> None:
        """Train to the last step; save now and then."""
        every = max(1, self.wanted.steps // VALIDATIONS)
        before, began = self.seconds, time.monotonic()
        saved = told = began
        while self.step < self.wanted.steps:
            self.advance()
            last = self.step == self.wanted.steps
            if self.step % GATHER == 0 or last:
                self.gather()
            if self.step % every == 0 or last:
                self.validate()
            now = time.monotonic()
            self.seconds = before + now - began
            if self._own or not self.place.leads:
                continue
            if directory and (last or now - saved > SAVE):
                checkpoint.save(directory, self.step, self._state(), keep=2)
                saved = time.monotonic()
            if now - told > TELL or last:
                told = now
                self._tell()

    def _tell(self) -> None:
        done = 100 * self.step // self.wanted.steps
        sys.stdout.write(
            f"seed {self.seed}, processes {self.place.size}: {done} % of {self.wanted.samples}"
            f" samples, loss {self.losses[-1]:.4f}\n"
        )
        sys.stdout.flush()

    def _state(self) -> dict[str, Any]:
        return {
            "hash": self.wanted.hash,
            "seed": self.seed,
            "step": self.step,
            "nonfinite": self.nonfinite,
            "seconds": self.seconds,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "validation": torch.tensor(self.validation, dtype=torch.float64).reshape(-1, 2),
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def resume(self, directory: Path | None) -> None:
        """Go on from the newest whole checkpoint that rank 0 sees, if it is of this run."""
        payload = _newest(directory) if self.place.leads else b""
        if self.place.size > 1:
            payload = self.place.broadcast(payload)
        if not payload:
            return
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if (state["hash"], state["seed"]) != (self.wanted.hash, self.seed):
            return
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.nonfinite = state["step"], state["nonfinite"]
        self.seconds = state["seconds"]
        self.losses = state["losses"].tolist()
        self.validation = [(at, value) for at, value in state["validation"].tolist()]
        self._sampler.position = self.step * self.wanted.batch


def _newest(directory: Path | None) -> bytes:
    if directory is None or not directory.is_dir():
        return b""
    checkpoint.clean(directory)
    try:
        path, _ = checkpoint.newest(directory)
    except FileNotFoundError:
        return b""
    return (path / checkpoint.STATE).read_bytes()


# --- orders -----------------------------------------------------------------------------------


def work(order: Order, place: world.World, kind: type[Training] = Training) -> None:
    """Carry out *order* as this rank. Raises ValueError where torch or text are not the plan's."""
    plan = json.loads(order.plan.read_text(encoding="utf-8"))
    training = kind(curve.Configuration(**plan), place, order.seed)
    if order.measure is not None:
        said = measure(training, order.measure)
        if place.leads:
            curve.put(order.answer, said)
        return
    if training.here != training.wanted:
        raise ValueError(f"torch {torch.__version__} on this text is not what was planned")
    training.resume(order.checkpoints)
    training.finish(order.checkpoints)
    if place.leads:
        curve.write(order.answer, curve_of(training))


def curve_of(training: Training) -> curve.Curve:
    """What *training* was, at its end."""
    return curve.Curve(
        hash=training.wanted.hash,
        processes=training.place.size,
        seed=training.seed,
        batch=training.wanted.batch,
        losses=tuple(training.losses),
        validation=tuple(training.validation),
        nonfinite=training.nonfinite,
        seconds=training.seconds,
    )


def measure(training: Training, seconds: float) -> dict[str, Any]:
    """What is here, and samples per second over all ranks, if there is time to see."""
    here, speed = training.here, 0.0
    if seconds > 0:
        for _ in range(BEFORE):
            training.advance()
        steps, goes_on, began = 0, True, time.monotonic()
        while goes_on:
            training.advance()
            steps += 1
            took = time.monotonic() - began
            goes_on = training.agreed(took < seconds)
        speed = steps * here.batch / took
    return {
        "torch": here.torch,
        "text": here.text,
        "speed": speed,
        "processes": training.place.size,
    }


def main(arguments: Sequence[str] | None = None, kind: type[Training] = Training) -> int:
    """Run this rank to its end."""
    order = parse(arguments)
    os.nice(5)
    place = enter(order.backend, timeout=COLLECTIVE)
    try:
        work(order, place, kind)
    finally:
        distributed.destroy_process_group()
    return 0


# --- inside a torchrun that somebody else started -------------------------------------------------


def enter(backend: str, *, timeout: float = WAITING) -> world.World:
    """Become a rank, or the only process, of one thread."""
    one_thread()
    return world.join(backend, timeout=timeout)


def one_thread() -> None:
    """Compute with one: more would spin against other work."""
    torch.set_num_threads(1)


def lead(place: world.World, arguments: Sequence[str]) -> None:
    """Carry out an order with all ranks; this is rank 0."""
    place.broadcast(json.dumps(list(arguments)).encode())
    work(parse(arguments), place)


def follow(place: world.World) -> None:
    """Carry out rank 0's orders until there are no more."""
    while words := json.loads(place.broadcast(b"")):
        work(parse(words), place)
    distributed.destroy_process_group()


def release(place: world.World) -> None:
    """Tell the other ranks that there are no more orders."""
    place.broadcast(b"[]")
    distributed.destroy_process_group()


if __name__ == "__main__":
    stopping.leave(main())
