"""Ranks for tests that leave an answer of the collectives' worker without having run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes_drills import FakeRunner, said

from dvfd.shell import Output

MS = 1_000_000  # nanoseconds


def spread(middle: int, count: int) -> list[int]:
    """*count* times around *middle* nanoseconds, 1 ns apart."""
    return [middle - count // 2 + n for n in range(count)]


class Ranks(FakeRunner):
    """Every message takes *times* nanoseconds by its bytes, else 1 ms; any answer may be changed.

    *rows* change what is said of every exercise, *answer* the whole, *notes* are of failed ranks.
    """

    def __init__(
        self,
        times: Mapping[int, int] | None = None,
        *,
        rows: Mapping[str, Any] | None = None,
        answer: Mapping[str, Any] | None = None,
        notes: Mapping[int, Any] | None = None,
        left: Output | BaseException | None = None,
    ) -> None:
        self._times, self._rows = dict(times or {}), dict(rows or {})
        self._answer, self._notes = dict(answer or {}), dict(notes or {})
        self._left = left or said()
        super().__init__({"torch.distributed.run": self._run})

    def _run(self, argv: list[str]) -> Any:
        plan = json.loads(Path(argv[-1]).read_text())
        place = Path(plan["answer"])
        for rank, note in self._notes.items():
            place.with_name(f"{place.name}.failed-{rank}").write_text(json.dumps(note))
        if not self._notes and isinstance(self._left, Output) and self._left.code == 0:
            ranks = int(next(a for a in argv if "nproc" in a).partition("=")[2])
            place.write_text(json.dumps(self._told(plan, ranks)))
        return self._left

    def _told(self, plan: Mapping[str, Any], ranks: int) -> dict[str, Any]:
        rows = [self._row(exercise) for exercise in plan["exercises"]]
        about = {"world": ranks, "torch": "2.13.0", "git": "cf30153c4c77", "addresses": ["::1"]}
        return {**about, "exercises": rows, **self._answer}

    def _row(self, exercise: Mapping[str, Any]) -> dict[str, Any]:
        count = exercise["iterations"]
        times = spread(self._times.get(exercise["bytes"], MS), count)
        told = {"slowest": times, "verified": count + 16, "wrong": 0, "example": ""}
        return {**exercise, **told, **self._rows}
