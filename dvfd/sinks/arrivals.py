"""Ask every Alertmanager what became of a test alert: routed to whom, notified by what. Sends none.

Its API knows the routes and not what was sent; its counters know what was sent, by kind of receiver
and, if it is told to, by receiver, and never of which alert. All is told as it is.
"""

from __future__ import annotations

import http
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
    routed to, its `state` (nothing if it is not there) and `by` what it is held back; how many
    notifications were `taken` and `failed` since it began, by kind, and `taken_by` whom where it
    counts that; and the `error` of what could not be read.

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


def _counts(text: str) -> dict[str, dict[str, float]]:
    """Notifications by kind and by receiver. Raises ProbeError where they are not counted."""
    taken: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    by: Counter[str] = Counter()
    for name, labels, count in _tries(text):
        kind, receiver = labels.get("integration", ""), labels.get("receiver_name", "")
        taken[kind] += count if name == MADE else -count
        failed[kind] += count if name == FAILED else 0
        if receiver:
            by[receiver] += count if name == MADE else -count
    if not taken:
        raise ProbeError(f"its /metrics has no {MADE}: wanted Alertmanager 0.22 or newer")
    return {"taken": dict(taken), "failed": dict(failed), "taken_by": dict(by)}


def _tries(text: str) -> Iterator[tuple[str, Mapping[str, str], int]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in {MADE, FAILED}:
                yield sample.name, sample.labels, int(sample.value)
