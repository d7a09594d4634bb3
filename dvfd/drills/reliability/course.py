"""What a recovery did to a training, from the trails of its processes. Pure.

Processes that joined together are a team; a recovery is the next team. Times are CLOCK_BOOTTIME.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dvfd.drills.trail import Process, Step

BEFORE = 40
"""Steps before the fault that the loss after it is held against."""

AFTER = 7
"""Steps after it whose median is: one step's loss is noise."""

FEWEST = 10
"""Steps before the fault, below which a MAD says nothing."""


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that trained together between two rendezvous."""

    processes: tuple[Process, ...]

    @property
    def world(self) -> int:
        """How many it takes."""
        return self.processes[0].world

    @property
    def whole(self) -> bool:
        """Whether all of them are there."""
        return len(self.processes) == self.world

    @property
    def joined(self) -> float:
        """When the last of them had joined."""
        return max(each.joined for each in self.processes)

    @property
    def loaded(self) -> float | None:
        """When the last of them had loaded the checkpoint; None if they began anew."""
        return max((each.loaded for each in self.processes if each.loaded), default=None)

    @property
    def resumed(self) -> int:
        """The step of the checkpoint that they went on from, 0 if they began anew."""
        return min(each.resumed for each in self.processes)

    @property
    def newest(self) -> int:
        """The newest step that all of them made, 0 if they made none."""
        if not self.whole:
            return 0
        return min(each.steps[-1].step if each.steps else 0 for each in self.processes)

    @property
    def first(self) -> float | None:
        """When the last of them had made its first step; None while one has made none."""
        if not self.whole or not all(each.steps for each in self.processes):
            return None
        return max(each.steps[0].at for each in self.processes)

    def after(self, at: float) -> float | None:
        """When the last of them had made its first step after *at*; None while one has not."""
        if not self.whole:
            return None
        firsts = [next((s.at for s in p.steps if s.at > at), None) for p in self.processes]
        return (
            max((f for f in firsts if f is not None), default=None) if None not in firsts else None
        )

    def made(self, step: int) -> float | None:
        """When the last of them had made *step* or one after it; None if one has not."""
        ends = [next((s.at for s in p.steps if s.step >= step), None) for p in self.processes]
        return max((e for e in ends if e is not None), default=None) if None not in ends else None

    def losses(self) -> dict[int, float]:
        """The mean loss over all ranks of every step that all of them made."""
        rows = [{s.step: s.loss for s in p.steps} for p in self.processes]
        common = set.intersection(*map(set, rows)) if self.whole and rows else set()
        return {step: statistics.fmean(row[step] for row in rows) for step in sorted(common)}


def teams(processes: Iterable[Process]) -> list[Team]:
    """The teams in the order in which they formed. A group's name may come again: it is the address
    of a store, whose port may.
    """
    found: dict[tuple[str, int, int], list[Process]] = {}
    sat: Counter[tuple[str, int, int]] = Counter()  # how often a rank of a group was taken
    for each in sorted(processes, key=lambda process: process.joined):
        seat = (each.group, each.world, each.rank)
        found.setdefault((each.group, each.world, sat[seat]), []).append(each)
        sat[seat] += 1
    made = (Team(tuple(sorted(each, key=lambda p: p.rank))) for each in found.values())
    return sorted(made, key=lambda team: team.joined)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A recovery, taken apart. None is what was not seen."""

    harmed: float
    noticed: float | None  # by the job
    seen: float | None = None  # by dvfd
    healed: float
    joined: float | None
    loaded: float | None
    first: float
    level: float | None = None  # as far as before the fault
    began: str = "injected"
    ended: str = "healed"

    @property
    def recovery(self) -> float:
        """Seconds from the end of the fault to the first new optimizer step."""
        return self.first - self.healed

    @property
    def words(self) -> str:
        """All of it in seconds since it began."""
        named = {
            "noticed by the job": self.noticed,
            "noticed by dvfd": self.seen,
            self.ended: self.healed if self.healed > self.harmed else None,
            "all joined": self.joined,
            "checkpoint loaded": self.loaded,
            "first new step": self.first,
            "as far as before": self.level,
        }
        seen = ((at, name) for name, at in named.items() if at is not None)
        return f"{self.began} at 0 s; " + "; ".join(
            f"{name} at {at - self.harmed:.1f} s" for at, name in sorted(seen)
        )


# --- Samples ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of the samples: errors of each kind, and how many were looked at."""

    looked: int
    skipped: int  # positions in the order that no step took
    twice: int  # samples in more than one step of one epoch
    changed: int  # of steps done again: other samples than the first time

    @property
    def errors(self) -> int:
        """All of them."""
        return self.skipped + self.twice + self.changed

    @property
    def words(self) -> str:
        """For a person."""
        return (
            f"{self.looked} samples: {self.skipped} skipped, {self.twice} seen twice, "
            f"{self.changed} others where a step was done again"
        )


def seen(all_teams: Sequence[Team]) -> Seen:
    """Hold the samples of every step that counts against each other. A step that was done again
    counts as it was done last; what it took the first time has to be the same.
    """
    counts: dict[int, dict[int, int]] = {}  # step: position in the order: id
    changed = 0
    for team in all_teams:
        for step, taken in _taken(team).items():
            before = counts.get(step)
            if before is not None:
                changed += len(set(before.items()) ^ set(taken.items())) // 2
            counts[step] = taken
    positions = [place for taken in counts.values() for place in taken]
    ids = [number for taken in counts.values() for number in taken.values()]
    span = max(positions, default=-1) + 1
    return Seen(
        looked=len(positions),
        skipped=span - len(set(positions)),
        twice=max(len(positions) - len(set(positions)), len(ids) - len(set(ids))),
        changed=changed,
    )


def _taken(team: Team) -> dict[int, dict[int, int]]:
    """Of every step that all ranks made: the samples by their position in the order."""
    rows: dict[int, list[Step]] = {}
    for process in team.processes:
        for row in process.steps:
            rows.setdefault(row.step, []).append(row)
    return {
        step: {row.first + place: number for row in each for place, number in enumerate(row.ids)}
        for step, each in rows.items()
        if len(each) == team.world
    }


# --- Loss ---------------------------------------------------------------------------------------


def jump(before: Mapping[int, float], after: Mapping[int, float]) -> float | None:
    """How far the loss after a recovery lies from where it was going, in MADs of the loss before.

    *before* and *after* are losses by step. A falling loss is no jump: it is held against a line
    through the steps before (Theil-Sen). None where there are too few of them or one is no number;
    infinite where any after is none.
    """
    if not all(map(math.isfinite, after.values())):
        return math.inf
    first = min(after, default=0)
    known = sorted(step for step in before if step < first)[-BEFORE:]
    new = sorted(after)[:AFTER]
    if len(known) < FEWEST or not new or not all(math.isfinite(before[step]) for step in known):
        return None
    slope = statistics.median((before[b] - before[a]) / (b - a) for a, b in combinations(known, 2))
    level = statistics.median(before[step] - slope * step for step in known)
    around = [abs(before[step] - slope * step - level) for step in known]
    spread = statistics.median(around)
    off = abs(statistics.median(after[step] - slope * step - level for step in new))
    if not math.isfinite(off):
        return math.inf
    if spread <= 0:
        return 0.0 if off <= 0 else math.inf
    return off / spread


def redone(before: Mapping[int, float], after: Mapping[int, float]) -> tuple[int, float]:
    """Steps that were done again, and the most that their losses differ, relative to the first."""
    again = before.keys() & after.keys()
    off = (abs(after[step] / before[step] - 1) if before[step] else math.inf for step in again)
    return len(again), max(off, default=0.0)
