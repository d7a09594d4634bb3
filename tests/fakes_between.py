"""What ranks on two nodes say of collectives, without any: every figure may be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes_collectives import MS, spread
from fakes_drills import task

from dvfd import drills
from dvfd.drills.drill import Task
from dvfd.drills.findings import Findings
from dvfd.drills.fleet import Answer, Heard, Met
from dvfd.drills.supervise import supervise

NODES = (Met("n1", "10.0.0.1", "eth0", (0, 1, 2, 3)), Met("n2", "10.0.0.2", "eth0", (4, 5, 6, 7)))

RANKS = range(8)


class Cluster:
    """Two nodes of four ranks each. *times* are nanoseconds by algorithm and message, or by team
    and message for half of them, else 1 ms; *heard* takes the place of what an exercise's ranks
    say, *rows* of what is said of one collective.
    """

    def __init__(
        self,
        times: Mapping[tuple[str, str], int] | None = None,
        *,
        rows: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
        whole: int = 8,
        graphs: tuple[str, ...] = (),
        heard: Mapping[str, Heard] | None = None,
    ) -> None:
        self._times, self._rows = dict(times or {}), dict(rows or {})
        self._whole, self._graphs = whole, list(graphs)
        self._heard = dict(heard or {})

    def tried(self, check: str, directory: Path, toml: str = "") -> tuple[Task, Findings]:
        """The drill of *check* on what they say."""
        chosen = task(check, directory, toml=toml)
        parts = drills.build(check)
        for part in parts:
            for each in part.exercises(chosen):
                self._heard.setdefault(each.name, self._said(each.name, each.options))
        answer = Answer(NODES, self._heard, "2.13.0")
        chosen.memo.once(("fleet", check), lambda: answer)
        return chosen, supervise(chosen, parts)

    def _said(self, name: str, options: Mapping[str, Any]) -> Heard:
        if name == "barriers":
            rest: Any = {"early": 0, "slowest": []}
            return heard(rest | {"slowest": spread(2 * MS, options["count"])}, rest)
        if name == "speed-up":
            speeds = [{"together": [808.0] * 6, "alone": [100.0] * 6}, {}]
            return heard(*speeds)
        if "exercises" not in options:  # of flows, which are not played here
            return Heard({}, dict.fromkeys(RANKS, f"{name} was not played"))
        rest = {"world": 8, "addresses": [], "exercises": [], "graphs": []}
        rest["whole"] = {"65536": self._whole}
        rows = [self._row(each) for each in options["exercises"]]
        return heard(rest | {"exercises": rows, "graphs": self._graphs}, rest)

    def _row(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        message = MESSAGES.get(asked["bytes"], "")
        who = asked["algorithm"] if asked["team"] == "all" else asked["team"]
        times = spread(self._times.get((who, message), MS), asked["iterations"])
        told = {"slowest": times, "verified": len(times) + 19, "wrong": 0, "example": ""}
        return {**asked, **told, "paced": None, **self._rows.get((asked["operation"], who), {})}


MESSAGES = {
    256: "256B", 1 << 16: "64KiB", 1 << 20: "1MiB", 16 << 20: "16MiB", 25 << 20: "bucket",
}  # fmt: skip


def heard(first: Any, rest: Any, failures: Mapping[int, str] | None = None) -> Heard:
    """Rank 0 says *first*, the others *rest*, but those that failed."""
    lost = dict(failures or {})
    values = {rank: first if rank == 0 else rest for rank in RANKS if rank not in lost}
    return Heard(values, lost)
