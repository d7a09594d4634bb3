"""Checkpoints that either are whole or are not there: written aside, synced, sealed, renamed.

A checkpoint is a directory `step-000000500` with `state.pt` (torch.save) and `manifest.json`. The
manifest also holds hashes of the tensors: the bytes of torch.save depend on the file's name.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dvfd import manifest
from dvfd.checkpoint_load import tensor_hash, tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE = "state.pt"
PREFIX = "step-"
UNFINISHED = ".unfinished-"


def path_of(directory: Path, step: int) -> Path:
    """Where the checkpoint of *step* lies."""
    return directory / f"{PREFIX}{step:09d}"


def save(directory: Path, step: int, state: Mapping[str, Any], *, keep: int) -> Path:
    """Write *state* as the checkpoint of *step*, drop all but the newest *keep*.

    Raises OSError; then nothing of the name `step-...` was added or changed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = path_of(directory, step)
    aside = directory / f"{UNFINISHED}{step:09d}-{os.getpid()}"
    try:
        _write(aside, step, state)
        _replace(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    rotate(directory, keep=keep)
    return final


def _write(aside: Path, step: int, state: Mapping[str, Any]) -> None:
    aside.mkdir()
    with (aside / STATE).open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    document = manifest.build(
        aside,
        step=step,
        created=time.time(),
        ranks={"0": "complete"},  # rank 0 writes the whole state; a sharded one has more markers
        tensors={name: tensor_hash(tensor) for name, tensor in tensors(state)},
    )
    with (aside / manifest.NAME).open("w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(aside)


def _replace(aside: Path, final: Path) -> None:
    if final.exists():  # the same step saved again after a resume: a rename needs an empty place
        shutil.rmtree(final)
    aside.rename(final)
    _sync_directory(final.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rotate(directory: Path, *, keep: int) -> None:
    """Remove all but the newest *keep* checkpoints."""
    for path in saved(directory)[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def clean(directory: Path) -> None:
    """Remove what attempts that died while writing have left."""
    for path in directory.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def saved(directory: Path) -> list[Path]:
    """Every checkpoint of *directory*, newest step first."""
    return sorted(directory.glob(f"{PREFIX}[0-9]*"), reverse=True)


def newest(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """The newest checkpoint that agrees with its manifest, and what was wrong with newer ones.

    Raises FileNotFoundError, with those reasons, if there is none.
    """
    wrong: list[str] = []
    for path in saved(directory):
        try:
            manifest.check_own(path)
        except (manifest.Broken, manifest.Unclear) as error:
            wrong.append(f"{path.name}: {error}")
            continue
        return path, tuple(wrong)
    raise FileNotFoundError("; ".join(wrong) or f"{directory}: no checkpoint")


def load(path: Path) -> dict[str, Any]:
    """The state in checkpoint *path*; never runs code from it."""
    state: dict[str, Any] = torch.load(path / STATE, map_location="cpu", weights_only=True)
    return state
