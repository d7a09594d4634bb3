"""What can be asked of a daemon through its control socket. Each answer is plain JSON."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from dvfd.control import Operation, Peer
from dvfd.drilled import Drilled
from dvfd.drills.findings import Findings
from dvfd.errors import DvfdError, StoreError
from dvfd.evidence import shown as evidence_shown
from dvfd.evidence.shown import Shown
from dvfd.evidence.witness import Witness
from dvfd.gates import gatehouse as gates
from dvfd.gates.gatehouse import Gatehouse
from dvfd.incidents import protocol as failed
from dvfd.incidents.protocol import Incidents
from dvfd.judgements import Judgements
from dvfd.model import Catalogue, Clock
from dvfd.people import attestations as people
from dvfd.people import signoffs as signing_off
from dvfd.people import waivers as waiving
from dvfd.people.attestations import Attestations
from dvfd.people.signoffs import SignOffs
from dvfd.people.waivers import Waivers
from dvfd.query import history, known
from dvfd.ready import asked_of
from dvfd.ready import document as ready
from dvfd.reporting import accounts
from dvfd.reporting.asked import QUEUE, Given, by_child
from dvfd.runs import baselines as accepted
from dvfd.runs import requests
from dvfd.runs.baselines import Baselines
from dvfd.runs.conductor import Conductor
from dvfd.scaling import ledger as scaling
from dvfd.scaling.ledger import Ledger
from dvfd.sinks.alertmanager import Sender
from dvfd.state import State
from dvfd.status import document
from dvfd.store import Store, report_document

log = structlog.get_logger()

HOURS_LIMIT = 1e6
"""Hours that history looks back at most: 114 years, where a float still tells milliseconds."""


SETTLING = 5.0
"""Seconds that an answer waits for the disk: a commit takes milliseconds."""

STORED = frozenset({
    "stability_arm", "stability_accept", "incident_update", "scaling_measured", "scaling_record",
    "scaling_freeze",
})  # fmt: skip
"""What stands nowhere but in the store. All else stands in the ledger as well, or ends or tells
something, which a full disk must not keep anybody from.
"""


COUNTED = STORED | {"attest"}
"""What is kept beside what was there before, which must be known for that."""


class Ranks(Protocol):
    """What is asked of the receiver."""

    def forget(self, job: str) -> bool:
        """Stop expecting *job*; False if there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a daemon that answer. `changed` has a criterion judged anew; `address` is where
    the page is.
    """

    catalogue: Catalogue
    state: State
    store: Store
    judgements: Judgements
    drilled: Drilled
    sender: Sender
    receiver: Ranks
    clock: Clock
    address: Callable[[], str]
    conductor: Conductor
    attestations: Attestations
    baselines: Baselines
    ledger: Ledger
    witness: Witness
    waivers: Waivers
    gatehouse: Gatehouse
    changed: Callable[[str], object]
    shown: Shown
    incidents: Incidents
    signoffs: SignOffs


def operations(of: Parts) -> dict[str, Operation]:
    """Every operation by its name."""
    found = {
        **requests.operations(of.conductor),
        **people.operations(of.attestations),
        **waiving.operations(of.waivers, of.changed),
        **evidence_shown.operations(of.shown),
        **signing_off.operations(of.signoffs),
        **gates.operations(of.gatehouse),
        **accepted.operations(of.baselines, of.conductor.run),
        **scaling.operations(of.ledger),
        **failed.operations(of.incidents),
        **past(of.catalogue, of.store, of.clock),
        **_now(of),
        **_report(of),
        **_judged(of),
        **_series(of),
        **_alerts(of),
    }
    return lasting(of.store, found)


def past(catalogue: Catalogue, store: Store, clock: Clock) -> dict[str, Operation]:
    """What the store remembers."""

    def told(request: Mapping[str, Any], peer: Peer) -> Any:
        until = clock.now()
        since = until - 3600.0 * hours(request.get("hours", 1.0))
        return history(str(request.get("name")), catalogue, store, since=since, until=until)

    def goodput(request: Mapping[str, Any], peer: Peer) -> Any:
        until = clock.now()
        since = until - 3600.0 * hours(request.get("hours", 24.0))
        return accounts.document(store, job=str(request.get("job") or ""), since=since, until=until)

    return {"history": Operation(told), "goodput": Operation(goodput)}


def _now(of: Parts) -> dict[str, Operation]:
    """What is known at this moment."""

    def fit(request: Mapping[str, Any], peer: Peer) -> Any:
        return ready(
            of.state.snapshot(),
            asked_of(request, "checks"),
            asked_of(request, "left_out"),
            booted=of.clock.now() - of.clock.boot(),
        )

    def names(request: Mapping[str, Any], peer: Peer) -> Any:
        return {
            "checks": sorted(of.catalogue.checks),
            "metrics": sorted(of.catalogue.metrics),
            "items": sorted(of.attestations.items),
            "criteria": sorted(of.catalogue.criteria),
            "incidents": of.incidents.ids(),
            "gates": list(of.catalogue.gates),
            "jobs": sorted(str(job["job"]) for job in of.state.snapshot().jobs),
        }

    return {
        "ping": Operation(lambda request, peer: "pong"),
        "address": Operation(lambda request, peer: of.address()),
        "status": Operation(lambda request, peer: document(of.state.snapshot(), running=True)),
        "taken_at": Operation(lambda request, peer: of.state.snapshot().reload.succeeded_at),
        "ready": Operation(fit),
        "names": Operation(names),
    }


def _report(of: Parts) -> dict[str, Operation]:
    """Where a job's hours went."""
    reporting = threading.Lock()  # anybody may ask, and each report is a process of its own

    def job_report(request: Mapping[str, Any], peer: Peer) -> Any:
        asked, config = request.get("request"), of.state.snapshot().config
        given = Given(
            request=asked if isinstance(asked, Mapping) else {},
            path=Path(of.store.health().path),
            metrics=of.catalogue.metrics,
            node=config.node.name,
            cost=config.cost,
        )
        of.store.flush()
        if not reporting.acquire(timeout=QUEUE):
            raise DvfdError("other reports are being made: ask again")
        try:
            return by_child(given)
        finally:
            reporting.release()

    return {"job_report": Operation(job_report)}


def _judged(of: Parts) -> dict[str, Operation]:
    """What is judged because somebody asks."""
    one = threading.Lock()  # the findings that are judged are those that are written down
    checks = of.catalogue.checks

    def check(request: Mapping[str, Any], peer: Peer) -> Any:
        return report_document(of.judgements.run_check(checks[known(request, "check", checks)]))

    def found(request: Mapping[str, Any], peer: Peer) -> Any:
        document = request.get("findings")
        findings = Findings.from_dict(document if isinstance(document, Mapping) else {})
        findings = replace(findings, by=peer.name)
        with one:
            of.drilled.keep(findings, at=of.clock.now())
            log.info("drill ran", check=findings.check, by=peer.name)
            report = of.judgements.run_check(checks[findings.check])
            of.witness.tested(report, findings)
        return report_document(report)

    return {
        "check": Operation(check, changes=True),
        "drilled": Operation(found, changes=True),
        "allowed": Operation(lambda request, peer: "yes", changes=True),
    }


def _series(of: Parts) -> dict[str, Operation]:
    """What is not expected any more, and a notice that was read."""

    def forget(request: Mapping[str, Any], peer: Peer) -> Any:
        job = str(request.get("job"))
        if not of.receiver.forget(job):
            raise DvfdError(f"no job {job!r} is known here; `dvfd status` lists them")
        log.info("job forgotten", job=job, by=peer.name)
        return f"job {job} is not expected any more"

    def chosen(request: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]]:
        metric, where = str(request.get("metric")), dict(request.get("where") or {})
        return metric, series_of(of.catalogue, of.store, metric, where)

    def forget_series(request: Mapping[str, Any], peer: Peer) -> Any:
        metric, over = chosen(request)
        for where in over:
            of.store.end_series(where, of.clock.now(), metric)
        log.info("series forgotten", metric=metric, series=over, by=peer.name)
        return f"{metric}: {len(over)} series are not expected any more: {spelt(over)}"

    def acknowledge(request: Mapping[str, Any], peer: Peer) -> Any:
        notice = of.store.health().reason
        log.info("store notice acknowledged", by=peer.name, notice=notice)
        of.store.acknowledge()
        return notice or "there was nothing to acknowledge"

    return {
        "forget": Operation(forget, changes=True),
        "forget_series": Operation(forget_series, changes=True),
        "site_series": Operation(lambda request, peer: chosen(request)[1]),
        "acknowledge": Operation(acknowledge, changes=True),
    }


def _alerts(of: Parts) -> dict[str, Operation]:
    """Whether an alert arrives."""

    def test(request: Mapping[str, Any], peer: Peer) -> Any:
        trial, over = str(request.get("trial", "")), request.get("over") is True
        log.info("test alert", by=peer.name, trial=trial, over=over)
        return [
            {"url": url, "accepted": accepted, "detail": detail}
            for url, accepted, detail in of.sender.send_test(of.clock.now(), trial, over=over)
        ]

    def seen(request: Mapping[str, Any], peer: Peer) -> Any:
        return of.sender.seen(str(request.get("trial")))

    return {
        "alerts_test": Operation(test, changes=True),
        "alerts_seen": Operation(seen, changes=True),
    }


def lasting(store: Store, operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """*operations* whose changes are on the disk when they are answered: a kill takes back nothing
    that somebody was told. Where the disk refuses, those of STORED say so instead.
    """
    return {
        name: replace(each, answer=partial(_lasting, store, name, each)) if each.changes else each
        for name, each in operations.items()
    }


def _lasting(
    store: Store, name: str, operation: Operation, request: Mapping[str, Any], peer: Peer
) -> Any:
    if name in COUNTED and not store.known:
        raise StoreError(
            f"nothing was kept: the store could not be read yet: {store.health().reason}; what is "
            "said now could take the place of what it has: make room, then do it again"
        )
    answer = operation.answer(request, peer)
    written = store.flush(SETTLING if store.health().ok else 0.0)
    if not written and name in STORED:
        raise StoreError(
            f"not on the disk: {store.health().reason or 'it is slow'}; dvfd keeps it in memory "
            "and writes it down once it can: make room, then see that it is there; if dvfd ends "
            "before that, say it again"
        )
    return answer


def hours(value: object) -> float:
    """*value* as hours to look back. Raises DvfdError if it is no such number."""
    if isinstance(value, int | float) and 0 < value <= HOURS_LIMIT:
        return float(value)
    raise DvfdError(f"hours {value!r}: wanted a number above 0 and at most {HOURS_LIMIT:g}")


def series_of(
    catalogue: Catalogue, store: Store, metric: str, where: Mapping[str, str]
) -> list[dict[str, str]]:
    """The labels of the series of a site's own *metric* that are expected here and have these.
    Raises DvfdError if there are none, or the metric is the framework's: a job's end with the job.
    """
    known = catalogue.metrics.get(metric)
    if known is None or not (known.origin or known.only):
        own = [name for name, each in catalogue.metrics.items() if each.origin or each.only]
        names = ", ".join(own) or "none: [site] checks has no metrics.toml"
        raise DvfdError(f"{metric!r} is no metric of this site's own; wanted one of {names}")
    found = [dict(sample.labels) for sample in store.latest(metric)]
    over = [labels for labels in found if where.items() <= labels.items()]
    if not over:
        raise DvfdError(f"{metric}: no series with {spelt([dict(where)])}; known: {spelt(found)}")
    return over


def spelt(series: Sequence[Mapping[str, str]]) -> str:
    """Label sets as somebody types them: `array=md0; array=md1`."""
    each = (" ".join(f"{name}={value}" for name, value in one.items()) for one in series)
    return "; ".join(text or "no labels" for text in each) or "none"
