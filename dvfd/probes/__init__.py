"""Observe: passive, cheap sources, read every few seconds. They never judge.

`build` is the registry: a probe that is not named here does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dvfd.config import Config
from dvfd.model import Clock, Metric, Probe, Sample
from dvfd.probes.checkpoints import Checkpoints
from dvfd.probes.cpu import Cpu
from dvfd.probes.exec_plugin import ExecPlugin
from dvfd.probes.gpu import Gpu
from dvfd.probes.inputs import Allowance
from dvfd.probes.logs import Logs
from dvfd.probes.memory import Memory
from dvfd.probes.network import Network
from dvfd.probes.node import FileSystems, Node
from dvfd.probes.power import Power
from dvfd.probes.ranks import Ranks
from dvfd.probes.scrape import Scrape
from dvfd.probes.temperature import Temperature
from dvfd.probes.textfile import TextFile
from dvfd.telemetry.files import Files
from dvfd.telemetry.jobs import JobBook, News

CLASSES = (
    Ranks, Files, Cpu, Memory, Temperature, Power, Gpu, Network, Checkpoints, Logs, Node,
    FileSystems,
)  # fmt: skip

LOGS, CHECKPOINTS = 1.0, 2.0
"""Seconds between looks at what a person is called for at once. Ranks' processes are watched by the
receiver."""


class Kept(Protocol):
    """What probes ask of the store: small documents that outlast a restart, such as offsets in
    logs, and which series are live.
    """

    def put(self, kind: str, key: str, document: dict[str, Any] | None) -> None:
        """Keep one."""
        ...

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """Get one back."""
        ...

    def latest(self, metric: str) -> list[Sample]:
        """The newest sample of each live series."""
        ...

    def end_series(self, where: Mapping[str, str], at: float) -> None:
        """The series with these labels are over."""
        ...


@dataclass(frozen=True, slots=True)
class Probes:
    """All of them, and those that the daemon asks more of."""

    all: tuple[Probe, ...]
    ranks: Ranks
    logs: Logs
    checkpoints: Checkpoints


def build(
    config: Config,
    *,
    book: JobBook,
    store: Kept,
    clock: Clock,
    state: Path,
    publish: Callable[[News], None],
    turn: Callable[[str], float] = lambda _job: 0.0,
    metrics: Iterable[Metric] = (),
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
) -> Probes:
    """Build every probe; touches nothing. *state* is where dvfd's own files lie, *publish* is
    told what jobs' files have to say, *turn* is this node's place in [0, 1) among those that read a
    job's checkpoint, *metrics* are those of the catalogue: the site's own say what of its inputs is
    read.
    """
    every = config.sampling.interval
    ranks = Ranks(book, clock, interval=every, remembered=store.latest)
    logs = Logs(config.logs, records=store, interval=min(LOGS, every) if config.logs else every)

    def watched() -> Iterator[Path]:
        yield state
        yield from {Path(c.path).parent for c in book.checkpoints() if c.path}

    def over(watched: Collection[str]) -> None:
        for sample in store.latest(FileSystems.metrics[0]):
            where = dict(sample.labels)
            if where["path"] not in watched:
                store.end_series(where, clock.now())

    checkpoints = Checkpoints(
        book.checkpoints,
        settings=config.checkpoints,
        records=store,
        interval=min(CHECKPOINTS, every),
        proc=proc,
        turn=turn,
    )
    rest: tuple[Probe, ...] = (FileSystems(watched, forget=over), checkpoints)
    files = Files(config, book, clock, publish)
    jobs: tuple[Probe, ...] = (ranks, files, logs) if files else (ranks, logs)
    host = _host(config, book, clock, proc, sys)
    found = (*jobs, *host, *rest, *_site(config, tuple(metrics)))
    return Probes(found, ranks, logs, checkpoints)


def _site(config: Config, metrics: Sequence[Metric]) -> Iterator[Probe]:
    """What the site itself brings: one probe for each input, so that none waits for another."""
    allowance = Allowance(config.site.series)

    def of(source: str, name: str) -> list[Metric]:
        asked = [(m, m.origin) for m in metrics if m.origin]
        return [m for m, origin in asked if (origin.source, origin.input) == (source, name)]

    yield from (ExecPlugin(each, allowance) for each in config.plugin)
    yield from (TextFile(t, of("textfile", t.name), allowance) for t in config.textfile)
    yield from (Scrape(s, of("scrape", s.name), allowance) for s in config.scrape)


def _host(config: Config, book: JobBook, clock: Clock, proc: Path, sys: Path) -> tuple[Probe, ...]:
    """What the machine itself tells."""
    profile, every = config.profile, config.sampling.interval
    return (
        Cpu(book.processes, clock=clock, proc=proc, sys=sys, interval=every),
        Memory(proc=proc, sys=sys, interval=every),
        Temperature(expected=profile.temperature_sensors, sys=sys, interval=every),
        Power(clock=clock, expected=profile.power_meters, sys=sys, interval=every),
        Gpu(accelerator=profile.accelerator, expected=profile.gpus, sys=sys, interval=every),
        Network(clock=clock, interfaces=profile.interfaces, proc=proc, sys=sys, interval=every),
        Node(clock=clock, proc=proc, sys=sys, interval=every),
    )
