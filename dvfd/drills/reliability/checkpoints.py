"""Scenario 3: ten times saved, loaded in a fresh process and saved again, and nothing changed.

With negative controls on copies: a checker that misses a damage would have passed anything. No job
is touched, so nobody has to be asked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dvfd.drills.drill import Fact, Remark
from dvfd.drills.interpreter import BARE, LOADING, last_words, read_answer
from dvfd.drills.reliability import damage
from dvfd.errors import ProbeError, ToolError
from dvfd.model import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dvfd.drills.drill import Task, Trouble

IDENTICAL, CAUGHT = "checkpoint_cycles_identical", "checkpoint_damage_caught"

WORKER = "dvfd.drills.workers.checkpoint_cycle"

CYCLES = 10
"""Of the source: how many were identical is what is judged."""


class Checkpoints:
    """Save and load, and show that damage would have been seen."""

    name = "checkpoint cycles"
    metrics = (IDENTICAL, CAUGHT)

    def __init__(self, cycles: int = CYCLES, times: int = damage.TIMES) -> None:
        self._cycles, self._times = cycles, times

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """Go round, then damage copies. Raises DvfdError."""
        place = task.scratch / "cycles"
        place.mkdir()
        newest = place / "0"
        hashes = _ask(task, "make", newest, answer=place / "0.json")
        if not hashes:
            raise ProbeError("the training has no state to compare")
        counted = damage.count(newest, place, times=self._times)
        yield Sample(CAUGHT, float(counted.kinds), task.clock.now())
        yield Remark(CAUGHT, counted.words)
        yield Fact("checkpoint damage", counted.words)
        same = 0
        for number in range(1, self._cycles + 1):
            task.say(f"cycle {number} of {self._cycles}")
            older, newest = newest, place / str(number)
            found = _ask(task, "again", older, newest, answer=place / f"{number}.json")
            if not (changed := different(hashes, found)):
                same += 1
            else:
                yield Remark(IDENTICAL, f"cycle {number}: {changed}")
        yield Sample(IDENTICAL, float(same), task.clock.now())
        yield Fact("checkpoint state", f"{len(hashes)} tensors and values, each compared by hash")


def different(wanted: dict[str, str], found: dict[str, str]) -> str:
    """What is not as it was, in words; nothing if all is."""
    names = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    return f"{len(names)} changed, the first is {names[0]}" if names else ""


def _ask(task: Task, *words: object, answer: Path) -> dict[str, str]:
    """The worker's hashes, from a fresh process. Raises DvfdError."""
    argv = [task.python, str(BARE), WORKER, *map(str, words), str(answer)]
    output = task.run(argv, timeout=LOADING)
    if output.code:
        raise ToolError(f"{words[0]}: {last_words(output)}")
    return {str(name): json.dumps(value) for name, value in read_answer(answer).items()}
