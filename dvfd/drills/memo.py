"""Answers that the checks of one command share, so that a slow question is asked once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dvfd.model import Clock

T = TypeVar("T")

KEPT = 300.0
"""Seconds that an answer stands: checks that follow one another, not one that runs for a day."""


class Memo:
    """What was answered, a failure as well, by what was asked."""

    def __init__(self) -> None:
        self._once: dict[tuple[str, ...], object] = {}
        self._kept: dict[tuple[str, ...], tuple[float, object]] = {}

    def get(self, question: tuple[str, ...], ask: Callable[[], T], clock: Clock) -> T:
        """The answer to *question*, from *ask* if there is none or it is old.

        Raises what *ask* raised, the same DvfdError until it is old.
        """
        kept = self._kept.get(question)
        if kept is None or clock.boot() - kept[0] > KEPT:
            kept = self._kept[question] = (clock.boot(), _answer(ask))
        if isinstance(kept[1], DvfdError):
            raise kept[1]
        return kept[1]  # type: ignore[return-value]  # it is what the same question's ask gave

    def once(self, question: tuple[str, ...], ask: Callable[[], T]) -> T:
        """The same, however old the answer is: what is asked takes hours itself."""
        if question not in self._once:
            self._once[question] = _answer(ask)
        found = self._once[question]
        if isinstance(found, DvfdError):
            raise found
        return found  # type: ignore[return-value]  # as above

    def seen(self, question: tuple[str, ...]) -> object:
        """What `once` was answered, a DvfdError too; None if nobody has asked."""
        return self._once.get(question)


def _answer(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except DvfdError as error:
        return error
