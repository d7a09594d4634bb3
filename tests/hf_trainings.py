"""Trainings by the Hugging Face Trainer, one after another, each seen by the callback.

`python hf_trainings.py DIRECTORY NAME...` runs those named, in this order.
"""

import os
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from dvfd.integrations.huggingface import DvfdCallback
from dvfd.telemetry.reporter import Reporter


class Words(torch.utils.data.Dataset):
    """*size* samples, of which no more than *readable* can be read."""

    def __init__(self, size, readable=None):
        self.size, self.left = size, readable

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("a sample that cannot be read")
        words = (torch.arange(8) + index) % 16
        return {"input_ids": words, "labels": words}


class Stop(TrainerCallback):
    """Stops after the third step, as early stopping does."""

    def on_step_end(self, args, state, control, **_more):
        control.should_training_stop = state.global_step == 3


class Fork(TrainerCallback):
    """Forks a child that ends while the second step waits for what is logged of it."""

    def on_log(self, args, state, control, **_more):
        if state.global_step == 2:
            child = os.fork()
            if child == 0:
                sys.exit(0)
            os.waitpid(child, 0)


class StopWhenTold(TrainerCallback):
    """Stops all ranks at the same step once the file *told* is there; rank 0 says at which."""

    def __init__(self, told):
        self.told = Path(told)

    def on_step_end(self, args, state, control, **_more):
        told = torch.tensor([self.told.exists()], dtype=torch.int)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        control.should_training_stop = bool(told)
        if told and state.is_world_process_zero:
            print(f"stopped at step {state.global_step}", flush=True)


def trainer(directory, name, callbacks, *, data=None, **settings):
    words = {"vocab_size": 16, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(**words, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    common = {"per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True}
    return Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=f"{directory}/{name}", **{**common, "disable_tqdm": True, **settings}
        ),
        train_dataset=data or Words(1000),
        eval_dataset=Words(8),
        callbacks=callbacks,
    )


STEPS = {"max_steps": 6, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 3}
SAVED = {**STEPS, "save_steps": 3, "gradient_accumulation_steps": 2}


def steps(directory):
    trainer(directory, "steps", [DvfdCallback("steps")], **SAVED).train()


def resumed(directory):
    last = f"{directory}/steps/checkpoint-3"
    trainer(directory, "steps", [DvfdCallback()], **SAVED).train(resume_from_checkpoint=last)


def epochs(directory):
    """Two epochs of five batches, two in a step: the last step of an epoch has one.

    4.46 leaves the odd batch to the next epoch's first step, and ends after four steps.
    """
    each = {f"{what}_strategy": "epoch" for what in ("logging", "eval", "save")}
    trainer(directory, "epochs", [DvfdCallback("epochs")], data=Words(20), num_train_epochs=2,
            gradient_accumulation_steps=2, **each).train()  # fmt: skip


def nan(directory):
    trainer(directory, "nan", [DvfdCallback("nan")], max_steps=6, logging_steps=1,
            save_strategy="no", learning_rate=1e30).train()  # fmt: skip


def filtered(directory):
    """Neither a loss that could be NaN nor a norm: a gradient is not clipped, so not measured."""
    noted = DvfdCallback("filtered")
    noted.on_log = forgetting(noted.on_log)
    trainer(directory, "filtered", [noted], max_steps=2, logging_steps=1,
            save_strategy="no").train()  # fmt: skip


def forgetting(method):
    def called(*args, logs, **more):
        method(*args, logs={k: v for k, v in logs.items() if k != "grad_norm"}, **more)

    return called


def stopped(directory):
    trainer(directory, "stopped", [DvfdCallback("stopped"), Stop()], max_steps=6,
            save_strategy="no").train()  # fmt: skip


def broken(directory):
    """The integration meets what it does not expect: a framework that changed."""
    callback = DvfdCallback("broken")
    callback._take = None
    trainer(directory, "broken", [callback], max_steps=2, logging_steps=1,
            save_strategy="no").train()  # fmt: skip


def alone(directory):
    """Nobody listens."""
    callback = DvfdCallback("alone", socket=f"{directory}/nobody")
    trainer(directory, "alone", [callback], max_steps=3, save_strategy="no").train()


def caught(directory):
    """An exception that the script catches: the reporter's own `with` has seen it."""
    try:
        with Reporter("caught") as reporter:
            trainer(directory, "caught", [DvfdCallback(reporter=reporter)], max_steps=6,
                    data=Words(1000, 9), save_strategy="no").train()  # fmt: skip
    except RuntimeError:
        pass


def unsaved(directory):
    """The disk is full when a checkpoint is written."""
    job = trainer(directory, "unsaved", [DvfdCallback("unsaved")], max_steps=6, save_steps=2)
    job.save_model = fail
    job.train()


def watched(directory):
    """Two ranks that go on until they are told to stop, and save now and then."""
    callbacks = [DvfdCallback(), StopWhenTold(f"{directory}/stop")]
    trainer(directory, "watched", callbacks, data=Words(1_000_000), max_steps=200_000,
            logging_steps=5, eval_strategy="steps", eval_steps=50,
            save_steps=100).train()  # fmt: skip


def forked(directory):
    callbacks = [Fork(), DvfdCallback("forked")]
    trainer(directory, "forked", callbacks, max_steps=3, logging_steps=1,
            save_strategy="no").train()  # fmt: skip


def fail(*_args, **_more):
    raise OSError(28, "No space left on device")


if __name__ == "__main__":
    for asked in sys.argv[2:]:
        globals()[asked](sys.argv[1])
