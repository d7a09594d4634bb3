"""The example of an Alertmanager with its waits in seconds, and what its receivers got."""

from __future__ import annotations

import re
from pathlib import Path

import testbed

EXAMPLE = Path(__file__).resolve().parents[1] / "alert_rules" / "alertmanager.example.yml"

SHORT = {"group_wait: 30s": "1s", "group_wait: 10s": "1s", "_interval: 5m": "2s"}
SHORT |= {"_interval: 1m": "2s"}


def shortened(url: str) -> str:
    """The example with its webhooks at *url*, its waits in seconds, and no working hours."""
    text = EXAMPLE.read_text().replace("http://127.0.0.1:9200/", url)
    for long, short in SHORT.items():
        assert long in text
        text = text.replace(long, f"{long.partition(':')[0]}: {short}")
    return re.sub(r"\n *mute_time_intervals: .*", "", text)


def pages(webhook: testbed.Webhook, receiver: str = "on-call") -> list[set[str]]:
    """The names of the alerts of each notification that *receiver* got."""
    return [
        {a["labels"]["alertname"] for a in document["alerts"]}
        for path, document in webhook.notifications
        if path == f"/{receiver}"
    ]
