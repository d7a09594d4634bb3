"""Read a criterion's verdict where people and programs read it: /metrics, page, status, API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

METRICS, PAGE, STATUS, API = PLACES = ("/metrics", "page", "status", "/api/v1")

SERIES = re.compile(
    r'^dvfd_criterion_verdict\{check="[^"]*",criterion="([^"]+)",verdict="([A-Z_]+)"\} 1\.0$',
    re.MULTILINE,
)
ROW = re.compile(
    r'<tr><td>\s*<span class="v ([A-Z_]+)">(?:(?!</tr>).)*?<code class="quiet">([^<]+)</code>',
    re.DOTALL,
)

NOT_TOLD = "not told"

Verdicts = dict[str, str]
"""Verdict by criterion."""


def read(get: Callable[[str], bytes], status: Mapping[str, object]) -> dict[str, Verdicts]:
    """Every criterion's verdict by place; *get* fetches a path, *status* is `dvfd status -o json`.

    Where a place shows one criterion twice, the better of two that differ is not chosen: it is
    marked as such.
    """
    page = ((name, verdict) for verdict, name in ROW.findall(get("/?check=all&hold=1").decode()))
    return {
        METRICS: _once(SERIES.findall(get("/metrics").decode())),
        PAGE: _once(page),
        STATUS: _once(_of(status)),
        API: _once(_of(json.loads(get("/api/v1/status"))["data"])),
    }


def told(places: Mapping[str, Verdicts], criterion: str) -> set[str]:
    """What the places say of a criterion: one word, where they agree; a place without it says so.

    /metrics leaves out what a stability run only notes, which is no verdict of anybody's.
    """
    return {verdicts.get(criterion, NOT_TOLD) for verdicts in places.values()}


def _of(status: Mapping[str, object]) -> list[tuple[str, str]]:
    checks: list[dict[str, list[dict[str, str]]]] = status["checks"]  # type: ignore[assignment]
    return [(r["criterion"], r["verdict"]) for check in checks for r in check["results"]]


def _once(found: object) -> Verdicts:
    """One verdict for each name."""
    verdicts: Verdicts = {}
    for name, verdict in found:  # type: ignore[attr-defined]
        said = verdicts.setdefault(name, verdict)
        verdicts[name] = said if said == verdict else f"{said} and {verdict}"
    return verdicts
