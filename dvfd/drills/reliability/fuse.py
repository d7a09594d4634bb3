"""Do harm for a bounded time: a process of its own that takes it back, whatever becomes of us.

    python fuse.py '{"harm": [[ARGV]], "heal": [[ARGV]], "stop": [[PID, START]], "seconds": 14}'

It harms once it is ready to heal, and heals at the first of: the deadline, a line on stdin or its
end (who started it is gone), a signal. It says `{"harmed": BOOT}`, then `{"healed": BOOT, "why":
...}`; `after` is run only where who started it is gone. Standard library only; knows no dvfd.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

TRYING = 60.0
"""Seconds in which healing is tried again: whoever holds what we need may let go of it."""

AGAIN = 0.2

TOOL = 10.0
"""Seconds that one command may take."""

DONE = (
    "could not process rule: no such file", "error: no such file",  # nft
    "cannot open network namespace",  # ip
)  # fmt: skip
"""What tools say where there is nothing left to heal; not what is said of a tool that is gone."""

GONE = "who started it is gone"


def main(arguments: Sequence[str]) -> int:
    """Harm, wait, heal; 0 if all is healed, 1 if nothing was harmed, 2 if harm is left."""
    spec = json.loads(arguments[0])
    reading = _signals()
    try:
        harm(spec)
    except OSError as error:
        heal(spec)
        say(refused=str(error))
        return 1
    say(harmed=boot())
    why = _wait(reading, boot() + float(spec["seconds"]))
    left = heal(spec)
    if left:
        say(left=left)
    else:
        say(healed=boot(), why=why)
    if why == GONE:
        for argv in spec.get("after", ()):
            run(argv)
    return 2 if left else 0


def harm(spec: dict[str, Any]) -> None:
    """Do it. Raises OSError with the reason it could not be done."""
    for argv in spec.get("harm", ()):
        if wrong := run(argv):
            raise OSError(wrong)
    for pid, start in spec.get("stop", ()):
        with held(pid, start) as handle:
            signal.pidfd_send_signal(handle, signal.SIGSTOP)


def heal(spec: dict[str, Any]) -> str:
    """Take it back; what is left of it after TRYING seconds, in words."""
    until = boot() + TRYING
    while left := "; ".join(filter(None, _healed(spec))):
        if boot() > until:
            return left
        time.sleep(AGAIN)
    return ""


def _healed(spec: dict[str, Any]) -> Iterator[str]:
    """Try each thing once; why it failed, or nothing."""
    for argv in spec.get("heal", ()):
        wrong = run(argv)
        yield "" if any(word in wrong.lower() for word in DONE) else wrong
    for pid, start in spec.get("stop", ()):
        with contextlib.suppress(OSError), held(pid, start) as handle:
            signal.pidfd_send_signal(handle, signal.SIGCONT)
        yield f"pid {pid} is stopped" if _stopped(pid, start) else ""


@contextlib.contextmanager
def held(pid: int, start: int) -> Iterator[int]:
    """A handle on the process that has *pid* since *start*. Raises ProcessLookupError if that is
    another one by now.
    """
    handle = os.pidfd_open(pid)
    try:
        if _stat(pid)[19:20] != [str(start)]:
            raise ProcessLookupError(f"pid {pid} is not the process that it was")
        yield handle
    finally:
        os.close(handle)


def _stopped(pid: int, start: int) -> bool:
    fields = _stat(pid)
    return fields[19:20] == [str(start)] and fields[0] == "T"


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat behind the name: the state first, the start time at 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def run(argv: Sequence[str]) -> str:
    """Run a tool; what it said if it failed, else nothing."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=TOOL, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]}: {error}"
    return f"{argv[0]}: {(done.stderr or 'failed').strip()[:300]}" if done.returncode else ""


def _signals() -> int:
    """Have signals written to a pipe: its end to read from."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _wait(signals: int, until: float) -> str:
    """Wait for what ends it; what that was."""
    while (left := until - boot()) > 0:
        ready, _, _ = select.select([0, signals], [], [], left)
        if signals in ready:
            return f"signal {os.read(signals, 1)[0]}"
        if 0 in ready:
            return "asked" if os.read(0, 1) else GONE
    return "deadline"


def boot() -> float:
    """Now, CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(**said: object) -> None:
    """One line of JSON, if anybody listens."""
    with contextlib.suppress(OSError):
        os.write(1, (json.dumps(said) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
