"""Answer commands where no daemon lives: by the daemon's own operations, on what one left on disk.

Says which store that was. A test is judged on it as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dvfd import log
from dvfd.catalogue import load as load_catalogue
from dvfd.clock import SystemClock
from dvfd.config import Config, state_dir
from dvfd.config import load as load_config
from dvfd.control import Operation, Peer
from dvfd.drilled import Drilled
from dvfd.drills.findings import Findings
from dvfd.environment import environment_hash
from dvfd.errors import StoreError
from dvfd.evidence import bundle, shown
from dvfd.evidence.ledger import Evidence
from dvfd.evidence.witness import Witness
from dvfd.gates import gatehouse
from dvfd.history.chosen import Chosen
from dvfd.incidents import protocol
from dvfd.incidents.at_once import AtOnce
from dvfd.incidents.protocol import Incidents
from dvfd.judgements import Judgements
from dvfd.model import Catalogue
from dvfd.operations import past
from dvfd.people import attestations, signoffs, waivers
from dvfd.query import known
from dvfd.remembered import remembered
from dvfd.reporting.asked import Given
from dvfd.reporting.asked import answer as report_of_job
from dvfd.reviews.capacity import capacity
from dvfd.reviews.restore import MANIFESTS, Restorer, last_seen
from dvfd.reviews.review import Reviews
from dvfd.runs import baselines
from dvfd.runs.run import Run
from dvfd.scaling import ledger
from dvfd.state import Sources, State
from dvfd.status import document
from dvfd.store import Store, report_document
from dvfd.telemetry.processes import Processes

NO_DAEMON = "no daemon runs here"

Operations = Mapping[str, Operation]


class Nothing:
    """What is kept where no store is."""

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Raises StoreError: there is nowhere to keep it."""
        raise StoreError(f"{kind} {key}: there is no store; {NO_DAEMON}")

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Desk:
    """Those parts of a daemon that need no more than the disk. `found` is None without a store."""

    config: Config
    catalogue: Catalogue
    clock: SystemClock
    found: Store | None

    @property
    def store(self) -> Store:
        """Raises StoreError if there is none."""
        if self.found is None:
            raise StoreError(f"{_path()}: not there, so nothing is remembered; {NO_DAEMON}")
        return self.found

    @property
    def kept(self) -> Store | Nothing:
        """For what may as well never have been said."""
        return self.found or Nothing()

    @property
    def evidence(self) -> Evidence:
        """The ledger, held against the store where there is one."""
        return Evidence(
            state_dir() / "evidence",
            self.clock,
            node=self.config.node.name,
            store=self.found,
        )

    @property
    def baselines(self) -> baselines.Baselines:
        """The runs that were accepted."""
        return baselines.Baselines(state_dir() / "runs", self.kept, self.clock)

    @property
    def ledger(self) -> ledger.Ledger:
        """Throughput by process count."""
        return ledger.Ledger(self.kept, self.baselines, self.clock)

    def incidents(self, *, keeps: bool = True, settle: Callable[[], object] = bool) -> Incidents:
        """The incidents as they stand; with *keeps* what time has made of them is written."""
        boot_id = Processes().boot_id()
        now = partial(protocol.present, self.clock, boot_id)
        found = Incidents(
            self.catalogue,
            store=self.kept,
            evidence=self.evidence,
            clock=self.clock,
            boot_id=boot_id,
            directory=state_dir() / "incidents",
            node=self.config.node.name,
            phase=self.config.node.phase,
            at_once=AtOnce(self.config, self.catalogue, state=state_dir(), now=now, settle=settle),
            keeps=keeps,
        )
        if self.found is not None:
            found.load()
        return found


# --- The daemon's operations ----------------------------------------------------------------------


def answer(op: str, /, **request: Any) -> Any:
    """What the daemon answers to *op*, of what is on the disk.

    Raises DvfdError as it would, StoreError if there is no store or somebody else has it.
    """
    if (made := CHANGES.get(op)) is None:
        with _read() as desk:
            return READS[op](desk)[op].answer(request, _here())
    with _opened() as desk:
        found = made(desk)[op].answer(request, _here())
        _flushed(desk.store)
        return found


def _attestations(desk: Desk) -> Operations:
    book = attestations.Attestations(desk.catalogue, desk.kept, desk.clock, desk.evidence)
    return attestations.operations(book)


def _waivers(desk: Desk) -> Operations:
    book = waivers.Waivers(desk.catalogue, desk.evidence, desk.clock)
    return waivers.operations(book, changed=lambda _criterion: None)  # nobody watches here


def _signoffs(desk: Desk) -> Operations:
    return signoffs.operations(signoffs.SignOffs(desk.catalogue, desk.evidence))


def _gates(desk: Desk) -> Operations:
    return gatehouse.operations(_gatehouse(desk))


def _gatehouse(desk: Desk) -> gatehouse.Gatehouse:
    return gatehouse.Gatehouse(desk.config, desk.catalogue, desk.evidence, desk.clock)


def _evidence(desk: Desk) -> Operations:
    return shown.operations(shown.Shown(desk.evidence, state_dir()))


def _accepted(desk: Desk) -> Operations:
    def run(id_: str) -> Run:
        known({"id": id_}, "id", list(desk.store.all("run")))
        return Run.from_document(desk.store.get("run", id_) or {})

    return baselines.operations(
        baselines.Baselines(state_dir() / "runs", desk.store, desk.clock), run
    )


def _scaling(desk: Desk) -> Operations:
    return ledger.operations(desk.ledger)


def _incidents(desk: Desk) -> Operations:
    return protocol.operations(desk.incidents(keeps=False))


def _incident_told(desk: Desk) -> Operations:
    return protocol.operations(desk.incidents())


def _goodput(desk: Desk) -> Operations:
    return past(desk.catalogue, desk.store, desk.clock)


def _history(desk: Desk) -> Operations:
    """What nobody knows is refused by its name, also where there is no store."""

    def told(request: Mapping[str, Any], peer: Peer) -> Any:
        names = [*desk.catalogue.metrics, *desk.catalogue.checks]
        known({"metric or check": request["name"]}, "metric or check", names)
        return past(desk.catalogue, desk.store, desk.clock)["history"].answer(request, peer)

    return {"history": Operation(told)}


def _job_report(desk: Desk) -> Operations:
    def report(request: Mapping[str, Any], peer: Peer) -> Any:
        given = Given(
            request=request["request"],
            path=_path(),
            metrics=desk.catalogue.metrics,
            node=desk.config.node.name,
            cost=desk.config.cost,
        )
        return report_of_job(given, desk.clock)

    return {"job_report": Operation(report)}


def _status(desk: Desk) -> Operations:
    """Nothing is live, so the node is UNKNOWN."""
    sources = Sources()
    if desk.found is not None:
        sources = Sources(
            latest=desk.found.latest,
            store=desk.found.health,
            failures=desk.incidents(keeps=False).failures,
            gates=_gatehouse(desk).shown,
        )
    state = State(desk.config, desk.catalogue, sources, clock=desk.clock)
    if desk.found is not None:
        for report in remembered(desk.found, desk.catalogue, desk.config.profile_hash):
            state.tell(report)
    return {"status": Operation(lambda request, peer: document(state.snapshot(), running=False))}


READS: Mapping[str, Callable[[Desk], Operations]] = {
    "attestations": _attestations,
    "evidence": _evidence,
    "evidence_record": _evidence,
    "evidence_verify": _evidence,
    "gates": _gates,
    "goodput": _goodput,
    "history": _history,
    "incident": _incidents,
    "incidents": _incidents,
    "job_report": _job_report,
    "scaling": _scaling,
    "signoffs": _signoffs,
    "stability_accepted": _accepted,
    "status": _status,
    "waivers": _waivers,
}
"""Operations that read, by name, and who has them."""

CHANGES: Mapping[str, Callable[[Desk], Operations]] = {
    "attest": _attestations,
    "evidence_renew": _evidence,
    "incident_update": _incident_told,
    "scaling_freeze": _scaling,
    "scaling_measured": _scaling,
    "scaling_record": _scaling,
    "sign": _gates,
    "signoff": _signoffs,
    "stability_accept": _accepted,
    "waive": _waivers,
}
"""Operations that write: they have the store to themselves."""


# --- What no daemon is asked ----------------------------------------------------------------------


def judge_alone(name: str, findings: Findings | None = None) -> tuple[dict[str, Any], str]:
    """Judge check *name* on the store, which is opened exclusively; the report and the store.

    With *findings*, those of its drill, which are kept first.

    Raises DvfdError if there is no such check, StoreError if somebody else has the store.
    """
    with _opened() as desk:
        config, catalogue, store, clock = desk.config, desk.catalogue, desk.store, desk.clock
        check = catalogue.checks[known({"check": name}, "check", catalogue.checks)]
        drilled = Drilled(catalogue, store)
        evidence = desk.evidence
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
            reviewed=_reviews(desk, chosen).of,
            attested=attestations.Attestations(catalogue, store, clock).judged,
            waived=waivers.Waivers(catalogue, evidence, clock).applied,
            windows=chosen.windows,
        )
        report = judgements.run_check(check)
        opened = ""
        if findings is not None:
            Witness(evidence, state_dir()).tested(report, findings)
            opened = _failed(desk)
        where, notice = store.health().path, store.health().reason
        return report_document(report), "; ".join(filter(None, (where, notice, NO_DAEMON, opened)))


def _failed(desk: Desk) -> str:
    """Open what incident the test's failure asks for, and preserve; which, in words."""
    incidents = desk.incidents(settle=desk.store.flush)
    opened = incidents.unpreserved()
    for incident in opened:
        incidents.act(incident)
    _flushed(desk.store)
    told = ", ".join(f"dvfd incident show {incident}" for incident in opened)
    return f"an incident was opened, and no daemon calls anybody: {told}" if opened else ""


def _reviews(desk: Desk, chosen: Chosen) -> Reviews:
    store = desk.store
    restorer = Restorer(
        lambda: last_seen(store.all(MANIFESTS)), settings=desk.config.checkpoints, records=store
    )
    return Reviews(
        store,
        desk.baselines,
        desk.clock,
        restored=restorer.restored,
        capacity=lambda: capacity(desk.ledger, desk.catalogue),
        price=desk.config.cost,
        excused=desk.config.maintenance,
        keep=store.write,
        history=chosen if chosen.asks else None,
    )


def exported(file: Path) -> dict[str, Any]:
    """Write the ledger and what it names into the bundle *file*; how that was checked."""
    with _read() as desk:
        return shown.document(shown.Shown(desk.evidence, state_dir()).export(file))


def bundle_checked(path: Path, *, cluster: str, head: str) -> dict[str, Any]:
    """The bundle at *path*, checked; it says so where the ledger here is of another cluster."""
    found = bundle.opened(path, cluster=cluster, head=head)
    ours = Evidence(state_dir() / "evidence", SystemClock()).cluster
    if ours and ours != found.cluster:
        words = f"the ledger here is of another cluster, {ours}"
        found = replace(found, notices=(*found.notices, words))
    return asdict(found)


# --- The disk -------------------------------------------------------------------------------------


@contextmanager
def _opened() -> Iterator[Desk]:
    """With the store for oneself. Raises StoreError if somebody else has it."""
    config, catalogue, clock = _framework()
    store = Store(_path(), metrics=catalogue.metrics, clock=clock)
    store.start()
    try:
        if not store.health().ok:
            raise StoreError(store.health().reason)
        yield Desk(config, catalogue, clock, store)
    finally:
        store.stop()


@contextmanager
def _read() -> Iterator[Desk]:
    """To read only. Raises StoreError if there is a store that cannot be read."""
    config, catalogue, clock = _framework()
    if not _there(_path()):
        yield Desk(config, catalogue, clock, None)
        return
    store = Store.read_only(_path(), catalogue.metrics, clock)
    try:
        yield Desk(config, catalogue, clock, store)
    finally:
        store.stop()


def _there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    return True


def _path() -> Path:
    return state_dir() / "dvfd.db"


def _flushed(store: Store) -> None:
    """Raises StoreError unless all is on the disk."""
    if not store.flush():
        raise StoreError(f"nothing was kept: {store.health().reason or 'the disk is slow'}")


def _here() -> Peer:
    """Who types this."""
    return Peer(os.getpid(), os.getuid(), os.getgid())


def _framework() -> tuple[Config, Catalogue, SystemClock]:
    log.setup("error")  # to stderr: stdout belongs to the answer, which tells of trouble itself
    config = load_config()
    return config, load_catalogue(config), SystemClock()
