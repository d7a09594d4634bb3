"""Compute the same on each processor in turn, and write down what came out. Compares nothing.

`known_answers.py ANSWER PROCESSOR,...`: a child for each processor, pinned there. One that cannot
be pinned was not tested; one that ends early or never is lost. Uses torch where there is one.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.drills.workers.answer import write
from dvfd.drills.workers.arithmetic import PLAIN_OPERATIONS, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dvfd.drills.workers.arithmetic import Operation

PATIENCE = 30.0
"""Seconds for one processor: the work takes about one, on a slow and busy one five."""

TELL_EVERY = 10.0
"""Seconds between words of progress."""

PR_SET_PDEATHSIG = 1  # prctl(2)


def main(answer: str, processors: str) -> None:
    """Examine all, write the answer aside and put it in its place."""
    operations, software = offer()
    cores = examine([int(cpu) for cpu in processors.split(",")], operations)
    document = {"software": software, "operations": [o.name for o in operations], "cores": cores}
    write(Path(answer), document)


def offer() -> tuple[tuple[Operation, ...], str]:
    """The operations that this interpreter can do, and what it does them with."""
    software = f"Python {platform.python_version()}"
    try:
        import torch  # noqa: PLC0415  # there may be none

        from dvfd.drills.workers.torch_arithmetic import TORCH_OPERATIONS  # noqa: PLC0415  # so too
    except (ImportError, OSError) as error:  # OSError: a library that torch was built for is gone
        return PLAIN_OPERATIONS, f"{software}, no torch: {error}"
    torch.set_num_threads(1)
    return (*PLAIN_OPERATIONS, *TORCH_OPERATIONS), f"{software}, torch {torch.__version__}"


def examine(
    processors: Iterable[int], operations: Sequence[Operation], *, patience: float = PATIENCE
) -> list[dict[str, Any]]:
    """What each processor made of *operations*, one processor after the other."""
    wanted = list(processors)
    found = []
    told_at = time.monotonic()
    for number, cpu in enumerate(wanted, 1):
        found.append({"cpu": cpu} | _examine(cpu, operations, patience))
        if time.monotonic() - told_at > TELL_EVERY:
            print(f"known answers: {number} of {len(wanted)} processors", flush=True)  # noqa: T201
            told_at = time.monotonic()
    return found


def _examine(cpu: int, operations: Sequence[Operation], patience: float) -> dict[str, Any]:
    """In a child of its own, so that a crash costs that one."""
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(cpu, operations, writing, parent)
    os.close(writing)
    said = _hear(reading, time.monotonic() + patience)
    os.close(reading)
    if said is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if said is None:
        return {"lost": f"no answer after {patience:g} s"}
    code = os.waitstatus_to_exitcode(status)
    return json.loads(said) if said else {"lost": _end(code)}


def _hear(reading: int, until: float) -> bytes | None:
    """All that comes; None if it has no end in time."""
    heard = b""
    while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        piece = os.read(reading, 65536)
        if not piece:
            return heard
        heard += piece
    return None


def _end(code: int) -> str:
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended early with exit code {code}"


def _child(cpu: int, operations: Sequence[Operation], writing: int, parent: int) -> None:
    """Never returns: what the parent would do next is not ours."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        os.write(writing, json.dumps(_pinned(cpu, operations)).encode())
        code = 0
    finally:
        os._exit(code)


def _pinned(cpu: int, operations: Sequence[Operation]) -> dict[str, Any]:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:  # offline, or not in our cpuset
        return {"untested": f"cannot be pinned to: {error.strerror}"}
    return compute(operations)


def compute(operations: Sequence[Operation]) -> dict[str, Any]:
    """Each operation's distinct results, or the error that it raised; seconds of processor time."""
    began = time.process_time()
    results: dict[str, list[str]] = {}
    raised: dict[str, str] = {}
    size = 0
    for operation in operations:
        came: dict[str, None] = {}
        try:
            once = operation.prepare()
            for _ in range(operation.rounds):
                result = once()
                came[told(result)] = None
                size += len(result)
        except Exception as error:  # noqa: BLE001  # told: it is for the reader to decide
            raised[operation.name] = repr(error)[:200]
        else:
            results[operation.name] = list(came)
    seconds = time.process_time() - began
    return {"seconds": seconds, "bytes": size, "results": results, "raised": raised}


if __name__ == "__main__":
    main(*sys.argv[1:])
