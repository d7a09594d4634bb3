"""Run a tool with a timeout in its own process group, with bounded output. Never uses a shell."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

from dvfd.errors import ToolError, ToolTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None)

OUTPUT_LIMIT = 1 << 20
"""Bytes kept of each stream: no tool that we run says more that matters."""

WAIT = 86400.0
"""Seconds of one wait at most: epoll counts milliseconds in 31 bits, 24 days, and tests run on."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool left behind."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    cut: bool = False
    """Whether more was said on standard output than is kept."""


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    nice: int = 0,
    on_line: Callable[[str], None] | None = None,
    bound: bool = False,
    last: int = 0,
) -> Output:
    """Run *argv* to its end; a non-zero exit is returned, not raised. *on_line* gets each line of
    its standard output as it comes. A *bound* tool is killed when the calling thread ends: not
    even SIGKILL of our process leaves it running. Of its standard output the *last* bytes are kept
    where that is given, else the first OUTPUT_LIMIT.

    Raises ToolError if it cannot be started, ToolTimeout if it outlives *timeout* seconds; its
    whole process group is then killed. The locale is C, so that its words can be parsed.
    """
    started = time.monotonic()
    environment = {**(os.environ if env is None else env), "LC_ALL": "C"}
    first = partial(_settle, nice, bound=bound) if nice or bound else None
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            preexec_fn=first,  # noqa: PLW1509  # two system calls, nothing that takes a lock
        )
    except OSError as error:
        raise ToolError(f"{argv[0]}: cannot be started: {error.strerror or error}") from None
    try:
        out = Kept(last or OUTPUT_LIMIT, end=last > 0)
        err = Kept(OUTPUT_LIMIT)
        deadline = started + timeout
        _drain(child, stdin, deadline, lines=Lines(on_line), said=out, complained=err)
    except TimeoutError:
        raise ToolTimeout(f"{argv[0]}: still running after {timeout:g} s; killed") from None
    finally:
        _end(child)
    return Output(child.returncode, str(out), str(err), time.monotonic() - started, out.cut)


def _settle(nice: int, *, bound: bool) -> None:
    """In the child, before the tool: be as polite, and as mortal, as was asked."""
    if nice:
        os.nice(nice)
    if bound:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Kept:
    """The first bytes of a stream, or those at its end: *limit* at most."""

    def __init__(self, limit: int, *, end: bool = False) -> None:
        self._limit = limit
        self._end = end
        self._bytes = bytearray()
        self.cut = False

    def add(self, piece: bytes) -> None:
        """Take of *piece* what there is room for, or make room for it."""
        kept, limit = self._bytes, self._limit
        self.cut = self.cut or len(kept) + len(piece) > limit
        if self._end:
            kept += piece
            del kept[:-limit]
        else:
            kept += piece[: max(0, limit - len(kept))]

    def __str__(self) -> str:
        return self._bytes.decode(errors="replace")


class Lines:
    """Cuts what comes in pieces into lines, and hands each to a function, if there is one."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell = tell
        self._rest = b""

    def add(self, piece: bytes) -> None:
        """Hand on the lines that *piece* completes."""
        if self._tell is None:
            return
        *whole, self._rest = (self._rest + piece).split(b"\n")
        self._rest = self._rest[-OUTPUT_LIMIT:]
        for line in whole:
            self._tell(line.decode(errors="replace"))


def _drain(
    child: subprocess.Popen[bytes],
    stdin: bytes,
    deadline: float,
    *,
    lines: Lines,
    said: Kept,
    complained: Kept,
) -> None:
    """Feed and read until all streams close and the child ends."""
    assert child.stdin
    assert child.stdout
    assert child.stderr
    out, err = child.stdout.fileno(), child.stderr.fileno()
    kept = {out: said, err: complained}
    unsent = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        os.set_blocking(child.stdin.fileno(), False)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        for fd in kept:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(min(_left(deadline), WAIT)):
                if key.fileobj is child.stdin:
                    unsent = _feed(child.stdin, unsent)
                    done = not unsent
                else:
                    piece = os.read(key.fd, 65536)
                    kept[key.fd].add(piece)
                    done = not piece
                    if key.fd == out:
                        lines.add(piece)
                if done:
                    selector.unregister(key.fileobj)
                    if key.fileobj is child.stdin:
                        child.stdin.close()
    try:
        child.wait(_left(deadline))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


def _left(deadline: float) -> float:
    """Seconds until *deadline*. Raises TimeoutError once it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _feed(stream: IO[bytes], unsent: memoryview) -> memoryview:
    """Write what the pipe takes; what is left, nothing if the child reads no more."""
    try:
        return unsent[os.write(stream.fileno(), unsent[:65536]) :]
    except BrokenPipeError:
        return unsent[:0]


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing running: kill what is left of the group and reap the child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            stream.close()
