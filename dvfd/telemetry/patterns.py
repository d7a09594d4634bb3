"""Read progress out of log lines: one pattern set for each trainer whose format is known. Pure.

A line gives what it says and no more: most trainers log every tenth step or so, and the loss of
that step, or its mean since the last line. A row is what it says of a step; a notice is what it
says of the job: a checkpoint, the size of a batch, an end.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dvfd.telemetry.feed import LOSSES

LINE_LIMIT = 4096
"""Characters of a line that are looked at: the longest of these formats has some 400."""

_NONFINITE = r"(?i:nan|inf(?:inity)?)"
_NUMBER = rf"[-+]?(?:\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?|{_NONFINITE})"
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
NANOGPT = (
    re.compile(rf"iter (?P<step>\d+): loss (?P<loss>{_NUMBER}), time"),
    re.compile(
        rf"step (?P<step>\d+): train loss (?P<train_loss>{_NUMBER}),"
        rf" val loss (?P<val_loss>{_NUMBER})"
    ),
)
DVFD = (
    re.compile(
        rf"\bstep=(?P<step>\d+) loss=(?P<loss>{_NUMBER}) grad_norm=(?P<grad_norm>{_NUMBER})"
        rf"(?: lr=(?P<lr>{_NUMBER}))?(?:.* val_loss=(?P<val_loss>{_NUMBER}))?"
    ),
)

LINES = {"torchtitan": TORCHTITAN, "nanogpt": NANOGPT, "dvfd": DVFD}
"""Patterns by the name that a configuration uses, of the trainers whose line has one order. No
pattern here may look for an end at every place of a line: nobody knows who writes it.
"""

NUMBERED = frozenset({*LINES, "megatron"})
"""Trainers whose lines of progress all say their step."""

_ITERATION = re.compile(r"iteration\s+(?P<step>\d+)/\s*\d+ \|")
_VALIDATION = re.compile(r"validation\S{0,40} loss at iteration (?P<step>\d+)(?! on test set) ")
_CELL = re.compile(rf"\s*(?P<name>[a-z][\w ]*):\s*(?P<value>{_NUMBER})\s*$")
_CELLS = {
    "learning rate": "lr", "global batch size": "samples", "lm loss": "loss",
    "grad norm": "grad_norm", "number of nan iterations": "nans",
}  # fmt: skip

_HUGGINGFACE = re.compile(r"\{'(?:loss|eval_loss|train_loss)':")
_TRAINER = {
    "loss": "loss", "eval_loss": "val_loss", "grad_norm": "grad_norm", "learning_rate": "lr",
    "step": "step",
}  # fmt: skip
_ITEM = re.compile(
    rf"'(?P<name>(?:eval_(?:\w+_)?|train_)?loss|grad_norm|learning_rate|step)':"
    rf"\s*(?:[\w.]*[(\[])*'?(?P<value>{_NUMBER})(?!\w)"
)
"""One of the Trainer's own values: a number, a text since transformers 5, or `np.float64(nan)`."""

_LOST = re.compile(
    r"(?P<what>loss|grad(?:ient)?[ _]norm)(?: value)?['\"]?[ :=]{1,4}\s*"
    r"(?:[\w.]*[(\[])*['\"]?[-+]?(?i:nan)(?!\w)",
    re.IGNORECASE,
)
"""A loss or a norm that is NaN, in whatever words a trainer puts it. An infinity is not looked for:
`best_loss: inf` is how many begin.
"""

BATCH, FOLDER, EXIT = "batch", "folder", "exit"
"""Notices that are no event of a reporter: samples a step, where checkpoints go, an exit code."""

_TITAN_STAGED = r"Finished (?:staging the checkpoint in|saving the checkpoint \(or staging)"
_MEGATRON_SAVED = (
    r"successfully saved checkpoint from iteration\s+(?P<step>\d+)"
    r" to (?P<path>\S.*?)(?: \[ .*)?$"
)
NOTICES: dict[str, tuple[tuple[str, *tuple[str, ...]], ...]] = {
    "torchtitan": (
        ("checkpoint_begin", r"(?:Saving|Staging) the checkpoint(?: \(or staging[^()]*\))?\.$"),
        ("checkpoint_begin", r"Saving an? ", r"checkpoint",
         r" at last step, step (?P<step>\d+)\.$"),
        ("checkpoint_staged", _TITAN_STAGED),
        ("checkpoint_saved", r"Finish(?:ed)? saving the checkpoint in (?:the background|\d)"),
        ("checkpoint_saved", r"Last step checkpoint completed in \d"),
        (FOLDER, r"Checkpoints will be loaded from and saved to (?P<path>\S.*)$"),
        (BATCH, r"(?:Training starts|Trainer is initialized) ",
         r"global batch size (?P<samples>\d+)"),
        ("end", r"Training completed$"),
    ),
    "megatron": (
        ("checkpoint_begin",
         r"saving checkpoint at iteration\s+(?P<step>\d+) to (?P<path>\S.*?)(?: in \w+ format)?$"),
        ("checkpoint_saved", _MEGATRON_SAVED),
        ("checkpoint_staged", r"scheduled an async checkpoint save at iteration\s+(?P<step>\d+)"),
        ("end", r"\[(?:after training is done|exiting program [^\[\]]*)\] datetime:"),
    ),
    "nanogpt": (("checkpoint_begin", r"saving checkpoint to (?P<path>\S.*)$"),),
    "huggingface": (
        ("checkpoint_begin",
         r"Saving model checkpoint to (?P<path>\S.*?(?:checkpoint-(?P<step>\d+))?)/?$"),
        ("end", r"\{'train_runtime':"),
    ),
    "dvfd": (),
}  # fmt: skip
"""What a line may say, and the expressions that follow one another in it."""

_ANY: tuple[tuple[str, *tuple[str, ...]], ...] = ((EXIT, r"^dvfd: exit (?P<step>\d+)$"),)
_NOTICES = {
    name: tuple((what, tuple(map(re.compile, texts))) for what, *texts in (*notices, *_ANY))
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
    """What *text* says, by the reporter's field names; empty if it is no line of that trainer.

    A loss or a norm that is NaN is heard in any line.
    """
    match pattern:
        case "huggingface":
            said = _dictionary(text)
        case "megatron":
            said = _table(text)
        case _:
            said = _ordered(pattern, text)
    if "nan" in text.lower() and (found := _LOST.search(text)):
        field = "loss" if found["what"].lower() == "loss" else "grad_norm"
        if not any(math.isnan(said.get(name, 0.0)) for name in LOSSES):
            said[field] = math.nan
    return said


def notice(pattern: str, text: str) -> Notice | None:
    """What *text* says of the job; None for most lines."""
    for what, expressions in _NOTICES[pattern]:
        if (said := _follow(expressions, text)) is not None:
            step, samples = said.get("step"), said.get("samples")
            number = None if step is None else int(step[:18])
            path = said.get("path") or ""
            if path and what.startswith("checkpoint"):
                path = FILES.get(pattern, "{path}").format(path=path.rstrip("/"), step=number or 0)
            return Notice(what, number, path, None if samples is None else float(samples))
    return None


def _follow(expressions: tuple[re.Pattern[str], ...], text: str) -> dict[str, str | None] | None:
    """What the last of *expressions* finds behind the others, each sought behind the one before:
    `a.*b.*c` at the price of three searches.
    """
    at, said = 0, None
    for expression in expressions:
        found = expression.search(text, at)
        if not found:
            return None
        at, said = found.end(), found.groupdict()
    return said


def _ordered(pattern: str, text: str) -> dict[str, float]:
    for expression in LINES[pattern]:
        if found := expression.search(text):
            said = {k: _number(v) for k, v in found.groupdict().items() if v is not None}
            train = said.pop("train_loss", 0.0)  # its mean over a validation: no step's loss
            return said if math.isfinite(train) else {**said, "loss": train}
    return {}


def _table(text: str) -> dict[str, float]:
    """Megatron's line: `name: value` between bars. It leaves a loss that is NaN out of its mean and
    counts it: the mean is then NaN.
    """
    if found := _VALIDATION.search(text):
        cells = _cells(text[found.end() :])
        losses = {"val_loss": cells["lm loss value"]} if "lm loss value" in cells else {}
        return {"step": float(found["step"]), **losses} if losses else {}
    if not (found := _ITERATION.search(text)):
        return {}
    cells = _cells(text[found.end() :])
    said = {field: cells[name] for name, field in _CELLS.items() if name in cells}
    if said.pop("nans", 0.0):
        said["loss"] = math.nan
    return {"step": float(found["step"]), **said} if said else {}


def _cells(text: str) -> dict[str, float]:
    found = filter(None, map(_CELL.match, text.split("|")))
    return {cell["name"].strip(): _number(cell["value"]) for cell in found}


def _dictionary(text: str) -> dict[str, float]:
    """The Trainer's own dictionary. One that does not begin as its own do is heard if it says that
    a loss is none.
    """
    if "{'" not in text:
        return {}
    own = _HUGGINGFACE.search(text)
    said: dict[str, float] = {}
    for item in _ITEM.finditer(text, own.start() if own else 0):
        name, value = item["name"], _number(item["value"])
        if own and name in _TRAINER:
            said.setdefault(_TRAINER[name], value)
        elif (name.endswith("loss") or name == "grad_norm") and not math.isfinite(value):
            said["val_loss" if name.startswith("eval") else _TRAINER.get(name, "loss")] = value
    return said


def _number(text: str) -> float:
    return float(text.replace(",", ""))
