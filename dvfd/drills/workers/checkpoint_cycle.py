"""Make a training's state and its checkpoint, or load one in this fresh process and save it again.

    bare.py dvfd.drills.workers.checkpoint_cycle make DIRECTORY ANSWER
    bare.py dvfd.drills.workers.checkpoint_cycle again FROM TO ANSWER

The state is a model's, its optimizer's, its scheduler's, the generator's, the sampler's place and
the step. What was loaded goes into the objects that train, and what is hashed and saved comes out
of them. The answer is the hash of every tensor and of everything else, by name.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from dvfd import manifest
from dvfd.checkpoint_load import tensor_hash, tensors
from dvfd.drills.reference_model import ByteModel

STEPS = 3
"""Enough for moments, scheduler and generator to differ from what they begin with."""

SHARDS = ("model", "optimizer", "rest")
"""Files of a checkpoint, one of which a damage can take away."""

CONTEXT, BATCH = 16, 4


class Training:
    """Everything that a training has to remember."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self._model = ByteModel(width=64, layers=2, context=CONTEXT)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3)
        self._scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, T_max=50)
        self._position = 0
        self._step = 0

    def train(self) -> None:
        """One step, on samples that the generator gives."""
        windows = torch.randint(0, 256, (BATCH, CONTEXT + 1))
        loss = self._model(windows)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._scheduler.step()
        self._position += BATCH
        self._step += 1

    def state(self) -> dict[str, dict[str, Any]]:
        """It, by shard."""
        rest = {
            "scheduler": self._scheduler.state_dict(),
            "generator": torch.get_rng_state(),
            "position": self._position,
            "step": self._step,
        }
        found = self._model.state_dict(), self._optimizer.state_dict(), rest
        return dict(zip(SHARDS, found, strict=True))

    def restore(self, state: dict[str, dict[str, Any]]) -> None:
        """Go on from *state*."""
        rest = state["rest"]
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(rest["scheduler"])
        torch.set_rng_state(rest["generator"])
        self._position, self._step = rest["position"], rest["step"]


def save(directory: Path, state: dict[str, dict[str, Any]]) -> None:
    """Write it, each shard in a file, sealed."""
    directory.mkdir()
    for name, shard in state.items():
        with (directory / f"{name}.pt").open("wb") as file:
            torch.save(shard, file)
            file.flush()
            os.fsync(file.fileno())
    document = manifest.build(directory, ranks=dict.fromkeys(state, "complete"))
    (directory / manifest.NAME).write_text(json.dumps(document, indent=1), encoding="utf-8")


def load(directory: Path) -> dict[str, dict[str, Any]]:
    """What is in a checkpoint that agrees with its manifest; never runs code from it. Raises
    Broken.
    """
    manifest.check_own(directory)
    return {
        name: torch.load(directory / f"{name}.pt", map_location="cpu", weights_only=True)
        for name in SHARDS
    }


def hashes(state: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The hash of every tensor, and every other value as it is."""
    found = {name: tensor_hash(tensor) for name, tensor in tensors(state)}
    return found | {f"{name}=": words for name, words in _others(state)}


def _others(value: object, name: str = "") -> list[tuple[str, str]]:
    """Name and exact words of every value that is no tensor."""
    if isinstance(value, torch.Tensor):
        return []
    if isinstance(value, dict):
        return [row for key, each in value.items() for row in _others(each, f"{name}.{key}")]
    if isinstance(value, list | tuple):
        return [row for i, each in enumerate(value) for row in _others(each, f"{name}.{i}")]
    return [(name, value.hex() if isinstance(value, float) else repr(value))]


def main(arguments: list[str]) -> None:
    """Do the one or the other."""
    what, *places, answer = arguments
    torch.set_num_threads(1)
    training = Training()
    if what == "make":
        for _ in range(STEPS):
            training.train()
    else:
        training.restore(load(Path(places[0])))
    state = training.state()
    save(Path(places[-1]), state)
    Path(answer).write_text(json.dumps(hashes(state)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
