"""The tester's end of a fuse: light it, be told what it did, have it heal.

Nothing is harmed while no fuse burns. A fuse that dies is noticed here, and then we heal.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills.reliability import fuse as burning
from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FUSE = Path(burning.__file__)

READY = 15.0
"""Seconds for a fuse to be lit: an interpreter starts, and a tool or two run."""

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What is done and how it is taken back; `seconds` is the longest that it lasts."""

    words: str
    seconds: float
    harm: tuple[Command, ...] = ()
    heal: tuple[Command, ...] = ()
    stop: tuple[tuple[int, int], ...] = ()  # (pid, start) of processes that are stopped
    after: tuple[Command, ...] = ()


class Fuse:
    """A harm that is being done. `harmed` and `healed` are CLOCK_BOOTTIME."""

    def __init__(self, harm: Harm, child: subprocess.Popen[bytes]) -> None:
        self._harm, self._child = harm, child
        self.healed: float | None = None
        self.why = ""
        said = self._hear(READY)
        if "harmed" not in said:
            self.put_out()
            raise ProbeError(f"{harm.words}: {said.get('refused', 'the fuse did not burn')}")
        self.harmed = float(said["harmed"])

    def wait(self, seconds: float) -> bool:
        """Give it up to *seconds*; whether it has healed."""
        if self.healed is None and (said := self._hear(seconds)):
            self._end(said)
        return self.healed is not None

    def heal(self) -> float:
        """Have it heal now; when that was done. Raises ProbeError if something is left."""
        if self.healed is None:
            with contextlib.suppress(OSError):
                assert self._child.stdin
                self._child.stdin.write(b"\n")
                self._child.stdin.flush()
            self._end(self._hear(burning.TRYING + READY))
        assert self.healed is not None
        return self.healed

    def put_out(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(ProbeError):
            self.heal()
        for stream in (self._child.stdin, self._child.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(burning.TRYING + READY)

    def _end(self, said: dict[str, Any]) -> None:
        if "healed" in said:
            self.healed, self.why = float(said["healed"]), str(said["why"])
            return
        left = burning.heal(_spec(self._harm))  # it died: the harm is ours to take back
        if left:
            raise ProbeError(f"{self._harm.words}: not healed: {left}")
        self.healed, self.why = burning.boot(), "the fuse died, healed by who lit it"

    def _hear(self, seconds: float) -> dict[str, Any]:
        """Its next line; nothing if it says none, or is gone."""
        assert self._child.stdout
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._child.stdout], [], [], left)[0]:
                line = self._child.stdout.readline()
                return dict(json.loads(line)) if line else {"dead": True}
        return {}


@contextlib.contextmanager
def lit(harm: Harm, *, keep: Sequence[int] = ()) -> Iterator[Fuse]:
    """Do *harm* until it is healed, at the end of this at the latest.

    The descriptors *keep* stay open in the fuse: a lease ends with the last one who has it.
    """
    argv = [sys.executable, "-I", "-S", str(FUSE), json.dumps(_spec(harm))]
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for who asked; the fuse has to heal
        pass_fds=tuple(keep),
    ) as child:
        fuse = Fuse(harm, child)
        try:
            yield fuse
        finally:
            fuse.put_out()


def _spec(harm: Harm) -> dict[str, Any]:
    """What the fuse is told."""
    return {name: value for name, value in asdict(harm).items() if name != "words"}
