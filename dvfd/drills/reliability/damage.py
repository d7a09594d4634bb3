"""Damage a copy of a checkpoint in three ways, again and again, and count what the checker says.

A checker that cannot fail always passes: ten cycles prove something only with this. One that
always fails proves as little, so the copy is checked in between, whole.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd import checkpoint_verify
from dvfd.manifest import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

TIMES = 100
"""Of each kind: 100 caught of 100 leave at most 3 % uncaught, at 95 %."""

SEED = 1


@dataclass(frozen=True, slots=True)
class Counted:
    """What the checker said: of damaged copies, by kind, and of whole ones."""

    caught: Mapping[str, int]
    times: int
    whole: int  # whole copies that it passed
    looked: int  # whole copies that it was shown

    @property
    def kinds(self) -> int:
        """Kinds of which it caught every single one; none if it cannot tell what is whole."""
        if self.whole < self.looked:
            return 0
        return sum(count == self.times for count in self.caught.values())

    @property
    def words(self) -> str:
        """For a person."""
        each = ", ".join(f"{n} of {self.times} {kind}" for kind, n in self.caught.items())
        return f"caught: {each}; {self.whole} of {self.looked} whole copies passed"


def count(
    source: Path,
    scratch: Path,
    *,
    times: int = TIMES,
    intact: Callable[[Path], bool | None] | None = None,
) -> Counted:
    """Damage copies of *source*, *times* in each way, with *intact* as the checker."""
    check = intact or _intact
    dice = random.Random(SEED)  # noqa: S311  # a plan, not a secret
    caught = dict.fromkeys(KINDS, 0)
    whole = 0
    for kind, harm in KINDS.items():
        copy = scratch / f"copy-{kind.split()[-1]}"
        shutil.copytree(source, copy)
        names = sorted(p.name for p in source.iterdir() if harm is not drop or p.name != NAME)
        for _ in range(times):
            name = dice.choice(names)
            harm(copy / name, dice)
            caught[kind] += check(copy) is False
            shutil.copyfile(source / name, copy / name)
        whole += check(copy) is True
        shutil.rmtree(copy)
    return Counted(caught, times, whole, len(KINDS))


def _intact(path: Path) -> bool | None:
    return checkpoint_verify.verify(path, manner=checkpoint_verify.Manner(load=False)).intact


def flip(path: Path, dice: random.Random) -> None:
    """Turn one bit of it over."""
    with path.open("r+b") as file:
        place = dice.randrange(os.fstat(file.fileno()).st_size)
        file.seek(place)
        [byte] = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << dice.randrange(8)]))


def truncate(path: Path, dice: random.Random) -> None:
    """Leave only the beginning of it."""
    os.truncate(path, dice.randrange(path.stat().st_size))


def drop(path: Path, _dice: random.Random) -> None:
    """Take it away."""
    path.unlink()


KINDS: Mapping[str, Callable[[Path, random.Random], None]] = {
    "flipped bits": flip,
    "truncations": truncate,
    "missing shards": drop,
}
"""What is done to one file of the copy, by its name. The manifest is no shard: without it a
checkpoint is one that dvfd did not write, and is held against the manifest made at its save."""
