"""Ask every Alertmanager what became of a test alert: routed to whom, notified by what. Sends none.

Its API knows the routes and not what was sent; its counters know what was sent and not of which
alert. Both are told as they are.
"""

from __future__ import annotations

import http
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from dvfd import remote
from dvfd.errors import DvfdError, ProbeError
from dvfd.masking import masked

if TYPE_CHECKING:
    from dvfd.config import Alerting

MADE = "alertmanager_notification_requests_total"
FAILED = "alertmanager_notification_requests_failed_total"
"""What Alertmanager counts of each try to notify, by kind of receiver: webhook, email, ..."""

TRIAL = re.compile(r"[0-9a-f]{8,64}")

Login = tuple[str, str] | None
Get = Callable[..., remote.Answer]
"""remote.get, or a fake."""


def seen(
    settings: Alerting, trial: str, login: Callable[[Alerting], Login], get: Get = remote.get
) -> list[dict[str, Any]]:
    """Of each Alertmanager: its `url`, the `receivers` that the alert with the label *trial* is
    routed to, its `state` (nothing if it is not there) and what holds it back, notifications that
    were `made` and `failed` since it began, by kind, and what could not be read.

    Raises DvfdError if *trial* is no name of one.
    """
    if not TRIAL.fullmatch(trial):
        raise DvfdError(f"{trial!r:.80} names no test alert: wanted 8 to 64 of 0-9 and a-f")
    with ThreadPoolExecutor(max(1, len(settings.urls)), "seen") as pool:
        return list(pool.map(lambda url: _one(url, trial, settings, login, get), settings.urls))


def _one(
    url: str, trial: str, settings: Alerting, login: Callable[[Alerting], Login], get: Get
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "url": masked(url),
        "receivers": [],
        "state": "",
        "by": [],
        "error": "",
    }
    try:
        access = remote.Access(":".join(login(settings) or ()))
        base, wanted = url.rstrip("/"), quote(f'trial="{trial}"')
        route = f"{base}/api/v2/alerts?filter={wanted}"
        found |= _route(_body(get, route, access, settings.timeout))
        text = _body(get, f"{base}/metrics", access, settings.timeout)
        return found | _counts(text.decode())
    except (DvfdError, OSError, ValueError, KeyError, TypeError) as error:
        return found | {"error": masked(str(error))[:300]}


def _body(get: Get, url: str, access: remote.Access, within: float) -> bytes:
    answer = get(url, access, within=within)
    if answer.status != http.HTTPStatus.OK:
        raise ProbeError(f"{masked(url)} answers {answer.status}, wanted 200")
    return answer.body


def _route(body: bytes) -> dict[str, Any]:
    """Where the one alert of *body* goes; nothing if there is none."""
    alerts = json.loads(body)
    status = [alert["status"] for alert in alerts]
    return {
        "receivers": sorted({r["name"] for alert in alerts for r in alert["receivers"]}),
        "state": next((str(each["state"]) for each in status), ""),
        "by": [name for each in status for name in (*each["silencedBy"], *each["inhibitedBy"])],
    }


def _counts(text: str) -> dict[str, Mapping[str, float]]:
    """Notifications by kind. Raises ProbeError where they are not counted."""
    found: dict[str, dict[str, float]] = {MADE: {}, FAILED: {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in found:
                kinds, kind = found[sample.name], sample.labels.get("integration", "")
                kinds[kind] = kinds.get(kind, 0.0) + sample.value
    if not found[MADE]:
        raise ProbeError(f"its /metrics has no {MADE}: wanted Alertmanager 0.22 or newer")
    return {"made": found[MADE], "failed": found[FAILED]}
