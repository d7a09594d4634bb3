"""Fits of a tiny module under Lightning, and what the callback told of each: JSON, by its name.

`python lightning_fits.py PACKAGE DIRECTORY`, for a subprocess: what Lightning imports and warns of
is no matter of the tests' own process.
"""

import contextlib
import functools
import importlib
import json
import pickle
import sys
import warnings

import torch
from torch.utils.data import DataLoader

from dvfd.integrations import lightning as integration
from dvfd.integrations.lightning import DvfdCallback

PACKAGE, DIRECTORY = sys.argv[1], sys.argv[2]
pl = importlib.import_module(PACKAGE)


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self, **given):
        self.calls = [["new", given]]

    def __getattr__(self, name):
        def keep(*args, **kwargs):
            self.calls.append([name, *map(str, args), *([kwargs] if kwargs else [])])

        return keep


made = []


def reporter(**given):
    """In the place of Reporter."""
    made.append(Told(**given))
    return made[-1]


integration.Reporter = reporter


class Module(pl.LightningModule):
    """One layer that logs its loss, and breaks or is slow as it is told."""

    def __init__(self, fail_at=0, manual=False):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)
        self.fail_at = fail_at
        self.automatic_optimization = not manual

    def training_step(self, batch, _):
        if self.fail_at and self.global_step + 1 == self.fail_at:
            raise RuntimeError("out of luck")
        loss = (self.layer(batch["x"]) ** 2).mean()
        self.log("train_loss", loss)
        self.log("grad_norm", loss.detach() * 2)
        self.log("mine", loss.detach() * 4)
        if not self.automatic_optimization:
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def validation_step(self, batch, _):
        self.log("val_loss", (self.layer(batch["x"]) ** 2).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        halves = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": halves, "interval": "step"}}


def loader(size=32):
    return DataLoader([{"x": torch.ones(8)}] * size, 4)


def trainer(name, *callbacks, **more):
    kind = pl.loggers.CSVLogger(f"{DIRECTORY}/{name}")
    given = {
        "max_epochs": 1, "logger": kind, "log_every_n_steps": 2, "callbacks": list(callbacks),
        "default_root_dir": f"{DIRECTORY}/{name}", **more,
    }  # fmt: skip
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(**quiet, **given)


def fit(name, module=None, callback=None, validation=None, path=None, **more):
    """What is told of one fit, and how it ended."""
    made.clear()
    module = module or Module()
    with contextlib.suppress(RuntimeError, OSError):
        trainer(name, callback or DvfdCallback("fit"), *more.pop("also", ()), **more).fit(
            module, loader(), validation, ckpt_path=path
        )
    return [call for told in made for call in told.calls]


def full_disk():
    """A plugin that cannot write."""

    class FullDisk(pl.plugins.io.TorchCheckpointIO):
        def save_checkpoint(self, *_, **__):
            raise OSError("no space left on device")

    return FullDisk()


def background(plugin=None):
    return pl.plugins.io.AsyncCheckpointIO(plugin or pl.plugins.io.TorchCheckpointIO())


def every(steps, **more):
    return pl.callbacks.ModelCheckpoint(every_n_train_steps=steps, save_top_k=-1, **more)


def enough():
    """Stops the fit after its first validation."""
    return pl.callbacks.EarlyStopping("val_loss", stopping_threshold=1e9)


def conversions(callback):
    """How often values are taken out of tensors in a fit."""
    counted = [0]
    kept = {name: getattr(torch.Tensor, name) for name in ("item", "__float__", "tolist")}

    def counting(method):
        def count(self, *args):
            counted[0] += 1
            return method(self, *args)

        return count

    for name, method in kept.items():
        setattr(torch.Tensor, name, counting(method))
    try:
        trainer("counted", *callback, enable_checkpointing=False).fit(Module(), loader(), loader(8))
    finally:
        for name, method in kept.items():
            setattr(torch.Tensor, name, method)
    return counted[0]


def broken():
    """A fit with an integration in which everything breaks, and the steps that it made."""
    size, integration._size = integration._size, lambda _: 1 / 0
    try:
        whole = trainer("broken", DvfdCallback("fit"), logger=False, enable_checkpointing=False)
        whole.fit(Module(), loader())
        return whole.global_step
    finally:
        integration._size = size


class WrapsToo(pl.Callback):
    """Stands around save_checkpoint itself while the fit lasts, and stays there."""

    def on_train_start(self, trainer, _module):
        method = trainer.save_checkpoint
        trainer.save_checkpoint = self.own = functools.partial(method)


def patched():
    """What is left of the job's own wrappers after fits, and what a second one tells of a save."""
    found = []
    before, during = trainer("patched", DvfdCallback("fit")), WrapsToo()
    before.save_checkpoint = own = lambda *_, **__: None
    before.fit(Module(), loader())
    found.append(before.save_checkpoint is own and "load_checkpoint" not in vars(before.strategy))
    twice = trainer("twice", during, DvfdCallback("fit"), enable_checkpointing=False)
    twice.fit(Module(), loader())
    found.append(twice.save_checkpoint is during.own)
    twice.fit_loop.max_epochs = 2
    twice.fit(Module(), loader())
    before_it = len(made[-1].calls)
    twice.save_checkpoint(f"{DIRECTORY}/twice.ckpt")  # after the fit: of no training
    return [*found, len(made[-1].calls) == before_it]


def kinds():
    """Of which Callback classes it is, before and after the other package is imported as well."""
    alone = isinstance(DvfdCallback(), pl.Callback)
    others = [importlib.import_module(name) for name in integration.PACKAGES]
    both = [isinstance(DvfdCallback(), other.Callback) for other in others]
    copied = pickle.loads(pickle.dumps(DvfdCallback("gpt", loss="mine")))
    return [alone, all(both), copied._given["job"] == "gpt"]


def main():
    warnings.simplefilter("ignore")
    first = fit("resumed", also=[every(4)], max_steps=4)
    path = next(call[1] for call in first if call[0] == "checkpoint_saved")
    found = {
        "version": pl.__version__,
        "plain": fit("plain", validation=loader(8), accumulate_grad_batches=2, max_epochs=2),
        "resumed": fit("resumed", also=[every(4)], path=path),
        "crashed": fit("crashed", Module(fail_at=6), also=[every(4)]),
        "stopped": fit("stopped", validation=loader(8), also=[enough()], max_epochs=3),
        "full": fit("full", also=[every(4)], plugins=[full_disk()]),
        "background": fit("background", also=[every(4)], plugins=[background()]),
        "lost": fit("lost", also=[every(4)], plugins=[background(full_disk())]),
        "silent": fit("silent", logger=False),
        "manual": fit("manual", Module(manual=True), validation=loader(8)),
        "renamed": fit("renamed", callback=DvfdCallback("fit", loss="mine")),
        "conversions": [conversions([DvfdCallback("fit")]), conversions([])],
        "broken": [broken(), made[-1].calls],
        "kinds": kinds(),
        "patched": patched(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
