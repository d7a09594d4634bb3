"""Judge checks anew beside everything else: a review takes minutes, and nobody may wait for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from dvfd.model import Clock

AGAIN = 60.0
"""Seconds until what failed is tried again."""

ENDING = 5.0
"""Seconds that the end waits for a judgement that is on."""

log = structlog.get_logger()


class Anew:
    """One thread while there is something to judge, else none. Any thread may ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._owed: dict[str, Callable[[], object]] = {}
        self._failed_at: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._ended = False

    def ask(self, check: str, judge: Callable[[], object]) -> bool:
        """Have *judge* called at the next tick, unless *check* is owed already."""
        with self._lock:
            new = check not in self._owed
            self._owed.setdefault(check, judge)
        return new

    def tick(self) -> None:
        """Begin with what is owed, if nothing is on. Returns at once."""
        with self._lock:
            idle = self._thread is None or not self._thread.is_alive()
            if idle and not self._ended and self._due():
                self._thread = threading.Thread(target=self._go, name="anew", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._ended = True
        if self._thread is not None:
            self._thread.join(ENDING)

    def _due(self) -> list[str]:
        now = self._clock.boot()
        return [c for c in self._owed if now >= self._failed_at.get(c, -AGAIN) + AGAIN]

    def _go(self) -> None:
        with self._lock:
            due = {check: self._owed[check] for check in self._due()}
        for check, judge in due.items():
            if not self._ended:
                self._judge(check, judge)

    def _judge(self, check: str, judge: Callable[[], object]) -> None:
        try:
            judge()
        except Exception:  # it costs this check its new judgement, and nothing else
            log.exception("not judged anew", check=check)
            self._failed_at[check] = self._clock.boot()
            return
        with self._lock:
            self._failed_at.pop(check, None)
            del self._owed[check]
