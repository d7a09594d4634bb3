"""Writers with a mistake, to show that the harness sees one. Nothing of dvfd writes like this."""

from __future__ import annotations

import os
from pathlib import Path

from bench.crashing.files import Lived, once
from bench.crashing.killing import Story, Words
from bench.crashing.store import Stored, opened, write_batch


class Hasty(Stored):
    """A store whose user is told before the commit."""

    name = "hasty"

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Promise first."""
        clock = Lived(story.lives)
        store = opened(place, clock)
        words.ready()
        number = 0
        while True:
            number += 1
            key = f"batch {story.lives}/{number}"
            words.begin(key)
            write_batch(store, clock.now(), story.lives, number)
            words.done(key)
            store.flush(60)


class Appended:
    """A journal whose lines are written in two pieces, and promised between them."""

    name, text = "appended", "a journal in two pieces"

    def prepare(self, place: Path) -> None:
        """An empty one."""
        (place / "journal").touch()

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Append."""
        journal = os.open(place / "journal", os.O_WRONLY | os.O_APPEND)
        words.ready()
        number = 0
        while True:
            number += 1
            key = f"{story.lives}/{number}"
            words.begin(key)
            os.write(journal, key.encode())
            words.done(key)
            os.write(journal, b"\n")

    def hold(self, place: Path, story: Story) -> list[str]:
        """Every line once."""
        return once("lines", story.done, (place / "journal").read_text().splitlines())

    def end(self, place: Path, story: Story) -> list[str]:
        """The same."""
        return self.hold(place, story)


class Repeated(Appended):
    """A journal without a cursor: a start says once more what it does not know to be safe."""

    name, text = "repeated", "a journal without a cursor"

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Begin with what was not promised when the last life ended."""
        journal = os.open(place / "journal", os.O_WRONLY | os.O_APPEND)
        open_ = [key for key in story.begun if key not in story.done]
        words.ready()
        number = 0
        while True:
            number += 1
            key = open_.pop() if open_ else f"{story.lives}/{number}"
            words.begin(key)
            os.write(journal, f"{key}\n".encode())
            words.done(key)
