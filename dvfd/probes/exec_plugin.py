"""Run a site's Nagios-style check: its exit code and its performance data become samples.

Each run is a process of its own that sees the whole tree of the check gone (`dvfd.contained`). What
could not tell, or did not end, brings no sample: its criteria are UNKNOWN once the last one is old.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from dvfd import perfdata, shell
from dvfd.errors import ProbeError, ToolError
from dvfd.masking import redacted
from dvfd.model import Sample, Unseen, labels
from dvfd.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dvfd.config import Plugin as Settings
    from dvfd.model import Labels
    from dvfd.probes.inputs import Allowance
    from dvfd.shell import Output

CONTAINED = (sys.executable, "-P", "-m", "dvfd.contained")
"""-P: a directory called dvfd where the daemon happens to run is not ours."""

STATES = {0: 0.0, 1: 1.0, 2: 2.0}
"""Exit codes that say something: OK, WARNING, CRITICAL. 3 is UNKNOWN, and so is any other."""

ENDING = 15.0
"""Seconds beyond the timeout in which the parent starts, and sees the tree gone: tree.PATIENCE is
10 of them."""

SHOWN = 200
"""Characters of a plugin's words in a message."""


VALUES = tuple(sorted({metric for metric, _ in perfdata.METRICS.values()}))
"""The metrics of performance data."""


class Runner(Protocol):
    """`shell.run` at idle priority, or a fake of it."""

    def __call__(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Output:
        """Run to the end. Raises ToolError, ToolTimeout."""
        ...


POLITELY: Runner = partial(shell.run, nice=10, bound=True)
"""The job comes first. Bound: it ends with the daemon, whatever ends that."""


class ExecPlugin:
    """Probe over one [[plugin]]."""

    metrics = ("plugin_status", *VALUES)

    def __init__(self, settings: Settings, allowance: Allowance, *, run: Runner = POLITELY) -> None:
        self.name = f"plugin.{settings.name}"
        self.interval = settings.interval
        self.deadline = settings.timeout + 2 * ENDING
        self.gaps: dict[str, str] = {}
        self.unseen: tuple[Unseen, ...] = ()
        self.words = ""  # of the newest sample, also while the next one is made
        self.about = labels(plugin=settings.name)
        self._settings = settings
        self._allowance = allowance
        self._run = run

    def sample(self, at: float) -> Iterator[Sample]:
        """Its status, and a sample for each value. Raises ProbeError where it could not tell."""
        done = self._ran()
        status = STATES.get(done["code"])
        if status is None:
            raise ProbeError(_why(done))
        if not done["stdout"].strip():
            raise ProbeError(f"ended with {done['code']} and said nothing: wanted a line of output")
        said = perfdata.read(done["stdout"])
        self.words = _shown(said.text)
        if done["cut"]:  # the last value may be half a number
            said = replace(said, data=(), unread=(perfdata.Unread("", "its output was cut off"),))
        found = [Sample("plugin_status", status, at, self.about)]
        found += [Sample(d.metric, d.value, at, self._named(d.label)) for d in said.data]
        admitted = self._allowance.admit(found)
        self.unseen = (*self._unread(said), *admitted.unseen)
        yield from admitted.samples
        if admitted.beyond:
            raise ProbeError(admitted.beyond)
        self.gaps = {"performance data": "; ".join(said.wrong)} if said.wrong else {}

    def _unread(self, said: perfdata.Said) -> Iterator[Unseen]:
        """A value that could not be read may be one of any metric."""
        for metric in VALUES:
            for each in said.unread:
                known = self._named(each.label) if each.label else self.about
                yield Unseen(metric, each.why, known)

    def _named(self, label: str) -> Labels:
        return labels(plugin=self._settings.name, label=label)

    def _ran(self) -> Mapping[str, Any]:
        """How the command ended. Raises ProbeError if it did not, or could not be started."""
        settings = self._settings
        orders = {
            "argv": settings.command, "timeout": settings.timeout, "user": settings.user,
        }  # fmt: skip
        stdin = json.dumps(orders).encode()
        try:
            done = self._run(CONTAINED, timeout=settings.timeout + ENDING, stdin=stdin)
        except ToolError as error:
            raise ProbeError(str(error)) from None
        try:
            answer: Mapping[str, Any] = json.loads(done.stdout)
        except ValueError:
            words = (done.stderr.strip().splitlines() or ["no words"])[-1]
            raise ProbeError(f"what runs it ended with {done.code}: {words[:SHOWN]}") from None
        if "error" in answer:
            raise ProbeError(answer["error"])
        return answer


def _shown(words: str) -> str:
    """The beginning of *words*; secrets are taken out before it is cut."""
    return redacted(printable(words[: 20 * SHOWN]))[:SHOWN]


def _why(done: Mapping[str, Any]) -> str:
    """Why an exit code says nothing, with the plugin's own words."""
    code = done["code"]
    if code < 0:
        how = f"was killed by signal {-code} ({signal.strsignal(-code)})"
    else:
        how = f"ended with {code}{' (UNKNOWN)' if code == 3 else ', wanted 0 to 3'}"
    words = perfdata.read(done["stdout"]).text or done["stderr"].strip()
    return f"{how}: {_shown(words) or 'it said nothing'}"
