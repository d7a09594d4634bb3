"""What tells one training from another: the words of its command that change what it does. Pure.

Where it keeps things, how many processes on which nodes, and how long it runs are not among them:
phases can be compared (reading 33).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLACES = frozenset({"--job", "--checkpoint-dir", "--checkpoint-every"})
"""Options that say where a training keeps what, not what it trains."""

REFERENCE = "dvfd.drills.reference_job"

SCRIPTS = frozenset({
    "phase1_24hr_stability.py", "phase2a_48hr_stability.py", "24hr_3node_stability.py",
    "48hr_4node_stability.py",
})  # fmt: skip
"""The source's names of stability runs: what trains in them is the reference job."""

RUNS = frozenset({"--duration", "--on-failure", "--note", "--seconds", "--steps"})
FLAGS = frozenset({"--force", "--backend=gloo"})
"""Options of the reference job and its scripts that are about the run, or say what is so without
them."""

BARE = "bare.py"
"""Shows dvfd to the module behind it."""

LAUNCHERS = ("torch.distributed.", "accelerate.", "deepspeed.")
"""Modules that start ranks and are no training."""


def hash_of(argv: Sequence[str], job: str) -> str:
    """SHA-256 of the training that *argv* starts. One that dvfd did not start goes by its name,
    *job*.
    """
    kept = _words(list(argv[_start(argv) :]))
    return hashlib.sha256(json.dumps(kept or [job]).encode()).hexdigest()


def _start(argv: Sequence[str]) -> int:
    """Where in a command the script or module that trains begins; behind its end if nowhere."""
    for place, word in enumerate(argv):
        if word.endswith(".py"):
            return place + (_base(word) == BARE)
        if word == "-m" and not next(iter(argv[place + 1 :]), "").startswith(LAUNCHERS):
            return place + 1
    return len(argv)


def _words(said: list[str]) -> list[str]:
    if said and _base(said[0]) in SCRIPTS:
        said[0] = REFERENCE
    ours = said[:1] == [REFERENCE]
    return list(_without(said, PLACES | RUNS if ours else PLACES, FLAGS if ours else frozenset()))


def _without(said: Sequence[str], options: frozenset[str], flags: frozenset[str]) -> Iterator[str]:
    """*said* without *options* and what they are given, and without *flags*."""
    for before, word in zip(("", *said), said, strict=False):
        if before not in options and word.partition("=")[0] not in options and word not in flags:
            yield word


def _base(word: str) -> str:
    return word.rpartition("/")[2]
