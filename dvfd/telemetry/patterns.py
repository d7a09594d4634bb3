"""Read progress out of log lines: one pattern set for each trainer whose format is known. Pure.

A line gives what it says and no more: most trainers log every tenth step or so, and the loss of
that step, or its mean since the last line. A row is what it says of a step; a notice is what it
says of the job: a checkpoint, the size of a batch, an end.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from dvfd.telemetry.feed import plain

LINE_LIMIT = 4096
"""Characters of a line that are looked at: the longest of these formats has some 400."""

_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity)"
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours, and the cursor of nested bars: ECMA-48
_VOICE = re.compile(r"\s*(\[[A-Za-z_]*\d+\]:|\[\d+,\d+\]<std(?:out|err)>:|\d+: )\s?")
"""Who of several ranks writes: torchrun --tee, mpirun --tag-output, srun --label."""

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
        rf"(?:.*?number of nan iterations:\s*(?P<nans>\d+) \|)?"
    ),
    re.compile(
        r"validation\S* loss at iteration (?P<step>\d+)(?! on test set) .*?"
        rf"lm loss value: (?P<val_loss>{_NUMBER})"
    ),
)
NANOGPT = (
    re.compile(rf"iter (?P<step>\d+): loss (?P<loss>{_NUMBER}), time"),
    re.compile(rf"step (?P<step>\d+): train loss {_NUMBER}, val loss (?P<val_loss>{_NUMBER})"),
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

BATCH, FOLDER, EXIT = "batch", "folder", "exit"
"""Notices that are no event of a reporter: samples a step, where checkpoints go, an exit code."""

_TITAN_STAGED = r"Finished (?:staging the checkpoint in|saving the checkpoint \(or staging)"
_MEGATRON_SAVED = (
    r"successfully saved checkpoint from iteration\s+(?P<step>\d+)"
    r" to (?P<path>\S.*?)(?: \[ .*)?$"
)
NOTICES: dict[str, tuple[tuple[str, str], ...]] = {
    "torchtitan": (
        ("checkpoint_begin", r"(?:Saving|Staging) the checkpoint(?: \(or staging[^)]*\))?\.$"),
        ("checkpoint_begin", r"Saving an? .*checkpoint.* at last step, step (?P<step>\d+)\.$"),
        ("checkpoint_staged", _TITAN_STAGED),
        ("checkpoint_saved", r"Finish(?:ed)? saving the checkpoint in (?:the background|\d)"),
        ("checkpoint_saved", r"Last step checkpoint completed in \d"),
        (FOLDER, r"Checkpoints will be loaded from and saved to (?P<path>\S.*)$"),
        (BATCH, r"(?:Training starts|Trainer is initialized) .*global batch size (?P<samples>\d+)"),
        ("end", r"Training completed$"),
    ),
    "megatron": (
        ("checkpoint_begin",
         r"saving checkpoint at iteration\s+(?P<step>\d+) to (?P<path>\S.*?)(?: in \w+ format)?$"),
        ("checkpoint_saved", _MEGATRON_SAVED),
        ("checkpoint_staged", r"scheduled an async checkpoint save at iteration\s+(?P<step>\d+)"),
        ("end", r"\[(?:after training is done|exiting program [^\]]*)\] datetime:"),
    ),
    "nanogpt": (("checkpoint_begin", r"saving checkpoint to (?P<path>\S.*)$"),),
    "huggingface": (
        ("checkpoint_begin",
         r"Saving model checkpoint to (?P<path>\S.*?(?:checkpoint-(?P<step>\d+))?)/?$"),
        ("end", r"\{'train_runtime':"),
    ),
    "dvfd": (),
}  # fmt: skip
_ANY: tuple[tuple[str, str], ...] = ((EXIT, r"^dvfd: exit (?P<step>\d+)$"),)
_NOTICES = {
    name: tuple((what, re.compile(text)) for what, text in (*notices, *_ANY))
    for name, notices in NOTICES.items()
}

FILES = {"nanogpt": "{path}/ckpt.pt", "megatron": "{path}/iter_{step:07d}"}
"""Where a checkpoint lies below the directory that the line names."""

SYNCHRONOUS = frozenset({"nanogpt", "huggingface"})
"""Trainers whose next row comes only once the file is written, and who say no more of it."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a line says of the job: `what` is an event of the reporter, BATCH, FOLDER or EXIT."""

    what: str
    step: int | None = None
    path: str = ""
    samples: float | None = None


def words(line: str) -> tuple[str, str]:
    """Who writes *line*, of several ranks in one log, and what it says without its colours."""
    text = _CONTROL.sub("", line[:LINE_LIMIT]).rstrip()
    found = _VOICE.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


def parse(pattern: str, text: str) -> dict[str, float]:
    """What *text* says, by the reporter's field names; empty if it is no line of that trainer."""
    if pattern == "huggingface":
        return _dictionary(text)
    for expression in LINES[pattern]:
        found = expression.search(text)
        if found:
            said = {name: value for name, value in found.groupdict().items() if value is not None}
            return _with_nans({k: float(v.replace(",", "")) for k, v in said.items()})
    return {}


def notice(pattern: str, text: str) -> Notice | None:
    """What *text* says of the job; None for most lines."""
    for what, expression in _NOTICES[pattern]:
        if found := expression.search(text):
            said = found.groupdict()
            step, samples = said.get("step"), said.get("samples")
            number = None if step is None else int(step[:18])
            path = said.get("path") or ""
            if path and what.startswith("checkpoint"):
                path = FILES.get(pattern, "{path}").format(path=path.rstrip("/"), step=number or 0)
            return Notice(what, number, path, None if samples is None else float(samples))
    return None


def _with_nans(said: dict[str, float]) -> dict[str, float]:
    """Megatron leaves a loss that is NaN out of its mean and counts it: the mean is then NaN."""
    if said.pop("nans", 0.0):
        said["loss"] = float("nan")
    return said


def _dictionary(text: str) -> dict[str, float]:
    """The Trainer's own dictionary, whose values are numbers or, since transformers 5, texts."""
    found = _HUGGINGFACE.search(text)
    if not found:
        return {}
    try:
        logged = ast.literal_eval(_BARE.sub(r"'\1'", found.group()))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return {}
    said = {field: plain(logged.get(name)) for name, field in _TRAINER.items()}
    return {field: value for field, value in said.items() if value is not None}
