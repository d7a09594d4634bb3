"""torchtitan's debug model, trained on counted numbers and seen by dvfd.

    torchrun --nproc_per_node=2 examples/torchtitan/train.py

It takes torchtitan 0.3 and a GPU for each rank. The tokenizer and the text are made here, so
nothing is downloaded; every other argument goes to torchtitan. A job that has its own changes one
word of its command: `-m dvfd.integrations.torchtitan` for `-m torchtitan.train`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from dvfd.integrations import torchtitan

PLACE = Path(os.environ.get("EXAMPLE_OUTPUT", "run/torchtitan"))

SETTINGS = {
    "module": "llama3",
    "config": "llama3_debugmodel_ce_loss",
    "hf_assets_path": PLACE / "assets",
    "dump_folder": PLACE,
    "dataloader.dataset_path": PLACE / "text",
    "training.local_batch_size": 2,
    "training.seq_len": 64,
    "training.steps": 20,
    "checkpoint.interval": 10,
    "validator.freq": 10,
    "validator.steps": 2,
    "validator.dataloader.dataset": "c4_test",  # its form, not its text
    "validator.dataloader.dataset_path": PLACE / "text",
}
SWITCHES = ("checkpoint.enable", "validator.enable", "training.disable_cuda_graphs")


def main() -> None:
    """Make what training needs, and train."""
    assets(PLACE)
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    switches = [f"--{name}" for name in SWITCHES]
    sys.argv[1:] = [*settings, *switches, *sys.argv[1:]]
    os.environ.setdefault("DVFD_JOB", "llama3-debug")
    torchtitan.main()


def assets(place: Path) -> None:
    """A tokenizer of single bytes, and a text; by each rank, and the same."""
    byte = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate([*byte, "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    said = {"bos_token": "<s>", "eos_token": "</s>"}
    lines = [{"text": " ".join(map(str, range(start, start + 100)))} for start in range(200)]
    write(place / "assets" / "tokenizer.json", tokenizer.to_str())
    write(place / "assets" / "tokenizer_config.json", json.dumps(said))
    write(place / "text" / "data.json", "\n".join(map(json.dumps, lines)))


def write(path: Path, text: str) -> None:
    """Write a file at once: another rank may read it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
