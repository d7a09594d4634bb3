"""Listen for one test alert as Alertmanager's webhook delivers it, and say when it came.

Answers nothing else, keeps nothing else, and is gone with its drill.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from typing import Self

    from dvfd.model import Clock

MOST = 1 << 20
"""Bytes of one notification: a group of a thousand alerts has about as many."""


class Ear:
    """The listener at *address* (HOST:PORT) that waits for the alert with the label *trial*.

    Entering raises ProbeError if the address cannot be had.
    """

    def __init__(self, address: str, trial: str, clock: Clock) -> None:
        self._address = address
        self._trial = trial
        self._clock = clock
        self.arrived: float | None = None  # in seconds since boot

    def __enter__(self) -> Self:
        host, _, port = self._address.rpartition(":")
        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), self._handler())
        except (OSError, ValueError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise ProbeError(f"--listen {self._address}: {why}, wanted a free HOST:PORT") from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def hear(self, body: bytes) -> None:
        """Take a notification; what is none, or of other alerts, changes nothing."""
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            for alert in json.loads(body)["alerts"]:
                ours = alert["labels"].get("trial") == self._trial
                if ours and alert["status"] == "firing" and self.arrived is None:
                    self.arrived = self._clock.boot()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ear = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5.0  # seconds for whoever connects and says nothing

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isdecimal() or int(length) > MOST:
                    self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                    return
                ear.hear(self.rfile.read(int(length)))
                self.send_response(HTTPStatus.OK)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing: stderr is the drill's."""

        return Handler
