"""Write the snapshot as Prometheus text, read at scrape time. Measures nothing, judges nothing.

Names follow the base units of checks/metrics.toml; a state is one series with its verdict as a
label, as Prometheus does with ALERTS. What is not known is left out: no NaN, no timestamps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from dvfd.model import ATTESTATION, DRILL, NONE_YET, REVIEW, RUN, Kind, Severity
from dvfd.sinks.text_format import Family, lines

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.model import Metric, Sample
    from dvfd.state import Delivery, Raised, RunState, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format that every Prometheus since 0.4 reads; names here need nothing newer."""

SAMPLED = "Sampled on dvfd's own timers, left out when older than"

Value = tuple[tuple[str, ...], float | None]
"""Label values, and the value or None if it is not known."""


class Exposition:
    """The text of /metrics."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(namespace="dvfd", registry=self._process)

    def text(self) -> bytes:
        """Everything that is known now. Takes one snapshot."""
        told = "".join(line for family in families(self._snapshot()) for line in lines(family))
        return told.encode() + generate_latest(self._process)


def families(snapshot: Snapshot) -> Iterator[Family]:
    """Every family that has a value, in a steady order."""
    for family in (
        *_measured(snapshot),
        *_verdicts(snapshot),
        *_run(snapshot.run),
        *_probes(snapshot),
        *_daemon(snapshot),
        *_profile(snapshot.config),
        *_alerts(snapshot),
        *_counts(snapshot),
    ):
        if family.values:
            yield family


EXPOSED = {"job": "training_job"}
"""Labels that have another name on /metrics: a scrape renames our `job` to `exported_job`, since
Prometheus gives every target a `job` of its own."""


def gauge(name: str, text: str, labels: Iterable[str], values: Iterable[Value]) -> Family:
    """A gauge family of the finite ones among *values*."""
    return Family(f"dvfd_{name}", "gauge", text, tuple(labels), _known(values))


def counter(name: str, text: str, labels: Iterable[str], values: Iterable[Value]) -> Family:
    """A counter family; *name* ends in _total."""
    return Family(f"dvfd_{name}", "counter", text, tuple(labels), _known(values))


def _known(values: Iterable[Value]) -> list[tuple[tuple[str, ...], float]]:
    return [
        (label_values, value)
        for label_values, value in values
        if value is not None and math.isfinite(value)
    ]


def _measured(snapshot: Snapshot) -> Iterator[Family]:
    for metric in snapshot.catalogue.metrics.values():
        if metric.source in {NONE_YET, DRILL, REVIEW, RUN, ATTESTATION}:
            continue  # a drill's figures are those of one hour: its verdicts are told, below
        text = f"{metric.help}. {SAMPLED} {metric.max_age:g} s"
        make = counter if metric.kind is Kind.COUNTER else gauge
        samples = snapshot.samples.get(metric.name, ())
        names = [EXPOSED.get(label, label) for label in metric.labels]
        yield make(metric.name, text, names, _series(metric, samples))


def _series(metric: Metric, samples: Iterable[Sample]) -> list[Value]:
    """One value for each label set: two of one set would void the whole scrape."""
    newest: dict[tuple[str, ...], Sample] = {}
    for sample in samples:
        pairs = dict(sample.labels)
        key = tuple([pairs.get(label, "") for label in metric.labels])
        if key not in newest or newest[key].at < sample.at:
            newest[key] = sample
    return [(key, sample.value) for key, sample in sorted(newest.items())]


def _verdicts(snapshot: Snapshot) -> Iterator[Family]:
    checks = snapshot.checks
    yield gauge(
        "criterion_verdict",
        "The criterion's current verdict as a label; the value is always 1",
        ("check", "criterion", "verdict"),
        (
            ((check, r.criterion.id, r.verdict.value), 1.0)
            for check, state in checks.items()
            for r in state.results
            if not (state.check.every and r.criterion.severity is Severity.INFO)
            # what a run notes for its gate alone stands in its report: every series costs a node
        ),
    )
    yield gauge(
        "check_verdict",
        "The worst critical verdict of the check as a label; the value is always 1",
        ("check", "verdict"),
        (((check, state.verdict.value), 1.0) for check, state in checks.items()),
    )
    yield gauge(
        "check_last_run_timestamp_seconds",
        "When the check last ran",
        ("check",),
        (((check,), state.last_run) for check, state in checks.items()),
    )
    yield gauge(
        "check_last_success_timestamp_seconds",
        "When a run of the check last ended with PASS",
        ("check",),
        (((check,), state.last_pass) for check, state in checks.items()),
    )


def _run(run: RunState | None) -> Iterator[Family]:
    """Three series of the stability run that is on; its criteria are among the verdicts."""
    if run is None:
        return
    yield gauge(
        "run_info",
        "The stability run that is on, left out while there is none; verdict is FAIL once a "
        "criterion can no longer be met, else UNKNOWN. The value is always 1",
        ("run", "check", "stage", "verdict"),
        [((run.id, run.check, run.stage, run.verdict.value), 1.0)],
    )
    yield gauge(
        "run_elapsed_seconds",
        "How long the stability run that is on has run since the first step of all its ranks",
        ("run",),
        [((run.id,), run.elapsed)],
    )
    yield gauge(
        "run_duration_seconds",
        "How long the stability run that is on is to run",
        ("run",),
        [((run.id,), run.duration)],
    )


def _probes(snapshot: Snapshot) -> Iterator[Family]:
    # A source that this machine has none of, by its profile, is neither up nor down.
    probes = {n: p for n, p in snapshot.probes.items() if not p.not_applicable}
    yield gauge(
        "probe_up",
        "1 if the source could be read last time, 0 if not or if it is overdue",
        ("probe",),
        (((name,), float(p.up and not p.overdue)) for name, p in probes.items()),
    )
    yield gauge(
        "probe_last_success_timestamp_seconds",
        "When the source was last read",
        ("probe",),
        (((name,), p.last_success) for name, p in probes.items()),
    )
    yield gauge(
        "probe_duration_seconds",
        "How long the last reading of the source took",
        ("probe",),
        (((name,), p.duration) for name, p in probes.items()),
    )


def _daemon(snapshot: Snapshot) -> Iterator[Family]:
    store, config = snapshot.store, snapshot.config
    yield gauge(
        "build_info",
        "Version, and hashes of catalogue and profile: results of unequal ones do not compare",
        ("version", "catalogue", "profile"),
        [((snapshot.version, snapshot.catalogue.hash[:12], config.profile_hash[:12]), 1.0)],
    )
    yield gauge(
        "loop_late",
        "1 while the daemon's loop shows no progress for longer than it may",
        ("loop",),
        (((name,), float(loop.late)) for name, loop in snapshot.loops.items()),
    )
    yield gauge(
        "store_ok",
        "1 while what is written reaches the disk, 0 while it is only kept in memory",
        (),
        [((), float(store.ok))],
    )
    yield gauge(
        "config_last_reload_successful",
        "1 if the configuration was good when it was last taken, 0 if the one before stays",
        (),
        [((), float(not snapshot.reload.problems))],
    )
    yield gauge(
        "config_last_reload_success_timestamp_seconds",
        "When a configuration was last taken, at start or by a reload",
        (),
        [((), snapshot.reload.succeeded_at)],
    )
    yield gauge(
        "http_certificate_expiry_timestamp_seconds",
        "When the listener's TLS certificate ends; left out without TLS",
        (),
        [((), snapshot.web.expires_at)],
    )
    yield gauge("store_queue", "Writes that wait for the disk", (), [((), store.queue)])
    yield gauge(
        "store_last_commit_timestamp_seconds",
        "When the store last committed",
        (),
        [((), store.last_commit)],
    )


def _profile(config: Config) -> Iterator[Family]:
    """What measurements are held against on dashboards; what the site does not say is left out."""
    profile, cost = config.profile, config.cost
    yield gauge(
        "profile_expected_throughput_samples_per_second",
        "Throughput of the whole job that was accepted for this profile",
        (),
        [((), profile.expected_throughput)],
    )
    yield gauge(
        "profile_single_process_throughput_samples_per_second",
        "Throughput of the accepted run with one process",
        (),
        [((), profile.single_process_throughput)],
    )
    yield gauge(
        "profile_cost_per_hour",
        "What the whole node costs an hour, as the site says",
        ("currency",),
        [((cost.currency,), cost.per_hour)],
    )


def _alerts(snapshot: Snapshot) -> Iterator[Family]:
    delivery = snapshot.delivery
    yield gauge("alerts_firing", "Alerts that fire now", (), [((), len(snapshot.raised))])
    yield gauge(
        "alert_raised",
        "Each alert that fires now; told is no while no Alertmanager has it, escalation says whom "
        "it calls if not by severity. The value is always 1",
        ("alert", "severity", "subject", "told", "escalation"),
        (
            ((r.name, r.severity, r.subject, _told(r, delivery), r.escalation), 1.0)
            for r in snapshot.raised
        ),
    )
    yield gauge(
        "alerts_outbox", "Alerts that wait for an Alertmanager", (), [((), delivery.waiting)]
    )
    yield gauge(
        "alert_deliveries_last_success_timestamp_seconds",
        "When an Alertmanager last accepted alerts",
        (),
        [((), max((p.last_success or 0.0 for p in delivery.peers), default=0.0) or None)],
    )
    yield counter(
        "alert_deliveries_total",
        "Alerts posted to an Alertmanager, resends included, by how that ended",
        ("outcome",),
        _counted(delivery.outcomes),
    )


def _told(raised: Raised, delivery: Delivery) -> str:
    """An Alertmanager that accepts no more forgets what it accepted: not told, then."""
    return "yes" if raised.delivered and not delivery.error else "no"


def _counts(snapshot: Snapshot) -> Iterator[Family]:
    for name, value in snapshot.ingest.items():
        text = f"Telemetry of jobs since the daemon started: {name.replace('_', ' ')}"
        yield counter(f"ingest_{name}_total", text, (), [((), value)])
    yield counter(
        "http_requests_total",
        "Requests to the listener by outcome",
        ("outcome",),
        _counted(snapshot.http),
    )


def _counted(counts: Mapping[str, int]) -> list[Value]:
    return [((name,), value) for name, value in sorted(counts.items())]
