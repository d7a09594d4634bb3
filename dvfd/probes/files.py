"""Read numbers and words from /proc and /sys, with errors a person can act on. Knows no metric.

Plain os.open and os.read: a read costs 4 us where pathlib and io take 25.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterable

Where = str | os.PathLike[str]

CHUNK = 1 << 16
"""Bytes for each read: one is enough for every file here but /proc/stat of large machines."""


def read(path: Where) -> str:
    """The text of a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, CHUNK)]
        while parts[-1]:
            parts.append(os.read(descriptor, CHUNK))
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "replace")


def text(path: Where) -> str:
    """The stripped text of a file. Raises ProbeError naming the file and the cause."""
    try:
        return read(path).strip()
    except OSError as error:
        raise ProbeError(explain(path, error)) from None


def text_or(path: Where, default: str = "") -> str:
    """The stripped text of a file, or *default* if it cannot be read."""
    try:
        return read(path).strip()
    except OSError:
        return default


def number(path: Where) -> int:
    """The integer in a file. Raises ProbeError if there is none."""
    found = text(path)
    try:
        return int(found)
    except ValueError:
        raise ProbeError(f"{path}: read {found[:40]!r}, wanted an integer") from None


def names(directory: Where, pattern: str = ".*") -> list[str]:
    """Entries whose whole name matches *pattern*, in natural order; none if it is absent.

    Raises ProbeError if the directory is there but cannot be listed.
    """
    try:
        entries = os.listdir(directory)  # noqa: PTH208  # iterdir makes a Path of each
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ProbeError(explain(directory, error)) from None
    wanted = re.compile(pattern)
    return sorted(filter(wanted.fullmatch, entries), key=_natural)


def cpus(text: str) -> frozenset[int]:
    """The numbers in a kernel list such as `0-3,8`. Raises ProbeError if it is none."""
    found: set[int] = set()
    try:
        for part in filter(None, text.strip().split(",")):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except ValueError:
        raise ProbeError(f"read {text[:40]!r}, wanted a list such as 0-3,8") from None
    return frozenset(found)


def explain(path: Where, error: OSError) -> str:
    """`FILE: cause`, with what to do about a refusal."""
    cause = f"{path}: {(error.strerror or str(error)).lower()}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{cause}: root may, and a daemon with the ambient capability CAP_DAC_READ_SEARCH"
    return cause


def raise_all(problems: Iterable[str]) -> None:
    """Raise one ProbeError with every problem of a pass; nothing if there is none."""
    found = list(problems)
    if found:
        raise ProbeError("; ".join(found))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that puts cpu2 before cpu10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts]
