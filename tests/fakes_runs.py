"""Rows of a stability run as a healthy training makes them, to be spoilt by a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from dvfd.catalogue import load
from dvfd.config import Config, parse
from dvfd.model import Check, labels
from dvfd.runs.rows import Event, Minute, Row, What, Window
from dvfd.runs.run import Axis, Plan, Run, Stage
from dvfd.runs.tally import Context, Tally
from dvfd.runs.verdicts import Judged, judged

ARMED_AT = 1.8e9
BEGAN = 60.0
LENGTH = 7200.0
"""Seconds of a run here: an hour of each day of a real one."""

RATE = 2.0
"""Steps a second."""

SINGLE = 62.5
"""Samples a second of one process, as the source has it."""

PROFILES = {
    "stability_phase1": "nodes = 1\n",
    "stability_phase2a": "nodes = 2\n",
    "stability_phase2b": "nodes = 3\n",
    "stability_phase2c": "nodes = 4\n",
}


def check(check_id: str, *, length: float = LENGTH, backend: str = "gloo") -> Check:
    """A stability check of the catalogue, made as long as the runs here."""
    toml = f'[profile]\nbackend = "{backend}"\n{PROFILES[check_id]}'
    found = load(parse(toml) if toml else Config()).checks[check_id]
    return replace(found, duration=length)


@dataclass
class Story:
    """One run: its rows by kind, and what it is held against. Healthy unless changed."""

    check: Check
    windows: list[Window] = field(default_factory=list)
    minutes: list[Minute] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    context: Context = field(default_factory=Context)
    stage: Stage = Stage.COMPLETE
    length: float = LENGTH
    reason: str = ""
    discounts: tuple[str, ...] = ()

    def rows(self) -> Iterable[Row]:
        return [*self.windows, *self.minutes, *self.events]

    def run(self) -> Run:
        plan = Plan.of(self.check, job="gpt", discounts=self.discounts)
        over = self.stage.over
        ended = BEGAN + self.length
        return Run(
            id="r", plan=plan, node="n0", stage=self.stage, armed_at=ARMED_AT,
            axis=Axis(boot_id="b", offset=0.0), began_t=BEGAN, warm_t=BEGAN + 600.0,
            ended_t=ended if over else None, ended_at=ARMED_AT + ended if over else None,
            reason=self.reason,
        )  # fmt: skip

    def tally(self) -> Tally:
        tally = Tally(self.run().plan, self.context)
        for row in self.rows():
            tally.add(row)
        return tally

    def judged(self) -> dict[str, Judged]:
        t = BEGAN + self.length
        found = judged(self.check, self.run(), self.tally(), t=t, at=ARMED_AT + t)
        return {j.result.criterion.id.partition(".")[2]: j for j in found}

    # --- Spoiling it --------------------------------------------------------------------------

    def change(
        self, which: Callable[[Window], bool], **changes: Callable[[Window], object]
    ) -> None:
        """Change fields of some windows."""
        self.windows = [
            w._replace(**{name: make(w) for name, make in changes.items()}) if which(w) else w
            for w in self.windows
        ]

    def without(self, metric: str) -> None:
        self.minutes = [m for m in self.minutes if m.metric != metric]

    def set(self, metric: str, minute: int, **changes: float) -> None:
        """Change one minute of the first series of a metric."""
        at = next(
            n for n, m in enumerate(self.minutes) if m.metric == metric and m.minute == minute
        )
        self.minutes[at] = self.minutes[at]._replace(**changes)

    def happens(self, what: What, after: float, **more: object) -> None:
        """An event, *after* seconds of the run."""
        t = BEGAN + after
        self.events.append(Event(node="n0", t=t, at=ARMED_AT + t, what=what, **more))

    def drop(self, *whats: What) -> None:
        self.events = [e for e in self.events if e.what not in whats]


def healthy(check_id: str = "stability_phase1", **more: object) -> Story:
    """A run that passes everything."""
    of = check(check_id, backend=str(more.pop("backend", "gloo")))
    story = Story(of, context=context(of), **more)
    story.windows = list(windows(of, story.length))
    story.minutes = list(minutes(of, story.length))
    story.events = list(events(of, story.length))
    return story


def context(of: Check) -> Context:
    baseline = [(samples * 1000.0, loss(samples * 1000.0)) for samples in range(20_000)]
    return Context(
        single_process=SINGLE,
        link=5e10 if of.nodes > 1 else None,
        smaller_efficiency=1.10,
        baseline=baseline,
        attested={"team_operational_confidence": 1.0, "production_readiness": 1.0},
    )


def loss(samples: float) -> float:
    """What a healthy model has after that many samples."""
    return 2.0 + 0.5 / (1.0 + samples / 1e6)


def per_step(of: Check) -> float:
    """Samples of one rank and step: 112 % of linear scaling."""
    return 1.12 * SINGLE / RATE


def windows(of: Check, length: float) -> Iterable[Window]:
    ranks, samples = of.processes, per_step(of)
    span = of.every / RATE
    for number in range(int(length / span)):
        first = number * of.every + 1
        seen = samples * ranks * (first + of.every)
        for rank in range(ranks):
            yield Window(
                node=f"n{rank * of.nodes // ranks}", rank=rank, window=number, session=f"s{rank}",
                first_step=first, last_step=first + of.every - 1, steps=of.every,
                began=BEGAN + number * span + 1 / RATE, ended=BEGAN + (number + 1) * span,
                samples=samples * of.every, loss=loss(seen) * of.every, losses=of.every,
                norm=1.0 * of.every, norms=of.every, compute=0.4 * of.every, computes=of.every,
                communication=0.05 * of.every, stepping=0.5 * of.every,
                allreduce=0.0045 * of.every, allreduces=of.every, moved=110e6 * of.every,
            )  # fmt: skip


GAUGES = {"node_memory_used_ratio": 0.5, "run_step_skew": 0.0, "tcp_retransmit_ratio": 1e-8}
COUNTERS = (
    "job_nonfinite_total", "job_loss_spikes_total", "run_gradient_norm_disagreements_total",
    "run_gradient_norm_excursions_total", "job_hash_mismatches_total", "network_errors_total",
    "network_drops_total",
)  # fmt: skip


def minutes(of: Check, length: float) -> Iterable[Minute]:
    ranks = range(of.processes)
    for number in range(int((BEGAN + length) / 60.0) + 1):
        for node in range(of.nodes):
            name = f"n{node}"
            for metric, value in GAUGES.items():
                yield minute(name, metric, number, value, **_where(metric))
            for metric in COUNTERS:
                yield minute(name, metric, number, 0.0, grown=0.0, **_where(metric))
            yield minute(name, "job_hash_comparisons_total", number, 9.0, grown=2.0, job="gpt")
            energy = {"grown": 200.0 * 60.0, "package": 0}
            yield minute(name, "cpu_package_energy_joules_total", number, 1.0, **energy)
        for rank in ranks:
            node = f"n{rank * of.nodes // len(ranks)}"
            yield minute(node, "rank_cpu_ratio", number, 0.95, job="gpt", rank=rank)


def _where(metric: str) -> dict[str, object]:
    if metric.startswith("node_memory"):
        return {"numa_node": 0}
    if metric.startswith(("network", "tcp")):
        return {"interface": "eth0"} if metric.startswith("network") else {}
    return {"job": "gpt"}


def minute(
    node: str, metric: str, number: int, value: float, *, grown: float = 0.0, **own: object
) -> Minute:
    """A whole minute of one value."""
    return Minute(
        node=node, metric=metric, labels=labels(**own), minute=number, count=12, sum=12 * value,
        low=value, high=value, last=value, grown=grown, covered=60.0,
    )  # fmt: skip


def hashed(of: Check, t: float, step: int, *odd: str) -> Iterable[Event]:
    """The hash of a step on every node; on *odd* ones another."""
    for node in (f"n{number}" for number in range(of.nodes)):
        text = f"grad {'f' if node in odd else '0'}{step:015x}"
        yield Event(node=node, t=t, at=ARMED_AT + t, what=What.HASHED, step=step, text=text)


def events(of: Check, length: float) -> Iterable[Event]:
    for node in range(of.nodes):
        yield Event(node=f"n{node}", t=BEGAN, at=ARMED_AT + BEGAN, what=What.UP)
    steps = int(length * RATE)
    for step in range(of.checkpoint_every, steps + 1, of.checkpoint_every):
        t = BEGAN + step / RATE
        for after, what in enumerate((What.BEGUN, What.SAVED, What.VERIFIED)):
            yield Event(
                node="n0", t=t + after, at=ARMED_AT + t, what=what, rank=0, step=step,
                text=f"/checkpoints/{step}",
            )  # fmt: skip
    if of.nodes > 1:
        for number in range(int(length // 60)):
            yield from hashed(of, BEGAN + 60.0 * number, number)
    if of.nodes > 2:
        for number in range(int(length // 60)):
            yield Event(
                node="n0", t=BEGAN + 60.0 * number, at=ARMED_AT, what=What.PROBED, value=0.0045,
                text="64KiB",
            )  # fmt: skip
