"""A checklist that is judged, kept and told: report, alarm states, sights, storm, alerts.

The live list and a daily one of the real catalogue, on samples that break criteria and mend them.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from bench.crashing.files import Lived, once, only, rows, unsound
from bench.crashing.killing import Story, Words
from bench.crashing.people import CATALOGUE, CONFIG
from dvfd.breaches import Breaches
from dvfd.judgements import Judgements
from dvfd.model import Sample, labels
from dvfd.remembered import remembered
from dvfd.sinks.pager import Pager
from dvfd.store import Store

FAILING = ("node_memory_used_ratio", "log_errors_total", "job_nonfinite_total")
SPEED = 200.0
"""How fast the clock runs: a breach must last before it is told, and blindness for 15 s."""


class Bench:
    """What judges, keeps and tells, over what lies in a directory."""

    def __init__(self, place: Path, clock: Lived) -> None:
        self.clock = clock
        self.store = Store(place / "dvfd.db", metrics=CATALOGUE.metrics, clock=clock)
        self.store.start()
        self.pager = Pager(self.store, push=True)
        self.breaches = Breaches(
            CONFIG, CATALOGUE, self.pager, self.store, clock=clock, mute=lambda *_: False
        )
        self.breaches.load()
        self.restored = list(remembered(self.store, CATALOGUE, CONFIG.profile_hash))
        self.judgements = Judgements(
            CATALOGUE, store=self.store, clock=clock, sinks=(self.breaches,), node="n1",
            profile_hash=CONFIG.profile_hash,
        )  # fmt: skip


class Judged:
    """See the module."""

    name, text = "checklist", "checklists: judged, kept, told"

    def prepare(self, place: Path) -> None:
        """Nothing."""

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Samples, then a judgement that is kept, and again."""
        life = story.lives
        bench = Bench(place, Lived(life, 3600.0, SPEED))
        chance = Random(life)
        words.ready()
        number = 0
        while True:
            number += 1
            now = bench.clock.now()
            value = chance.choice((0.5, 0.5, 0.99))
            bench.store.write([Sample("node_memory_used_ratio", value, now, labels(numa_node=0))])
            if chance.random() < 0.3:
                bench.store.write([Sample("log_errors_total", number, now, labels(log="job"))])
            check = CATALOGUE.checks[chance.choice(("live", "live", "daily"))]
            due = f"{life}.{number:06d}"
            words.begin(f"{check.id} {due}")
            bench.judgements.run_check(check, scheduled=float(due))
            if bench.store.flush(60):
                words.done(f"{check.id} {due}")

    def hold(self, place: Path, story: Story) -> list[str]:
        """Every list that was promised once, whole, with its verdict; alerts as the alarms say."""
        bench = Bench(place, Lived(story.lives + 0.5, 3600.0, SPEED))
        backed, firing = bench.breaches._backed(), bench.pager.firing()
        bench.store.stop()
        path = place / "dvfd.db"
        found = rows(path, "SELECT check_id, scheduled, verdict, document FROM reports")
        kept = [f"{check} {due:.6f}" for check, due, _, _ in found if check == "daily"]
        wrong = [due for _, due, verdict, text in found if json.loads(text)["verdict"] != verdict]
        daily = [key for key in story.done if key.startswith("daily ")]
        last = {report.check.id for report in bench.restored}
        return [
            *unsound(path),
            *once("lists", daily, kept),
            *only("lists", kept, story.begun),
            *([f"lists whose verdict is not that of their document: {wrong[:3]}"] if wrong else []),
            *(["no list is remembered after the start"] if daily and "daily" not in last else []),
            *([f"alerts fire for {firing}, alarms say {backed}"] if firing != backed else []),
        ]

    def end(self, place: Path, story: Story) -> list[str]:
        """The same."""
        return self.hold(place, story)
