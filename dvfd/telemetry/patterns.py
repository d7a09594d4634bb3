"""Read progress out of log lines: one pattern set for each trainer whose format is known. Pure.

A line gives what it says and no more: most trainers log every tenth step or so, and the loss of
that step, or its mean since the last line.
"""

from __future__ import annotations

import ast
import re

from dvfd.telemetry.feed import plain

LINE_LIMIT = 4096
"""Characters of a line that are looked at: the longest of these formats has some 400."""

_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity)"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

TORCHTITAN = (
    re.compile(rf"validate step:\s*(?P<step>\d+)\s+loss:\s*(?P<val_loss>{_NUMBER})"),
    re.compile(
        rf"step:\s*(?P<step>\d+)\s+loss:\s*(?P<loss>{_NUMBER})"
        rf"(?:\s+grad_norm:\s*(?P<grad_norm>{_NUMBER}))?"
    ),
)
MEGATRON = (
    re.compile(
        r"iteration\s+(?P<step>\d+)/\s*\d+ \|.*?"
        rf"(?:learning rate: (?P<lr>{_NUMBER}) \|.*?)?"
        rf"global batch size:\s*(?P<samples>\d+) \|"
        rf"(?:.*?lm loss: (?P<loss>{_NUMBER}) \|)?"
        rf"(?:.*?grad norm: (?P<grad_norm>{_NUMBER}) \|)?"
    ),
    re.compile(
        rf"validation loss at iteration (?P<step>\d+) .*?lm loss value: (?P<val_loss>{_NUMBER})"
    ),
)
NANOGPT = (
    re.compile(rf"^iter (?P<step>\d+): loss (?P<loss>{_NUMBER}), time"),
    re.compile(rf"^step (?P<step>\d+): train loss {_NUMBER}, val loss (?P<val_loss>{_NUMBER})"),
)
DVFD = (
    re.compile(
        rf"\bstep=(?P<step>\d+) loss=(?P<loss>{_NUMBER}) grad_norm=(?P<grad_norm>{_NUMBER})"
        rf"(?: lr=(?P<lr>{_NUMBER}))?(?:.* val_loss=(?P<val_loss>{_NUMBER}))?"
    ),
)

LINES = {"torchtitan": TORCHTITAN, "megatron": MEGATRON, "nanogpt": NANOGPT, "dvfd": DVFD}
"""Patterns by the name that a configuration uses; "huggingface" prints a dictionary instead."""

_HUGGINGFACE = re.compile(r"\{'(?:loss|eval_loss|train_loss)':[^{}]*\}")
_BARE = re.compile(r"(?<!')(-?\b(?:nan|inf)\b)(?!')")  # repr of a float that is no literal
_TRAINER = {
    "loss": "loss", "eval_loss": "val_loss", "grad_norm": "grad_norm", "learning_rate": "lr",
    "step": "step",
}  # fmt: skip


def parse(pattern: str, line: str) -> dict[str, float]:
    """What *line* says, by the reporter's field names; empty if it is no line of that trainer."""
    text = _COLOUR.sub("", line[:LINE_LIMIT])
    if pattern == "huggingface":
        return _dictionary(text)
    for expression in LINES[pattern]:
        found = expression.search(text)
        if found:
            said = {name: value for name, value in found.groupdict().items() if value is not None}
            return {name: float(value.replace(",", "")) for name, value in said.items()}
    return {}


def _dictionary(text: str) -> dict[str, float]:
    """The Trainer's own dictionary, whose values are numbers or, since transformers 5, texts."""
    found = _HUGGINGFACE.search(text)
    if not found:
        return {}
    try:
        logged = ast.literal_eval(_BARE.sub(r"'\1'", found.group()))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    said = {field: plain(logged.get(name)) for name, field in _TRAINER.items()}
    return {field: value for field, value in said.items() if value is not None}
