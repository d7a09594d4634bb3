"""Every checkpoint of a run, verified once, promptly, in a child at idle priority; oldest first.

Whoever tells of a save, or asks, never waits for the disk that the checkpoint lies on: one thread
at a time looks at it, and a run goes on beside a file system that is dead.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.errors import ProbeError
from dvfd.probes.places import locate
from dvfd.probes.verifier import Target, in_thread
from dvfd.runs.answers import unanswered
from dvfd.runs.rows import Event, What

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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

    def put(self, kind: str, key: str, document: Mapping[str, Any] | None) -> None:
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


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a verification."""

    save: Save
    what: What
    words: str = ""


class Saves:
    """The checkpoints of one run that wait for their verification. Any thread."""

    def __init__(
        self,
        verifier: Verifier,
        pen: Pen,
        *,
        proc: Path = Path("/proc"),
        start: Callable[[Callable[[], None]], None] = in_thread,
    ) -> None:
        self._verifier = verifier
        self._pen = pen
        self._proc = proc
        self._start = start
        self._lock = threading.Lock()  # of what follows; never held while a disk is waited for
        self._waiting: dict[str, Save] = {}
        self._now: Save | None = None
        self._found: list[Found] = []
        self._again: dict[str, Save] = {}  # told of once more while it was being read
        self._void: dict[str, str] = {}  # key: why no answer on it can be given any more
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        with self._lock:
            return not (self._waiting or self._busy or self._found)

    def add(self, save: Save) -> str:
        """Have *save* verified; why that cannot be, or nothing."""
        with self._lock:
            if self._now is not None and self._now.key == save.key:
                self._again[save.key] = save
            elif save.key not in self._waiting and len(self._waiting) >= QUEUE:
                return f"{len(self._waiting)} checkpoints wait for their verification already"
            else:
                self._waiting[save.key] = save
            return ""

    def begun(self, path: str, step: int | None) -> None:
        """A checkpoint of *step* is being written at *path*: one of another step ends there."""
        with self._lock:
            for save in [*self._waiting.values(), *filter(None, [self._now])]:
                if save.path == path and save.step != step:
                    self._void[save.key] = (
                        f"overwritten by the checkpoint of step {step} before it could be "
                        "verified: give each a path of its own"
                    )

    def resume(self, events: Iterable[Event], pids: Mapping[int, int]) -> None:
        """After a restart: what was saved and has no answer yet. *pids* are those of the ranks,
        whose words the paths are in.
        """
        for event in unanswered(events):
            pid = None if event.rank is None else pids.get(event.rank)
            self.add(Save(event.node, event.step or 0, event.text, pid))

    def tick(self, t: float, at: float) -> None:
        """Write what was found, and see to it that the next one is looked at."""
        with self._lock:
            found, self._found = self._found, []
            begin = bool(self._waiting) and not self._busy
            self._busy |= begin
        for each in found:
            self._write(each, t, at)
        if begin:
            self._start(self._work)

    def _write(self, found: Found, t: float, at: float) -> None:
        save = found.save
        text = f"{save.path}: {found.words}" if found.words else save.path
        event = Event(node=save.node, t=t, at=at, what=found.what, step=save.step, text=text)
        self._pen.add([event])

    # --- In a thread of its own -----------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (save := self._take()) is not None:
                self._take_in(self._verified(save))
        finally:
            with self._lock:
                self._busy, self._now = False, None

    def _take(self) -> Save | None:
        with self._lock:
            key = next(iter(self._waiting), None)
            self._now = None if key is None else self._waiting.pop(key)
            return self._now

    def _take_in(self, found: Found) -> None:
        key = found.save.key
        with self._lock:
            self._now = None
            if why := self._void.pop(key, ""):
                found = Found(found.save, What.UNVERIFIED, why)
            elif again := self._again.pop(key, None):
                self._waiting[key] = again
                return
            self._found.append(found)

    def _verified(self, save: Save) -> Found:
        try:
            place = locate(save.path, save.pid, proc=self._proc)
            found = self._read(save, place)
            if found.what is What.DAMAGED:  # or being removed while it was read: look again
                found = self._read(save, place)
        except (ProbeError, OSError) as error:
            return Found(save, What.UNVERIFIED, str(error))
        return found

    def _read(self, save: Save, place: Path) -> Found:
        """Raises OSError."""
        if not place.exists():
            return Found(save, What.UNVERIFIED, REMOVED)
        intact, loadable, reason = self._verifier.verify(
            Target(save.key, save.path, None, place, 0)
        )
        if intact and loadable:
            return Found(save, What.VERIFIED, reason)
        if not place.exists():
            return Found(save, What.UNVERIFIED, REMOVED)
        damaged = intact is False or loadable is False
        return Found(save, What.DAMAGED if damaged else What.UNVERIFIED, reason)
