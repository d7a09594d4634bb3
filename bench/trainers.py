"""What an integration costs each step, beside what its framework spends on its own logging.

Taken twice, as for the reporter. Back to back: the calls that the framework makes of a step, with
its own arguments, many times over. Between real steps: a training of a tiny model by the Hugging
Face Trainer or by an Accelerate loop, every second step logged; the steps' work leaves the caches
cold, which multiplies the time of any Python. The framework's is that of its own logging call, the
integration's part in it left out, its output sent to nowhere. Each training is a process of its
own, with a receiver that listens or with none. A figure is the median step or round, its interval
the tenth and the ninetieth percentile.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness import chosen, finish
from bench.ingest import receiving
from bench.record import Figure, at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Times = dict[str, list[float]]
    """Microseconds of each step, or of each round a step, by what was measured."""

LIMIT = 10.0
"""Microseconds of a step."""

ROUNDS, CALLS = 20, 2000
NOBODY = "/nonexistent/ingest.sock"
VALUES = {"loss": 2.5, "grad_norm": 1.5, "learning_rate": 1e-3}


class Meter:
    """Microseconds inside methods that were wrapped, step by step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._spent = 0

    def wrap(self, owner: Any, name: str) -> None:
        """Take the time of each call of *owner*'s method."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter_ns()
            try:
                return method(*args, **kwargs)
            finally:
                self._spent += time.perf_counter_ns() - began

        setattr(owner, name, timed)

    def step(self) -> None:
        """End a step."""
        self.steps.append(self._spent / 1e3)
        self._spent = 0


def main() -> None:
    """Measure and keep; `--train NAME SOCKET STEPS` is one training, which prints what it took."""
    if sys.argv[1:2] == ["--train"]:
        name, socket, steps = sys.argv[2:]
        print(json.dumps(TRAIN[name](socket, int(steps))))
        return
    options = chosen(__doc__)
    found: dict[str, Times] = {}
    with tempfile.TemporaryDirectory() as place, listening(Path(place)) as path:
        for name in TRAIN:
            for where, socket in (("", path), ("_without_a_daemon", NOBODY)):
                found[name + where] = trained(name, socket, 500 if options.short else 3000)
    tenths = {name: {what: _tenths(v) for what, v in each.items()} for name, each in found.items()}
    finish("trainers", options, figures(tenths), tenths)


@contextlib.contextmanager
def listening(place: Path) -> Iterator[str]:
    """A receiver in a process of its own, with a store on disk."""
    with receiving(place) as server:
        yield str(place / "ingest.sock")
        server.kill()


def trained(name: str, socket: str, steps: int) -> Times:
    """What a training in a process of its own took."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.trainers", "--train", name, socket, str(steps)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, check=True, timeout=600,
    )  # fmt: skip
    found: Times = json.loads(done.stdout.splitlines()[-1])
    return found


def huggingface(socket: str, steps: int) -> Times:
    """The Trainer, with its own printing callback."""
    import torch
    import transformers

    from dvfd.integrations.huggingface import DvfdCallback

    class Words(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 4 * steps

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": torch.arange(8), "labels": torch.arange(8)}

    class Steps(transformers.TrainerCallback):  # type: ignore[misc]  # mypy does not follow it
        def on_step_begin(self, *_: Any, **_more: Any) -> None:
            for meter in meters:
                meter.step()

    meters = ours, logging, inside = Meter(), Meter(), Meter()
    callback, again = DvfdCallback("bench", socket=socket), DvfdCallback("again", socket=socket)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    with tempfile.TemporaryDirectory() as place:
        settings = transformers.TrainingArguments(
            output_dir=place, max_steps=steps, per_device_train_batch_size=4, logging_steps=2,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=transformers.GPT2LMHeadModel(config), args=settings, train_dataset=Words(),
            callbacks=[callback, Steps()],
        )  # fmt: skip
        inside.wrap(callback, "on_log")
        for name in ("on_substep_end", "on_step_end", "on_log"):
            ours.wrap(callback, name)
        logging.wrap(trainer, "log")
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            trainer.train()
    found = apart(ours.steps, logging.steps, inside.steps)
    return {"back to back": called(trainer, again), **found}


def called(trainer: Any, callback: Any) -> list[float]:
    """The Trainer's calls of a step that is logged, made of *callback* alone."""
    state, control = trainer.state, trainer.control
    state.max_steps = 1 << 60
    handler = trainer.callback_handler
    handler.callbacks = [callback]
    handler.on_train_begin(trainer.args, state, control)

    def step(number: int) -> None:
        state.global_step = number
        control.should_log = True
        handler.on_step_end(trainer.args, state, control)
        handler.on_log(trainer.args, state, control, VALUES)

    return rounds(step)


def accelerate(socket: str, steps: int) -> Times:
    """A loop whose main process logs every second step."""
    import torch
    from accelerate import Accelerator

    from dvfd.integrations.accelerate import DvfdTracker

    meters = ours, logging, inside = Meter(), Meter(), Meter()
    tracker = DvfdTracker("bench", socket=socket)
    accelerator = Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("bench")
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    numbers: Any = torch.rand(4 * steps, 8)
    data: Any = torch.utils.data.DataLoader(numbers, batch_size=4)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    inside.wrap(tracker, "log")
    for name in ("log", "_stepped"):
        ours.wrap(tracker, name)
    logging.wrap(accelerator, "log")
    for number, inputs in enumerate(data):
        loss = model(inputs).pow(2).mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if number % 2:
            accelerator.log({"train/loss": loss.item(), "lr": 1e-3}, step=number)
        for meter in meters:
            meter.step()
    accelerator.end_training()
    again = DvfdTracker("again", socket=socket)

    def step(number: int) -> None:
        again._stepped(optimizer)  # as the hook calls it
        again.log(VALUES, step=number)

    found = apart(ours.steps, logging.steps, inside.steps)
    return {"back to back": rounds(step), **found}


def rounds(step: Callable[[int], None]) -> list[float]:
    """Microseconds of processor that one call takes, in each round: nothing in it waits."""
    found = []
    for number in range(ROUNDS):
        began = time.thread_time()
        for call in range(CALLS):
            step(number * CALLS + call)
        found.append((time.thread_time() - began) / CALLS * 1e6)
    return found


def apart(ours: list[float], logging: list[float], inside: list[float]) -> Times:
    """The integration's time in steps that were logged and in those that were not, and the
    framework's own in those that were.
    """
    rows = list(zip(ours, logging, inside, strict=True))[10:]  # the first ones meet cold code
    return {
        "logged": [ours for ours, logging, _ in rows if logging],
        "not logged": [ours for ours, logging, _ in rows if not logging],
        "own": [logging - inside for _, logging, inside in rows if logging],
    }


TRAIN = {"huggingface": huggingface, "accelerate": accelerate}

SAYS = {
    "back to back": "the calls of a logged step, back to back",
    "logged": "in a step that is logged, between real steps",
    "not logged": "in a step that is not logged, between real steps",
    "own": "the framework's own logging of a step, between real steps",
}


def _tenths(values: list[float]) -> list[float]:
    """The percentiles 10, 20, ... 90."""
    return [round(value, 2) for value in statistics.quantiles(values, n=10)]


def figures(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    """The calls by themselves are bounded; what cold caches make of them stands beside."""
    made = []
    for name, each in found.items():
        who = name.replace("huggingface", "Hugging Face Trainer").replace(
            "accelerate", "Accelerate"
        )
        who = who.replace("_", " ")
        for what, tenths in each.items():
            label, says = f"{name}_{what.replace(' ', '_')}", f"{who}: {SAYS[what]}"
            interval, value = (tenths[0], tenths[-1]), tenths[4]
            if what == "back to back":
                made.append(at_most(label, says, value, "us", LIMIT, interval=interval))
            else:
                made.append(Figure(label, says, value, "us", "", None, *interval))
    return made


if __name__ == "__main__":
    main()
