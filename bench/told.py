"""What a webhook was told by an Alertmanager with two routes, and which of it nobody had caused.

Every alert goes both ways. By the route `prompt` each is told by itself and at once: what is
measured there is the way to Alertmanager and through it. By the route `delivered` it waits as long
as the example in alert_rules/ has alerts of its severity wait.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[1] / "alert_rules" / "alertmanager.example.yml"

PROMPT, DELIVERED = "prompt", "delivered"

BEAT = "200ms"
"""group_interval: Alertmanager keeps the group of an alert that is over for up to 30 s, and who
comes back into it waits for its next beat."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Note:
    """One alert of one notification: by which route, whether it fires, its labels, when."""

    route: str
    firing: bool
    labels: Labels
    at: float

    def matches(self, wanted: Labels) -> bool:
        """Whether it has the labels *wanted*."""
        return wanted.items() <= self.labels.items()


@dataclass(slots=True)
class Spell:
    """A time in which alerts with one of these labels are expected: a fault was there."""

    since: float
    caused: tuple[Labels, ...]
    until: float = math.inf


def strays(notes: Iterable[Note], spells: Sequence[Spell]) -> list[Note]:
    """Alerts of the prompt route that fired although no fault had caused them."""
    return [
        note
        for note in notes
        if note.route == PROMPT and note.firing and not any(_caused(note, s) for s in spells)
    ]


def _caused(note: Note, spell: Spell) -> bool:
    return spell.since <= note.at <= spell.until and any(map(note.matches, spell.caused))


@dataclass
class Ear:
    """The webhook, listening while it is entered. `notes` grows as it is told."""

    notes: list[Note] = field(default_factory=list)

    def __enter__(self) -> Ear:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                take(self.path.strip("/"), body, time.monotonic())
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    @property
    def url(self) -> str:
        """Where the routes' paths begin."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def first(self, route: str, wanted: Labels, since: float) -> float | None:
        """When an alert like *wanted* was first told to fire after *since*, if it was."""
        told = (n for n in self.notes if n.route == route and n.firing and n.matches(wanted))
        return min((n.at for n in told if n.at >= since), default=None)

    def calm(self, wanted: Labels) -> bool:
        """Whether the last word on each alert like *wanted* is that it is over."""
        last = {
            tuple(sorted(n.labels.items())): n.firing
            for n in self.notes
            if n.route == PROMPT and n.matches(wanted)
        }
        return not any(last.values())

    def _take(self, route: str, body: bytes, at: float) -> None:
        for alert in json.loads(body)["alerts"]:
            self.notes.append(Note(route, alert["status"] == "firing", alert["labels"], at))


def group_waits(text: str) -> dict[str, str]:
    """How long the example lets a critical alert wait, and one of its root route."""
    root = re.search(r"^  group_wait: (\S+)$", text, re.MULTILINE)
    critical = re.search(
        r'- matchers: \[severity="critical"\]\n(?:      .*\n)*?      group_wait: (\S+)\n', text
    )
    if not (root and critical):
        raise LookupError(f"{EXAMPLE}: no group_wait of the root or of critical alerts")
    return {"critical": critical[1], "warning": root[1]}


def alertmanager_config(url: str) -> str:
    """Both routes, to the paths of the same names under *url*. JSON is YAML."""
    waits = group_waits(EXAMPLE.read_text(encoding="utf-8"))
    alone = {"group_by": ["..."], "repeat_interval": "12h"}
    slow = {"receiver": DELIVERED, "group_interval": "5m", **alone}
    routes = [
        {"receiver": PROMPT, "group_wait": "0s", "group_interval": BEAT, "continue": True, **alone},
        {"matchers": ['severity="critical"'], "group_wait": waits["critical"], **slow},
        {"group_wait": waits["warning"], **slow},
    ]
    receivers = [
        {"name": name, "webhook_configs": [{"url": f"{url}{name}", "send_resolved": True}]}
        for name in (PROMPT, DELIVERED)
    ]
    return json.dumps({"route": {"receiver": PROMPT, "routes": routes}, "receivers": receivers})
