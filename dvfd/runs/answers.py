"""What was found of a run's checkpoints, by their events. Pure.

The newest answer on a checkpoint counts. Ranks may write shards of one checkpoint to several paths:
it is verified when each of them is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dvfd.runs.rows import Event, What

ANSWERS = frozenset({What.VERIFIED, What.DAMAGED, What.UNVERIFIED})

Key = tuple[int | None, str]
"""A checkpoint's step and path."""


def newest(events: Iterable[Event]) -> Iterator[tuple[Event, Event | None]]:
    """Each save, by its newest word, and the newest answer after it; in the order of the saves."""
    saved: dict[Key, tuple[Event, Event | None]] = {}
    paths: dict[int | None, list[str]] = {}
    for event in events:
        if event.what is What.SAVED:
            key = (event.step, event.text)
            if saved.pop(key, None) is None:
                paths.setdefault(event.step, []).append(event.text)
            saved[key] = (event, None)
        elif event.what in ANSWERS:
            for path in paths.get(event.step, ()):
                if event.text == path or event.text.startswith(f"{path}: "):
                    saved[event.step, path] = (saved[event.step, path][0], event)
    yield from saved.values()


def unanswered(events: Iterable[Event]) -> list[Event]:
    """The saves that wait for an answer, oldest first."""
    return [save for save, answer in newest(events) if answer is None]


def verdicts(events: Iterable[Event]) -> dict[int | None, What | None]:
    """What is known of the checkpoint of each step; None while an answer is waited for."""
    found: dict[int | None, What | None] = {}
    for save, answer in newest(events):
        what = None if answer is None else answer.what
        found[save.step] = min(found.get(save.step, what), what, key=_gravity)
    return found


def _gravity(what: What | None) -> int:
    """The worst of a step's shards counts, and an answer that is not there before a good one."""
    return [What.DAMAGED, What.UNVERIFIED, None, What.VERIFIED].index(what)
