"""Run a tool with a timeout in its own process group, with bounded output. Never uses a shell."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.errors import ToolError, ToolTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUTPUT_LIMIT = 1 << 20
"""Bytes kept of each stream: no tool that we run says more that matters."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool left behind."""

    code: int
    stdout: str
    stderr: str
    seconds: float


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    nice: int = 0,
) -> Output:
    """Run *argv* to its end; a non-zero exit is returned, not raised.

    Raises ToolError if it cannot be started, ToolTimeout if it outlives *timeout* seconds; its
    whole process group is then killed. The locale is C, so that its words can be parsed.
    """
    started = time.monotonic()
    environment = {**(os.environ if env is None else env), "LC_ALL": "C"}
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            preexec_fn=(lambda: _lower(nice)) if nice else None,  # noqa: PLW1509  # os.nice only
        )
    except OSError as error:
        raise ToolError(f"{argv[0]}: cannot be started: {error.strerror or error}") from None
    try:
        out, err = _drain(child, stdin, started + timeout)
    except TimeoutError:
        raise ToolTimeout(f"{argv[0]}: still running after {timeout:g} s; killed") from None
    finally:
        _end(child)
    return Output(child.returncode, out, err, time.monotonic() - started)


def _lower(nice: int) -> None:
    os.nice(nice)


def _drain(child: subprocess.Popen[bytes], stdin: bytes, deadline: float) -> tuple[str, str]:
    """Feed and read until both streams close and the child ends; keep OUTPUT_LIMIT of each."""
    assert child.stdin
    assert child.stdout
    assert child.stderr
    try:
        child.stdin.write(stdin)
        child.stdin.close()
    except BrokenPipeError:
        pass
    kept = {child.stdout: bytearray(), child.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                room = OUTPUT_LIMIT - len(kept[key.fileobj])  # type: ignore[index]
                kept[key.fileobj] += chunk[: max(0, room)]  # type: ignore[index]
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    out, err = kept.values()
    return out.decode(errors="replace"), err.decode(errors="replace")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing running: kill what is left of the group and reap the child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            stream.close()
