"""Faults that a drill or a test plants in the reference job, through DVFD_FAULT. Never by default.

`DVFD_FAULT=nan@120` makes the loss of rank 0 NaN at step 120; `corrupt@120:2` flips one bit of a
parameter of rank 2 after step 120, so that parameter hashes differ; `raise@120:1` raises in rank 1.
Only a job's first attempt is harmed: after a restart the same steps come again. `Flips` are for the
gradient validation, which plants them itself.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import ClassVar

import torch

KINDS = ("nan", "corrupt", "raise")


class PlantedFault(Exception):
    """The exception of `raise@STEP`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, at which step, in which rank. An empty kind never happens."""

    kind: str = ""
    step: int = -1
    rank: int = 0

    def loss(self, loss: torch.Tensor, *, step: int, rank: int) -> torch.Tensor:
        """The loss to train on; raises PlantedFault where that is the fault."""
        if (self.step, self.rank) != (step, rank):
            return loss
        if self.kind == "raise":
            raise PlantedFault(f"planted at step {step} in rank {rank}")
        return loss * float("nan") if self.kind == "nan" else loss

    def corrupt(self, model: torch.nn.Module, *, step: int, rank: int) -> None:
        """Flip the lowest exponent bit of the first parameter's first element."""
        if self.kind != "corrupt" or (self.step, self.rank) != (step, rank):
            return
        first = next(model.parameters()).data.flatten()[:1]
        first.view(torch.int32).bitwise_xor_(1 << 23)


def planted(environment: dict[str, str]) -> Fault:
    """Read DVFD_FAULT. Raises ValueError if it is none of the above."""
    text = environment.get("DVFD_FAULT", "")
    if not text or environment.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return Fault()
    found = re.fullmatch(r"(\w+)@(\d+)(?::(\d+))?", text)
    if not found or found[1] not in KINDS:
        raise ValueError(f"DVFD_FAULT={text!r}: wanted KIND@STEP[:RANK], KIND one of {KINDS}")
    return Fault(found[1], int(found[2]), int(found[3] or 0))


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of one bucket of one rank's gradient. The fractions, below 1, are of its sizes."""

    rank: int
    bucket: float
    place: float

    def index(self, buckets: int) -> int:
        """The number of the bucket, of so many."""
        return int(self.bucket * buckets)

    def apply(self, buffer: torch.Tensor) -> None:
        """Flip the bit; once more, and it is as it was."""
        memory = buffer.view(torch.uint8)
        byte, bit = divmod(int(self.place * 8 * memory.numel()), 8)
        memory[byte] ^= 1 << bit


@dataclass(frozen=True, slots=True)
class Flips:
    """A bit flipped in every step from `FIRST` on, `steps` of them, `before` or `after` the
    reduction. Seeded: every rank, and a test, knows the same plan.
    """

    when: str = ""
    steps: int = 0
    seed: int = 1

    FIRST: ClassVar[int] = 2  # DDP lays out its buckets anew after the first step

    def at(self, step: int, world: int) -> Flip | None:
        """What is flipped in *step*, if anything is."""
        if not self.when or not self.FIRST <= step < self.FIRST + self.steps:
            return None
        dice = random.Random(f"{self.seed}:{step}")  # noqa: S311  # a plan, not a secret
        return Flip(dice.randrange(world), dice.random(), dice.random())
