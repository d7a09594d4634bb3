"""Tell alerts to the log: one line when one is raised, one when it is over. The default sink."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from dvfd.sinks.pager import Entry

log = structlog.get_logger(__name__)


def tell(entry: Entry) -> None:
    """Log a transition of *entry*, observed beside wanted; to be given to Pager.listen."""
    alert = entry.alert
    log.warning(
        "alert raised" if entry.firing else "alert cleared",
        alert=alert.name,
        severity=alert.severity,
        subject=alert.key,
        summary=alert.summary,
        description=alert.description,
        observed=alert.value,
        limit=alert.limit,
        unit=alert.unit,
    )
