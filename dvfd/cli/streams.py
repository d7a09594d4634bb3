"""Standard output and error that no character can crash: what an encoding lacks is put in words."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLAINER = {"–": "-", "…": "..."}  # noqa: RUF001  # an en dash is meant
"""What stands for our own characters where the terminal's encoding lacks them, as Latin-1 does."""

PIPE_CLOSED = 141
"""128 and the number of SIGPIPE: the reader went away, `dvfd status | head`."""

HANDLER = "dvfd.plainer"


def plainer(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: a plainer character, or the escape that names the missing one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    told = (PLAINER.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing)
    return "".join(told), error.end


def settle() -> None:
    """Let both streams say what they can instead of raising, half a character too.

    A stream that was closed (`>&-`) says nothing: the exit code is then the whole answer.
    Where the encoding is ASCII (LANG=C), click.echo takes it for unset and writes UTF-8.
    """
    codecs.register_error(HANDLER, plainer)
    sys.stdout, sys.stderr = (s or _nowhere() for s in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _nowhere() -> io.TextIOWrapper:
    return Path(os.devnull).open("w", encoding="utf-8")


@contextmanager
def reader_may_go() -> Iterator[None]:
    """Exit with PIPE_CLOSED if stdout's reader does; click's own 1 would be a breached warning."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
        sys.exit(PIPE_CLOSED)
