"""The reference job with a loss that can be spoiled while it trains: NaN, or far too high.

`torchrun -m bench.soaked_job DIRECTORY OPTIONS...` is one rank. Where DIRECTORY has a file
`nan-RANK` or `spike-RANK`, the loss of that rank's next step is multiplied and the file removed.
So gradients, their reduction and what is printed are those of a training that goes wrong.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    import torch

RANKS = 4

FACTORS = {"nan": float("nan"), "spike": 8.0}
"""By the name of the file. A loss of eight times its course is a spike by any measure of noise."""


def spoil(directory: Path, how: str) -> None:
    """Have every rank's next loss spoiled: only one rank's course is watched, whichever it is."""
    for rank in range(RANKS):
        (directory / f"{how}-{rank}").touch()


class Spoiled:
    """Stands where the job's planted fault stands."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def loss(self, loss: torch.Tensor, *, step: int, rank: int) -> torch.Tensor:
        """The loss to train on."""
        for how, factor in FACTORS.items():
            with contextlib.suppress(FileNotFoundError):
                (self._directory / f"{how}-{rank}").unlink()
                return loss * factor
        return loss

    def corrupt(self, model: torch.nn.Module, *, step: int, rank: int) -> None:
        """Harm no parameter."""


def main() -> int:
    """Be one rank."""
    from dvfd.drills import reference_job

    directory, *options = sys.argv[1:]
    fault = Spoiled(Path(directory))
    with mock.patch("dvfd.drills.faults.planted", return_value=fault):
        return reference_job.main(options)


if __name__ == "__main__":
    from dvfd.drills.stopping import leave

    leave(main())
