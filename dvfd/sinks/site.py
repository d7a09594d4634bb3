"""What is served where: /metrics, /healthz, the pages, /api/v1. Reads a snapshot, no more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dvfd.sinks import prometheus
from dvfd.sinks.http import Response, plain
from dvfd.state import NoPast, NoRuns

if TYPE_CHECKING:
    from dvfd.sinks.http import Request
    from dvfd.state import Past, Runs, Snapshot


class Site:
    """The handler of the listener."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        past: Past | None = None,
        identity: Callable[[], Mapping[str, Any]] | None = None,
        runs: Runs | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._identity = identity
        self._past = past or NoPast()
        self._runs = runs or NoRuns()
        self._exposition = prometheus.Exposition(snapshot)
        self.scraped_at: float | None = None

    def __call__(self, request: Request) -> Response:
        """Answer a GET or HEAD."""
        match request.path:
            case "/metrics":
                text = self._exposition.text()
                self.scraped_at = time.time()
                return Response(HTTPStatus.OK, text, prometheus.CONTENT_TYPE)
            case "/healthz":
                return health(self._snapshot())
            case "/":
                # Imported with the first visitor: jinja2 costs 2 MiB that a scraper needs not.
                from dvfd.sinks import page  # noqa: PLC0415

                return page.response(self._snapshot(), request.query, self._past)
            case "/gates":
                from dvfd.sinks import gates_page  # noqa: PLC0415  # as the page

                return gates_page.response(self._snapshot(), request.query)
            case path if path == "/api" or path.startswith("/api/"):
                from dvfd.sinks import api  # noqa: PLC0415  # few nodes are ever asked

                who = self._identity or api.nobody
                return api.response(request, self._snapshot, self._past, who, self._runs)
            case _:
                return plain(
                    HTTPStatus.NOT_FOUND,
                    "not found: try /, /gates, /metrics, /healthz or /api/v1/status",
                )


def health(snapshot: Snapshot) -> Response:
    """Whether dvfd itself is well: 503 with the reasons when a loop is late or the store broke."""
    troubles = snapshot.troubles
    document = {
        "status": "trouble" if troubles else "ok",
        "reasons": list(troubles),
        "loops": {
            name: {
                "late": loop.late,
                "age_seconds": round(loop.age, 3),
                "limit_seconds": loop.limit,
            }
            for name, loop in snapshot.loops.items()
        },
        "store": {"ok": snapshot.store.ok, "reason": snapshot.store.reason},
        "version": snapshot.version,
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
    body = json.dumps(document, indent=1).encode() + b"\n"
    return Response(status, body, "application/json")
