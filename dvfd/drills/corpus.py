"""Text to train on with no download: the Python standard library's own sources, as bytes.

The order of files is that of their names, so every rank and every restart sees the same text.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})
"""Folders left out: they differ most from one machine of the same Python version to another."""

LIMIT = 32 << 20
"""Bytes read at most: the sources proper are about 12 MB; the bound is for odd installations."""

LEAST = 100_000
"""Bytes without which training says nothing: a Python stripped of its sources."""

VALIDATION_STRIDE = 20
"""Every 20th file is held out: 5 %, spread over all packages."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Training and validation text as uint8 tensors, and the SHA-256 of both together."""

    train: torch.Tensor
    validation: torch.Tensor
    hash: str


def load(root: Path | None = None) -> Corpus:
    """Read the sources below *root* (default: this Python's standard library).

    Raises ValueError if there is too little text.
    """
    folder = root or Path(sysconfig.get_path("stdlib"))
    train, validation = bytearray(), bytearray()
    for number, text in enumerate(_texts(folder)):
        held_out = number % VALIDATION_STRIDE == VALIDATION_STRIDE - 1
        (validation if held_out else train).extend(text + b"\n")
    if len(train) < LEAST or len(validation) < LEAST // VALIDATION_STRIDE:
        raise ValueError(f"{folder}: {len(train)} bytes of Python sources, wanted {LEAST}")
    both = hashlib.sha256(train)
    both.update(validation)
    return Corpus(_tensor(train), _tensor(validation), both.hexdigest())


def _texts(folder: Path) -> Iterator[bytes]:
    total = 0
    for path in sorted(folder.rglob("*.py")):
        if SKIPPED.intersection(path.relative_to(folder).parts):
            continue
        text = path.read_bytes()
        total += len(text)
        if total > LIMIT:
            return
        yield text


def _tensor(text: bytearray) -> torch.Tensor:
    return torch.frombuffer(text, dtype=torch.uint8)


class Sampler:
    """Hands out windows of text in a seeded order; its position is all the state there is.

    The position counts samples over all ranks, so it stays right when the process count changes:
    no sample is skipped or seen twice within an epoch.
    """

    def __init__(self, text: torch.Tensor, *, context: int, seed: int, position: int = 0) -> None:
        self._text = text
        self._context = context
        self._seed = seed
        self.position = position
        self.windows = (len(text) - 1) // context
        self._epoch = -1
        self._order = torch.empty(0)

    def take(self, count: int, *, rank: int, world: int) -> torch.Tensor:
        """The next *count* windows of *rank*, shape (count, context + 1); all ranks move on."""
        first = self.position + rank * count
        rows = [self._window(first + offset) for offset in range(count)]
        self.position += count * world
        return torch.stack(rows).long()

    def index(self, position: int) -> int:
        """The number of the window that is handed out at *position*."""
        epoch, place = divmod(position, self.windows)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed + epoch)
            self._order, self._epoch = torch.randperm(self.windows, generator=generator), epoch
        return int(self._order[place])

    def _window(self, position: int) -> torch.Tensor:
        start = self.index(position) * self._context
        return self._text[start : start + self._context + 1]
