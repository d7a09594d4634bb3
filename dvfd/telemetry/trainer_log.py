"""What the lines of one trainer's log come to, in their order: rows and events. Reads no clock.

Several ranks may write into one log. What one of them said counts once; who is ahead is heard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dvfd.telemetry import patterns
from dvfd.telemetry.feed import AGAIN, nonfinite
from dvfd.telemetry.patterns import SYNCHRONOUS, notice, parse, words
from dvfd.telemetry.wire import SEQUENCE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dvfd.telemetry.patterns import Notice

_RAISED = re.compile(
    r"(?!(?:INFO|DEBUG|WARNING|ERROR|CRITICAL)\b)"
    r"(?P<type>(?:[A-Za-z_]\w*\.)+\w+|[A-Z]\w*)(?::(?:\s+(?P<error>.*))?)?$"
)
"""`ValueError: x`, and `struct.error: x`: a small letter only behind its module."""

TRACE_LINES = 1000
"""Lines of a traceback that are passed over: Python's own limit of recursion."""

VOICES = 64
"""Ranks whose tracebacks are told apart."""


@dataclass(frozen=True, slots=True)
class _Save:
    """A checkpoint that is being written; `last`: that of the last step, as the log says."""

    step: int | None
    path: str
    last: bool = False


class TrainerLog:
    """The lines of one log, read with one pattern set."""

    def __init__(self, pattern: str, samples: float | None = None) -> None:
        """*samples* in each step, where the log does not say how many there are."""
        self._pattern = pattern
        self._samples = samples
        self._folder = ""
        self._step: int | None = None
        self._open: _Save | None = None  # the job waits for it
        self._behind: _Save | None = None  # it is written while the job goes on
        self._said: dict[str, tuple[str, int | None]] = {}  # by kind: the voice and its last step
        self._traces: dict[str, int] = {}  # by voice: lines since a traceback began

    def read(self, lines: Iterable[str]) -> list[Mapping[str, Any]]:
        """Rows by the reporter's field names, and events: those have the key `event`."""
        return [said for line in lines for said in self._line(line)]

    def _line(self, line: str) -> Iterator[Mapping[str, Any]]:
        voice, text = words(line)
        if row := parse(self._pattern, text):
            yield from self._row(voice, row)
        if "step" in row:
            return
        if (found := notice(self._pattern, text)) is not None:
            yield from self._notice(voice, found)
        elif not row:
            yield from self._raised(voice, text)

    # --- Rows -----------------------------------------------------------------------------------

    def _row(self, voice: str, row: dict[str, float]) -> Iterator[Mapping[str, Any]]:
        if self._heard(voice, row):
            yield from self._written()
            self._step = int(row["step"]) if "step" in row else self._step
            if self._samples is not None:
                row.setdefault("samples", self._samples)
            yield row
        elif lost := nonfinite(row):  # whoever says so, of whatever step
            yield {AGAIN: True, **lost}

    def _heard(self, voice: str, row: dict[str, float]) -> bool:
        """Whether a row is progress: no other rank's word on the same step, nor without a step
        where the others have one.
        """
        if not 0 <= row.get("step", 0.0) < SEQUENCE_LIMIT:
            return False
        step = int(row["step"]) if "step" in row else None
        if step is None and self._pattern in patterns.NUMBERED:
            return False
        kind = "val_loss" if "val_loss" in row else "loss"
        if step is not None and self._said.get(kind, ("", None))[1] == step:
            return False
        return self._news(kind, voice, step)

    def _news(self, kind: str, voice: str, step: int | None) -> bool:
        """Whether to listen: of several ranks, to one, and to any other that is ahead of it."""
        first, last = self._said.get(kind, (voice, None))
        if voice != first and (step is None or last is None or step <= last):
            return False
        self._said[kind] = (voice, last if step is None else step)
        return True

    # --- Notices --------------------------------------------------------------------------------

    def _notice(self, voice: str, found: Notice) -> Iterator[Mapping[str, Any]]:
        match found.what:
            case patterns.BATCH:
                self._samples = found.samples
            case patterns.FOLDER:
                self._folder = found.path.rstrip("/")
            case patterns.EXIT:
                if not found.step:
                    yield from self._written()
                yield {"event": "end", "failed": bool(found.step), "reason": f"exit {found.step}"}
            case "end":
                yield from self._written()
                yield {"event": "end", "reason": "its log says so"}
            case "checkpoint_begin":
                yield from self._begin(voice, found)
            case "checkpoint_staged":
                yield from self._stage()
            case _:
                yield from self._saved(found)

    def _begin(self, voice: str, found: Notice) -> Iterator[Mapping[str, Any]]:
        if self._open is not None:
            if (
                found.step is not None
            ):  # torchtitan's second line on one save: that of the last step
                self._open = replace(self._open, step=found.step, last=True)
        elif self._news("checkpoint", voice, self._step if found.step is None else found.step):
            self._open = _Save(found.step, found.path)
            yield self._told("checkpoint_begin", self._open)

    def _stage(self) -> Iterator[Mapping[str, Any]]:
        """It is out of the job's way; whether it is on the disk, this line does not say."""
        save, self._open = self._open, None
        if save is not None and save.last:  # the last step's is never left to the background
            yield self._told("checkpoint_saved", save)
        elif save is not None:
            self._behind = save
            yield self._told("checkpoint_staged", save)

    def _saved(self, found: Notice) -> Iterator[Mapping[str, Any]]:
        save = self._open or self._behind
        if found.step is not None:
            save = _Save(found.step, found.path)
        self._open = self._behind = None
        if save is not None:  # else another rank has said so
            yield self._told("checkpoint_saved", save)

    def _written(self) -> Iterator[Mapping[str, Any]]:
        """Who goes on after a save that nothing else can end has written it."""
        if self._open is not None and self._pattern in SYNCHRONOUS:
            yield self._told("checkpoint_saved", self._open)
            self._open = None

    def _told(self, event: str, save: _Save) -> Mapping[str, Any]:
        step, path = save.step, save.path
        if not path and step is not None and self._folder:
            path = f"{self._folder}/step-{step}"
        if step is None and self._pattern in SYNCHRONOUS:
            step = self._step
        return {"event": event, "step": step, "path": path}

    # --- Tracebacks -----------------------------------------------------------------------------

    def _raised(self, voice: str, text: str) -> Iterator[Mapping[str, Any]]:
        """The last line of a traceback: what was raised."""
        if text.startswith("Traceback (most recent call last)"):
            if voice in self._traces or len(self._traces) < VOICES:
                self._traces[voice] = 0
            return
        if voice not in self._traces:
            return
        self._traces[voice] += 1
        found = _RAISED.match(text)
        if found or self._traces[voice] > TRACE_LINES:
            del self._traces[voice]
        if found:
            yield {"event": "exception", "type": found["type"], "error": found["error"] or ""}
