"""Trainings by Accelerate, one after another, each seen by the tracker.

`python accelerate_trainings.py DIRECTORY NAME...` runs those named, in this order.
"""

import gc
import os
import pickle
import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from dvfd.integrations.accelerate import DvfdTracker

BATCH = 4


def loop(
    tracker,
    *,
    steps,
    accumulate=1,
    every_step=lambda *_: None,
    loader=True,
    others=(),
    unprepared=(),
):
    """Make *steps* optimizer steps, and after each what else is asked."""
    accelerator = Accelerator(log_with=tracker, gradient_accumulation_steps=accumulate, cpu=True)
    accelerator.init_trackers("tried", config={"lr": 1e-2})
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    numbers = TensorDataset(torch.rand(steps * accumulate * BATCH, 8))
    data = DataLoader(numbers, batch_size=BATCH)
    model, optimizer = accelerator.prepare(model, optimizer)
    others = [*map(accelerator.prepare, others), *unprepared]
    step = 0
    for (inputs,) in accelerator.prepare(data) if loader else data:
        with accelerator.accumulate(model):
            loss = model(inputs).pow(2).mean()
            accelerator.backward(loss)
            for other in others:
                other.step()
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            step += 1
            every_step(accelerator, step, loss.item())
    return accelerator


def logged(_directory):
    """Every second step is logged, the fourth is evaluated before a fifth."""

    def each(accelerator, step, loss):
        if step % 2 == 0:
            accelerator.log({"train/loss": loss, "Learning Rate": 1e-2, "note": "none"}, step=step)
        if step == 4:
            tracker.pause(60)
            accelerator.log({"eval_loss": 0.5}, step=step)

    tracker = DvfdTracker("logged", checkpoint_every=2)
    loop(tracker, steps=6, accumulate=2, every_step=each).end_training()


def saved(directory):
    """Two checkpoints; the second cannot be written."""

    def each(accelerator, step, _loss):
        with tracker.checkpoint(f"{directory}/step-{step}"):
            if step == 2:
                raise OSError(28, "No space left on device")
            accelerator.save_state(f"{directory}/step-{step}")

    tracker = DvfdTracker("saved", first_step=100)
    try:
        loop(tracker, steps=2, every_step=each)
    except OSError:
        tracker.finish()


def another():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def many(_directory):
    """Two optimizers that step before the model's, as a GAN's discriminator does."""
    loop(DvfdTracker("many"), steps=3, others=[another(), another()]).end_training()


def more(_directory):
    """One that steps twice for each step of the model's."""
    discriminator = another()
    loop(DvfdTracker("more"), steps=3, others=[discriminator] * 2).end_training()


def foreign(_directory):
    """One that Accelerate has not prepared steps first and lives on; the loss is NaN at the end."""

    def each(accelerator, step, loss):
        accelerator.log({"loss": loss if step < 3 else float("nan")})
        accelerator.log({"loss": 1.0})

    tracker, probe = DvfdTracker("foreign"), another()
    probe.step()
    loop(tracker, steps=4, every_step=each, unprepared=[probe]).end_training()


def left(_directory):
    """One that is never ended, and its optimizer is gone; the next trains beside it."""
    loop(DvfdTracker("left"), steps=2)
    gc.collect()
    loop(DvfdTracker("next"), steps=3).end_training()


def copied(_directory):
    """An Accelerator that is pickled before it has told its end."""
    accelerator = loop(DvfdTracker("copied"), steps=3)
    copy = pickle.loads(pickle.dumps(accelerator))
    copy.log({"loss": 1.0})
    accelerator.end_training()


def evaluated(_directory):
    """Each step is logged and then evaluated, to NaN at the end."""

    def each(accelerator, step, loss):
        accelerator.log({"loss": loss})
        accelerator.log({"eval_loss": 0.5 if step < 2 else float("nan")})

    loop(DvfdTracker("evaluated"), steps=2, every_step=each).end_training()


def given(_directory):
    """A loader that Accelerate has not prepared, and samples that are given."""
    loop(DvfdTracker("given", samples=32), steps=2, loader=False).end_training()


def unknown(_directory):
    """A loader that Accelerate has not prepared."""
    loop(DvfdTracker("unknown"), steps=2, loader=False).end_training()


def alone(directory):
    """Nobody listens."""
    loop(DvfdTracker("alone", socket=f"{directory}/nobody"), steps=3).end_training()


def forked(_directory):
    """A child that ends while the parent's last step waits for what is logged of it."""

    def each(accelerator, step, loss):
        if step == 2:
            child = os.fork()
            if child == 0:
                sys.exit(0)
            os.waitpid(child, 0)
        accelerator.log({"loss": loss})

    loop(DvfdTracker("forked"), steps=3, every_step=each).end_training()


def crashed(_directory):
    def each(_accelerator, step, _loss):
        if step == 3:
            raise RuntimeError("a sample that cannot be read")

    loop(DvfdTracker(), steps=4, every_step=each)


if __name__ == "__main__":
    for asked in sys.argv[2:]:
        globals()[asked](sys.argv[1])
