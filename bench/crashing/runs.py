"""Stability runs of a minute on a clock of their own: armed, watched, stopped or complete, frozen,
written into the ledger, accepted. The transport of the ranks and the clock are the tests'; all that
writes is real, the child that makes the report too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from bench.crashing.files import once, rows, unsound
from bench.crashing.killing import Story, Words
from bench.crashing.people import CATALOGUE, CONFIG, PEER
from bench.harness import testbed
from dvfd.errors import DvfdError
from dvfd.evidence.ledger import Evidence
from dvfd.evidence.witness import Witness
from dvfd.model import Check, Sample, labels
from dvfd.operations import lasting
from dvfd.people.attestations import Attestations
from dvfd.runs import baselines, parts, requests
from dvfd.runs.rows import What
from dvfd.runs.run import ORDER, Run, Stage
from dvfd.store import Store
from dvfd.store.run_reading import Reading
from dvfd.telemetry.fold import folds
from dvfd.telemetry.wire import Row

assert testbed  # the tests' directory is on the path since that was imported
telemetry = importlib.import_module("fakes_telemetry")

CHECK = "stability_phase1"
LENGTH = 60.0
RANKS = 4
FORWARD = 2.0
"""Seconds of the clock between two lives."""


class Node:
    """A daemon's part in runs, over what lies in a directory, at a moment of its own clock."""

    def __init__(self, place: Path, at: float) -> None:
        self.ranks = telemetry.Ranks()
        self.clock = self.ranks.clock
        self.clock.advance(at)
        self.directory = place / "runs"
        self.store = Store(place / "dvfd.db", metrics=CATALOGUE.metrics, clock=self.clock)
        self.store.start()
        self.evidence = Evidence(place / "evidence", self.clock, node="n1", store=self.store)
        self.witness = Witness(self.evidence, place)
        accepted = baselines.Baselines(self.directory, self.store, self.clock)
        self.accepted = accepted
        self.conductor = parts.conduct(
            CONFIG, CATALOGUE, store=self.store, book=self.ranks.book, clock=self.clock,
            directory=self.directory, judge=self._judge, baselines=accepted,
            attestations=Attestations(CATALOGUE, self.store, self.clock),
        )  # fmt: skip
        self.operations = lasting(
            self.store,
            {
                **requests.operations(self.conductor),
                **baselines.operations(accepted, self.conductor.run),
            },
        )
        self.conductor.take_up()
        self.seats: list[Any] = []

    def _judge(self, check: Check) -> None:
        self.conductor.results(check, self.clock.now())
        self.write_down()

    def write_down(self) -> None:
        """See that every run that is over stands in the ledger, as the daemon does."""
        self.witness.ran(self.conductor.runs(), CATALOGUE.checks)

    def ask(self, op: str, **more: Any) -> Any:
        """As the command does."""
        return self.operations[op].answer(more, PEER)

    @property
    def on(self) -> Run | None:
        """The run that is not frozen yet."""
        with contextlib.suppress(DvfdError):
            run = self.conductor.run()
            return None if run.frozen else run
        return None

    def join(self, life: int) -> None:
        """The job's ranks, begun anew."""
        self.seats = [
            self.ranks.join(n, pid=100 * life + n, run=f"r{life}", checkpoint_every=500)
            for n in range(RANKS)
        ]

    def step(self, words: Words) -> None:
        """A second of training: two steps of each rank, and the beat of the conductor."""
        on = self.on
        for number, seat in enumerate(self.seats):
            step, at = (seat.rank.step or 0) + 1, self.clock.boot()
            rows_ = [
                Row(seat.rank.seen + n, step + n - 1, at + n / 2, samples=32.5, grad_norm=1.0,
                    compute=0.4, loss=2.0)
                for n in (1, 2)
            ]  # fmt: skip
            self.ranks.book.steps(seat, rows_)
            made = tuple(folds("gpt", number, rows_, self.clock.now()))
            of = on.id if on and not on.stage.over else "none"
            told = f"rows {of} {seat.rank.session} {rows_[-1].sequence}"
            words.begin(told)
            self.store.commit_telemetry(
                seat.rank.session, rows_[-1].sequence, made,
                partial(_told, words, told), job="gpt",
            )  # fmt: skip
        self.clock.advance(1)
        at = self.clock.now()
        self.conductor.sampled([Sample("node_memory_used_ratio", 0.5, at, labels(numa_node=0))])
        self.conductor.tick()


def _told(words: Words, said: str, _reached: int) -> None:
    words.done(said)


class Conducted:
    """See the module."""

    name, text = "runs", "stability runs: transitions, file, report, acceptance"

    def prepare(self, place: Path) -> None:
        """Nothing."""

    def live(self, place: Path, story: Story, words: Words) -> None:
        """One run after another: most run to their end, some are stopped."""
        life = story.lives
        node = Node(place, _moment(story) + FORWARD)
        chance = Random(life)
        node.join(life)
        words.ready()
        number = 0
        while True:
            number += 1
            words.note(f"clock {node.clock.boot()}")
            run = node.on
            if run is None:
                self._next(node, words, f"{life}/{number}")
            elif chance.random() < 0.02 and not run.stage.over:
                self._ask(node, words, f"stop {run.id}", "stability_stop", id=run.id, reason="r")
            node.step(words)

    def _next(self, node: Node, words: Words, key: str) -> None:
        """Accept the run that is over, and arm another."""
        with contextlib.suppress(DvfdError):
            over = node.conductor.run()
            if all(each.run != over.id for each in node.accepted.history(CHECK)):
                self._ask(node, words, f"accept {over.id}", "stability_accept", id=over.id,
                          name="Ann Lee", override="it is short", note="n")  # fmt: skip
        words.begin(f"arm {key}")
        armed = node.ask(
            "stability_arm", check=CHECK, job="gpt", duration=LENGTH, note=key, force=True
        )
        words.note(f"armed {armed['id']}")
        words.done(f"arm {key}")

    @staticmethod
    def _ask(node: Node, words: Words, said: str, op: str, **more: Any) -> None:
        words.begin(said)
        node.ask(op, **more)
        words.done(said)

    def hold(self, place: Path, story: Story) -> list[str]:
        """Start on it, look once, and hold every run against what was said of it."""
        node = Node(place, _moment(story) + FORWARD / 2)
        node.write_down()
        node.conductor.tick()
        runs = {run.id: run for run in node.conductor.runs()}
        on = node.on
        if on is not None:
            runs[on.id] = on
        found = _promised(node, story, runs)
        node.conductor.stop()
        for run in runs.values():
            found += _file(node.directory / f"{run.id}.db", run)
            found += _rows(node.directory / f"{run.id}.db", run, story)
        ledger = [f"ledger: {problem}" for problem in node.evidence.verify()]
        node.store.stop()
        return [*found, *ledger, *unsound(place / "dvfd.db")]

    def end(self, place: Path, story: Story) -> list[str]:
        """The same."""
        return self.hold(place, story)


def _moment(story: Story) -> float:
    """How far the clock went in the lives before."""
    clocks = [note.removeprefix("clock ") for note in story.notes if note.startswith("clock ")]
    return float(clocks[-1]) - 1000.0 if clocks else 0.0


def _promised(node: Node, story: Story, runs: dict[str, Run]) -> list[str]:
    """What somebody was told: armed, stopped, accepted, written into the ledger."""
    stopped = [id_ for id_ in story.finished("stop ") if runs[id_].stage is not Stage.ABORTED]
    undone = [id_ for id_ in stopped if runs[id_].stage is not Stage.COMPLETE]
    accepted = [each.run for each in node.accepted.history(CHECK)]
    ledger = [str(record.body["run"]) for record in node.evidence.records("run")]
    return [
        *once("runs", story.finished("arm "), [run.plan.note for run in runs.values()]),
        *([f"stopped, and on again: {undone}"] if undone else []),
        *once("acceptances", story.finished("accept "), accepted),
        *once("ledger", [run.id for run in runs.values() if run.frozen], ledger),
    ]


def _file(path: Path, run: Run) -> list[str]:
    """The run's file: whole, each transition once and in order, none missing that was made."""
    found = unsound(path)
    said = [e.text.partition(":")[0] for e in Reading(path).events() if e.what is What.STAGE]
    ways = {Stage.ABORTED: [s for s in ORDER if str(s) in said and not s.over] + [Stage.ABORTED]}
    wanted = ways.get(run.stage, list(ORDER[: ORDER.index(run.stage) + 1]))
    if sorted(said) != sorted(map(str, wanted)):
        found.append(f"{run.id} is {run.stage}, its file tells {said}")
    if run.began_t is not None and run.stage is not Stage.ABORTED and "warm-up" not in said:
        found.append(f"{run.id} began, and its file tells {said}")
    if run.frozen:
        text = path.with_suffix(".json").read_bytes()
        if hashlib.sha256(text).hexdigest() != run.frozen:
            found.append(f"{run.id}: its report is not the one that it was frozen with")
        if path.stat().st_mode & 0o222:
            found.append(f"{run.id}: frozen, and its file may be written")
    return found


def _rows(path: Path, run: Run, story: Story) -> list[str]:
    """Each session's steps once and without a hole, as far as they were acknowledged."""
    last: Counter[str] = Counter()
    for key in story.finished(f"rows {run.id} "):
        session, _, sequence = key.partition(" ")
        last[session] = max(last[session], int(sequence))
    there = rows(
        path,
        "SELECT session, min(first_step), max(last_step), sum(steps) FROM windows GROUP BY session",
    )
    torn = [row for row in there if row[2] - row[1] + 1 != row[3]]
    reached = dict(rows(path, "SELECT session, sequence FROM sessions"))
    lost = [f"{s}: {reached.get(s)} of {n}" for s, n in last.items() if reached.get(s, 0) < n]
    return [
        *([f"{run.id}: steps missing or doubled: {torn[:3]}"] if torn else []),
        *([f"{run.id}: steps acknowledged and lost: {lost[:3]}"] if lost else []),
    ]
