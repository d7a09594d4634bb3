"""What the Lightning callback costs each step, beside what Lightning spends on its own logging.

Taken twice, as bench.trainers does. Back to back: the hooks that Lightning calls of a batch, by
Lightning's own way to them, many times over, less the same with no callback. Between real steps: a
fit of a tiny module with a CSV logger, whose work leaves the caches cold; there the time inside the
callback is taken where it is spent, and Lightning's is that of its logging call, without the part
of the callback in it. Each step is logged, or one in fifty, which is Lightning's default. Each fit
is a process of its own, with a receiver that listens or with none.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from bench.harness import chosen, finish
from bench.record import Figure, at_most
from bench.trainers import LIMIT, NOBODY, Meter, listening, rounds
from dvfd.telemetry.reporter import Reporter

EVERY = {"each_logged": 1, "one_in_fifty_logged": 50}

SAYS = {
    "back to back": "the callback's part of a step, back to back",
    "between real steps": "the callback's part of a step, between real steps",
    "its own": "its own logging call beside it",
}

VALUES = {"train_loss": 1.0, "epoch": 0.0}

HOOKS = ("on_train_batch_start", "on_before_backward", "on_after_backward",
         "on_before_optimizer_step", "on_before_zero_grad", "on_train_batch_end")  # fmt: skip
"""What Lightning calls of every callback for every batch; the last is the one that dvfd has."""


def main() -> None:
    """Measure and keep; `--fit EVERY SOCKET STEPS` is one fit, which prints what it took."""
    if sys.argv[1:2] == ["--fit"]:
        asked, socket, steps = sys.argv[2:]
        print(json.dumps(fit(socket, int(asked), int(steps))))
        return
    options = chosen(__doc__)
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as place, listening(Path(place)) as path:
        for name, every in EVERY.items():
            for where, socket in (("", path), ("_without_a_daemon", NOBODY)):
                found[name + where] = fitted(every, socket, 500 if options.short else 3000)
    finish("trainer_lightning", options, figures(found), found)


def fitted(every: int, socket: str, steps: int) -> dict[str, list[float]]:
    """What a fit in a process of its own took."""
    argv = [sys.executable, "-m", "bench.trainer_lightning", "--fit", str(every), socket]
    done = subprocess.run([*argv, str(steps)], stdout=subprocess.PIPE, check=True, timeout=900)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def fit(socket: str, every: int, steps: int) -> dict[str, list[float]]:
    """Percentiles of microseconds per step, by what SAYS names."""
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader

    from dvfd.integrations.lightning import DvfdCallback

    class Module(pl.LightningModule):  # type: ignore[misc]  # mypy does not follow the framework
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.layer(batch).pow(2).mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    class Steps(pl.Callback):  # type: ignore[misc]  # mypy does not follow the framework
        def on_train_batch_start(self, *_: Any) -> None:
            for meter in meters:
                meter.step()

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    meters = ours, own, inside = Meter(), Meter(), Meter()
    callback: Any = DvfdCallback("bench", socket=socket)
    with tempfile.TemporaryDirectory() as place:
        trainer = pl.Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", log_every_n_steps=every,
            logger=pl.loggers.CSVLogger(place), callbacks=[callback, Steps()],
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        for meter, names in ((ours, ("on_train_batch_end", "heard", "logged")),
                             (inside, ("heard", "logged"))):  # fmt: skip
            for name in names:
                meter.wrap(callback, name)
        own.wrap(trainer._logger_connector, "update_train_step_metrics")
        numbers: Any = torch.rand(4 * steps, 8)
        trainer.fit(Module(), DataLoader(numbers, batch_size=4))
        rest = [a - b for a, b in zip(own.steps, inside.steps, strict=True)]
        again: Any = DvfdCallback(reporter=Reporter("again", socket=socket))
        alone = called(trainer, again, every)
    found = {"back to back": alone, "between real steps": ours.steps, "its own": rest}
    return {what: tenths(values) for what, values in found.items()}


def called(trainer: Any, callback: Any, every: int) -> list[float]:
    """Microseconds of a batch's hooks with *callback*, less those of the same without."""
    from lightning.pytorch.trainer import call

    loop = trainer.fit_loop.epoch_loop
    made = loop.automatic_optimization.optim_progress.optimizer.step.total
    batch = next(iter(trainer.train_dataloader))
    callback.on_train_start(trainer, None)
    callback._last, callback._every, callback._hears = float("inf"), every, True

    def batch_of(number: int, callbacks: list[Any]) -> None:
        trainer.callbacks = callbacks
        made.completed += 1
        for name in HOOKS[:-1]:
            call._call_callback_hooks(trainer, name)
        call._call_callback_hooks(trainer, HOOKS[-1], None, batch, 0)
        loop._batches_that_stepped += 1
        if callbacks and loop._batches_that_stepped % every == 0:
            callback.heard(VALUES)
            callback.logged()

    with_it = rounds(lambda number: batch_of(number, [callback]))
    without = statistics.median(rounds(lambda number: batch_of(number, [])))
    return [each - without for each in with_it]


def tenths(values: list[float]) -> list[float]:
    """The percentiles 10, 20, ... 90."""
    return [round(value, 2) for value in statistics.quantiles(values, n=10)]


def figures(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    """The calls by themselves are bounded; what cold caches make of them stands beside."""
    made = []
    for name, each in found.items():
        for what, tenths in each.items():
            label = f"{name}_{what.replace(' ', '_')}"
            says = f"Lightning, {name.replace('_', ' ')}: {SAYS[what]}"
            interval, value = (tenths[0], tenths[-1]), tenths[4]
            if what == "back to back":
                made.append(at_most(label, says, value, "us", LIMIT, interval=interval))
            else:
                made.append(Figure(label, says, value, "us", "", None, *interval))
    return made


if __name__ == "__main__":
    main()
