"""Every checkpoint of a run, verified once, promptly, in a child at idle priority; oldest first."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.errors import ProbeError
from dvfd.probes.places import locate
from dvfd.probes.verifier import Answer, Target
from dvfd.runs.rows import Event, What

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dvfd.probes.verifier import Verifier
    from dvfd.runs.rows import Pen

QUEUE = 64
"""Checkpoints that may wait: a job that saves faster than they are verified is told so."""

REMOVED = "removed before it could be verified: have the job keep more of them"


class Manifestless:
    """The verifier's records, for checkpoints that are read once, right after their save: a
    manifest of what would be read at once again shows nothing.
    """

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """What the verifier would have kept: no manifest of our own making."""
        path, _, _ = key.rpartition("#")
        return {"path": path, "saved_at": None, "manifest": None}

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class Save:
    """One checkpoint as it was reported: its path in the words of process *pid*."""

    node: str
    step: int
    path: str
    pid: int | None

    @property
    def key(self) -> str:
        """Unique among all that wait."""
        return f"{self.path}#{self.step}"


class Saves:
    """The checkpoints of one run that wait for their verification."""

    def __init__(self, verifier: Verifier, pen: Pen, *, proc: Path = Path("/proc")) -> None:
        self._verifier = verifier
        self._pen = pen
        self._proc = proc
        self._waiting: dict[str, Save] = {}
        self._lock = threading.RLock()
        self._asked = ""

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def add(self, save: Save) -> str:
        """Have *save* verified; why that cannot be, or nothing."""
        with self._lock:
            if len(self._waiting) >= QUEUE:
                return f"{len(self._waiting)} checkpoints wait for their verification already"
            self._waiting.setdefault(save.key, save)
            return ""

    def resume(self, events: Iterable[Event]) -> None:
        """After a restart: what was saved and has no answer yet."""
        done = {What.VERIFIED, What.DAMAGED, What.UNVERIFIED}
        saved: dict[tuple[int | None, str], Event] = {}
        for event in events:
            if event.what is What.SAVED:
                saved[event.step, event.text] = event
            elif event.what in done:
                saved.pop((event.step, event.text.partition(": ")[0]), None)
        for event in saved.values():
            self.add(Save(event.node, event.step or 0, event.text, None))

    def tick(self, t: float, at: float) -> None:
        """Take the answer on the oldest, and ask for the next."""
        with self._lock:
            self._look(t, at)

    def _look(self, t: float, at: float) -> None:
        while self._waiting:
            key, save = next(iter(self._waiting.items()))
            if self._asked != key:
                try:
                    place = locate(save.path, save.pid, proc=self._proc)
                    gone = not place.exists()
                except (ProbeError, OSError) as error:
                    self._answered(save, t, at, What.UNVERIFIED, str(error))
                    continue
                if gone:
                    self._answered(save, t, at, What.UNVERIFIED, REMOVED)
                    continue
                self._asked = key
                self._verifier.request(Target(key, save.path, None, place, 0), at=at)
            answer = self._verifier.answer(key)
            if answer is None:
                return
            what, words = _worth(answer)
            if what is not What.VERIFIED and not answer.target.place.exists():
                what, words = What.UNVERIFIED, REMOVED
            self._answered(save, t, at, what, words)
            self._verifier.keep_only(set(self._waiting))

    def _answered(self, save: Save, t: float, at: float, what: What, words: str) -> None:
        del self._waiting[save.key]
        self._asked = ""
        text = f"{save.path}: {words}" if words else save.path
        self._pen.add([Event(node=save.node, t=t, at=at, what=what, step=save.step, text=text)])


def _worth(answer: Answer) -> tuple[What, str]:
    if answer.intact and answer.loadable:
        return What.VERIFIED, answer.reason
    if answer.intact is False or answer.loadable is False:
        return What.DAMAGED, answer.reason
    return What.UNVERIFIED, answer.reason
