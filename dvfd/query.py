"""Ask the past by name: what a metric or a check was. Command line and listener share it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from dvfd.model import Catalogue, Sample
    from dvfd.state import Past

LISTED = 30
"""Names that an error lists: all checks, but not hundreds of metrics."""

ROWS = 2000
"""Rows of one answer: an hour of eight series, or a year of daily reports."""


def near(name: str, names: Collection[str]) -> str:
    """The one of *names* that was probably meant, or an empty string."""
    return next(iter(difflib.get_close_matches(name, list(names), 1)), "")


def known(request: Mapping[str, Any], key: str, names: Collection[str]) -> str:
    """The name in *request*. Raises DvfdError with the nearest one if it is not known."""
    name = str(request.get(key))
    if name in set(names):
        return name
    meant = near(name, names)
    hint = f"; did you mean {meant!r}?" if meant else ""
    if not meant and len(set(names)) <= LISTED:
        hint = f"; there are {', '.join(names)}"
    raise DvfdError(f"no such {key}: {name!r}{hint}")


def history(
    name: str, catalogue: Catalogue, past: Past, *, since: float, until: float
) -> dict[str, Any]:
    """The newest values of a metric's live series, or reports of a check, oldest first.

    Raises DvfdError if *name* is neither.
    """
    wanted = {"metric or check": name}
    known(wanted, "metric or check", [*catalogue.metrics, *catalogue.checks])
    if name not in catalogue.checks:
        rows, _ = course(name, past, since=since, until=until)
        return {"name": name, "rows": rows}
    found = [
        {"at": report.at, "check": name, "verdict": report.verdict, "late": report.late}
        for report in past.reports(name, ROWS)
        if report.at >= since
    ]
    return {"name": name, "rows": sorted(found, key=_at)}


def course(
    metric: str,
    past: Past,
    *,
    since: float,
    until: float,
    where: Mapping[str, str] | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """The newest ROWS values of the live series with the labels *where*, oldest first; and
    whether older ones were left out. Holds one series at a time beside them.
    """
    rows: list[dict[str, Any]] = []
    cut = False
    for newest in past.latest(metric):
        if not (where or {}).items() <= dict(newest.labels).items():
            continue
        rows += [row(s) for s in past.series(metric, newest.labels, since=since, until=until)]
        cut = cut or len(rows) > ROWS
        rows = sorted(rows, key=_at)[-ROWS:]
    return rows, cut


def row(sample: Sample) -> dict[str, Any]:
    """*sample*; `span` is the seconds that a value rolled up stands for, 0 for an instant."""
    return {
        "at": sample.at,
        "value": sample.value,
        "labels": dict(sample.labels),
        "span": sample.span,
    }


def _at(row: Mapping[str, Any]) -> float:
    return float(row["at"])
