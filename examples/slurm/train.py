"""A small training job for Slurm: under torchrun, or one task of srun for each rank.

It ends well when Slurm asks it to: scancel and a time limit send SIGTERM first, then SIGKILL after
KillWait. The ranks stop after the same step, save, and tell dvfd that this is an end and no death.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import distributed, nn

try:
    from dvfd.telemetry.reporter import Reporter
except ImportError:  # in an image with a copy of that one file
    from dvfd_reporter import Reporter

asked: list[int] = []


def main(steps: int, place: Path) -> None:
    """Train for *steps* or until asked to end; checkpoints lie in *place*."""
    for name, ours in (("RANK", "PROCID"), ("WORLD_SIZE", "NTASKS"), ("LOCAL_RANK", "LOCALID")):
        os.environ.setdefault(name, os.environ.get(f"SLURM_{ours}", "0"))
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    distributed.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Reporter(checkpoint_every=50) as reporter:  # job, run and rank: from the environment
        for step in range(1, steps + 1):
            inputs = torch.randn(32, 64)
            loss = nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(0.05)  # a stand-in for work
            reporter.step(step, samples=32, loss=loss.item())
            ending = somebody_was_asked()
            if step % 50 == 0 or ending:
                save(reporter, model, place, step)
            if ending:
                reporter.end(f"asked to end by signal {ending}")
                break
        else:
            reporter.end("done")
    distributed.destroy_process_group()


def somebody_was_asked() -> int:
    """The signal that any rank had: all hear of it at the same step, so none waits for another."""
    had = torch.tensor(asked[-1] if asked else 0)
    distributed.all_reduce(had, distributed.ReduceOp.MAX)
    return int(had)


def save(reporter: Reporter, model: nn.Module, place: Path, step: int) -> None:
    """Rank 0 writes for all; a file is whole or not there."""
    if distributed.get_rank():
        return
    path = place / f"step-{step}.pt"
    reporter.checkpoint_begin(path, step)
    place.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    reporter.checkpoint_saved(path, step)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
