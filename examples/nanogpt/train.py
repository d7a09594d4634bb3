"""Train a small model on this file's own text, and print what nanoGPT prints. It knows no dvfd.

    (python -u examples/nanogpt/train.py --max_iters=2000; echo "dvfd: exit $?") > train.log 2>&1

The last line is the shell's, and may be left out: it tells how the job ended, which no log does.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from torch import nn

BATCH, BLOCK, WIDTH = 12, 32, 48


class Model(nn.Module):
    """Guess the next character from the mean of those before it."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.guess = nn.Sequential(
            nn.Linear(2 * WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, letters)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the next character at each place of *x*, (batch, block)."""
        here = self.letter(x) + self.place(torch.arange(x.shape[1]))
        before = here.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return self.guess(torch.cat([here, before], dim=2))


def batch(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pieces of the text, and the same one character later."""
    starts = torch.randint(len(data) - BLOCK - 1, (BATCH,)).tolist()
    pieces = torch.stack([data[i : i + BLOCK + 1] for i in starts])
    return pieces[:, :-1], pieces[:, 1:]


def loss_of(model: Model, data: torch.Tensor) -> torch.Tensor:
    """Nats per character on a batch."""
    x, y = batch(data)
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


@torch.no_grad()
def estimate(model: Model, data: torch.Tensor, times: int = 8) -> float:
    """The mean loss of some batches."""
    return sum(loss_of(model, data).item() for _ in range(times)) / times


def main() -> None:
    """Train, save, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out_dir", default="out")
    for name, value in {"max_iters": 2000, "eval_interval": 200, "log_interval": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()

    torch.manual_seed(1337)
    text = Path(__file__).read_text(encoding="utf-8")
    letters = sorted(set(text))
    data = torch.tensor([letters.index(letter) for letter in text])
    train, held_out = data[: -len(data) // 5], data[-len(data) // 5 :]
    model = Model(len(letters))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    os.makedirs(asked.out_dir, exist_ok=True)  # noqa: PTH103  # as nanoGPT does

    print(f"tokens per iteration will be: {BATCH * BLOCK:,}")
    began, best = time.time(), float("inf")
    for it in range(asked.max_iters + 1):
        if it % asked.eval_interval == 0:
            val = estimate(model, held_out)
            print(f"step {it}: train loss {estimate(model, train):.4f}, val loss {val:.4f}")
            if it > 0:
                best = min(best, val)
                print(f"saving checkpoint to {asked.out_dir}", flush=True)
                state = {"model": model.state_dict(), "iter_num": it, "best_val_loss": best}
                torch.save(state, f"{asked.out_dir}/ckpt.pt")
        loss = loss_of(model, train)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if it % asked.log_interval == 0:
            took, began = time.time() - began, time.time()
            print(
                f"iter {it}: loss {loss.item():.4f}, time {took * 1000:.2f}ms, mfu -100.00%",
                flush=True,
            )


if __name__ == "__main__":
    main()
