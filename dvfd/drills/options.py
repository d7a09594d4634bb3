"""The reference job's options: sizes, run length, checkpoints, manners."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.drills.reference_model import HEAD_WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for; lengths of 0 have no end."""

    job: str
    steps: int
    seconds: float
    backend: str
    batch: int
    global_batch: int
    context: int
    width: int
    layers: int
    lr: float
    dtype: str
    seed: int
    checkpoint_dir: Path | None
    checkpoint_every: int
    keep: int
    resume: bool
    validate_every: int
    hash_every: int
    probe_every: int
    print_every: int
    step_time: float
    timeout: float
    nice: int
    trail: Path | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; on a mistake, exit with code 2 and say it on stderr."""
    parser = _parser()
    options = Options(**vars(parser.parse_args(arguments)))
    if options.width % HEAD_WIDTH:
        parser.error(f"--width {options.width}: wanted a multiple of {HEAD_WIDTH}")
    if options.global_batch < 0:
        parser.error(f"--global-batch {options.global_batch}: wanted 0 or more")
    if min(options.batch, options.context, options.layers, options.keep) < 1:
        parser.error("--batch, --context, --layers and --keep: wanted at least 1")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchrun --nproc_per_node=4 -m dvfd.drills.reference_job",
        description="Train a small byte-level language model on the standard library's sources.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--job", default="reference", help="name to report under")
    length = parser.add_argument_group("length (0: no end)")
    length.add_argument("--steps", type=int, default=0, help="stop after this step")
    length.add_argument("--seconds", type=float, default=0.0, help="stop after this time")
    _add_sizes(parser.add_argument_group("sizes"))
    _add_checkpoints(parser.add_argument_group("checkpoints"))
    _add_manners(parser.add_argument_group("manners"))
    return parser


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch", type=int, default=4, help="samples per rank and step")
    group.add_argument(
        "--global-batch", type=int, default=0,
        help="samples per step over all ranks, however many; 0: --batch for each",
    )  # fmt: skip
    group.add_argument("--context", type=int, default=64, help="bytes per sample")
    group.add_argument("--width", type=int, default=128)
    group.add_argument("--layers", type=int, default=4)
    group.add_argument("--lr", type=float, default=2e-3, help="after a warm-up of 50 steps")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the arithmetic; parameters and their reduction stay float32",
    )
    group.add_argument("--seed", type=int, default=1)
    group.add_argument("--validate-every", type=int, default=200, help="steps; 0: never")


def _add_checkpoints(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--checkpoint-dir", type=Path, help="absent: no checkpoints")
    group.add_argument("--checkpoint-every", type=int, default=500, help="steps")
    group.add_argument("--keep", type=int, default=3, help="newest checkpoints kept")
    group.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)


def _add_manners(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--backend", choices=("gloo", "nccl"), default="gloo")
    group.add_argument("--timeout", type=float, default=10.0, help="seconds of a collective")
    group.add_argument("--step-time", type=float, default=0.0, help="least seconds per step")
    group.add_argument("--nice", type=int, default=5, help="added to the process's niceness")
    group.add_argument("--hash-every", type=int, default=50, help="steps; 0: never")
    group.add_argument(
        "--probe-every", type=int, default=0,
        help="steps between two timed all-reduces of 64 KiB; 0: none",
    )  # fmt: skip
    group.add_argument("--print-every", type=int, default=20, help="steps; 0: never")
    group.add_argument("--trail", type=Path, help="note here which samples each step took")
