"""Answer commands where no daemon lives, on the store that one left. Says which store that was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from dvfd import log
from dvfd.catalogue import load as load_catalogue
from dvfd.clock import SystemClock
from dvfd.config import Config, state_dir
from dvfd.config import load as load_config
from dvfd.control import Peer
from dvfd.drilled import Drilled
from dvfd.drills.findings import Findings
from dvfd.environment import environment_hash
from dvfd.errors import StoreError
from dvfd.evidence import bundle
from dvfd.evidence.ledger import Evidence
from dvfd.evidence.shown import Shown
from dvfd.evidence.witness import Witness
from dvfd.gates.gatehouse import Gatehouse
from dvfd.history.chosen import Chosen
from dvfd.incidents.at_once import AtOnce
from dvfd.incidents.protocol import Incidents, Kept, present
from dvfd.judgements import Judgements
from dvfd.model import Catalogue
from dvfd.operations import hours as checked
from dvfd.people.attestations import Attestations
from dvfd.people.signoffs import SignOffs
from dvfd.people.waivers import Waivers
from dvfd.query import history, known
from dvfd.remembered import remembered
from dvfd.reporting import accounts
from dvfd.reporting.asked import Given
from dvfd.reporting.asked import answer as report_of_job
from dvfd.reviews.capacity import capacity
from dvfd.reviews.restore import MANIFESTS, Restorer, last_seen
from dvfd.reviews.review import Reviews
from dvfd.runs.baselines import Baselines
from dvfd.runs.run import Run
from dvfd.scaling import ledger as scaling
from dvfd.scaling.ledger import Ledger
from dvfd.state import Sources, State
from dvfd.status import document
from dvfd.store import Store, report_document
from dvfd.telemetry.processes import Processes

NO_DAEMON = "no daemon runs here"


def judge_alone(name: str, findings: Findings | None = None) -> tuple[dict[str, Any], str]:
    """Judge check *name* on the store, which is opened exclusively; the report and the store.

    With *findings*, those of its drill, which are kept first.

    Raises DvfdError if there is no such check, StoreError if somebody else has the store.
    """
    config, catalogue, clock = _framework()
    check = catalogue.checks[known({"check": name}, "check", catalogue.checks)]
    with _opened(catalogue, clock) as store:
        drilled = Drilled(catalogue, store)
        evidence = _evidence(config, store, clock)
        if findings is not None:
            findings = replace(findings, by=_here().name)
            drilled.keep(findings, at=clock.now())
        chosen = Chosen(config, catalogue.metrics, store)
        judgements = Judgements(
            catalogue,
            store=store,
            clock=clock,
            node=config.node.name,
            profile_hash=config.profile_hash,
            environment_hash=environment_hash(),
            trouble=lambda _metric, _where: NO_DAEMON,
            maintenance=config.maintenance,
            drilled=drilled.newest,
            reviewed=_reviews(config, catalogue, store, clock, chosen).of,
            attested=Attestations(catalogue, store, clock).judged,
            waived=Waivers(catalogue, evidence, clock).applied,
            windows=chosen.windows,
        )
        report = judgements.run_check(check)
        opened = ""
        if findings is not None:
            Witness(evidence, state_dir()).tested(report, findings)
            opened = _failed(config, catalogue, store, clock, evidence)
        where, notice = store.health().path, store.health().reason
        return report_document(report), "; ".join(filter(None, (where, notice, NO_DAEMON, opened)))


def _failed(
    config: Config, catalogue: Catalogue, store: Store, clock: SystemClock, evidence: Evidence
) -> str:
    """Open what incident the test's failure asks for, and preserve; which, in words."""
    incidents = _incidents(config, catalogue, store, clock, evidence, settle=store.flush)
    incidents.load()
    opened = incidents.unpreserved()
    for incident in opened:
        incidents.act(incident)
    _kept(store)
    shown = ", ".join(f"dvfd incident show {incident}" for incident in opened)
    return f"an incident was opened, and no daemon calls anybody: {shown}" if opened else ""


def _incidents(
    config: Config,
    catalogue: Catalogue,
    store: Kept,
    clock: SystemClock,
    evidence: Evidence,
    *,
    keeps: bool = True,
    settle: Callable[[], object] = bool,
) -> Incidents:
    boot_id = Processes().boot_id()
    now = partial(present, clock, boot_id)
    return Incidents(
        catalogue,
        store=store,
        evidence=evidence,
        clock=clock,
        boot_id=boot_id,
        directory=state_dir() / "incidents",
        node=config.node.name,
        phase=config.node.phase,
        at_once=AtOnce(config, catalogue, state=state_dir(), now=now, settle=settle),
        keeps=keeps,
    )


def incidents_alone() -> dict[str, Any]:
    """Like the daemon's `incidents`, from what is on disk; without a store there is none."""
    with _told_incidents() as incidents:
        return incidents.document()


def incident_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `incident`, from what is on disk. Raises DvfdError."""
    with _told_incidents() as incidents:
        return incidents.show(request)


@contextmanager
def _told_incidents() -> Iterator[Incidents]:
    """How the incidents stand now; nothing is written."""
    config, catalogue, clock = _framework()
    if not (state_dir() / "dvfd.db").exists():
        evidence = Evidence(state_dir() / "evidence", clock)
        yield _incidents(config, catalogue, Nothing(), clock, evidence, keeps=False)
        return
    with _beside(catalogue, clock) as store:
        evidence = _evidence(config, store, clock)
        found = _incidents(config, catalogue, store, clock, evidence, keeps=False)
        found.load()
        yield found


def incident_update_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `incident_update`, into the store on disk. Raises DvfdError."""
    config, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        evidence = _evidence(config, store, clock)
        incidents = _incidents(config, catalogue, store, clock, evidence)
        incidents.load()
        told = incidents.update(request, _here().name)
        _kept(store)
        return told


def _reviews(
    config: Config, catalogue: Catalogue, store: Store, clock: SystemClock, chosen: Chosen
) -> Reviews:
    accepted = Baselines(state_dir() / "runs", store, clock)
    restorer = Restorer(
        lambda: last_seen(store.all(MANIFESTS)), settings=config.checkpoints, records=store
    )
    return Reviews(
        store,
        accepted,
        clock,
        restored=restorer.restored,
        capacity=lambda: capacity(Ledger(store, accepted, clock), catalogue),
        price=config.cost,
        excused=config.maintenance,
        keep=store.write,
        history=chosen if chosen.asks else None,
    )


def status_alone() -> dict[str, Any]:
    """The status document from what is on disk; nothing is live, so the node is UNKNOWN."""
    config, catalogue, clock = _framework()
    path = state_dir() / "dvfd.db"
    try:
        path.stat()
    except FileNotFoundError:
        return document(State(config, catalogue, Sources(), clock=clock).snapshot(), running=False)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    store = Store.read_only(path, catalogue.metrics, clock)
    try:
        evidence = _evidence(config, store, clock)
        incidents = _incidents(config, catalogue, store, clock, evidence, keeps=False)
        incidents.load()
        gatehouse = Gatehouse(config, catalogue, evidence, clock)
        sources = Sources(
            latest=store.latest,
            store=store.health,
            failures=incidents.failures,
            gates=gatehouse.shown,
        )
        state = State(config, catalogue, sources, clock=clock)
        for report in remembered(store, catalogue, config.profile_hash):
            state.tell(report)
        return document(state.snapshot(), running=False)
    finally:
        store.stop()


def history_alone(name: str, hours: float) -> dict[str, Any]:
    """Like the daemon's `history`, from the store on disk. Raises StoreError if there is none."""
    _, catalogue, clock = _framework()
    known({"metric or check": name}, "metric or check", [*catalogue.metrics, *catalogue.checks])
    with _beside(catalogue, clock) as store:
        until = clock.now()
        since = until - 3600.0 * checked(hours)
        return history(name, catalogue, store, since=since, until=until)


def goodput_alone(job: str, hours: float) -> dict[str, Any]:
    """Like the daemon's `goodput`, from the store on disk. Raises StoreError if there is none."""
    _, catalogue, clock = _framework()
    with _beside(catalogue, clock) as store:
        until = clock.now()
        since = until - 3600.0 * checked(hours)
        return dict(accounts.document(store, job=job, since=since, until=until))


def job_report_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `job_report`, from the store on disk. Raises DvfdError."""
    config, catalogue, clock = _framework()
    given = Given(
        request=request,
        path=state_dir() / "dvfd.db",
        metrics=catalogue.metrics,
        node=config.node.name,
        cost=config.cost,
    )
    return report_of_job(given, clock)


def accept_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `stability_accept`, into the store on disk. Raises DvfdError."""
    _, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        document = store.get("run", known(request, "id", list(store.all("run"))))
        made = Baselines(state_dir() / "runs", store, clock).accept(
            Run.from_document(document or {}), request, _here().name
        )
        _kept(store)
        return made.to_document()


def accepted_alone() -> dict[str, Any]:
    """Like the daemon's `stability_accepted`. Raises StoreError if there is no store."""
    _, catalogue, clock = _framework()
    with _beside(catalogue, clock) as store:
        return Baselines(state_dir() / "runs", store, clock).document()


def scaling_alone() -> dict[str, Any]:
    """Like the daemon's `scaling`, from the store on disk; without one the ledger is empty."""
    _, catalogue, clock = _framework()
    directory = state_dir() / "runs"
    if not (state_dir() / "dvfd.db").exists():
        nothing = Nothing()
        return Ledger(nothing, Baselines(directory, nothing, clock), clock).document()
    with _beside(catalogue, clock) as store:
        return Ledger(store, Baselines(directory, store, clock), clock).document()


def scaling_kept_alone(op: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `scaling_measured`, `scaling_record` or `scaling_freeze`, into the store
    on disk. Raises StoreError if that is in use.
    """
    _, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        ledger = Ledger(store, Baselines(state_dir() / "runs", store, clock), clock)
        made: Any = scaling.operations(ledger)[op].answer(request, _here())
        _kept(store)
        return dict(made)


def attest_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `attest`, into the store on disk. Raises StoreError if that is in use."""
    config, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        evidence = _evidence(config, store, clock)
        made = Attestations(catalogue, store, clock, evidence).attest(request, _here().name)
        _kept(store)
        return asdict(made)


def attestations_alone() -> dict[str, Any]:
    """Like the daemon's `attestations`, from the store on disk; without one nobody said a thing."""
    _, catalogue, clock = _framework()
    if not (state_dir() / "dvfd.db").exists():
        return Attestations(catalogue, Nothing(), clock).document()
    with _beside(catalogue, clock) as store:
        return Attestations(catalogue, store, clock).document()


def waive_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `waive`, into the ledger on disk. Raises StoreError if that is in use."""
    config, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        waivers = Waivers(catalogue, _evidence(config, store, clock), clock)
        made = waivers.waive(request, _here().name)
        _kept(store)
        return asdict(made)


def waivers_alone() -> dict[str, Any]:
    """Like the daemon's `waivers`, from the ledger on disk."""
    config, catalogue, clock = _framework()
    with _ledger(config, catalogue, clock) as evidence:
        return Waivers(catalogue, evidence, clock).document()


def signoff_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `signoff`, into the ledger on disk. Raises StoreError if that is in use."""
    config, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        signoffs = SignOffs(catalogue, _evidence(config, store, clock))
        made = signoffs.sign(request, _here().name)
        _kept(store)
        return made.to_document()


def signoffs_alone() -> dict[str, Any]:
    """Like the daemon's `signoffs`, from the ledger on disk."""
    config, catalogue, clock = _framework()
    with _ledger(config, catalogue, clock) as evidence:
        return SignOffs(catalogue, evidence).document()


def evidence_alone() -> Shown:
    """The ledger on disk, held against the store where there is one."""
    config, catalogue, clock = _framework()
    path = state_dir() / "dvfd.db"
    store = Store.read_only(path, catalogue.metrics, clock) if path.exists() else None
    return Shown(_evidence(config, store, clock), state_dir())


def renew_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `evidence_renew`. Raises StoreError if the store is in use."""
    config, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        shown = Shown(_evidence(config, store, clock), state_dir())
        made = shown.renew(request, _here().name)
        _kept(store)
        return made


def bundle_checked(path: Path, *, cluster: str, head: str) -> dict[str, Any]:
    """The bundle at *path*, checked; it says so where the ledger here is of another cluster."""
    found = bundle.opened(path, cluster=cluster, head=head)
    ours = Evidence(state_dir() / "evidence", SystemClock()).cluster
    if ours and ours != found.cluster:
        words = f"the ledger here is of another cluster, {ours}"
        found = replace(found, notices=(*found.notices, words))
    return asdict(found)


def gates_alone() -> dict[str, Any]:
    """Like the daemon's `gates`, from the ledger on disk."""
    config, catalogue, clock = _framework()
    with _ledger(config, catalogue, clock) as evidence:
        return Gatehouse(config, catalogue, evidence, clock).document()


def sign_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Like the daemon's `sign`, into the ledger on disk. Raises StoreError if that is in use."""
    config, catalogue, clock = _framework()
    with _opened(catalogue, clock) as store:
        evidence = _evidence(config, store, clock)
        made = Gatehouse(config, catalogue, evidence, clock).sign(request, _here().name)
        _kept(store)
        return made


@contextmanager
def _ledger(config: Config, catalogue: Catalogue, clock: SystemClock) -> Iterator[Evidence]:
    """The ledger, to read only, held against the store where there is one."""
    if not (state_dir() / "dvfd.db").exists():
        yield _evidence(config, None, clock)
        return
    with _beside(catalogue, clock) as store:
        yield _evidence(config, store, clock)


class Nothing:
    """What is kept where no store is."""

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Raises StoreError: there is nowhere to keep it."""
        raise StoreError(f"{kind} {key}: there is no store; {NO_DAEMON}")

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Nothing."""
        return {}


def _here() -> Peer:
    """Who types this."""
    return Peer(os.getpid(), os.getuid(), os.getgid())


def _evidence(config: Config, store: Store | None, clock: SystemClock) -> Evidence:
    return Evidence(state_dir() / "evidence", clock, node=config.node.name, store=store)


def _kept(store: Store) -> None:
    """Raises StoreError unless all is on the disk."""
    if not store.flush():
        raise StoreError(f"nothing was kept: {store.health().reason or 'the disk is slow'}")


@contextmanager
def _opened(catalogue: Catalogue, clock: SystemClock) -> Iterator[Store]:
    """The store, opened exclusively. Raises StoreError if somebody else has it."""
    store = Store(state_dir() / "dvfd.db", metrics=catalogue.metrics, clock=clock)
    store.start()
    try:
        if not store.health().ok:
            raise StoreError(store.health().reason)
        yield store
    finally:
        store.stop()


@contextmanager
def _beside(catalogue: Catalogue, clock: SystemClock) -> Iterator[Store]:
    """The store, to read only. Raises StoreError if there is none."""
    path = state_dir() / "dvfd.db"
    if not path.exists():
        raise StoreError(f"{path}: not there, so nothing is remembered; {NO_DAEMON}")
    store = Store.read_only(path, catalogue.metrics, clock)
    try:
        yield store
    finally:
        store.stop()


def _framework() -> tuple[Config, Catalogue, SystemClock]:
    log.setup("error")  # to stderr: stdout belongs to the answer, which tells of trouble itself
    config = load_config()
    return config, load_catalogue(config), SystemClock()
