"""What can be asked of a daemon through its control socket. Each answer is plain JSON."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import structlog

from dvfd.control import Operation, Peer
from dvfd.errors import DvfdError
from dvfd.judgements import Judgements
from dvfd.model import Catalogue, Clock
from dvfd.sinks.alertmanager import Sender
from dvfd.state import State
from dvfd.status import document
from dvfd.store import Store, report_document

log = structlog.get_logger()

HOURS_LIMIT = 1e6
"""Hours that history looks back at most: 114 years, where a float still tells milliseconds."""

LISTED = 30
"""Names that an error lists: all checks, but not hundreds of metrics."""

HISTORY_ROWS = 2000
"""Rows of one answer: an hour of eight series, or a year of daily reports."""


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
    sender: Sender,
    receiver: Ranks,
    clock: Clock,
    address: Callable[[], str],
) -> dict[str, Operation]:
    """Every operation by its name."""

    def check(request: Mapping[str, Any], peer: Peer) -> Any:
        report = judgements.run_check(catalogue.checks[known(request, "check", catalogue.checks)])
        return report_document(report)

    def forget(request: Mapping[str, Any], peer: Peer) -> Any:
        job = str(request.get("job"))
        if not receiver.forget(job):
            raise DvfdError(f"no job {job!r} is known here; `dvfd status` lists them")
        log.info("job forgotten", job=job, by=peer.name)
        return f"job {job} is not expected any more"

    def alerts_test(request: Mapping[str, Any], peer: Peer) -> Any:
        log.info("test alert", by=peer.name)
        return [
            {"url": url, "accepted": accepted, "detail": detail}
            for url, accepted, detail in sender.send_test(clock.now())
        ]

    def acknowledge(request: Mapping[str, Any], peer: Peer) -> Any:
        notice = store.health().reason
        log.info("store notice acknowledged", by=peer.name, notice=notice)
        store.acknowledge()
        return notice or "there was nothing to acknowledge"

    return {
        "ping": Operation(lambda request, peer: "pong"),
        "address": Operation(lambda request, peer: address()),
        "status": Operation(lambda request, peer: document(state.snapshot(), running=True)),
        "history": Operation(lambda request, peer: history(request, catalogue, store, clock)),
        "check": Operation(check, changes=True),
        "forget": Operation(forget, changes=True),
        "acknowledge": Operation(acknowledge, changes=True),
        "alerts_test": Operation(alerts_test, changes=True),
    }


def known(request: Mapping[str, Any], key: str, names: Collection[str]) -> str:
    """The name in *request*. Raises DvfdError with the nearest one if it is not known."""
    name = str(request.get(key))
    if name in set(names):
        return name
    near = difflib.get_close_matches(name, list(names), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not near and len(set(names)) <= LISTED:
        hint = f"; there are {', '.join(names)}"
    raise DvfdError(f"no such {key}: {name!r}{hint}")


def history(
    request: Mapping[str, Any], catalogue: Catalogue, store: Store, clock: Clock
) -> dict[str, Any]:
    """The newest values of a metric's live series, or reports of a check, oldest first."""
    wanted = {"metric or check": request.get("name")}
    name = known(wanted, "metric or check", [*catalogue.metrics, *catalogue.checks])
    until = clock.now()
    since = until - 3600.0 * _hours(request.get("hours", 1.0))
    if name in catalogue.checks:
        rows: list[dict[str, Any]] = [
            {"at": report.at, "check": name, "verdict": report.verdict, "late": report.late}
            for report in store.reports(name, HISTORY_ROWS)
            if report.at >= since
        ]
    else:
        rows = [
            {"at": sample.at, "value": sample.value, "labels": dict(sample.labels)}
            for newest in store.latest(name)
            for sample in store.series(name, newest.labels, since=since, until=until)
        ]
    return {"name": name, "rows": sorted(rows, key=lambda row: float(row["at"]))[-HISTORY_ROWS:]}


def _hours(value: object) -> float:
    """*value* as hours to look back. Raises DvfdError if it is no such number."""
    if isinstance(value, int | float) and 0 < value <= HOURS_LIMIT:
        return float(value)
    raise DvfdError(f"hours {value!r}: wanted a number above 0 and at most {HOURS_LIMIT:g}")
