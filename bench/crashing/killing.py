"""Kill a program at a random moment, start it again on what it left, and look whether all is there.

A victim is a child by fork, so that a life costs what it does and not an interpreter's start. It
says on a pipe when it begins to write something and, after whoever asked was answered, that it is
done. The pipe outlives it: what was said before the kill is what was promised.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

PATIENCE = 120.0
"""Seconds after which a child that says nothing hangs: hundreds of times what it takes."""

SPAN = 0.25
"""Seconds within which a kill comes that is not aimed at a write."""

AHEAD = 8
"""Writes that are let pass, at most, before a kill is aimed at one."""

BEGIN, DONE, READY, NOTE = "begin", "done", "ready", "note"


class Words:
    """What a victim says, a line at a time. Any thread: a line is written whole."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self) -> None:
        """It is up."""
        self._say(READY, "")

    def begin(self, key: str) -> None:
        """It is about to write *key*."""
        self._say(BEGIN, key)

    def done(self, key: str) -> None:
        """Whoever asked for *key* has been told that it is so."""
        self._say(DONE, key)

    def note(self, text: str) -> None:
        """Something that the harness is to know after the kill."""
        self._say(NOTE, text)

    def _say(self, what: str, key: str) -> None:
        os.write(self._descriptor, f"{what} {time.monotonic_ns()} {key}\n".encode())


@dataclass
class Story:
    """What a victim said in all of its lives: keys in order, with their times in seconds."""

    begun: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lives: int = 0
    inside: int = 0  # kills that landed between a begin and its done
    early: int = 0  # kills that landed before it was up
    starts: float = 0.02  # seconds from fork to ready, a running mean
    writes: float = 0.005  # seconds from begin to done, a running mean

    def hear(self, line: str) -> str:
        """Take a line; what kind it is."""
        what, _, rest = line.partition(" ")
        nanoseconds, _, key = rest.partition(" ")
        at = int(nanoseconds) / 1e9
        if what == BEGIN:
            self.begun[key] = at
        elif what == NOTE:
            self.notes.append(key)
        elif what == DONE:
            self.done[key] = at
            self.writes += 0.05 * (at - self.begun.get(key, at) - self.writes)
        return what

    def finished(self, prefix: str) -> list[str]:
        """What is done, of the keys that begin so; without the prefix, in order."""
        return [key.removeprefix(prefix) for key in self.done if key.startswith(prefix)]

    def tried(self, prefix: str) -> list[str]:
        """The same of what was begun."""
        return [key.removeprefix(prefix) for key in self.begun if key.startswith(prefix)]


class Victim(Protocol):
    """One writing point under its real classes."""

    name: str
    text: str

    def prepare(self, place: Path) -> None:
        """Lay out what it finds, once."""
        ...

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Write and write, until it is killed; *story* is of the lives before this one."""
        ...

    def hold(self, place: Path, story: Story) -> list[str]:
        """Start on what was left, and say what is wrong with it."""
        ...

    def end(self, place: Path, story: Story) -> list[str]:
        """The same after the last life, with all the time that is needed."""
        ...


@dataclass
class Killed:
    """What became of a victim."""

    name: str
    text: str
    story: Story
    faults: list[str]
    seconds: float


def kill_often(
    victim: Victim, place: Path, kills: int, *, seed: str, told: Callable[[str], None] = print
) -> Killed:
    """Kill *victim* so many times at moments that *seed* decides, and hold what it leaves against
    what it said after each. Stops at the first life with a fault, which *told* hears of.
    """
    began = time.monotonic()
    place.mkdir(parents=True)
    victim.prepare(place)
    story = Story()
    faults: list[str] = []
    for life in range(1, kills + 1):
        chance = Random(f"{seed}/{victim.name}/{life}")  # to be repeated
        story.lives = life
        faults = _one_life(victim, place, story, chance)
        faults = faults or _looked(lambda: victim.hold(place, story))
        if faults:
            break
    faults = faults or _looked(lambda: victim.end(place, story))
    for fault in faults:
        told(f"{victim.name}, life {story.lives}, seed {seed}: {fault}")
    return Killed(victim.name, victim.text, story, faults, time.monotonic() - began)


def _one_life(victim: Victim, place: Path, story: Story, chance: Random) -> list[str]:
    """Let it live and die; what went wrong before it was killed."""
    open_before = set(story.begun) - set(story.done)
    began = time.monotonic()
    with _forked(lambda words: victim.live(place, story, words)) as (child, pipe):
        lines = _Lines(pipe, story)
        _await_moment(lines, story, chance)
        if lines.ready is not None:
            story.starts += 0.1 * (lines.ready - began - story.starts)
        else:
            story.early += 1
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        lines.rest()
    story.inside += bool(set(story.begun) - set(story.done) - open_before)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        return [f"it ended by itself: {os.waitstatus_to_exitcode(status)}; see its words above"]
    return []


def _await_moment(lines: _Lines, story: Story, chance: Random) -> None:
    """Wait for the moment of the kill: in the start, in a write that is chosen, or any."""
    draw = chance.random()
    if draw < 0.1:
        lines.listen(chance.uniform(0.0, 1.5 * story.starts))
    elif draw < 0.7:
        lines.await_begun(len(story.begun) + chance.randint(1, AHEAD))
        lines.listen(chance.uniform(0.0, story.writes))
    else:
        lines.await_ready()
        lines.listen(chance.uniform(0.0, SPAN))


class _Lines:
    """The end of the pipe that is read, and what came of it."""

    def __init__(self, pipe: int, story: Story) -> None:
        self._pipe = pipe
        self._story = story
        self._left = b""
        self.ready: float | None = None
        self.ended = False

    def listen(self, seconds: float) -> None:
        """Take what is said within so long."""
        until = time.monotonic() + seconds
        while not self.ended and (left := until - time.monotonic()) > 0:
            if select.select([self._pipe], [], [], left)[0]:
                self._take()

    def await_ready(self) -> None:
        """Wait until it is up."""
        self._await(lambda: self.ready is not None)

    def await_begun(self, count: int) -> None:
        """Wait until so many writes were begun, in all lives."""
        self._await(lambda: len(self._story.begun) >= count)

    def rest(self) -> None:
        """All that was said before the end."""
        while not self.ended:
            self._take()

    def _await(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not holds() and not self.ended and time.monotonic() < until:
            if select.select([self._pipe], [], [], 1.0)[0]:
                self._take()

    def _take(self) -> None:
        data = os.read(self._pipe, 65536)
        self.ended = not data
        *lines, self._left = (self._left + data).split(b"\n")
        for line in lines:
            if self._story.hear(line.decode()) == READY:
                self.ready = time.monotonic()


@contextlib.contextmanager
def _forked(work: Callable[[Words], None]) -> Iterator[tuple[int, int]]:
    """A child that does *work*, and the end of its pipe that is read."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            work(Words(write))
        except BaseException:  # noqa: BLE001  # the child of a fork never comes back
            traceback.print_exc()
        os._exit(70)
    os.close(write)
    try:
        yield child, read
    finally:
        os.close(read)


def in_child(find: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What *find* says, as JSON, in a child of its own: it starts threads and opens files. Raises
    ChildProcessError if that breaks off or hangs.
    """

    def work(words: Words) -> None:
        words.note(json.dumps(find()))
        os._exit(0)

    story = Story()
    with _forked(work) as (child, pipe):
        lines = _Lines(pipe, story)
        lines.listen(patience)
        if not lines.ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if status:
        raise ChildProcessError(f"it broke off: {os.waitstatus_to_exitcode(status)}")
    return json.loads(story.notes[0])


def _looked(find: Callable[[], list[str]]) -> list[str]:
    """What is wrong with what was left."""
    try:
        found: list[str] = in_child(find)
    except ChildProcessError as error:
        return [f"looking at what was left: {error}"]
    return found


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether *holds* comes true."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
