"""The composition root: builds every part, starts them in order, ends them in reverse."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import structlog

from dvfd import __version__, notify, probes
from dvfd.anew import Anew
from dvfd.breaches import Breaches
from dvfd.catalogue import load as load_catalogue
from dvfd.clock import SystemClock
from dvfd.config import Config, runtime_dir, state_dir
from dvfd.control import ControlServer
from dvfd.drilled import Drilled
from dvfd.environment import environment_hash
from dvfd.errors import ConfigError, DvfdError, StoreError
from dvfd.evidence.ledger import Evidence
from dvfd.evidence.shown import Shown
from dvfd.evidence.witness import Witness
from dvfd.gates.gatehouse import Gatehouse
from dvfd.history.chosen import Chosen
from dvfd.identity import Identity
from dvfd.incidents.at_once import AtOnce
from dvfd.incidents.protocol import Incidents, present
from dvfd.judgements import Judgements
from dvfd.model import Check, Clock, Criterion, Kind, Labels, Metric, Report, Sample, Sink
from dvfd.operations import Parts, operations
from dvfd.people.attestations import Attestations
from dvfd.people.signoffs import SignOffs
from dvfd.people.waivers import WAIVABLE, Waivers
from dvfd.reload import Reload, has_terminal, start_anew
from dvfd.reload import check as check_new
from dvfd.remembered import remembered
from dvfd.reviews.capacity import capacity
from dvfd.reviews.due import Dues
from dvfd.reviews.restore import Restorer
from dvfd.reviews.review import Reviews
from dvfd.runs.baselines import Baselines
from dvfd.runs.conductor import Conductor
from dvfd.runs.parts import conduct
from dvfd.runs.served import Served
from dvfd.runs.shown import shown
from dvfd.sampler import Sampler
from dvfd.scaling.ledger import Ledger
from dvfd.schedule import Schedule, offset
from dvfd.sinks import log as log_sink
from dvfd.sinks.alertmanager import Sender, push
from dvfd.sinks.pager import Pager
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.sinks.web import Web
from dvfd.state import Failures, Loop, NoWeb, RunState, Sources, State
from dvfd.status import document
from dvfd.store import Store
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.processes import Processes
from dvfd.telemetry.receiver import Receiver
from dvfd.watch import Watch

log = structlog.get_logger()

TICK = 1.0
"""Seconds between looks at the loops, and between signs of life to systemd: fewer if it wants."""

LIMITS = {
    "sampler": 15.0,
    "watch": 30.0,
    "receiver": 15.0,
    "writer": 30.0,
    "schedule": 60.0,
    "http": 15.0,
    "sender": 60.0,
    "run": 60.0,
}
"""Seconds without progress after which a loop is late: several times its own slowest beat."""

AGAIN = 60.0
"""Seconds until what could not be written down, on a full disk, is tried again."""

ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for an orderly end."""

M_ARENA_MAX = -8
"""mallopt(3): eight threads would otherwise grow eight arenas, about 15 MiB that nobody uses."""


class Daemon:
    """One node's dvfd. Building it reads the catalogue and touches nothing else."""

    def __init__(
        self, config: Config, *, path: Path | None = None, clock: Clock | None = None
    ) -> None:
        """*path* is where a reload reads; None means the usual place.

        Raises ConfigError if the catalogue does not fit the configuration.
        """
        self._config = config
        self._path = path
        self._clock = clock or SystemClock()
        self._reload = Reload(self._clock.now(), succeeded_at=self._clock.now())
        self._catalogue = load_catalogue(config)
        self._signals: SimpleQueue[int] = SimpleQueue()  # its put is safe in a signal handler
        self._late: frozenset[str] = frozenset()
        self._stopped = False
        self._again = 0.0
        self._every = notify.beat(TICK)
        self._build(state_dir(), runtime_dir())

    def run(self) -> None:
        """Start, watch until SIGTERM or SIGINT, stop. SIGHUP takes the configuration anew."""
        for number in (*ENDING, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        try:
            self.start()
            ending = self._watch_until_signalled()
            log.info("stopping", signal=ending.name)
            notify.notify("STOPPING=1")
        finally:
            self.stop()
            for number in ENDING:  # a second one must not kill the interpreter while it ends
                signal.signal(number, signal.SIG_IGN)

    def _watch_until_signalled(self) -> signal.Signals:
        """Tick until the end is asked for; a good new configuration never comes back from here."""
        while True:
            match self._signalled():
                case None:
                    self.tick()
                case signal.SIGHUP if not has_terminal():
                    self._take_anew()
                case ending:
                    return ending

    def _take_anew(self) -> None:
        """Start anew with a configuration that could be started with, or go on and say why not."""
        now = self._clock.now()
        try:
            check_new(self._path, self._config)
        except ConfigError as error:
            self._reload = replace(self._reload, at=now, problems=error.problems)
            told = "configuration refused, the old one stays"
            log.error(told, problems=error.problems)  # noqa: TRY400  # the mistakes, not our stack
            return
        log.info("the configuration is taken anew")
        start_anew(self.stop, self._told_to_end)

    def _told_to_end(self) -> bool:
        """Whether an end was asked for meanwhile; it stays asked for. Reloads are forgotten."""
        asked = []
        with suppress(Empty):
            while True:
                asked.append(self._signals.get_nowait())
        for number in (endings := [number for number in asked if number in ENDING]):
            self._signals.put(number)
        return bool(endings)

    def start(self) -> None:
        """Start everything; READY once the first pass over the live criteria is judged."""
        began = time.monotonic()
        with suppress(OSError, AttributeError):  # another libc: more memory, nothing else
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
        self._store.start()
        self._breaches.load()
        for report in remembered(self._store, self._catalogue, self._config.profile_hash):
            self._state.tell(report)
        self._runs.take_up()
        self._incidents.load()
        self._open_doors()
        self._take_stock()
        self._incidents.start()
        self._runs.start()
        self._sampler.start()
        self._watch.start()
        self._sender.start()
        last = {c: self._store.last_run(c) for c in self._schedules()}
        self._apply_waivers()
        self._schedule.start(last)
        settle()
        notify.notify("READY=1")
        log.info(
            "watching",
            version=__version__,
            node=self._config.node.name,
            page=self.address,
            store=self._store.health().path,
            catalogue=self._catalogue.hash[:12],
            seconds=round(time.monotonic() - began, 3),
        )
        if reason := self._store.health().reason:
            log.warning("the store must be looked at", reason=reason)
        for notice in self._config.calibrated.notices:
            log.warning("calibration must be looked at", notice=notice)
        for notice in self._config.outdated:
            log.warning("configuration has an older key", notice=notice)

    def stop(self) -> None:
        """End everything in reverse, once; what waits for the disk is written."""
        if self._stopped:  # to start anew, when the end was asked for
            return
        self._stopped = True
        self._watch.stop()
        self._anew.stop()
        self._schedule.stop()
        self._sampler.stop()
        self._runs.stop()
        self._incidents.stop()
        self._receiver.stop()
        self._sender.stop()
        self._control.stop()
        self._server.stop()
        self._store.stop()
        log.info("stopped")

    def tick(self) -> None:
        """Look after the loops: tell systemd that all is well, or the log that it is not."""
        if self._schedule.tick():
            log.warning("the wall clock was stepped; schedules are planned anew")
        self._dues.tick()
        late = frozenset(name for name, loop in self.loops().items() if loop.late)
        for name in late - self._late:
            log.error("loop is late", loop=name, limit=LIMITS[name])
        for name in self._late - late:
            log.info("loop goes on", loop=name)
        self._late = late
        if self._witness.owed and self._clock.boot() >= self._again:
            self._again = self._clock.boot() + AGAIN
            self._write_down()
        for check in self._state.lapsed():
            if self._anew.ask(check, partial(self._judge_anew, check)):
                log.info("a waiver has ended", check=check)
        self._anew.tick()
        if not late:
            notify.notify("WATCHDOG=1")

    def loops(self) -> dict[str, Loop]:
        """How long ago each loop made progress, beside its limit, in seconds."""
        now = self._clock.boot()
        beats = {
            "sampler": self._sampler.beat(),
            "watch": self._watch.beat(),
            "receiver": self._receiver.beat(),
            "writer": self._store.beat(),
            "schedule": self._schedule.beat(),
            "http": self._server.beat(),
            "sender": self._sender.beat(),
            "run": self._runs.beat(),
        }
        return {name: Loop(max(0.0, now - beat), LIMITS[name]) for name, beat in beats.items()}

    @property
    def address(self) -> str:
        """Where the page is."""
        scheme = "https" if self._web and self._web.context() else "http"
        return f"{scheme}://{self._config.http.host}:{self._server.port}/"

    def _build(self, state: Path, runtime: Path) -> None:
        self._state_dir = state
        self._store = Store(state / "dvfd.db", metrics=self._catalogue.metrics, clock=self._clock)
        self._build_sources(state, runtime)
        self._build_judging()
        self._build_doors(runtime)

    def _build_sources(self, state: Path, runtime: Path) -> None:
        """What measures: ranks and probes."""
        config, clock = self._config, self._clock
        self._book = JobBook(config.jobs, clock, on_end=self._on_end)
        self._receiver = Receiver(
            ingest_path(runtime),
            self._book,
            self._store,
            clock,
            self._wake,
            lines=config.jobs.limit * config.jobs.ranks_limit,
        )
        self._probes = probes.build(
            config,
            book=self._book,
            store=self._store,
            clock=clock,
            state=state,
            publish=self._receiver.publish,
            turn=lambda job: offset(config.node.name, f"checkpoint of {job}", 1.0),
            metrics=self._catalogue.metrics.values(),
        )
        self._sampler = Sampler(self._probes.all, write=self._on_sampled, clock=clock)

    def _take_stock(self) -> None:
        """Write down what an earlier daemon did not come to, or had no ledger for."""
        self._write_down()
        try:
            self._attestations.enter()
        except StoreError as error:
            log.error("statements not in the ledger", reason=str(error))  # noqa: TRY400  # as above
        for problem in self._evidence.problems():
            log.error("the ledger of evidence does not verify", problem=problem)

    def _build_judging(self) -> None:
        """What judges, at once and by the calendar, and what pages."""
        config, clock, catalogue = self._config, self._clock, self._catalogue
        self._pager = Pager(self._store, push=push(config))
        self._pager.listen(log_sink.tell)
        self._sender = Sender(self._pager, config, clock=clock)
        self._breaches = Breaches(
            config, catalogue, self._pager, self._store, clock=clock, mute=self._explained
        )
        self._state = State(config, catalogue, self._sources(), clock=clock)
        self._drilled = Drilled(self._catalogue, self._store)
        self._evidence = Evidence(
            self._state_dir / "evidence", clock, node=config.node.name, store=self._store
        )
        self._gatehouse = Gatehouse(config, catalogue, self._evidence, clock)
        self._waivers = Waivers(catalogue, self._evidence, clock)
        self._witness = Witness(self._evidence, self._state_dir)
        self._attestations = Attestations(catalogue, self._store, clock, self._evidence)
        self._baselines = Baselines(self._state_dir / "runs", self._store, clock)
        self._ledger = Ledger(self._store, self._baselines, clock)
        self._chosen = Chosen(config, catalogue.metrics, self._store)
        self._reviews = self._review()
        self._runs = self._conduct()
        self._incidents = self._follow_failures()
        self._judgements = self._judge_with((self._state, self._breaches))
        self._anew = Anew(clock)
        self._watch = self._watch_over([c for c in catalogue.checks.values() if c.watch])
        self._schedule = Schedule(
            self._schedules(),
            zone=config.schedule.zone,
            node=config.node.name,
            jitter=config.schedule.jitter,
            run=self._on_schedule,
            clock=clock,
        )

        self._dues = Dues(
            catalogue,
            attestations=self._attestations,
            lists=self._store,
            pager=self._pager,
            next_runs=self._schedule.next_runs,
            clock=clock,
            jitter=config.schedule.jitter,
        )

    def _build_doors(self, runtime: Path) -> None:
        """What people and scrapers talk to."""
        clock = self._clock
        served = Served(self._runs, self._state_dir / "runs", clock)
        identity = Identity(self._config)
        self._site = Site(self._state.snapshot, self._store, identity, served)
        path = self._config.http.web_config
        self._web = Web(path, clock) if path else None
        self._server = HttpServer(self._site, self._config.http, clock=clock, web=self._web)
        self._control = ControlServer(runtime / "control.sock", operations(self._parts()))

    def _parts(self) -> Parts:
        """What answers on the control socket."""
        return Parts(
            catalogue=self._catalogue,
            state=self._state,
            store=self._store,
            judgements=self._judgements,
            drilled=self._drilled,
            sender=self._sender,
            receiver=self._receiver,
            clock=self._clock,
            address=lambda: self.address,
            conductor=self._runs,
            attestations=self._attestations,
            baselines=self._baselines,
            ledger=self._ledger,
            witness=self._witness,
            waivers=self._waivers,
            gatehouse=self._gatehouse,
            changed=self._judge_anew,
            shown=Shown(self._evidence, self._state_dir),
            incidents=self._incidents,
            signoffs=SignOffs(self._catalogue, self._evidence),
        )

    def _sources(self) -> Sources:
        return Sources(
            latest=self._store.latest,
            probes=self._sampler.health,
            loops=self.loops,
            store=self._store.health,
            jobs=self._book.snapshot,
            log_lines=self._log_lines,
            raised=self._pager.raised,
            delivery=self._sender.health,
            ingest=self._receiver.counters,
            http=self._http,
            scraped=lambda: self._site.scraped_at,
            reload=lambda: self._reload,
            web=lambda: self._web or NoWeb(),
            run=self._run_on,
            evidence=self._ledger_notices,
            failures=self._failures,
            gates=self._gates,
        )

    def _ledger_notices(self) -> list[str]:
        broken = [f"the ledger does not verify: {p}" for p in self._evidence.problems()[:1]]
        return [*broken, *self._evidence.notices()]

    def _log_lines(self) -> list[dict[str, Any]]:
        return [asdict(match) for match in self._probes.logs.recent()]

    def _run_on(self) -> RunState | None:
        """The stability run that is on; none is no error."""
        with suppress(DvfdError):
            return shown(self._runs.status(), self._catalogue.checks)
        return None

    def _failures(self) -> Failures:
        return self._incidents.failures()

    def _gates(self) -> dict[str, Any]:
        return self._gatehouse.shown()

    def _http(self) -> dict[str, int]:
        return self._server.counters()

    def _judge_with(self, sinks: Sequence[Sink]) -> Judgements:
        return Judgements(
            self._catalogue,
            store=self._store,
            clock=self._clock,
            sinks=sinks,
            node=self._config.node.name,
            profile_hash=self._config.profile_hash,
            environment_hash=environment_hash(),
            trouble=self._sampler.trouble,
            words=self._said,
            unseen=self._sampler.unseen,
            maintenance=self._config.maintenance,
            drilled=self._drilled.newest,
            reviewed=self._reviews.of,
            runs=self._runs.results,
            attested=self._attestations.judged,
            waived=self._waivers.applied,
            windows=self._chosen.windows,
        )

    def _review(self) -> Reviews:
        """What makes the figures of the weekly and the monthly list."""
        return Reviews(
            self._store,
            self._baselines,
            self._clock,
            restored=Restorer(
                self._book.checkpoints,
                settings=self._config.checkpoints,
                records=self._store,
            ).restored,
            capacity=lambda: capacity(self._ledger, self._catalogue),
            price=self._config.cost,
            excused=self._config.maintenance,
            keep=self._store.write,
            history=self._chosen if self._chosen.asks else None,
        )

    def _conduct(self) -> Conductor:
        """Who conducts stability runs."""
        return conduct(
            self._config,
            self._catalogue,
            store=self._store,
            book=self._book,
            clock=self._clock,
            directory=self._state_dir / "runs",
            judge=self._on_run,
            attestations=self._attestations,
            baselines=self._baselines,
        )

    def _follow_failures(self) -> Incidents:
        """Who keeps the incidents, and does at once what a failed test of a phase asks for."""
        config, catalogue = self._config, self._catalogue
        boot_id = Processes().boot_id()
        at_once = AtOnce(
            config,
            catalogue,
            state=self._state_dir,
            now=partial(present, self._clock, boot_id),
            job_of=lambda run: self._runs.run(run).plan.job,
            named=self._book.named,
            registered=self._book.registered,
            unseen=self._book.unseen,
            status=lambda: document(self._state.snapshot(), running=True),
            settle=self._store.flush,
        )
        return Incidents(
            catalogue,
            store=self._store,
            evidence=self._evidence,
            clock=self._clock,
            boot_id=boot_id,
            directory=self._state_dir / "incidents",
            node=config.node.name,
            phase=config.node.phase,
            pager=self._pager,
            at_once=at_once,
            known=lambda: self._store.known,
        )

    def _watch_over(self, live: Sequence[Check]) -> Watch:
        if len(live) != 1:
            raise ConfigError([f"checks: {len(live)} checks have watch = true, wanted 1"])
        return Watch(
            live[0],
            self._on_watch,
            clock=self._clock,
            interval=self._config.sampling.interval,
            events=[m.name for m in self._catalogue.metrics.values() if is_event(m)],
            deadline=self._book.next_deadline,
            overdue=self._look_at_ranks,
        )

    def _schedules(self) -> dict[str, str]:
        """Cron by check, for the checks that have a schedule."""
        return {
            check.id: check.schedule for check in self._catalogue.checks.values() if check.schedule
        }

    def _open_doors(self) -> None:
        """Listen for ranks, scrapers and commands. Raises ConfigError if a door is taken.

        Commands come last: who is answered may count on the others, and on the page's port.
        """
        try:
            self._receiver.start()
            self._server.start()
            self._control.start()
        except OSError as error:
            raise ConfigError([f"cannot listen: {error}"]) from None

    # --- What the parts call --------------------------------------------------------------------

    def _wake(self, metrics: Iterable[str]) -> None:
        self._watch.wake(metrics)

    def _on_sampled(self, samples: list[Sample]) -> None:
        self._store.write(samples, looked=True)
        self._runs.sampled(samples)
        self._watch.notice(samples)

    def _on_watch(self, check: Check, criteria: tuple[Criterion, ...]) -> Report:
        whole = len(criteria) == len(check.criteria)
        return self._judgements.run_check(check, None if whole else criteria)

    def _on_schedule(self, check: str, scheduled: float) -> None:
        report = self._judgements.run_check(self._catalogue.checks[check], scheduled=scheduled)
        log.info("check judged", check=check, verdict=report.verdict, late=round(report.late))

    def _on_run(self, check: Check) -> None:
        self._judgements.run_check(check, scheduled=self._clock.now())
        self._write_down()

    def _apply_waivers(self) -> None:
        """Have judged anew what was waived while no daemon lived. It calls nobody: a list that was
        missed meanwhile is still caught up.
        """
        shown = self._state.snapshot().results
        stand = {c for c in self._waivers.stand(self._clock.now()) if c in shown}
        bare = {shown[c].criterion.check for c in stand if shown[c].verdict in WAIVABLE}
        for check in (self._catalogue.checks[name] for name in sorted(bare)):
            if not check.watch:
                self._anew.ask(check.id, partial(self._judgements.run_check, check))
        self._anew.tick()

    def _judge_anew(self, criterion: str) -> None:
        """Somebody waived *criterion*, or it is waived no more: whoever is paged for it hears."""
        check = self._catalogue.checks[criterion.partition(".")[0]]
        paged = bool(check.schedule or check.every)  # asked for by a person, it would call nobody
        self._judgements.run_check(check, scheduled=self._clock.now() if paged else None)

    def _write_down(self) -> None:
        """See that every run that is over stands in the ledger."""
        try:
            self._witness.ran(self._runs.runs(), self._catalogue.checks)
        except StoreError as error:
            log.error("the ledger cannot be read", reason=str(error))  # noqa: TRY400  # said in full

    def _on_end(self, labels: Mapping[str, str]) -> None:
        self._store.end_series(labels, self._clock.now())

    def _said(self, metric: str, where: Labels = ()) -> str:
        """What the source of a series, or the rank that it is of, says itself of what is wrong."""
        return self._sampler.words(metric, where) or self._book.said(metric, dict(where))

    def _explained(self, metric: str, of: Mapping[str, str]) -> bool:
        """Whether what somebody was told of already explains the silence of a series."""
        known = self._book.mute(metric, of)
        return known or self._probes.checkpoints.explains(metric, of)

    def _look_at_ranks(self) -> Iterable[str]:
        """A rank's silence has reached its limit: measure it now."""
        samples = self._probes.ranks.silence(self._clock.now())
        self._store.write(samples, looked=True)
        return {sample.metric for sample in samples}

    def _signalled(self) -> signal.Signals | None:
        """The signal that tells us to end, or None after a tick without one."""
        with suppress(Empty):
            return signal.Signals(self._signals.get(timeout=self._every))
        return None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Only take note: the main thread may hold any lock, that of the log too."""
        self._signals.put(number)


def settle() -> None:
    """Have the garbage collector look no more at what was loaded, which stays: looking through all
    of it took up to 170 ms, in which nothing else went on.
    """
    gc.collect()
    gc.freeze()


def is_event(metric: Metric) -> bool:
    """Whether a value that moves is something that happened, not a level that wanders."""
    return metric.kind is Kind.COUNTER or metric.unit == "bool"


def ingest_path(runtime: Path) -> Path:
    """Where ranks connect: $DVFD_SOCKET, else in the runtime directory."""
    return Path(os.environ.get("DVFD_SOCKET") or runtime / "ingest.sock")
