"""A small GPT-2 trained by the Hugging Face Trainer and seen by dvfd: one line of it is dvfd's.

    python examples/huggingface.py
    torchrun --nproc_per_node=2 examples/huggingface.py

The model is made from a configuration and the data are counted numbers, so nothing is downloaded.
`--fail-at STEP` shows what dvfd says of a crash, `--resume` goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from dvfd.integrations.huggingface import DvfdCallback

WORDS, LENGTH = 64, 16


class Counting(Dataset):
    """Sequences that count from somewhere: the next word is always the one that follows."""

    def __init__(self, size: int, fail_at: int = 0) -> None:
        self.size = size
        self.left = fail_at  # samples until one cannot be read; 0: all can

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("a sample that cannot be read")
        words = (torch.arange(LENGTH) + index) % WORDS
        return {"input_ids": words, "labels": words}


def main() -> None:
    """Train, evaluate and save."""
    given = arguments()
    words = {"vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0}
    size = {"n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**words, **size))
    settings = TrainingArguments(
        output_dir=given.output,
        max_steps=given.steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_steps=5,
        eval_strategy="steps",
        eval_steps=20,
        save_steps=20,
        learning_rate=1e-2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=Counting(10_000, fail_at=8 * given.fail_at),
        eval_dataset=Counting(32),
        callbacks=[DvfdCallback()],
    )
    trainer.train(resume_from_checkpoint=given.resume)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="run/huggingface")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--fail-at", type=int, default=0, metavar="STEP")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
