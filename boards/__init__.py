"""The code behind dashboards/: build-time only. `python -m boards` writes them."""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import fleet, job, node, trends, validation


def boards() -> tuple[Dashboard, ...]:
    """Every dashboard, as delivered."""
    return node.make(), job.make(), fleet.make(), trends.make(), validation.make()


def text(made: Dashboard) -> str:
    """The file of a dashboard."""
    document = json.loads(json.dumps(made, cls=JSONEncoder))
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
