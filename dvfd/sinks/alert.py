"""Word an alert, and write it in Alertmanager's API v2. Pure: sends nothing.

An alert's identity is its label set, so no value, path or error text is ever a label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dvfd.masking import without_user
from dvfd.model import Severity

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.incidents.incident import Incident
    from dvfd.model import Result

FAILED = "DvfdCriterionFailed"
BLIND = "DvfdBlind"
STORM = "DvfdStorm"
TEST = "DvfdTest"
DUE = "DvfdAttestationDue"
OVERDUE = "DvfdChecklistOverdue"
PHASE_TEST = "DvfdPhaseTestFailed"
DELAYED = "DvfdPhaseDelayed"

ESCALATION = "escalation"
"""The label that says whom an alert calls; alerts without it call by severity."""

TEXT_LIMIT = 2000
"""Characters of one annotation: chat and mail receivers cut longer ones, or refuse them."""

RESENDS = 4
"""endsAt lies this many resends ahead, as in Prometheus: three may be lost without a false
"resolved"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What is wrong, since when, in words for a person. `key` is its identity on this node."""

    key: str
    name: str
    severity: str
    since: float
    summary: str
    description: str
    labels: Mapping[str, str]
    value: str = ""
    limit: str = ""
    unit: str = ""
    evidence: str = ""


def criterion_alert(result: Result, since: float, escalation: str = "") -> Alert:
    """A criterion is breached since Unix time *since*; *escalation* says whom it calls, if not its
    severity does.
    """
    criterion = result.criterion
    return Alert(
        key=criterion.id,
        name=FAILED,
        severity=criterion.severity.value,
        since=since,
        summary=f"{criterion.id}: {criterion.text}",
        description=result.reason,
        labels={"check": criterion.check, "criterion": criterion.id}
        | ({ESCALATION: escalation} if escalation else {}),
        value=_number(result.observed),
        limit=_number(result.limit),
        unit=criterion.unit,
        evidence=evidence(result),
    )


def blind_alert(
    source: str, since: float, reason: str, *, severity: Severity = Severity.CRITICAL
) -> Alert:
    """What *source* measured was known and is not known any more."""
    return Alert(
        key=f"blind:{source}",
        name=BLIND,
        severity=severity.value,
        since=since,
        summary=f"source {source} has gone silent: what it measured is now UNKNOWN",
        description=reason,
        labels={"probe": source},
    )


def storm_alert(criteria: Sequence[str], since: float, window: float) -> Alert:
    """So many criteria broke at once that they are told as one."""
    return Alert(
        key="storm",
        name=STORM,
        severity=Severity.CRITICAL.value,
        since=since,
        summary=f"{len(criteria)} criteria broke within {window:g} s",
        description=f"broken: {', '.join(criteria)}",
        labels={},
    )


def due_alert(item: str, check: str, since: float, text: str, why: str) -> Alert:
    """A person's word on *item* is wanted for the list *check*, or ends soon."""
    return Alert(
        key=f"due:{item}",
        name=DUE,
        severity=Severity.WARNING.value,
        since=since,
        summary=f"{item} is due for the {check} list: {text}",
        description=why,
        labels={"check": check, "item": item},
    )


def overdue_alert(check: str, since: float, why: str) -> Alert:
    """The list *check* was not judged within its period."""
    return Alert(
        key=f"overdue:{check}",
        name=OVERDUE,
        severity=Severity.WARNING.value,
        since=since,
        summary=f"the {check} list was not judged",
        description=why,
        labels={"check": check},
    )


def phase_test_alert(incident: Incident, key: str, step: str) -> Alert:
    """A phase's test failed; whom that calls changes with the incident's state. *key* begins the
    alert's key, *step* is what a person does next.
    """
    return Alert(
        key=f"{key}{incident.check}:{incident.phase}:{incident.escalation}",
        name=PHASE_TEST,
        severity=Severity.CRITICAL.value,
        since=incident.moved_at,
        summary=f"{incident.check} failed in {incident.phase}: {incident.title}",
        description=f"{incident.journal[0].why}. Now {incident.state}: {step}",
        labels=_of_incident(incident, incident.escalation),
        evidence=f"incident {incident.id}, {_records(incident)}",
    )


def delayed_alert(incident: Incident, key: str, until: str) -> Alert:
    """The phase of *incident* is delayed *until* a moment, in words."""
    assert incident.delay is not None
    weeks = incident.delay.weeks
    return Alert(
        key=f"{key}{incident.check}:{incident.phase}:authority",
        name=DELAYED,
        severity=Severity.WARNING.value,
        since=incident.opened_at + incident.delay.after,
        summary=f"{incident.phase} is delayed until {until}",
        description=f"{incident.check}: {incident.delay.why}; by {weeks} week{'s' * (weeks > 1)}",
        labels=_of_incident(incident, "authority"),
        evidence=f"incident {incident.id}, {_records(incident)}",
    )


def _of_incident(incident: Incident, escalation: str) -> dict[str, str]:
    """What an alert of *incident* is known by: no value, no reason, no number of a run."""
    return {"check": incident.check, "phase": incident.phase, ESCALATION: str(escalation)}


def _records(incident: Incident) -> str:
    return f"records {', '.join(str(run.number) for run in incident.failures)} of the ledger"


def trial_alert(at: float, trial: str = "") -> Alert:
    """A harmless alert that proves the way to the people on call. *trial* tells it from others."""
    command = "check monitoring" if trial else "alerts test"
    return Alert(
        key="test",
        name=TEST,
        severity=Severity.INFO.value,
        since=at,
        summary="test alert from dvfd: nothing is wrong",
        description=f"sent by `dvfd {command}`; it resolves by itself",
        labels={"trial": trial},
    )


def evidence(result: Result) -> str:
    """On what a verdict rests: the series, and how many samples, the newest when."""
    series = ", ".join(f"{name}={value}" for name, value in result.labels)
    newest = f", newest {timestamp(result.sampled_at)}" if result.sampled_at else ""
    samples = f"{result.samples} samples{newest}" if result.samples else ""
    return "; ".join(part for part in (series, samples) if part)


def document(
    alert: Alert, config: Config, *, now: float, resolved_at: float | None = None
) -> dict[str, Any]:
    """*alert* as one element of a POST to /api/v2/alerts, valid by construction.

    It starts when the breach began: a group older than group_wait is told at once.
    """
    # After a step of the wall clock an end before the start would be refused.
    starts_at = min(alert.since, now)
    ends_at = now + RESENDS * config.alerting.resend if resolved_at is None else resolved_at
    body: dict[str, Any] = {
        "labels": _clean(_labels(alert, config)),
        "annotations": _clean(_annotations(alert, config)),
        "startsAt": timestamp(starts_at),
        "endsAt": timestamp(max(starts_at, ends_at)),
    }
    if _is_uri(config.alerting.external_url):
        body["generatorURL"] = without_user(config.alerting.external_url)
    return body


def timestamp(at: float) -> str:
    """RFC 3339 in UTC with a Z: Alertmanager takes a naive time silently, as something else."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _labels(alert: Alert, config: Config) -> dict[str, str]:
    return {
        "alertname": alert.name,
        "node": config.node.name,
        "phase": config.node.phase,
        "severity": alert.severity,
        **alert.labels,
        "source": "dvfd",
    }


def _annotations(alert: Alert, config: Config) -> dict[str, str]:
    return {
        "summary": alert.summary,
        "description": alert.description,
        "value": alert.value,
        "limit": alert.limit,
        "unit": alert.unit,
        "evidence": alert.evidence,
        "runbook_url": f"{config.alerting.runbooks.rstrip('/')}/{alert.name}.md",
    }


def _clean(pairs: Mapping[str, object]) -> dict[str, str]:
    """Names and values that Alertmanager accepts; an empty value is the same as none."""
    return {_name(name): _text(value) for name, value in pairs.items() if value not in {"", None}}


def _name(name: str) -> str:
    safe = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{safe}" if not safe or safe[0].isdigit() else safe


def _text(value: object) -> str:
    text = str(value).encode("utf-8", "replace").decode()
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def _is_uri(text: str) -> bool:
    """Whether Alertmanager takes *text* as generatorURL; else it refuses the whole batch (422)."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and not re.search(r"\s", text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
