"""What stands between dvfd and a real engine and does harm: slow, cut off, away, lying."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rows = list[dict[str, Any]]
Harm = Callable[[str, Rows], Rows]
"""The question and the series of its answer to those that are told."""


class Between:
    """Passes everything on; `rows` changes answers, `wait` holds each up, after `left` answers none
    comes, of each only so many bytes (`cut`), with `extra` keys beside the answer.
    """

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.rows: Harm = lambda _question, rows: rows
        self.wait = 0.0
        self.left = 1_000_000
        self.cut: int | None = None
        self.extra: dict[str, Any] = {}
        self._lock = threading.Lock()

    def answers(self) -> bool:
        """Whether one more is answered."""
        with self._lock:
            self.left -= 1
            return self.left >= 0

    def body(self, path: str, form: bytes | None) -> tuple[int, bytes]:
        """What is told of an answer."""
        request = urllib.request.Request(f"{self.engine}{path}", data=form)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, found = answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        asked = form.decode() if form else urllib.parse.urlsplit(path).query
        question = urllib.parse.parse_qs(asked)["query"][0]
        if found["data"]["resultType"] != "scalar":
            found["data"]["result"] = self.rows(question, found["data"]["result"])
        return status, json.dumps({**found, **self.extra}).encode()


@contextmanager
def between(engine: str) -> Iterator[tuple[str, Between]]:
    """Its address, and what it does."""
    harm = Between(engine)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            form = self.rfile.read(length) if length else None
            if not harm.answers():
                self.close_connection = True
                return
            time.sleep(harm.wait)
            status, body = harm.body(self.path, form)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body[: harm.cut])))
            self.end_headers()
            self.wfile.write(body[: harm.cut])

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", harm
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
