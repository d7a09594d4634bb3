"""How long nobody watched, of the newest run of each phase, from the runs' own files.

What ranks told afterwards closes a gap for availability, not here: nobody would have been called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.answers import daemon
from dvfd.catalogue import load as load_catalogue
from dvfd.drills.drill import OF, Fact, Trouble
from dvfd.errors import DvfdError
from dvfd.model import Sample, labels
from dvfd.places import state_dir
from dvfd.runs.availability import stretches
from dvfd.runs.report import uncounted
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Run
from dvfd.runs.shelf import documents
from dvfd.store.run_reading import Reading

if TYPE_CHECKING:
    from dvfd.drills.drill import Task
    from dvfd.drills.monitoring import Ask
    from dvfd.runs.rows import Rows

UNSEEN = "monitoring_unobserved_seconds"

HEARING = frozenset({What.SILENT, What.HEARD})
"""What a run's leader writes of another node."""

PHASES = ("phase1", "phase2a", "phase2b", "phase2c")
"""The phases that end with a gate."""


class Unobserved:
    """monitoring_unobserved_seconds of each phase that has a run which is over."""

    name = "unobserved time"
    metrics = (UNSEEN,)

    def __init__(self, *, ask: Ask = daemon) -> None:
        self._ask = ask

    def run(self, task: Task) -> Iterator[Sample | Trouble | Fact]:
        """A sample for each phase, and which run it is of. Raises DvfdError if there is none."""
        directory = self._directory()
        checks = load_catalogue(task.config).checks
        runs = [Run.from_document(document) for document in documents(directory)]
        runs = [run for run in runs if run.stage.over and run.began_t is not None]
        told = {}
        for phase in PHASES:
            own = [run for run in runs if (c := checks.get(run.plan.check)) and c.phase == phase]
            if chosen := newest(own):
                told[phase] = chosen
                yield from _phase(task, phase, chosen, directory)
        here = task.config.node.phase
        if not told or (here in PHASES and here not in told):
            phase = here or "any phase"
            yield Trouble(
                UNSEEN,
                f"no run of {phase} has ended in {directory}, wanted one: `dvfd stability start`",
            )

    def _directory(self) -> Path:
        """Where the daemon keeps its runs; ours, if none answers."""
        status = self._ask("status")
        base = Path(status["store"]["path"]).parent if status else state_dir()
        return base / "runs"


def newest(runs: Sequence[Run]) -> Run | None:
    """The newest that counts, which one that was aborted never does; of all if none does."""
    return max(runs, key=lambda run: (not uncounted(run), run.armed_at), default=None)


def unseen(run: Run, rows: Rows) -> float:
    """Seconds of the longest stretch of *run* in which some node was not watched."""
    events = list(rows.events())
    since, until = run.began_t or 0.0, run.ended_t if run.ended_t is not None else run.seen_t
    blind = [
        (max(e.t - (e.value or 0.0), since), min(e.t, until))
        for e in events
        if e.what is What.DAEMON
    ]
    silent = [
        Event(node=node, t=t, at=0.0, what=What.UNSEEN) for node, t in _lost(events, rows).items()
    ]
    found = stretches([*events, *silent], nodes=run.plan.nodes, since=since, until=until)
    blind += [(s.since, s.until) for s in found if s.what is What.UNSEEN]
    return _longest(blind)


def _phase(task: Task, phase: str, run: Run, directory: Path) -> Iterator[Sample | Trouble | Fact]:
    where, against = labels(phase=phase), "; ".join(uncounted(run))
    yield Fact(f"{OF}{phase}", run.id)
    if run.leader:
        yield Trouble(
            UNSEEN, f"{run.id} was led by {run.leader}: ask there, it has all rows", where
        )
        return
    try:
        longest = unseen(run, Reading(directory / f"{run.id}.db"))
    except DvfdError as error:
        yield Trouble(UNSEEN, str(error), where)
        return
    beyond = max(0.0, longest - task.config.sampling.interval)
    yield Sample(UNSEEN, beyond, task.clock.now(), where)
    if against:
        yield Trouble(UNSEEN, f"{run.id} does not count: {against}", where)


def _lost(events: Iterable[Event], rows: Rows) -> dict[str, float]:
    """The nodes that were silent at the end, and when the last row of each was made."""
    hearing = {e.node: e.what for e in events if e.what in HEARING}
    lost = {node: 0.0 for node, what in hearing.items() if what is What.SILENT}
    made = [(e.node, e.t) for e in events if e.what not in HEARING]  # these two the leader wrote
    made += [(m.node, 60.0 * m.minute) for m in rows.minutes()] if lost else []
    for node, t in made:
        if node in lost:
            lost[node] = max(lost[node], t)
    return lost


def _longest(blind: Iterable[tuple[float, float]]) -> float:
    """The longest stretch that *blind* covers without a hole."""
    longest, reach, began = 0.0, -math.inf, 0.0
    for since, until in sorted(blind):
        if since > reach:
            began = since
        reach = max(reach, until)
        longest = max(longest, reach - began)
    return longest
