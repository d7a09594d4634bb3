"""A small module trained by Lightning and seen by dvfd: one line of it is dvfd's.

    python examples/lightning_job.py
    python examples/lightning_job.py --devices 2

The data are random numbers, so nothing is downloaded; `pytorch_lightning` does as well as
`lightning.pytorch`. `--fail-at STEP` shows what dvfd says of a crash, `--resume` goes on from the
last checkpoint.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import grad_norm
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dvfd.integrations.lightning import DvfdCallback

BATCH, LOG_EVERY = 32, 5

NOISE = 0.3
"""What the sums are off by. Without a floor a loss that nears 0 spikes, and that is an alarm."""


class Sums(pl.LightningModule):
    """Learns to add eight numbers."""

    def __init__(self, fail_at: int = 0, pace: float = 0.0) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))
        self.fail_at, self.pace = fail_at, pace

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """Lightning makes floats of what is logged every LOG_EVERY steps, and dvfd hears them."""
        if self.fail_at and self.global_step >= self.fail_at:
            raise RuntimeError("a sample that cannot be read")
        time.sleep(self.pace)
        loss = self.error_of(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        """Over all ranks."""
        self.log("val_loss", self.error_of(batch), sync_dist=True)

    def on_before_optimizer_step(self, _: torch.optim.Optimizer) -> None:
        """As Lightning's own help recommends."""
        self.log_dict(grad_norm(self, norm_type=2))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as everybody's."""
        return torch.optim.Adam(self.parameters(), 1e-2)

    def error_of(self, batch: Any) -> torch.Tensor:
        """The mean square."""
        (numbers,) = batch
        sums = numbers.sum(1)
        sums += NOISE * torch.randn_like(sums)
        return nn.functional.mse_loss(self.network(numbers).squeeze(1), sums)


def main() -> None:
    """Train, validate and save."""
    given = arguments()
    trainer = pl.Trainer(
        max_steps=given.steps,
        max_epochs=-1,
        val_check_interval=given.save_every,
        log_every_n_steps=LOG_EVERY,
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=given.devices,
        default_root_dir=given.output,
        logger=CSVLogger(given.output, name="log"),
        callbacks=[
            DvfdCallback("lightning-sums", checkpoint_every=given.save_every),
            ModelCheckpoint(given.output, every_n_train_steps=given.save_every, save_last=True),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    numbers = [TensorDataset(torch.randn(size, 8)) for size in (1000 * BATCH, 4 * BATCH)]
    training = DataLoader(numbers[0], BATCH, num_workers=1)
    validation = DataLoader(numbers[1], BATCH)
    path = f"{given.output}/last.ckpt" if given.resume else None
    trainer.fit(Sums(given.fail_at, given.pace), training, validation, ckpt_path=path)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="run/lightning")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save-every", type=int, default=20, metavar="STEPS")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--fail-at", type=int, default=0, metavar="STEP")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds that a step waits")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
