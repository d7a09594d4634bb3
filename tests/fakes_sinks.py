"""Fakes and builders for the sinks: a small catalogue, a snapshot, an outbox, an Alertmanager."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

from fakes import FakeClock
from fakes_gates import told

from dvfd.catalogue import load as load_catalogue
from dvfd.config import Config
from dvfd.model import (
    NONE_YET,
    Catalogue,
    Check,
    Clock,
    Comparison,
    Criterion,
    Kind,
    Limit,
    Metric,
    ProbeHealth,
    Report,
    Result,
    Sample,
    Verdict,
    labels,
)
from dvfd.state import (
    Delivery,
    Loop,
    NoReload,
    NoWeb,
    Peer,
    Raised,
    RunLine,
    RunState,
    Snapshot,
    Sources,
    State,
)

NOW = FakeClock().now()


@dataclass(frozen=True)
class Health:
    ok: bool = True
    reason: str = ""
    queue: int = 0
    last_commit: float | None = NOW
    path: str = "/var/lib/dvfd/dvfd.db"


def criterion(name: str = "live.responding", **keys: Any) -> Criterion:
    defaults: dict[str, Any] = {
        "id": name,
        "item": "",
        "clause": "",
        "text": f"text of {name}",
        "metric": "rank_responding",
        "unit": "bool",
        "comparison": Comparison.EQUAL,
        "limit": Limit(value=1.0),
    }
    return Criterion(**(defaults | keys))


def check(name: str, *criteria: Criterion, **keys: Any) -> Check:
    return Check(id=name, title=f"Title of {name}", clause="", criteria=criteria, **keys)


def result(verdict: Verdict = Verdict.PASS, of: Criterion | None = None, **keys: Any) -> Result:
    defaults: dict[str, Any] = {
        "at": NOW,
        "reason": "rank 2 responds: 0, wanted 1",
        "observed": 0.0,
        "limit": 1.0,
    }
    return Result(of or criterion(), verdict, **(defaults | keys))


METRICS = (
    Metric(
        name="rank_responding",
        unit="bool",
        help="1 while the rank responds",
        labels=("job", "rank"),
        source="ranks",
    ),
    Metric(
        name="log_errors_total",
        unit="lines",
        help="Error lines",
        labels=("log",),
        source="logs",
        kind=Kind.COUNTER,
    ),
    Metric(name="link_goodput", unit="ratio", help="Not measured"),
)


def catalogue(*checks: Check) -> Catalogue:
    checks = checks or (check("live", criterion(), watch=True),)
    return Catalogue(
        metrics={metric.name: metric for metric in METRICS},
        checks={c.id: c for c in checks},
        gates={},
        hash="c0ffee" * 10,
        criteria={criterion.id: criterion for c in checks for criterion in c.criteria},
    )


def sample(
    metric: str = "rank_responding", value: float = 1.0, at: float = NOW, **of: Any
) -> Sample:
    return Sample(metric, value, at, labels(**(of or {"job": "gpt", "rank": 0})))


def samples(*given: Sample) -> Sources:
    return sources(latest=lambda name: [s for s in given if s.metric == name])


def sources(**keys: Any) -> Sources:
    defaults: dict[str, Any] = {
        "store": Health,
        "loops": lambda: {"sampler": Loop(age=1.0, limit=20.0)},
        "probes": lambda: {"ranks": ProbeHealth("ranks", up=True, last_success=NOW, duration=0.01)},
    }
    return Sources(**(defaults | keys))


def state(
    *checks: Check, of: Sources | None = None, clock: FakeClock | None = None, **config: Any
) -> State:
    return State(
        Config(node={"name": "node4"}, **config),
        catalogue(*checks),
        of or sources(),
        clock=clock or FakeClock(),
    )


def snapshot(*results: Result, of: Sources | None = None, **config: Any) -> Snapshot:
    made = state(of=of, **config)
    made.judged(results or [result()])
    return made.snapshot()


def whole(clock: Clock, ranks: int = 4) -> State:
    """The real catalogue with everything judged and measured, as on a node with *ranks* ranks."""
    config = Config(node={"name": "node4"})
    loaded = load_catalogue(config)
    few = {"gpu": 1, "interface": 2, "log": 2, "numa_node": 2, "package": 2, "path": 2}

    def latest(name: str) -> list[Sample]:
        metric = loaded.metrics[name]
        if metric.source == NONE_YET:
            return []
        of = {label: few.get(label, 1) for label in metric.labels} | {"rank": ranks}
        sets = product(*(range(of[label]) for label in metric.labels))
        pairs = [dict(zip(metric.labels, values, strict=True)) for values in sets]
        return [Sample(name, 1.0, clock.now(), labels(**p)) for p in pairs]

    held = State(config, loaded, replace(FULL, latest=latest), clock=clock)
    for judged in loaded.checks.values():
        results = tuple(result(of=c, at=clock.now()) for c in judged.criteria)
        held.tell(Report(judged, results, clock.now()))
    return held


PROBES = "ranks cpu memory temperature power gpu network checkpoints logs node"
LOOPS = "sampler watch receiver writer schedule http sender"
INGEST = "packets steps events malformed refused lost conflicts sessions"

RAISED = Raised(
    key="blind:cpu",
    name="DvfdBlind",
    severity="critical",
    since=NOW,
    summary="source cpu has gone silent",
    description="UNKNOWN now: live.cpu",
    delivered=True,
)


def run_line(name: str = "throughput", **keys: Any) -> RunLine:
    defaults: dict[str, Any] = {
        "criterion": f"stability_phase1.{name}",
        "text": f"text of {name}",
        "verdict": Verdict.UNKNOWN,
        "so_far": Verdict.PASS,
        "reason": "passes so far, after 6 h of 24 h",
    }
    return RunLine(**(defaults | keys))


def run_state(*lines: RunLine, **keys: Any) -> RunState:
    defaults: dict[str, Any] = {
        "id": "phase1_20261125T120000Z_c0fe",
        "check": "stability_phase1",
        "title": "24-hour stability, 4 processes on 1 node",
        "job": "gpt",
        "stage": "running",
        "elapsed": 6 * 3600.0 + 12 * 60,
        "duration": 86_400.0,
        "ends_at": NOW + 64_080,
    }
    return RunState(lines=lines or (run_line(),), **(defaults | keys))


FULL = sources(
    run=run_state,
    gates=cache(told),
    reload=lambda: NoReload(succeeded_at=NOW),
    web=lambda: NoWeb(expires_at=NOW + 86_400 * 30),
    raised=lambda: (RAISED,),
    probes=lambda: {n: ProbeHealth(n, True, NOW, NOW, 0.01) for n in PROBES.split()},
    loops=lambda: {name: Loop(age=1, limit=20) for name in LOOPS.split()},
    delivery=lambda: Delivery(
        peers=(Peer(url="http://am", last_success=NOW),),
        waiting=1,
        outcomes={"accepted": 2, "failed": 0, "refused": 0},
    ),
    ingest=lambda: dict.fromkeys(INGEST.split(), 7),
    http=lambda: {"200": 4, "404": 1, "evicted": 1, "timeout": 1},
)


@dataclass
class FakeOutbox:
    """What the store keeps: as JSON, so that what comes back is what a disk would give."""

    rows: dict[str, str] = field(default_factory=dict)
    records: dict[tuple[str, str], str] = field(default_factory=dict)
    alarms: dict[str, dict[str, Any]] = field(default_factory=dict)

    def outbox_put(self, key: str, alert: dict[str, Any], alarm: dict[str, Any]) -> None:
        self.rows[key] = json.dumps(alert)
        self.alarms[key] = alarm

    def outbox(self) -> list[dict[str, Any]]:
        return [json.loads(row) for row in self.rows.values()]

    def outbox_done(self, key: str) -> None:
        self.rows.pop(key, None)

    def put(
        self, kind: str, key: str, document: dict[str, Any] | None, *, urgent: bool = False
    ) -> None:
        self.records.pop((kind, key), None)
        if document is not None:
            self.records[kind, key] = json.dumps(document)

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        return {key: json.loads(text) for (of, key), text in self.records.items() if of == kind}

    def flush(self, timeout: float = 10.0) -> bool:
        return True


@dataclass
class Answer:
    status_code: int = 200
    text: str = ""


@dataclass
class FakeAlertmanager:
    """Takes posts; `answers` maps an address to what it answers, an OSError to no answer."""

    answers: dict[str, Any] = field(default_factory=dict)
    bad: str = ""  # a batch with this subject is refused as a whole
    posts: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, url: str, *, data: str, **options: Any) -> Answer:
        alerts = json.loads(data)
        self.posts.append((url, alerts))
        self.options.append(options)
        answer = self.answers.get(url.removesuffix("/api/v2/alerts"), Answer())
        if isinstance(answer, OSError):
            raise answer
        if self.bad and any(self.bad in str(alert) for alert in alerts):
            return Answer(400, "bad label")
        return answer

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [alert for _, alerts in self.posts for alert in alerts]
