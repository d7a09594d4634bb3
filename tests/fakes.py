"""Fakes that every room's tests share."""

from __future__ import annotations


class FakeClock:
    """A clock that moves when told: `clock.advance(5)`; `clock.step(3600)` moves the wall only."""

    def __init__(self, now: float = 1_800_000_000.0, boot: float = 1_000.0) -> None:
        self._now = now
        self._boot = boot

    def now(self) -> float:
        return self._now

    def boot(self) -> float:
        return self._boot

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._boot += seconds

    def step(self, seconds: float) -> None:
        self._now += seconds
