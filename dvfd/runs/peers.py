"""The other nodes of a run at its leader: their rows are fetched and kept in the leader's file, and
who is silent is said there, so that the file alone tells what was not known.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from dvfd.errors import DvfdError
from dvfd.reduce import seconds
from dvfd.remote import Absent
from dvfd.runs.clocks import Difference, measured
from dvfd.runs.company import QUIET, Abroad
from dvfd.runs.rows import Event, Minute, What, Window
from dvfd.runs.run import Stage
from dvfd.runs.tally import HEARING
from dvfd.runs.told import Page, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dvfd.config import Member
    from dvfd.model import Clock
    from dvfd.runs.rows import Row
    from dvfd.runs.run import Run
    from dvfd.store.run_file import RunFile

log = structlog.get_logger()

PAGES = 20
"""Pages of one node in one round: who was away for a day takes a few rounds, and the others their
turn.
"""

DELIVERY = 60.0
"""Seconds after its end, or after a word of a node, in which that node's last rows are waited for.
It is its own record that it closes first, and a checkpoint may still be verified there."""

LATEST = 1000.0
"""Seconds after its end after which nobody is waited for: 900 for checkpoints (watched.CLOSING)."""

APART = 2.0
"""Seconds between the clocks of two nodes that a person is told of: nothing is reckoned with them,
but logs of the nodes can no longer be read side by side."""

MINUTE = 60.0

AHEAD = 10 * MINUTE
"""Seconds beyond now that a row may end: its minute is not over yet, and clocks differ. A course
has a place for each minute up to the last: one of the year 10000 would fill the memory."""


@dataclass(slots=True)
class Peer:
    """One of the other nodes: how far its rows are here, and what was heard of it."""

    name: str
    url: str
    run: str = ""
    mark: int = 0
    newest: int | None = None
    told: Told | None = None
    heard: float | None = None  # our run second of the last good answer
    reached: float | None = None  # our run second of its newest row here
    trouble: str = ""
    axis: Difference | None = None  # its run seconds less ours
    clock: Difference | None = None  # its Unix time less ours
    minutes: int | None = None  # its minutes less ours
    silent: bool = False
    greeted: bool = False
    apart: bool = False

    @property
    def done(self) -> bool:
        """Whether all that it recorded is here."""
        told = self.told
        return told is not None and told.done and self.mark == self.newest


class Peers:
    """Every other node of a run that this node leads. Implements Company."""

    def __init__(
        self,
        run: Run,
        members: Sequence[Member],
        *,
        file: RunFile,
        clock: Clock,
        connect: Callable[[], Callable[[str], Any]],
    ) -> None:
        """*members* are the cluster's other nodes; *connect* gives who gets an address."""
        self._id = run.id
        self._node = run.node
        self._wanted = run.plan.nodes - 1
        self._processes = run.plan.processes
        self._axis = run.axis
        self._file = file
        self._clock = clock
        self._connect = connect
        self._get: Callable[[str], Any] | None = None
        self._lock = threading.Lock()
        self._floor = run.armed_t
        self._began = self._t()  # since when they can have been heard
        silent = {e.node: e.what is What.SILENT for e in file.events() if e.what in HEARING}
        self._peers = [self._known(m, silent=silent.get(m.name, False)) for m in members]

    def _known(self, member: Member, *, silent: bool) -> Peer:
        kept = self._file.heard(member.name)
        return Peer(
            member.name, member.url, run=kept.get("run", ""), mark=kept.get("mark", 0),
            minutes=kept.get("minutes"), reached=kept.get("reached"), silent=silent,
            greeted=bool(kept),
        )  # fmt: skip

    def _t(self) -> float:
        return self._axis.t(self._clock.boot())

    # --- Asking, in a thread of its own ---------------------------------------------------------

    def poll(self) -> None:
        """Ask every node that may take part for what is new."""
        for peer in self._peers:
            if not peer.run and len(self._joined()) >= self._wanted:
                continue  # all who are wanted came, and this is none of them
            try:
                self._ask(peer)
            except DvfdError as error:
                self._failed(peer, str(error))

    def _failed(self, peer: Peer, words: str) -> None:
        with self._lock:
            peer.trouble = words

    def _ask(self, peer: Peer) -> None:
        """Raises DvfdError with what went wrong."""
        if not peer.url:
            raise DvfdError("[[cluster.nodes]] gives no url of its dvfd")
        if not peer.run and not self._find(peer):
            raise DvfdError("no run there is part of this one: dvfd stability start, there too")
        for _ in range(PAGES):
            page = self._page(peer)
            if page.until >= page.newest or self._file.closed:
                return

    def _find(self, peer: Peer) -> bool:
        """Whether a run there is part of ours; the newest counts."""
        found = self._fetch(peer, "runs")[0]
        if not isinstance(found, list):
            raise DvfdError(f"a list of its runs wanted, got {found!r:.40}")
        for document in found:
            told = Told.from_document(document)
            if told.of == self._id:
                if told.node != peer.name:
                    raise DvfdError(f"{peer.url} is the dvfd of node {told.node}")
                with self._lock:
                    peer.run, peer.mark = told.id, 0
                return True
        return False

    def _page(self, peer: Peer) -> Page:
        """Take one page of its rows into our file. Raises DvfdError."""
        try:
            document, asked, came = self._fetch(peer, f"runs/{peer.run}/rows?since={peer.mark}")
        except Absent as error:
            if not self._find(peer):
                raise DvfdError(f"it no longer knows its run: {error}") from None
            raise
        page = Page.from_document(document, peer.name)
        if page.run.of != self._id or page.since != peer.mark or page.until < page.since:
            raise DvfdError(f"it answered for another run or mark: {page.run.id} {page.since}")
        wall = self._clock.now() - self._t()
        with self._lock:
            self._measure(peer, page.run, asked, came, wall)
        self._take(peer, page)
        return page

    def _fetch(self, peer: Peer, what: str) -> tuple[Any, float, float]:
        """An answer, and our run seconds before and after."""
        if self._get is None:
            self._get = self._connect()
        asked = self._t()
        found = self._get(f"{peer.url}/api/v1/{what}")
        return found, asked, self._t()

    def _measure(self, peer: Peer, told: Told, asked: float, came: float, wall: float) -> None:
        """How its clocks lie to ours; *wall* is our Unix time less our run seconds."""
        if told.t is not None:
            peer.axis = measured(peer.axis, asked=asked, came=came, theirs=told.t)
        apart = measured(peer.clock, asked=asked, came=came, theirs=told.at - wall)
        peer.clock = apart
        if peer.axis is not None:
            nearest = round(peer.axis.seconds / MINUTE)
            if (
                peer.minutes is None
                or abs(peer.axis.seconds - MINUTE * peer.minutes) > 0.75 * MINUTE
            ):
                peer.minutes = nearest

    def _take(self, peer: Peer, page: Page) -> None:
        """Raises DvfdError if the file does not take them: they are asked for again."""
        if page.rows and peer.axis is None:
            raise DvfdError("it cannot say how its run seconds lie to its clock")
        rows = list(self._ours(peer, page.rows))
        reached = max([_end(row) for row in rows], default=peer.reached)
        reached = reached if peer.reached is None or reached is None else max(reached, peer.reached)
        kept = {"run": peer.run, "mark": page.until, "minutes": peer.minutes, "reached": reached}
        if page.until > peer.mark and not self._file.receive(peer.name, rows, kept):
            raise DvfdError(f"its rows could not be written: {self._file.trouble}")
        with self._lock:
            peer.mark, peer.newest, peer.reached = page.until, page.newest, reached
            peer.told, peer.heard, peer.trouble = page.run, self._t(), ""

    def _ours(self, peer: Peer, rows: Sequence[Row]) -> Iterator[Row]:
        """Rows on our own run seconds. Raises DvfdError on a rank that cannot be."""
        shift, minutes = peer.axis.seconds if peer.axis else 0.0, peer.minutes or 0
        latest = self._t() + shift + AHEAD
        for row in rows:
            if not _end(row) <= latest:
                raise DvfdError(f"it tells of run second {_end(row):g}, wanted {latest:g} at most")
            match row:
                case Window():
                    if not 0 <= row.rank < self._processes:
                        raise DvfdError(f"it tells of rank {row.rank} of {self._processes}")
                    if row.ended - shift >= self._floor:
                        yield row._replace(began=row.began - shift, ended=row.ended - shift)
                case Minute() if row.minute >= minutes:
                    yield row._replace(minute=row.minute - minutes)
                case Event():
                    origin = row.origin and f"{peer.name}/{row.origin}"
                    yield replace(row, t=row.t - shift, origin=origin)

    # --- What the conductor asks ----------------------------------------------------------------

    def look(self, run: Run, *, t: float, at: float) -> Abroad:
        """Who came, who fell; who is silent is written into the file."""
        with self._lock:
            joined = self._joined()
            for peer in joined:
                self._watch(peer, t, at)
            fallen = [
                f"{p.name}: {p.told.reason or 'no reason given'}"
                for p in joined
                if p.told and p.told.stage is Stage.ABORTED
            ]
            return Abroad(
                waits=self._waits(joined),
                fallen="; ".join(fallen),
                peers={p.name: p.run for p in joined},
                discounts=tuple(
                    f"{p.name}: {words}" for p in joined if p.told for words in p.told.discounts
                ),
            )

    def _joined(self) -> list[Peer]:
        return [peer for peer in self._peers if peer.run]

    def _waits(self, joined: Sequence[Peer]) -> str:
        if len(joined) >= self._wanted and all(peer.told for peer in joined):
            return ""
        away = [f"{p.name} ({p.trouble or 'not asked yet'})" for p in self._peers if not p.told]
        return f"{len(joined)} of {self._wanted} other nodes came: {', '.join(away)}"

    def _watch(self, peer: Peer, t: float, at: float) -> None:
        """Write once that a node fell silent, that it is heard again, that its clock is apart."""
        words = self._silence(peer, t)
        if words and not peer.silent:
            self._write(What.SILENT, t, at, words, node=peer.name)
        elif peer.silent and not words:
            self._write(What.HEARD, t, at, "heard again", node=peer.name)
        peer.silent = bool(words)
        if peer.clock is not None:
            self._greet(peer, peer.clock, t, at)

    def _greet(self, peer: Peer, clock: Difference, t: float, at: float) -> None:
        """Say how its clock goes: when it comes, and when it parts from ours or is back."""
        apart = abs(clock.seconds) > APART + clock.error
        if apart != peer.apart or not peer.greeted:
            came = "" if peer.greeted else f" came, with its run {peer.run}:"
            self._write(What.NOTE, t, at, f"{peer.name}{came} {clock_words(clock)}")
        peer.apart, peer.greeted = apart, True

    def _silence(self, peer: Peer, t: float) -> str:
        """Since when nothing is known of it and why, or nothing."""
        if peer.done:
            return ""
        last = self._began if peer.heard is None else peer.heard
        if t - last > QUIET:
            return f"{peer.name} has been silent for {seconds(t - last)}: {peer.trouble or 'stuck'}"
        told = peer.told
        if told and told.t is not None and not told.stage.over:
            blind = told.t - told.looked_t
            if blind > QUIET:
                return f"{peer.name} answers, and has not looked at its run for {seconds(blind)}"
        return ""

    def ready(self, run: Run, *, t: float) -> bool:
        """Whether every node delivered, or was waited for long enough."""
        ended = t if run.ended_t is None else run.ended_t
        with self._lock:
            return not any(self._awaited(p, ended, t) for p in self._joined())

    def _awaited(self, peer: Peer, ended: float, t: float) -> bool:
        heard = ended if peer.heard is None else max(ended, peer.heard)
        return not peer.done and t - heard < DELIVERY and t - ended < LATEST

    def close(self, run: Run, *, t: float, at: float) -> None:
        """Say who did not deliver: nothing can pass without it."""
        with self._lock:
            for peer in self._joined():
                self._watch(peer, t, at)
                if not peer.done and not peer.silent:
                    words = peer.trouble or "its record is not closed"
                    words = f"{peer.name} did not deliver its last rows: {words}"
                    self._write(What.SILENT, t, at, words, node=peer.name)
                    peer.silent = True

    def _write(self, what: What, t: float, at: float, text: str, node: str = "") -> None:
        event = Event(node=node or self._node, t=t, at=at, what=what, text=text)
        self._file.add([event])
        log.info("node of the run", node=event.node, what=str(what), text=text)

    @property
    def trouble(self) -> str:
        """Who is silent now."""
        t = self._t()
        with self._lock:
            return "; ".join(filter(None, (self._silence(p, t) for p in self._joined())))

    def documents(self) -> dict[str, Any]:
        """Every node that came or may come, with the age of its newest row."""
        t = self._t()
        with self._lock:
            return {"peers": [_document(p, t) for p in self._peers], "led_by": None}


def _document(peer: Peer, t: float) -> dict[str, Any]:
    return {
        "node": peer.name,
        "run": peer.run,
        "stage": str(peer.told.stage) if peer.told else "",
        "heard": None if peer.heard is None else max(0.0, t - peer.heard),
        "age": None if peer.reached is None else max(0.0, t - peer.reached),
        "clock": None if peer.clock is None else peer.clock.seconds,
        "clock_error": None if peer.clock is None else peer.clock.error,
        "trouble": peer.trouble,
    }


def clock_words(clock: Difference) -> str:
    """`its clock is 0.012 s ahead of this node's, to 0.001 s`."""
    side = "ahead of" if clock.seconds >= 0 else "behind"
    words = f"its clock is {abs(clock.seconds):.3f} s {side} this node's, to {clock.error:.3f} s"
    return words if abs(clock.seconds) <= APART else f"{words}: see chronyc tracking on both"


def _end(row: Row) -> float:
    """The run second up to which a row tells."""
    match row:
        case Window():
            return row.ended
        case Minute():
            return MINUTE * (row.minute + 1)
        case Event():
            return row.t
