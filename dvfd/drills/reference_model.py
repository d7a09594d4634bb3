"""A byte-level transformer, small enough to train on two cores: pre-norm, causal, tied weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

VOCABULARY = 256
"""One token for each byte value: no tokenizer, nothing to download."""

HEAD_WIDTH = 32
"""Width of an attention head: divides every width that the options allow."""


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.before_attention = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.before_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, time, width) to the same shape."""
        x = x + self._attend(self.before_attention(x))
        fed: torch.Tensor = self.feed(self.before_feed(x))
        return x + fed

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        parts = self.project(x).view(batch, time, 3, self.heads, HEAD_WIDTH)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        merged: torch.Tensor = self.merge(mixed.transpose(1, 2).reshape(batch, time, width))
        return merged


class ByteModel(nn.Module):
    """Predicts the next byte. Called with windows, it returns their mean loss in nats."""

    def __init__(self, *, width: int, layers: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.apply(_initialise)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over int64 *windows* of shape (batch, context + 1)."""
        inputs, targets = windows[:, :-1], windows[:, 1:]
        x = self.tokens(inputs) + self.places.weight[: inputs.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.last(x), self.tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)  # GPT-2's
