"""Mute what a stability run is judged on, and every piece of evidence that a gate stands on.

A run's figures are made of three kinds of rows: windows of batches, minutes of metrics, events.
Each is muted from half of a healthy run on. What a figure is made of is found out, not written
down: it is whatever takes the figure away, or changes it, when all of it is missing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench import four_places
from bench.harness import testbed  # noqa: F401  # puts tests/ on the path
from bench.silences import World, everything
from dvfd.gates.decision import Outcome
from dvfd.model import Result, Severity, Verdict
from dvfd.runs.rows import What

fakes_gates = importlib.import_module("fakes_gates")
fakes_runs = importlib.import_module("fakes_runs")

RANKS_TELL = frozenset({What.BEGUN, What.SAVED, What.FAILED})
"""Events that come from ranks, as their steps do: the same silence takes both."""

MOMENTS = frozenset({What.UP})
"""Events of one moment in a healthy run: there is no half of it to mute."""

CHECKS = ("stability_phase1", "stability_phase2a", "stability_phase2b", "stability_phase2c")

Story = Any


@dataclass(frozen=True, slots=True)
class Muted:
    """A criterion of a run, one thing of which nothing came any more, and what the places say."""

    criterion: str
    what: str
    before: str
    after: str

    @property
    def seen(self) -> bool:
        """Nothing passes in any place."""
        return self.after in {Verdict.UNKNOWN, Verdict.FAIL}


def runs(checks: Sequence[str] = CHECKS) -> Iterator[Muted]:
    """Every criterion of every stability run with everything that it is made of."""
    for check in checks:
        healthy = _results(_healthy(check))
        for what in _parts(_healthy(check)):
            without = _results(_less(check, what, half=False))
            made = [n for n, r in healthy.items() if _passes(r) and _moved(r, without[n])]
            if made:
                yield from _half(check, what, healthy, made)


@cache
def _healthy(check: str) -> Story:
    return fakes_runs.healthy(check)


def _half(check: str, what: str, healthy: dict[str, Result], made: list[str]) -> Iterator[Muted]:
    half = _results(_less(check, what, half=True))
    before, after = _told(healthy), _told(half)
    for name in made:
        yield Muted(name, what, _word(before, half[name]), _word(after, half[name]))


def _results(story: Story) -> dict[str, Result]:
    found = (judged.result for judged in story.judged().values())
    return {result.criterion.id: result for result in found}


def _passes(result: Result) -> bool:
    return result.verdict is Verdict.PASS


def _moved(one: Result, other: Result) -> bool:
    return (one.verdict, one.observed, one.samples) != (
        other.verdict,
        other.observed,
        other.samples,
    )


def _parts(story: Story) -> list[str]:
    """What may fall silent of it."""
    metrics = dict.fromkeys(f"minutes of {m.metric}" for m in story.minutes)
    events = dict.fromkeys(f"events: {e.what}" for e in story.events)
    kinds = ["windows of one rank", "all that ranks tell", "minutes", *metrics, *events]
    return [kind for kind in kinds if kind not in {f"events: {what}" for what in MOMENTS}]


def _less(check: str, what: str, *, half: bool) -> Story:
    """A healthy run without *what*, from its half on or at all."""
    story = copy(_healthy(check))
    middle = fakes_runs.BEGAN + fakes_runs.LENGTH / 2
    early = (lambda t: t < middle) if half else (lambda _t: False)
    if what == "windows of one rank":
        story.windows = [w for w in story.windows if w.rank or early(w.ended)]
    elif what == "all that ranks tell":
        story.windows = [w for w in story.windows if early(w.ended)]
        story.events = [e for e in story.events if e.what not in RANKS_TELL or early(e.t)]
    elif what.startswith("minutes"):
        metric = what.removeprefix("minutes of ")
        story.minutes = [
            m
            for m in story.minutes
            if (metric not in {"minutes", m.metric}) or early(60.0 * m.minute)
        ]
    else:
        kind = what.removeprefix("events: ")
        story.events = [e for e in story.events if str(e.what) != kind or early(e.t)]
    return story


def _told(results: dict[str, Result]) -> dict[str, four_places.Verdicts]:
    world = World(everything())
    world.state.judged(results.values())
    return world.read()


def _word(places: dict[str, four_places.Verdicts], result: Result) -> str:
    """What the places say; /metrics leaves out what a run only notes for its gate."""
    words = four_places.told(places, result.criterion.id)
    if result.criterion.severity is Severity.INFO:
        words -= {four_places.NOT_TOLD}
    return " and ".join(sorted(words))


# --- Gates ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A gate that was GO, one criterion of its evidence that is UNKNOWN, and what it says then."""

    gate: str
    criterion: str
    decides: bool
    before: Outcome
    after: Outcome

    @property
    def seen(self) -> bool:
        """The gate is not GO where the criterion decides anything."""
        return self.after is not Outcome.GO or not self.decides


def gates() -> Iterator[Held]:
    """Every criterion of the tests that each gate stands on, UNKNOWN in the run that decides."""
    for phase in fakes_gates.GATES:
        before = fakes_gates.book(phase).decide().outcome
        for criterion in _stood_on(phase):
            book = fakes_gates.book(phase)
            book.observe(criterion.id, observed=None, verdict="UNKNOWN")
            _blank(book, criterion)
            after = book.decide().outcome
            yield Held(phase, criterion.id, _decides(book.gate, criterion), before, after)


def _blank(book: Any, criterion: Any) -> None:
    """As the record of a criterion that was not measured has it: no figure at all."""
    place = book.found("run", criterion.check)
    rows = book.records[place].body["results"]
    row = next(row for row in rows if row["criterion"] == criterion.id)
    row |= {"observed": None, "margin": None, "verdict": "UNKNOWN"}


def _stood_on(phase: str) -> Iterator[Any]:
    book = fakes_gates.book(phase)
    for record in book.records:
        if record.kind == "run":
            own = book.catalogue.checks[record.subject].criteria
            yield from (c for c in own if not c.among(int(record.body["processes"])).inapplicable)


def _decides(gate: Any, criterion: Any) -> bool:
    named = {c for line in gate.requires for c in line.criteria}
    vetoes = {veto.like for veto in gate.vetoes}
    return (criterion.severity is Severity.CRITICAL and _whole(gate, criterion)) or (
        criterion.id in named | vetoes
    )


def _whole(gate: Any, criterion: Any) -> bool:
    """Whether the gate stands on the whole check, not on some of its criteria."""
    return criterion.check in {*gate.tests, *(c for line in gate.requires for c in line.checks)}
