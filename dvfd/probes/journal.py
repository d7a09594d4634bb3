"""Follow the systemd journal of a unit, or the kernel's messages, through journalctl."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from dvfd.errors import ProbeError, ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dvfd.shell import Output

KERNEL = "kernel"
"""The unit name that stands for the kernel's own messages."""

TIMEOUT = 8.0
"""Seconds for one journalctl: below the probe's deadline."""

EVERY = 10.0
"""Least seconds between two looks: each starts a process, 20 ms of it."""

MESSAGE_LIMIT = 4096
"""Characters kept of a message, as of a line in a file."""


class Runner(Protocol):
    """`shell.run`, or a fake of it."""

    def __call__(self, argv: Sequence[str], *, timeout: float) -> Output:
        """Run to the end. Raises ToolError, ToolTimeout."""
        ...


class Journal:
    """One followed unit. `position` is what a later Journal needs to go on."""

    every = EVERY
    behind = 0  # what did not fit into one answer comes with the next

    def __init__(
        self, unit: str, position: Mapping[str, Any] | None = None, *, run: Runner
    ) -> None:
        self._unit = unit
        self._cursor = str((position or {}).get("cursor", ""))
        self._run = run

    @property
    def position(self) -> dict[str, Any]:
        """The cursor of the last entry seen."""
        return {"cursor": self._cursor} if self._cursor else {}

    def blocks(self, budget: int) -> Iterator[str]:
        """The messages since the last call, a line each; shell.run bounds the answer itself.

        The first call ever only finds the end. Raises ProbeError if the journal cannot be read or
        holds nothing of the unit: silence of a unit that does not exist proves nothing.
        """
        if not self._cursor:
            self._find_end()
            return
        lines = list(self._entries(f"--after-cursor={self._cursor}"))
        if lines:
            yield "\n".join(lines)[:budget]

    def _find_end(self) -> None:
        newest = list(self._entries("--lines=1"))
        if not newest:
            raise ProbeError(f"the journal holds no entry of {self._unit}")

    def _entries(self, *options: str) -> Iterator[str]:
        where = ["--dmesg"] if self._unit == KERNEL else [f"--unit={self._unit}"]
        fields = "--output-fields=MESSAGE"
        argv = ["journalctl", "--output=json", fields, "--no-pager", *where, *options]
        try:
            done = self._run(argv, timeout=TIMEOUT)
        except ToolError as error:
            raise ProbeError(f"{self._unit}: {error}") from None
        words = done.stderr.strip().splitlines()
        if done.code or words:  # without the right group it says so here, and shows nothing
            self._cursor = "" if done.code else self._cursor
            said = words[0][:200] if words else "no words"
            raise ProbeError(f"{self._unit}: journalctl ended with code {done.code}: {said}")
        for line in done.stdout.splitlines():
            if (message := self._message(line)) is not None:
                yield message

    def _message(self, line: str) -> str | None:
        """One entry's text; remembers its cursor. None for what is no whole entry."""
        try:
            entry = json.loads(line)
            cursor, message = entry["__CURSOR"], entry.get("MESSAGE")
        except (ValueError, TypeError, KeyError):
            return None  # cut off where the answer was full, or "-- No entries --"
        self._cursor = cursor
        if isinstance(message, list):  # bytes that are no UTF-8
            message = bytes(b & 0xFF for b in message if isinstance(b, int)).decode(
                errors="replace"
            )
        return str(message or "").replace("\n", " ")[:MESSAGE_LIMIT]
