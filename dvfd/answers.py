"""Get an answer: the daemon's, or where none lives what its operations say of what is on disk."""

from __future__ import annotations

from typing import Any

from dvfd.asking import ask
from dvfd.places import control_path


def daemon(op: str, **arguments: Any) -> Any:
    """The daemon's answer, or None where none lives on this node."""
    return ask(control_path(), op, **arguments)


def asked(op: str, **arguments: Any) -> Any:
    """The daemon's answer, or where none lives that of what one left on the disk.

    Raises DvfdError, StoreError.
    """
    answer = daemon(op, **arguments)
    if answer is not None:
        return answer
    from dvfd import alone  # noqa: PLC0415  # loads what a daemon needs

    return alone.answer(op, **arguments)
