"""A loop of plain torch seen by dvfd: the reporter is told what the loop knows.

    python examples/plain_torch.py
    torchrun --nproc_per_node=2 examples/plain_torch.py

`--fail-at STEP` shows what dvfd says of a crash.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dvfd.telemetry.reporter import Reporter

BATCH, LOG_EVERY, VALIDATE_EVERY, SAVE_EVERY = 32, 5, 20, 20

NOISE = 0.3
"""What the sums are off by. Without a floor a loss that nears 0 spikes, and that is an alarm."""


def main() -> None:
    """Train, validate and save; leaving by an exception is reported as a failure."""
    given = arguments()
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    with Reporter(checkpoint_every=SAVE_EVERY) as reporter:
        train(reporter, given)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def train(reporter: Reporter, given: argparse.Namespace) -> None:
    """Learn to add, and report each step."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))
    model = DistributedDataParallel(network) if distributed.is_initialized() else network
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    val_loss = None
    for step in range(1, given.steps + 1):
        if step == given.fail_at:
            raise RuntimeError("a sample that cannot be read")
        loss = error_of(model)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        # Reading a loss waits for the device: only where the loop reads it anyway.
        values = {}
        if step % LOG_EVERY == 0:
            values = {"loss": loss.item(), "grad_norm": norm.item(), "lr": 1e-2}
            print(f"step {step}: loss {values['loss']:.4f}", flush=True)
        reporter.step(step, samples=BATCH, val_loss=val_loss, **values)

        val_loss = None
        if step % VALIDATE_EVERY == 0:
            reporter.pause(60, "validation")
            with torch.no_grad():
                val_loss = error_of(model).item()
        if step % SAVE_EVERY == 0:
            save(reporter, network, Path(given.output).absolute() / f"step-{step}.pt", step)


def error_of(model: nn.Module) -> torch.Tensor:
    """The model's error on a batch of sums that are a little off."""
    numbers = torch.rand(BATCH, 8)
    sums = numbers.sum(1, keepdim=True)
    return nn.functional.mse_loss(model(numbers), sums + NOISE * torch.randn_like(sums))


def save(reporter: Reporter, network: nn.Module, path: Path, step: int) -> None:
    """Write a checkpoint, whole or not at all; the others of a node wait for its first rank."""
    if distributed.is_initialized() and distributed.get_rank() > 0:
        return
    reporter.checkpoint_begin(path, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    reporter.checkpoint_saved(path, step)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="run/plain")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--fail-at", type=int, default=0, metavar="STEP")
    return parser.parse_args()


if __name__ == "__main__":
    main()
