"""The store of torchrun's rendezvous as a place to leave words for other ranks, and to miss them.

torch's store waits for a key as long as it is told to and says nothing of who was to write it. Here
each rank shows that it lives, so that waiting for one that died ends soon, with its name; and a
store that is out of reach is noticed by the kernel's probes and not after a quarter of an hour.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed
from torch.distributed.rendezvous import rendezvous

BEAT = 2.0
"""Seconds between two signs of life of a rank."""

SILENCE = 20.0
"""Seconds without one after which a rank is lost: a busy node delays a thread for seconds."""

LOOK = 0.5
"""Seconds of one wait before the others' signs of life are looked at."""


class Missing(Exception):
    """Somebody did not come to where all were to meet, or gave up: who, and why."""


class Cut(Missing):
    """The store is out of reach: nobody can be met any more."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Who did not come and how they were missed, or who gave up and why."""

    ranks: tuple[int, ...] = ()
    how: str = ""
    gave_up: tuple[int, str] | None = None


class Line:
    """One rank's line to the store. The signs of life have a connection of their own."""

    def __init__(self, store: Any, beats: Any, rank: int, size: int) -> None:
        """*store* and *beats* are two connections to the same store."""
        self._store, self._beats = store, beats
        self._rank, self._size = rank, size
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._kept: list[object] = []
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="beat", daemon=True)
        self._beating.start()

    @classmethod
    def of_torchrun(cls, rank: int, size: int, *, patience: float) -> Line:
        """To the store that torchrun told this process of; *patience* in seconds. Raises Cut."""
        limit = timedelta(seconds=patience)
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            store, _, _ = next(rendezvous("env://", timeout=limit))
            beats = distributed.TCPStore(  # type: ignore[attr-defined]  # it is there
                host, port, is_master=False, timeout=limit
            )
        except (RuntimeError, ValueError) as error:
            raise Cut(f"the store of the rendezvous, {host}:{port}: {error}") from None
        probe_often(port)
        return cls(store, beats, rank, size)

    def keep(self, thing: object) -> None:
        """Hold on to *thing* while the line lives."""
        self._kept.append(thing)

    def put(self, key: str, text: str, *, first: bool = False) -> None:
        """Leave *text* at *key*; with *first*, only where nobody did. Raises Cut."""
        with _reaching():
            self._store.compare_set(key, "", text) if first else self._store.set(key, text)

    def get(
        self, names: Mapping[int, str], timeout: float, *, unless: str = ""
    ) -> dict[int, str] | Lost:
        """What stands at each key, by rank, once all do; who is missed after *timeout* seconds or
        does not live, or who left word at *unless*. Raises Cut.
        """
        until = time.monotonic() + timeout
        while not self._there(names.values(), LOOK):
            if unless and self._there([unless], 0.0):
                rank, why = json.loads(self._read([unless])[0])
                return Lost(gave_up=(rank, why))
            absent = [r for r, key in names.items() if not self._there([key], 0.0)]
            if dead := self._dead(absent):
                return Lost(tuple(dead), f"gave no sign of life for {SILENCE:g} s")
            if absent and time.monotonic() > until:
                return Lost(tuple(absent), f"did not come within {timeout:g} s")
        return dict(zip(names, self._read(names.values()), strict=True))

    def collect(
        self, names: Mapping[int, str], timeout: float
    ) -> tuple[dict[int, str], dict[int, str]]:
        """What stands at each key, by rank, and how those that left nothing were missed."""
        said: dict[int, str] = {}
        missed: dict[int, str] = {}
        until = time.monotonic() + timeout
        try:
            while left := {r: k for r, k in names.items() if r not in said and r not in missed}:
                found = self.get(left, max(0.0, until - time.monotonic()))
                if isinstance(found, Lost):
                    missed |= dict.fromkeys(found.ranks, found.how)
                else:
                    said |= found
        except Cut as error:
            missed |= {r: str(error) for r in names if r not in said and r not in missed}
        return said, missed

    def part(self, patience: float) -> None:
        """Leave: who hosts the store waits, so that the others have read what they came for."""
        with contextlib.suppress(Missing):
            self.put(f"parted/{self._rank}", "")
            if self._rank == 0:
                self.collect({r: f"parted/{r}" for r in range(self._size)}, patience)
        self._over.set()

    def _there(self, keys: Iterable[str], patience: float) -> bool:
        """Whether all *keys* stand within *patience* seconds. Raises Cut."""
        with _reaching():
            if not patience:
                return bool(self._store.check(list(keys)))
            try:
                self._store.wait(list(keys), timedelta(seconds=patience))
            except distributed.DistStoreError:
                return False
        return True

    def _read(self, keys: Iterable[str]) -> list[str]:
        with _reaching():
            return [bytes(text).decode() for text in self._store.multi_get(list(keys))]

    def _dead(self, ranks: Iterable[int]) -> list[int]:
        """Those of *ranks* whose signs of life stand still, once they gave any."""
        now, found = time.monotonic(), []
        for rank in ranks:
            if not self._there([f"alive/{rank}"], 0.0):
                continue
            with _reaching():
                sign = bytes(self._store.get(f"alive/{rank}"))
            before = self._seen.get(rank)
            if before is None or before[0] != sign:
                self._seen[rank] = (sign, now)
            elif now - before[1] > SILENCE:
                found.append(rank)
        return found

    def _beat(self) -> None:
        number = 0
        with contextlib.suppress(Exception):  # a cut line is noticed by who uses it
            while not self._over.is_set():
                number += 1
                self._beats.set(f"alive/{self._rank}", str(number))
                self._over.wait(BEAT)


@contextlib.contextmanager
def _reaching() -> Any:
    """Whatever torch raises of a store out of reach, as Cut."""
    try:
        yield
    except distributed.DistStoreError:
        raise
    except RuntimeError as error:
        raise Cut(f"the store of the rendezvous: {str(error).partition(chr(10))[0]}") from None


def probe_often(port: int) -> None:
    """Have the kernel notice within 20 s that the other end of our lines to *port* is gone."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # gone by now, or no such socket
            if not str(link.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as line:
                if line.getpeername()[1] != port:
                    continue
                line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
