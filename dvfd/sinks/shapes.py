"""The shapes of what /api/v1 answers, as JSON Schema. New keys may come; these stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvfd.model import Severity, Verdict

Shape = Mapping[str, Any]

TEXT: Shape = {"type": "string"}
FLAG: Shape = {"type": "boolean"}
WHOLE: Shape = {"type": "integer"}
REAL: Shape = {"type": "number"}
ANYTHING: Shape = {"type": "object"}

VALUE: Shape = {"anyOf": [REAL, {"type": "string", "enum": ["NaN", "+Inf", "-Inf"]}]}
"""A measured number, whatever it is."""

VERDICT: Shape = {"type": "string", "enum": [str(verdict) for verdict in Verdict]}
SEVERITY: Shape = {"type": "string", "enum": [str(severity) for severity in Severity]}


def record(**keys: Shape) -> Shape:
    """An object that has at least these keys."""
    return {"type": "object", "properties": keys, "required": list(keys)}


def listed(of: Shape) -> Shape:
    """An array."""
    return {"type": "array", "items": of}


def mapped(to: Shape) -> Shape:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": to}


def maybe(of: Shape) -> Shape:
    """Null where nothing is known."""
    return {"anyOf": [of, {"type": "null"}]}


WHEN: Shape = {"type": "number", "description": "Unix seconds"}

RESULT = record(
    criterion=TEXT, item=TEXT, clause=TEXT, text=TEXT, metric=TEXT, verdict=VERDICT, reason=TEXT,
    observed=maybe(REAL), comparison=TEXT, limit=maybe(REAL), margin=maybe(REAL), unit=TEXT,
    coverage=maybe(REAL), samples=WHOLE, sampled_at=maybe(WHEN), severity=SEVERITY,
    labels=mapped(TEXT), note=TEXT, overridden=TEXT, at=WHEN,
)  # fmt: skip

_ABOUT: dict[str, Shape] = {
    "id": TEXT, "title": TEXT, "clause": TEXT, "watch": FLAG, "verdict": VERDICT,
    "last_run": maybe(WHEN), "last_pass": maybe(WHEN), "duration": maybe(REAL), "error": TEXT,
}  # fmt: skip

CHECK_COUNTS = record(**_ABOUT, schedule=TEXT, counts=mapped(WHOLE))
CHECK = record(**_ABOUT, schedule=TEXT, results=listed(RESULT))

REPORT = record(
    schema=WHOLE, check=TEXT, title=TEXT, at=WHEN, late=REAL, node=TEXT, verdict=VERDICT,
    hashes=mapped(TEXT), drill=maybe(ANYTHING), results=listed(ANYTHING),
)  # fmt: skip

STORE = record(ok=FLAG, reason=TEXT)

REPORTS = record(
    check=TEXT, limit=WHOLE, store=STORE,
    reports=listed(record(at=WHEN, verdict=VERDICT, late=REAL, report=REPORT)),
)  # fmt: skip

JOB = record(job=TEXT, state=TEXT, ranks=listed(ANYTHING))

ALERT = record(
    key=TEXT, name=TEXT, severity=SEVERITY, since=WHEN, summary=TEXT, description=TEXT,
    delivered=FLAG,
)  # fmt: skip

DELIVERY = record(
    mode={"type": "string", "enum": ["push", "rules", "both"]}, waiting=WHOLE,
    outcomes=mapped(WHOLE),
    peers=listed(record(url=TEXT, last_success=maybe(WHEN), error=TEXT)),
)  # fmt: skip

ALERTS = record(alerts=listed(ALERT), delivery=DELIVERY)

PROBE = record(
    probe=TEXT, up=FLAG, last_run=maybe(WHEN), last_success=maybe(WHEN), duration=maybe(REAL),
    error=TEXT, not_applicable=FLAG, overdue=FLAG,
)  # fmt: skip

HISTORY = record(
    metric=TEXT, unit=TEXT, kind=TEXT, source=TEXT, since=WHEN, until=WHEN, truncated=FLAG,
    store=STORE, rows=listed(record(at=WHEN, value=VALUE, labels=mapped(TEXT), span=REAL)),
)  # fmt: skip

TOLD = record(
    id=TEXT, of=TEXT, check=TEXT, job=TEXT, node=TEXT, stage=TEXT, reason=TEXT, stopped_by=TEXT,
    duration=REAL, processes=WHOLE, discounts=listed(TEXT), armed_at=WHEN, began_t=maybe(REAL),
    ended_t=maybe(REAL), looked_t=REAL, t=maybe(REAL), at=WHEN, done=FLAG,
)  # fmt: skip

TABLE = record(columns=listed(TEXT), rows=listed({"type": "array"}))

ROWS = record(
    run=TOLD, since=WHOLE, until=WHOLE, newest=WHOLE, windows=TABLE, minutes=TABLE, events=TABLE
)

METRIC = record(
    name=TEXT, exported_as=TEXT, unit=TEXT, help=TEXT, labels=listed(TEXT), source=TEXT,
    kind=TEXT, max_age=REAL, series=WHOLE,
)  # fmt: skip

VERSION = record(
    version=TEXT, node=TEXT, started_at=WHEN, catalogue=TEXT, profile=TEXT, schemas=mapped(WHOLE)
)

# torch: empty where the job's interpreter has none, null where it could not be asked.
NODE = record(
    node=TEXT, version=TEXT, catalogue=TEXT, profile=TEXT, started_at=WHEN, at=WHEN,
    jobs=listed(TEXT), python=TEXT, torch=maybe(TEXT), torch_missing=TEXT,
    cluster=record(lead=TEXT, nodes=listed(TEXT), port=WHOLE, ports=listed(WHOLE)),
    interface=maybe(record(name=TEXT, up=FLAG, carries=FLAG, loopback=FLAG)),
)  # fmt: skip

STATUS = record(
    schema=WHOLE, running=FLAG, node=TEXT, version=TEXT, catalogue=TEXT, profile=TEXT, at=WHEN,
    started_at=WHEN, verdict=VERDICT, troubles=listed(TEXT), notices=listed(TEXT),
    overrides=listed(TEXT), readings=FLAG,
    checks=listed(record(**_ABOUT, results=listed(RESULT))), probes=listed(PROBE),
    loops=mapped(record(age=REAL, limit=REAL, late=FLAG)), jobs=listed(JOB),
    log_lines=listed(ANYTHING), alerts=listed(ALERT), delivery=DELIVERY, ingest=mapped(WHOLE),
    store=record(ok=FLAG, reason=TEXT, queue=WHOLE, last_commit=maybe(WHEN), path=TEXT),
)  # fmt: skip

EVIDENCE = record(
    what=TEXT, verdict=VERDICT, reason=TEXT, todo=TEXT, record=maybe(WHOLE), report=TEXT,
    where=TEXT, at=maybe(WHEN), age=maybe(REAL), criterion=TEXT, observed=maybe(REAL),
    comparison=TEXT, limit=maybe(REAL), margin=maybe(REAL), unit=TEXT, overridden=listed(TEXT),
)  # fmt: skip

GATE = record(
    gate=TEXT, title=TEXT, clause=TEXT, at=WHEN, outcome=TEXT, processes=WHOLE, nodes=WHOLE,
    authority=listed(TEXT), authorised=FLAG, signatures=listed(ANYTHING), missing=listed(TEXT),
    due=maybe(ANYTHING), due_words=TEXT,
    lines=listed(record(
        kind=TEXT, id=TEXT, text=TEXT, verdict=VERDICT, reason=TEXT, evidence=listed(EVIDENCE)
    )),
)  # fmt: skip

GATES = record(
    at=WHEN, node=TEXT, elsewhere=TEXT, start=TEXT, evidence_days=REAL, overrides=listed(TEXT),
    problems=listed(TEXT), gates=listed(GATE),
    table=listed(record(title=TEXT, cells=mapped(maybe(VERDICT)), verdict=VERDICT)),
)  # fmt: skip

ERROR = record(
    schema=WHOLE,
    error=record(
        status=WHOLE, message=TEXT, read=TEXT, wanted=listed(TEXT), near=maybe(TEXT)
    ),
)  # fmt: skip
