"""What can be asked of a daemon through its control socket. Each answer is plain JSON."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from dvfd.control import Operation, Peer
from dvfd.drilled import Drilled
from dvfd.drills.findings import Findings
from dvfd.errors import DvfdError
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


class Ranks(Protocol):
    """What is asked of the receiver."""

    def forget(self, job: str) -> bool:
        """Stop expecting *job*; False if there is none."""
        ...


def operations(
    *,
    catalogue: Catalogue,
    state: State,
    store: Store,
    judgements: Judgements,
    drilled: Drilled,
    sender: Sender,
    receiver: Ranks,
    clock: Clock,
    address: Callable[[], str],
    conductor: Conductor,
    attestations: Attestations,
    baselines: Baselines,
    ledger: Ledger,
    witness: Witness,
    waivers: Waivers,
    gatehouse: Gatehouse,
    changed: Callable[[str], object],
    shown: Shown,
    incidents: Incidents,
    signoffs: SignOffs,
) -> dict[str, Operation]:
    """Every operation by its name."""
    return {
        **requests.operations(conductor),
        **people.operations(attestations),
        **waiving.operations(waivers, changed),
        **evidence_shown.operations(shown),
        **signing_off.operations(signoffs),
        **gates.operations(gatehouse),
        **accepted.operations(baselines, conductor.run),
        **scaling.operations(ledger),
        **failed.operations(incidents),
        "ping": Operation(lambda request, peer: "pong"),
        "address": Operation(lambda request, peer: address()),
        **_reads(
            catalogue=catalogue,
            state=state,
            store=store,
            clock=clock,
            attestations=attestations,
            incidents=incidents,
        ),
        **_changes(
            catalogue=catalogue,
            store=store,
            judgements=judgements,
            drilled=drilled,
            sender=sender,
            receiver=receiver,
            clock=clock,
            witness=witness,
        ),
    }


def _reads(
    *,
    catalogue: Catalogue,
    state: State,
    store: Store,
    clock: Clock,
    attestations: Attestations,
    incidents: Incidents,
) -> dict[str, Operation]:
    def past(request: Mapping[str, Any], peer: Peer) -> Any:
        until = clock.now()
        since = until - 3600.0 * hours(request.get("hours", 1.0))
        return history(str(request.get("name")), catalogue, store, since=since, until=until)

    def goodput(request: Mapping[str, Any], peer: Peer) -> Any:
        until = clock.now()
        since = until - 3600.0 * hours(request.get("hours", 24.0))
        return accounts.document(store, job=str(request.get("job") or ""), since=since, until=until)

    reporting = threading.Lock()  # anybody may ask, and each report is a process of its own

    def job_report(request: Mapping[str, Any], peer: Peer) -> Any:
        asked, config = request.get("request"), state.snapshot().config
        given = Given(
            request=asked if isinstance(asked, Mapping) else {},
            path=Path(store.health().path),
            metrics=catalogue.metrics,
            node=config.node.name,
            cost=config.cost,
        )
        store.flush()
        if not reporting.acquire(timeout=QUEUE):
            raise DvfdError("other reports are being made: ask again")
        try:
            return by_child(given)
        finally:
            reporting.release()

    def names(request: Mapping[str, Any], peer: Peer) -> Any:
        return {
            "checks": sorted(catalogue.checks),
            "metrics": sorted(catalogue.metrics),
            "items": sorted(attestations.items),
            "criteria": sorted(catalogue.criteria),
            "incidents": incidents.ids(),
            "gates": list(catalogue.gates),
            "jobs": sorted(str(job["job"]) for job in state.snapshot().jobs),
        }

    return {
        "status": Operation(lambda request, peer: document(state.snapshot(), running=True)),
        "ready": Operation(
            lambda request, peer: ready(
                state.snapshot(),
                asked_of(request, "checks"),
                asked_of(request, "left_out"),
                booted=clock.now() - clock.boot(),
            )
        ),
        "history": Operation(past),
        "goodput": Operation(goodput),
        "job_report": Operation(job_report),
        "names": Operation(names),
        "taken_at": Operation(lambda request, peer: state.snapshot().reload.succeeded_at),
    }


def _changes(
    *,
    catalogue: Catalogue,
    store: Store,
    judgements: Judgements,
    drilled: Drilled,
    sender: Sender,
    receiver: Ranks,
    clock: Clock,
    witness: Witness,
) -> dict[str, Operation]:
    one = threading.Lock()  # the findings that are judged are those that are written down

    def check(request: Mapping[str, Any], peer: Peer) -> Any:
        report = judgements.run_check(catalogue.checks[known(request, "check", catalogue.checks)])
        return report_document(report)

    def found(request: Mapping[str, Any], peer: Peer) -> Any:
        document = request.get("findings")
        findings = Findings.from_dict(document if isinstance(document, Mapping) else {})
        findings = replace(findings, by=peer.name)
        with one:
            drilled.keep(findings, at=clock.now())
            log.info("drill ran", check=findings.check, by=peer.name)
            report = judgements.run_check(catalogue.checks[findings.check])
            witness.tested(report, findings)
        return report_document(report)

    def forget(request: Mapping[str, Any], peer: Peer) -> Any:
        job = str(request.get("job"))
        if not receiver.forget(job):
            raise DvfdError(f"no job {job!r} is known here; `dvfd status` lists them")
        log.info("job forgotten", job=job, by=peer.name)
        return f"job {job} is not expected any more"

    def forget_series(request: Mapping[str, Any], peer: Peer) -> Any:
        metric = str(request.get("metric"))
        over = series_of(catalogue, store, metric, dict(request.get("where") or {}))
        for where in over:
            store.end_series(where, clock.now(), metric)
        log.info("series forgotten", metric=metric, series=over, by=peer.name)
        return f"{metric}: {len(over)} series are not expected any more: {spelt(over)}"

    def alerts_test(request: Mapping[str, Any], peer: Peer) -> Any:
        trial, over = str(request.get("trial", "")), request.get("over") is True
        log.info("test alert", by=peer.name, trial=trial, over=over)
        return [
            {"url": url, "accepted": accepted, "detail": detail}
            for url, accepted, detail in sender.send_test(clock.now(), trial, over=over)
        ]

    def acknowledge(request: Mapping[str, Any], peer: Peer) -> Any:
        notice = store.health().reason
        log.info("store notice acknowledged", by=peer.name, notice=notice)
        store.acknowledge()
        return notice or "there was nothing to acknowledge"

    return {
        "check": Operation(check, changes=True),
        "drilled": Operation(found, changes=True),
        "allowed": Operation(lambda request, peer: "yes", changes=True),
        "forget": Operation(forget, changes=True),
        "forget_series": Operation(forget_series, changes=True),
        "site_series": Operation(
            lambda request, peer: series_of(
                catalogue, store, str(request.get("metric")), dict(request.get("where") or {})
            )
        ),
        "acknowledge": Operation(acknowledge, changes=True),
        "alerts_test": Operation(alerts_test, changes=True),
        "alerts_seen": Operation(
            lambda request, peer: sender.seen(str(request.get("trial"))), changes=True
        ),
    }


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
