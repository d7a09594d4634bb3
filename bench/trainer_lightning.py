"""What the Lightning callback costs each step, beside what Lightning spends on its own logging.

A real fit of a tiny module with a CSV logger, with a receiver that listens and with none, each in a
process of its own. Every step is logged, which is the worst case, and one in fifty, Lightning's
default. Time inside the callback is taken where it is spent; Lightning's own is that of its logging
call, the callback's part in it left out. On its way to a callback Lightning passes its hooks and
their profiler: that is the difference of its calls with the callback, which then does nothing, and
without.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from bench.harness import chosen, finish
from bench.record import Figure, at_most
from bench.trainers import LIMIT, NOBODY, Meter, listening

EVERY = {"each_logged": 1, "one_in_fifty_logged": 50}

HOOKS = ("on_train_batch_start", "on_before_backward", "on_after_backward",
         "on_before_optimizer_step", "on_before_zero_grad", "on_train_batch_end")  # fmt: skip
"""What Lightning calls of every callback for every batch, in this or another order."""


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
    """Tenths of microseconds per step: of the callback, of Lightning's logging, of its hooks."""
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
    return {"ours": tenths(ours.steps), "own": tenths(rest), "hooks": tenths(hooks(trainer))}


def hooks(trainer: Any) -> list[float]:
    """Microseconds of a step in which Lightning finds out that a callback has nothing to do."""
    from lightning.pytorch.trainer import call

    callback: Any = trainer.callbacks[0]
    callback.on_train_batch_end = lambda *_: None

    def passes(callbacks: list[Any]) -> float:
        trainer.callbacks = callbacks
        began = time.perf_counter_ns()
        for name in HOOKS:
            call._call_callback_hooks(trainer, name, *([None] * (name == "on_train_batch_end")))
        return (time.perf_counter_ns() - began) / 1e3

    return [passes([callback]) - passes([]) for _ in range(1000)]


def tenths(values: list[float]) -> list[float]:
    """The percentiles 10, 20, ... 90."""
    return [round(value, 2) for value in statistics.quantiles(values, n=10)]


def figures(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    """The callback's are bounded, and so is it with Lightning's way to it."""
    made = []
    for name, each in found.items():
        what = name.replace("_", " ")
        low, value, high = (each["ours"][n] + each["hooks"][4] for n in (0, 4, 8))
        text = f"A step's Lightning callback and the way to it, {what}"
        made.append(at_most(name, text, value, "us", LIMIT, interval=(low, high)))
        own = each["own"]
        beside = f"Lightning's own logging call beside it, {what}"
        made.append(Figure(f"{name}_own", beside, own[4], "us", "", None, own[0], own[8]))
    return made


if __name__ == "__main__":
    main()
