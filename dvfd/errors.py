"""Everything that dvfd raises.

DvfdError
├── ConfigError      the configuration or the catalogue is wrong; lists every mistake at once
├── NotApplicable    this machine has none of what was asked for, by nature or by profile
├── HistoryError     an engine of long history does not answer, or cannot be believed
├── ProbeError       a source is there but could not be read
├── ToolError        a child process failed; carries its own words
│   └── ToolTimeout  it did not end in time and was killed with its process group
├── StoreError       the store cannot be opened, read or written
├── WireError        a telemetry packet is malformed
└── NoAnswer         a daemon listens and does not answer, or not as one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class DvfdError(Exception):
    """The root: catch this to catch all of ours and nothing else."""


class ConfigError(DvfdError):
    """The configuration or the catalogue is wrong. `problems` holds one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NotApplicable(DvfdError):
    """This machine has none of what was asked for; the reason is the message."""


class HistoryError(DvfdError):
    """An engine does not answer, or cannot be believed: what was read, wanted, to be done."""


class ProbeError(DvfdError):
    """A source is there but could not be read: what was read, what was wanted, what to do."""


class ToolError(DvfdError):
    """A child process failed; the message carries its own words."""


class ToolTimeout(ToolError):
    """A child process outlived its time and was killed with its whole process group."""


class StoreError(DvfdError):
    """The store cannot be opened, read or written; the message names the file and the cause."""


class WireError(DvfdError):
    """A telemetry packet is malformed; the message says at which byte or key."""


class NoAnswer(DvfdError):
    """A daemon listens and does not answer in time, or not as a daemon does."""
