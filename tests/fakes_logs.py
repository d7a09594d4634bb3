"""A journal that holds what it is given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dvfd.errors import ToolError
from dvfd.shell import Output

if TYPE_CHECKING:
    from collections.abc import Sequence


class FakeJournal:
    """Stands for shell.run of journalctl: entries numbered from 1, the number is the cursor."""

    def __init__(self, *messages: object) -> None:
        self.messages: list[object] = list(messages)
        self.stderr = ""
        self.code = 0
        self.absent = False
        self.calls: list[list[str]] = []

    def __call__(self, argv: Sequence[str], *, timeout: float) -> Output:
        self.calls.append(list(argv))
        if self.absent:
            raise ToolError("journalctl: cannot be started: No such file or directory")
        entries = list(enumerate(self.messages, 1))
        after = next((a for a in argv if a.startswith("--after-cursor=")), "")
        chosen = entries[int(after.partition("=")[2]) :] if after else entries[-1:]
        lines = [json.dumps({"__CURSOR": str(n), "MESSAGE": text}) for n, text in chosen]
        return Output(self.code, "\n".join(lines) or "-- No entries --", self.stderr, 0.01)
