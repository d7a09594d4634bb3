"""Build what conducts stability runs in a daemon: the composition of this room."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dvfd import shell
from dvfd.cluster import here
from dvfd.environment import environment_facts
from dvfd.errors import DvfdError
from dvfd.probes.verifier import Verifier
from dvfd.remote import fetcher
from dvfd.runs.baselines import job_hash
from dvfd.runs.company import Alone
from dvfd.runs.conductor import Conductor
from dvfd.runs.freezing import CONTEXT, by_child, evidence, freeze, judged_again
from dvfd.runs.led import Leader
from dvfd.runs.peers import Peers
from dvfd.runs.recorder import Recorder
from dvfd.runs.run import Run, caught_up
from dvfd.runs.saves import Manifestless, Saves
from dvfd.runs.sight import Sight
from dvfd.runs.tally import Context, Tally
from dvfd.runs.watched import Watched
from dvfd.scaling.ledger import Ledger
from dvfd.scaling.series import single
from dvfd.store.run_file import RunFile
from dvfd.store.run_reading import Reading
from dvfd.telemetry.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dvfd.config import Config
    from dvfd.model import Catalogue, Check, Clock
    from dvfd.people.attestations import Attestations
    from dvfd.runs.baselines import Baselines
    from dvfd.runs.company import Company
    from dvfd.runs.freezing import Frozen
    from dvfd.runs.verdicts import Judged
    from dvfd.scaling.points import Point
    from dvfd.store import Store
    from dvfd.telemetry.jobs import JobBook

GBPS = 1e9 / 8

SMALLER, LOSS = "scaling_smaller_efficiency_ratio", "run_loss_baseline_ratio"
EFFICIENCY = "scaling_efficiency_ratio"
"""The metrics that come from what was accepted or measured before, or are held against it."""


def conduct(
    config: Config,
    catalogue: Catalogue,
    *,
    store: Store,
    book: JobBook,
    clock: Clock,
    directory: Path,
    judge: Callable[[Check], object],
    attestations: Attestations,
    baselines: Baselines,
    verifier: Callable[[], Verifier] | None = None,
    held_against: Callable[[Run], Context] | None = None,
    freezes: Callable[[Watched], Frozen] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    connect: Callable[[], Callable[[str], Any]] | None = None,
) -> Conductor:
    """Who conducts the runs of this node; their files lie in *directory*.

    *verifier* builds what verifies a run's checkpoints, *held_against* says what runs are held
    against, by default the configuration's and the people's; *freezes* writes reports;
    *monotonic* is the clock that stands still while the machine sleeps; *connect* gives who asks
    other nodes' daemons.
    """
    ledger = Ledger(store, baselines, clock)
    makes = Making(
        config=config,
        catalogue=catalogue,
        book=book,
        clock=clock,
        directory=directory,
        monotonic=monotonic,
        connect=connect,
        verifier=verifier or partial(_verifier, config),
        known=held_against or partial(context, config, attestations, baselines, ledger),
        freezes=freezes or partial(freeze, config=config, catalogue=catalogue),
    )
    return Conductor(
        catalogue.checks,
        store=store,
        clock=clock,
        node=config.node.name,
        boot_id=Processes().boot_id(),
        book=book,
        watch=makes.watched,
        past=makes.judged,
        judge=judge,
        reports=makes.reported,
        freeze=makes.frozen,
        leader=partial(leader, config),
        catch_up=makes.caught_up,
    )


def _verifier(config: Config) -> Verifier:
    return Verifier(config.checkpoints, records=Manifestless(), run=shell.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What the conductor needs of one run: who watches it, its report, how it is judged again."""

    config: Config
    catalogue: Catalogue
    book: JobBook
    clock: Clock
    directory: Path
    monotonic: Callable[[], float]
    connect: Callable[[], Callable[[str], Any]] | None
    verifier: Callable[[], Verifier]
    known: Callable[[Run], Context]
    freezes: Callable[[Watched], Frozen]

    def watched(self, run: Run, check: Check, *, fresh: bool) -> Watched:
        """*run* as it goes on, with a *fresh* file or that of before a restart."""
        file = self._file(run, fresh=fresh)
        return Watched(
            run,
            check,
            file=file,
            recorder=self._recorder(run, check, file),
            tally=Tally(run.plan, self.known(run)),
            sight=Sight(self.book, armed=run.armed_t - run.axis.offset),
            clock=self.clock,
            company=others(self.config, run, file, clock=self.clock, connect=self.connect),
        )

    def caught_up(self, run: Run) -> Run:
        """*run* as far as its file says that it went; as it is where that cannot be read."""
        with suppress(DvfdError):
            return caught_up(run, Run.from_document(Reading(self._path(run)).document()))
        return run

    def _file(self, run: Run, *, fresh: bool) -> RunFile:
        path = self._path(run)
        file = RunFile.create(path, run.to_document()) if fresh else RunFile.open(path)
        file.job, file.every, file.node = run.plan.job, run.plan.every, run.node
        file.set_axis(run.axis, run.armed_t)
        return file

    def _recorder(self, run: Run, check: Check, file: RunFile) -> Recorder:
        return Recorder(
            run,
            check,
            metrics=self.catalogue.metrics,
            book=self.book,
            pen=file,
            saves=Saves(self.verifier(), file),
            clock=self.clock,
            monotonic=self.monotonic,
        )

    def frozen(self, on: Watched) -> Frozen:
        """Its file closed with what it was held against, and the report of that."""
        on.file.put_document(on.run.to_document() | {CONTEXT: self.known(on.run).to_document()})
        return self.freezes(on)

    def judged(self, run: Run, check: Check) -> tuple[Judged, ...]:
        """What its file says, judged again."""
        return judged_again(self._path(run), run, check)

    def reported(self, run: Run, check: Check) -> Frozen:
        """Its report, made again by a child."""
        return by_child(
            evidence(self._path(run), check, config=self.config, catalogue=self.catalogue)
        )

    def _path(self, run: Run) -> Path:
        return self.directory / f"{run.id}.db"


def leader(config: Config, check: Check) -> str | None:
    """Who leads a run of *check* that is armed here: empty if this node does, None where no other
    node takes part, or none is known. Raises ConfigError if the cluster does not know this node.
    """
    if check.nodes == 1 or not config.cluster.nodes:
        return None
    me = here(config)
    return "" if me.name == config.cluster.lead else config.cluster.lead


def others(
    config: Config,
    run: Run,
    file: RunFile,
    *,
    clock: Clock,
    connect: Callable[[], Callable[[str], Any]] | None = None,
) -> Company:
    """The other nodes of *run*, as this one needs to know them."""
    cluster, nodes = config.cluster, run.plan.nodes
    asks = connect or partial(fetcher, cluster)
    if nodes == 1:
        return Alone()
    if run.leader:
        led = cluster.named(run.leader)
        if led is None:
            return Alone(f"{run.leader}, which leads the run, is no longer in [cluster]")
        return Leader(run, led, clock=clock, connect=asks)
    rest = [member for member in cluster.nodes if member.name != run.node]
    if not rest:
        return Alone(f"the run is on {nodes} nodes and [cluster] names none: nothing can pass")
    return Peers(run, rest, file=file, clock=clock, connect=asks)


def context(
    config: Config, attestations: Attestations, baselines: Baselines, ledger: Ledger, run: Run
) -> Context:
    """What *run* is held against: what the configuration says, what people stated, the runs that
    they accepted, and what one process made within a day of it (reading 14).
    """
    job = job_hash(run)
    smaller, same = baselines.smaller(run.plan.processes, job), baselines.baseline(job)
    one, lack = _one_process(ledger, run)
    compared = {SMALLER: smaller, LOSS: same}
    words = {metric: other.words for metric, other in compared.items() if other}
    if one:
        words[EFFICIENCY] = f"against {one.throughput:.5g} samples/s on one process, {one.words}"
    return Context(
        single_process=one.throughput if one else None,
        unbased=lack,
        link=config.profile.link_gbps * GBPS if config.profile.nodes > 1 else None,
        smaller_efficiency=smaller.measured.efficiency if smaller else None,
        baseline=same.measured.curve if same else (),
        accepted=words,
        attested=attestations.values(),
        unattested=attestations.lacks(),
        vouchers=attestations.vouchers(),
    )


def _one_process(ledger: Ledger, run: Run) -> tuple[Point | None, str]:
    """What one process made of the same training within a day of *run*, or why nobody knows."""
    began = run.armed_at + (run.began_t or 0.0)
    ended = run.seen_at if run.ended_at is None else run.ended_at
    here = environment_facts().get("processor", "")
    found = single(
        ledger.points(), job_hash(run), began=began, ended=max(began, ended), processor=here
    )
    if found is None:
        return None, (
            "one process was not measured within a day of the run, with the same training: "
            "dvfd scaling measure --processes 1"
        )
    return (None, f"one process: {found.words}") if found.proves else (found, "")
