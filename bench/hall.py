"""A hall of nodes over weeks, made up and told so: what an engine has scraped of it, and a store.

The truth is a function of time, so that what looks at it every 5 s and what looks every 60 s see
the same node. Each has its own course; what went wrong stands in `Node`, deterministic by a seed:
daemons restart, a network between node and engine is away, a node is silent for hours, a job is
down, a daemon lost its state and counts anew.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

from dvfd.model import Catalogue, Sample, Scope, labels

HOUR, DAY = 3600, 86_400

JOB = "gpt"
PROCESSES = 4
PACE = 240.0
"""Samples a second of each node's job."""

NOISE, RESTLESS = 0.004, 0.002
"""Standard deviation of an hour's level and of one look's, as a share."""

FEWER = 0.1
"""Hash comparisons a second."""

RECENT = 3600
"""Seconds before the end in which nodes say how they are: nobody asks how they were."""

STEPS = 997
"""Looks after which the same restlessness comes again: no multiple of an hour's."""

Stretch = tuple[float, float]
"""From and until, seconds since the beginning."""


@dataclass(frozen=True, slots=True)
class Node:
    """What became of one: stretches in which its daemon was dead, its job down, it was not scraped;
    when its counters began anew.
    """

    name: str
    dead: tuple[Stretch, ...] = ()
    down: tuple[Stretch, ...] = ()
    unscraped: tuple[Stretch, ...] = ()
    anew: float = -1.0
    drift: float = 0.0  # share of its pace that it gains in 30 days
    differed: float = 0.0  # hash comparisons that differed, at once, a day before the end

    @property
    def instance(self) -> str:
        """How a Prometheus calls it."""
        return f"{self.name}:9109"

    def observed(self, t: float) -> float:
        """Seconds in which its daemon looked, since its counters began."""
        whole = t - _within(self.dead, t)
        return whole if t < self.anew or self.anew < 0 else whole - self._before

    def up(self, t: float) -> float:
        """Seconds of these in which the job was up."""
        lost = _within(self.down, t)
        if 0 <= self.anew <= t:
            lost -= _within(self.down, self.anew)
        return self.observed(t) - lost

    @property
    def _before(self) -> float:
        return self.anew - _within(self.dead, self.anew)


@dataclass(frozen=True)
class Hall:
    """*count* nodes that end at *end*, Unix seconds, after *days* and a day before them."""

    end: int
    days: int = 30
    count: int = 16
    seed: int = 8

    @property
    def begin(self) -> int:
        """The first second."""
        return self.end - (self.days + 1) * DAY

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Number 1 is well; each of the next seven has its own fate, then they come round again."""
        return tuple(self._node(number) for number in range(1, self.count + 1))

    def _node(self, number: int) -> Node:
        chance, whole = random.Random(f"{self.seed} {number}"), float((self.days + 1) * DAY)

        def some(length: float) -> Stretch:
            since = chance.uniform(1.5 * DAY, whole - 2 * DAY) // 1 + 0.5
            return since, since + length

        restarts = tuple(some(chance.uniform(4, 40) // 1) for _ in range(3))
        silent, lost = some(5 * HOUR), some(90)
        fates: dict[int, dict[str, Any]] = {
            0: {"dead": restarts},
            1: {},
            2: {"dead": restarts, "unscraped": (some(1500), some(7200))},
            3: {"dead": (silent,)},
            4: {"dead": restarts, "down": (some(2400),)},
            5: {"dead": (lost,), "anew": lost[1]},
            6: {"dead": restarts, "drift": -0.06},
            7: {"down": (some(600),), "differed": 3.0},
        }
        return Node(f"node-{number:02d}", **fates[number % len(fates)])

    def looks(self, node: Node, every: float, *, since: float = 0.0) -> Iterator[float]:
        """The seconds in which somebody looks *every* so often, and a daemon answers."""
        for number in range(int(since // every), int((self.end - self.begin) / every) + 1):
            t = number * every
            if not _in(node.dead, t):
                yield t

    def values(self, node: Node, t: float) -> Iterator[tuple[str, float]]:
        """Every raw metric of the lists, *t* seconds after the beginning."""
        up = node.up(t)
        yield "job_observed_seconds_total", node.observed(t)
        yield "job_up_seconds_total", up
        yield "job_hash_comparisons_total", float(int(up * FEWER))
        late = t >= self.end - self.begin - DAY
        yield "job_hash_mismatches_total", node.differed if late else 0.0
        yield "job_processes", float(PROCESSES)
        if not _in(node.down, t):
            yield "job_throughput_samples_per_second", self._pace(node, t)

    def _pace(self, node: Node, t: float) -> float:
        level = self._levels[node.name][int(t // HOUR)]
        restless = self._restless[int(t // 5) % STEPS]
        return PACE * (1 + level + restless + node.drift * t / (30 * DAY))

    @cached_property
    def _levels(self) -> dict[str, Sequence[float]]:
        """The level of each node's hours, which hang together a little."""
        found: dict[str, Sequence[float]] = {}
        for node in self.nodes:
            chance, level = random.Random(f"{self.seed} {node.name} level"), 0.0
            levels: list[float] = []
            for _ in range((self.days + 1) * 24 + 1):
                level = 0.3 * level + chance.gauss(0.0, NOISE)
                levels.append(level)
            found[node.name] = levels
        return found

    @cached_property
    def _restless(self) -> Sequence[float]:
        chance = random.Random(f"{self.seed} restless")
        return [chance.gauss(0.0, RESTLESS) for _ in range(STEPS)]

    # --- As others have it ------------------------------------------------------------------------

    def samples(self, node: Node, every: float) -> Iterator[Sample]:
        """As the node's own daemon writes them down."""
        own = labels(job=JOB)
        for t in self.looks(node, every):
            for metric, value in self.values(node, t):
                yield Sample(metric, value, self.begin + t, own)

    def write(
        self, out: IO[str], every: float, *, nodes: Iterable[Node] | None = None,
        milliseconds: bool = False, more: str = "", catalogue: Catalogue | None = None,
    ) -> int:  # fmt: skip
        """As an engine that scrapes *every* so often has it; how many samples that is.

        OpenMetrics has seconds, VictoriaMetrics wants *milliseconds*; *more* labels begin with a
        comma. With a *catalogue* nodes say in the last minutes that they live and judge by it.
        """
        written = 0
        for node in self.nodes if nodes is None else nodes:
            target = f'job="dvfd",instance="{node.instance}"{more}'
            where = f'{target},training_job="{JOB}"'
            phase = random.Random(node.name).uniform(0.0, every) // 1
            for t in self.looks(node, every):
                at = t + phase
                if at > self.end - self.begin or _in(node.unscraped, at) or _in(node.dead, at):
                    continue
                stamp = int(self.begin + at) * (1000 if milliseconds else 1)
                for metric, value in self.values(node, at):
                    out.write(f"dvfd_{metric}{{{where}}} {value:.10g} {stamp}\n")
                    written += 1
                if catalogue and at >= self.end - self.begin - RECENT:
                    for name, own, value in self._words(node, at, catalogue):
                        out.write(f"{name}{{{target}{own}}} {value:.10g} {stamp}\n")
        out.write("# EOF\n")
        return written

    def _words(
        self, node: Node, t: float, catalogue: Catalogue
    ) -> Iterator[tuple[str, str, float]]:
        """What a node that is well says of itself; of the lists' people's lines the first one."""
        yield "up", "", 1.0
        yield "dvfd_build_info", f',version="made-up",catalogue="{catalogue.hash[:12]}"', 1.0
        yield "dvfd_probe_last_success_timestamp_seconds", ',probe="cpu"', self.begin + t - 2
        first = node == self.nodes[0]
        for check in ("weekly", "monthly"):
            for criterion in catalogue.checks[check].criteria:
                said = "PASS" if first or criterion.scope is Scope.NODE else "UNKNOWN"
                own = f',check="{check}",criterion="{criterion.id}",verdict="{said}"'
                yield "dvfd_criterion_verdict", own, 1.0


def _in(stretches: Iterable[Stretch], t: float) -> bool:
    return any(since <= t < until for since, until in stretches)


def _within(stretches: Iterable[Stretch], t: float) -> float:
    """Seconds of *stretches* before *t*."""
    return sum(max(0.0, min(t, until) - since) for since, until in stretches)
