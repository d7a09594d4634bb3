"""What waits for the disk: bounded by kind, in order, readable while it waits.

Nothing leaves before it is committed, so a failing disk loses nothing until a bound is reached;
what is lost then is counted.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.store.operations import CommitTelemetry, Operation

    Kind = TypeVar("Kind", bound=Operation)

LIMITS = {
    "samples": 20_000,  # 3 MiB; half an hour at 10 samples/s
    "telemetry": 10_000,  # rows; the job's own ring keeps what is refused here
    "reports": 200,  # 30 KB each
    "transitions": 10_000,
    "alarms": 10_000,
    "outbox": 10_000,
    "records": 10_000,
    "ends": 1_000,
}
"""How much of each kind may wait."""

TURN = 4000
"""Weight of one transaction: about 60 ms after an outage, so that nobody waits longer."""

Key = tuple[object, ...]


class Pending:
    """Operations that wait, oldest first. Thread-safe; adding never blocks on the disk."""

    def __init__(self) -> None:
        self._waiting: dict[Key, Operation] = {}
        self._weights: Counter[str] = Counter()
        self._numbers = count()
        self._refused: set[str] = set()
        self._taken: frozenset[Key] = frozenset()
        self._urgent = 0
        self._hurried: set[Key] = set()  # what somebody waits for
        self.lost: Counter[str] = Counter(dict.fromkeys(LIMITS, 0))
        self.lost_at = -math.inf  # monotonic seconds
        self.changed = threading.Condition()

    def add(self, operation: Operation) -> None:
        """Let *operation* wait for the writer; beyond the bound the oldest of its kind is lost."""
        with self.changed:
            idle, urgent = not self._waiting, self._urgent
            key: Key = operation.key or (next(self._numbers),)
            self._remove(key)
            self._waiting[key] = operation
            self._count(operation, 1)
            self._bound(operation.kind)
            if idle or (self._urgent and not urgent):
                self.changed.notify_all()

    def add_telemetry(self, operation: CommitTelemetry) -> bool:
        """Let *operation* wait, or refuse it: then so are all later ones of its session.

        Until the session asks for its cursor, that is: a hole before a cursor that moves on would
        be a loss that nobody notices.
        """
        with self.changed:
            full = self._weights["telemetry"] + operation.weight > LIMITS["telemetry"]
            if full or operation.session in self._refused:
                self._refused.add(operation.session)
                self._lose("telemetry", 1)
                return False
            self.add(operation)
        return True

    def refuse(self, session: str) -> None:
        """Take nothing of *session* until it asks for its cursor again; what waits of it would
        leave a hole, and is let go.
        """
        with self.changed:
            self._refused.add(session)
            for key in self._keys(session) - self._taken:
                self._remove(key)

    def resume(self, session: str, timeout: float) -> bool:
        """Withdraw what waits of *session*, which is about to send it again, and take it anew.

        What is being committed right now is waited for; False if that takes over *timeout* s.
        """
        with self.changed:
            for key in self._keys(session) - self._taken:
                self._remove(key)
            self._refused.add(session)
            if self.changed.wait_for(lambda: not self._keys(session), timeout):
                self._refused.discard(session)
                return True
            return False

    def _keys(self, session: str) -> set[Key]:
        return {k for k, o in self._waiting.items() if getattr(o, "session", None) == session}

    def take(self) -> list[tuple[Key, Operation]]:
        """The oldest operations, for one transaction. They stay until `settle`."""
        turn, weight = [], 0
        with self.changed:
            for key, operation in self._waiting.items():
                turn.append((key, operation))
                weight += operation.weight
                if weight >= TURN:
                    break
            self._taken = frozenset(key for key, _ in turn)
        return turn

    def settle(self, turn: Sequence[tuple[Key, Operation]]) -> None:
        """Let go of what was committed, unless it was replaced meanwhile."""
        with self.changed:
            for key, operation in turn:
                if self._waiting.get(key) is operation:
                    self._remove(key)
            self._taken = frozenset()
            self._hurried &= self._waiting.keys()
            self.changed.notify_all()

    def of(self, kind: type[Kind]) -> list[Kind]:
        """What waits of one class of operation, oldest first."""
        with self.changed:
            return [o for o in self._waiting.values() if isinstance(o, kind)]

    def await_written(self, timeout: float) -> bool:
        """Wait until what waits now has left, or what took its place, at most *timeout* seconds.
        It is urgent from now on; what comes later is not waited for.
        """
        with self.changed:
            asked = frozenset(self._waiting)
            self._hurried |= asked
            self.changed.notify_all()
            return self.changed.wait_for(lambda: asked.isdisjoint(self._waiting), timeout)

    @property
    def urgent(self) -> bool:
        """Whether something waits that wants the disk at once."""
        return self._urgent > 0 or any(key in self._waiting for key in self._hurried)

    @property
    def size(self) -> int:
        """How much waits: samples, folds, and one for each other operation."""
        return sum(self._weights.values())

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def _bound(self, kind: str) -> None:
        while self._weights[kind] > LIMITS[kind]:
            oldest = next(k for k, o in self._waiting.items() if o.kind == kind)
            self._lose(kind, self._waiting[oldest].weight)
            self._remove(oldest)

    def _lose(self, kind: str, weight: int) -> None:
        self.lost[kind] += weight
        self.lost_at = time.monotonic()

    def _remove(self, key: Key) -> None:
        operation = self._waiting.pop(key, None)
        if operation is not None:
            self._count(operation, -1)

    def _count(self, operation: Operation, sign: int) -> None:
        self._weights[operation.kind] += sign * operation.weight
        self._urgent += sign * operation.urgent
