"""A loop of Hugging Face Accelerate seen by dvfd: one line of it makes the tracker.

    python examples/accelerate_loop.py
    torchrun --nproc_per_node=2 examples/accelerate_loop.py

Checkpoints and evaluations are the loop's own in Accelerate, so it says when they are; what it does
not say, dvfd does not know. `--fail-at STEP` shows what dvfd says of a crash.
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dvfd.integrations.accelerate import DvfdTracker

BATCH, ACCUMULATE, LOG_EVERY, SAVE_EVERY = 16, 2, 5, 20

NOISE = 0.3
"""What the sums are off by. Without a floor a loss that nears 0 spikes, and that is an alarm."""


def main() -> None:
    """Train, evaluate and save."""
    given = arguments()
    tracker = DvfdTracker(checkpoint_every=SAVE_EVERY)
    accelerator = Accelerator(log_with=tracker, gradient_accumulation_steps=ACCUMULATE, cpu=True)
    accelerator.init_trackers("loop")

    numbers = torch.rand(given.steps * BATCH * ACCUMULATE * accelerator.num_processes, 8)
    loader = DataLoader(TensorDataset(numbers, sums_of(numbers)), batch_size=BATCH)
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    model, optimizer, loader = accelerator.prepare(network, optimizer, loader)

    step = 0
    for inputs, wanted in loader:
        with accelerator.accumulate(model):
            loss = nn.functional.mse_loss(model(inputs), wanted)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue
        step += 1
        if step % LOG_EVERY == 0:
            values = {"train/loss": loss.item(), "grad_norm": norm.item(), "lr": 1e-2}
            accelerator.log(values, step=step)
        if step % SAVE_EVERY == 0:
            tracker.pause(60, "evaluation")
            accelerator.log({"eval/loss": evaluate(model)}, step=step)
            path = f"{given.output}/step-{step}"
            with tracker.checkpoint(path):
                accelerator.save_state(path)
        if step == given.fail_at:
            raise RuntimeError("a sample that cannot be read")
    accelerator.end_training()


def sums_of(numbers: torch.Tensor) -> torch.Tensor:
    """What is to be learnt: their sums, a little off."""
    sums = numbers.sum(1, keepdim=True)
    return sums + NOISE * torch.randn_like(sums)


@torch.no_grad()
def evaluate(model: nn.Module) -> float:
    """The model's error on sums that it has not seen."""
    numbers = torch.rand(BATCH, 8)
    return nn.functional.mse_loss(model(numbers), sums_of(numbers)).item()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="run/accelerate")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--fail-at", type=int, default=0, metavar="STEP")
    return parser.parse_args()


if __name__ == "__main__":
    main()
