"""A million packets through the parser, and some of them through the real receiver, book and store.

The parser must answer each with a record or with WireError, in bounded time of the processor and
without keeping memory. The receiver must live on, count what it refused, and keep its book bounded;
the store must go on committing whatever a rank says of its clocks.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import itertools
import math
import os
import select
import socket
import tempfile
import termios
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from bench.fuzzed import Fuzzed, recorded
from bench.harness import status
from dvfd import log
from dvfd.clock import SystemClock
from dvfd.config import Jobs
from dvfd.errors import WireError
from dvfd.store import Store
from dvfd.telemetry import wire
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.receiver import Receiver
from dvfd.telemetry.reporter import HEADER, HELLO, ROWS_LIMIT

SLOW = 0.1
"""Seconds of the processor that one packet may cost: 64 KiB of JSON take a tenth of it."""

WARM = 2000
"""Packets after which a parser has what it keeps for good."""

LINE = 60
"""Packets that one line sends: below what closes it."""

TOGETHER = 100
"""Lines that send at the same time: below what one user may have."""

LONGEST = 1 << 17
"""Bytes of a packet that the kernel carries; the parser takes half of it."""

SEED = 9


@dataclass(slots=True)
class Parsed:
    """What came of packets given to the parser."""

    packets: int = 0
    accepted: int = 0
    crashes: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds of the processor
    grown_kib: int = 0

    @classmethod
    def together(cls, parts: Iterable[Parsed]) -> Parsed:
        """What came of all *parts*."""
        found = cls()
        for part in parts:
            found.packets += part.packets
            found.accepted += part.accepted
            found.crashes += part.crashes
            found.slowest = max(found.slowest, part.slowest)
            found.grown_kib = max(found.grown_kib, part.grown_kib)
        return found


def parsed(count: int, processes: int = 2) -> Parsed:
    """Give the parser *count* packets, spread over *processes*."""
    share = math.ceil(count / processes)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return Parsed.together(pool.map(_parse, [share] * processes, range(processes)))


def _parse(count: int, part: int) -> Parsed:
    found = Parsed()
    before = 0
    for packet in itertools.islice(Fuzzed(recorded(), SEED + part), count):
        if found.packets == WARM:
            before = status(os.getpid(), "VmRSS")
        _one(found, packet)
    found.grown_kib = status(os.getpid(), "VmRSS") - before if before else 0
    return found


def _one(found: Parsed, packet: bytes) -> None:
    found.packets += 1
    began = time.thread_time()
    try:
        record = wire.decode(packet)
        found.accepted += 1
    except WireError:
        record = None
    except Exception:  # noqa: BLE001  # a crash is what is looked for
        record = None
        found.crashes.append(f"{packet[:200].hex()}: {traceback.format_exc(limit=-1)}")
    found.slowest = max(found.slowest, time.thread_time() - began)
    if record is not None and (wrong := "; ".join(unsound(record))):
        found.crashes.append(f"{packet[:200].hex()}: taken: {wrong}")


def unsound(record: wire.Hello | wire.Steps | wire.Event) -> Iterator[str]:
    """What of a record that was taken is beyond what the parser promises."""
    match record:
        case wire.Hello():
            if not (record.job.isprintable() and 0 < len(record.job) <= wire.NAME_LIMIT):
                yield f"job {record.job!r}"
            if not 0 <= record.rank < record.world_size <= wire.WORLD_LIMIT:
                yield f"rank {record.rank} of {record.world_size}"
        case wire.Steps():
            yield from filter(None, map(_unsound_row, record.rows))
            if not 0 < record.last < 2**63:
                yield f"last {record.last}"
        case wire.Event():
            if not math.isfinite(record.at) or record.event not in wire.EVENTS:
                yield f"event {record.event} at {record.at}"
            if record.step is not None and not 0 <= record.step < 2**63:
                yield f"step {record.step}"


def _unsound_row(row: wire.Row) -> str:
    if not (0 <= row.step < 2**63 and 0 < row.sequence < 2**63):
        return f"step {row.step}, sequence {row.sequence}"
    if not math.isfinite(row.boot):
        return f"a step that ended at {row.boot}"
    amounts = (getattr(row, name) for name in wire.AMOUNTS)
    wrong = [each for each in amounts if each is not None and not 0 <= each < math.inf]
    return f"amounts {wrong}" if wrong else ""


# --- Through the socket --------------------------------------------------------------------------


@dataclass(slots=True)
class Received:
    """What came of packets sent to the receiver."""

    sent: int = 0
    refused_at_least: int = 0  # of lines that were read to their end
    counters: Mapping[str, int] = field(default_factory=dict)
    closed: int = 0  # lines that the receiver closed
    jobs: int = 0
    grown_kib: int = 0
    troubles: list[str] = field(default_factory=list)


def received(count: int) -> Received:
    """Send *count* packets over real lines to a real receiver with a book and a store."""
    log.setup("error")
    found = Received()
    seeds = recorded()
    hello = next(packet for packet in seeds if packet[5] == HELLO)
    with tempfile.TemporaryDirectory() as place, _receiver(Path(place)) as (receiver, book, store):
        source = iter(Fuzzed(seeds, SEED))
        before = 0
        while found.sent < count:
            _wave(found, str(Path(place) / "ingest.sock"), source, hello)
            before = before or status(os.getpid(), "VmRSS")
        found.grown_kib = status(os.getpid(), "VmRSS") - before
        found.counters, found.jobs = receiver.counters(), len(book.all())
        found.troubles += _troubles(found, receiver, store)
    return found


@contextlib.contextmanager
def _receiver(place: Path) -> Iterator[tuple[Receiver, JobBook, Store]]:
    clock = SystemClock()
    store = Store(place / "store.db", metrics={}, clock=clock)
    store.start()
    book = JobBook(Jobs(), clock)
    receiver = Receiver(place / "ingest.sock", book, store, clock, lambda _metrics: None)
    receiver.start()
    try:
        yield receiver, book, store
    finally:
        receiver.stop()
        store.stop()


def _wave(found: Received, path: str, source: Iterator[bytes], hello: bytes) -> None:
    """Some lines, each with packets of its own, half of them with a hello; read to their end."""
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            for _ in range(TOGETHER)
        ]
        asked: dict[socket.socket, tuple[list[bytes], int]] = {}
        for number, line in enumerate(lines):
            line.settimeout(60)
            line.connect(path)
            line.setblocking(False)
            made = enumerate(itertools.islice(source, LINE), 1)
            packets = [_in_turn(p[:LONGEST], n) for n, p in made if p]
            opening = [hello] if number % 2 else []
            asked[line] = ([*opening, *packets][::-1], sum(map(_refused, packets)))
        _send(found, {line: packets for line, (packets, _) in asked.items()})
        for line, (unsent, refused) in asked.items():
            if _read_to_its_end(line) and not unsent:
                found.refused_at_least += refused
            else:
                found.closed += 1


def _in_turn(packet: bytes, number: int) -> bytes:
    """*packet* with a sequence that follows the ones before it, for most of them: what comes again
    is not looked at.
    """
    if len(packet) < HEADER.size or number % 5 == 0:
        return packet
    return packet[:16] + (number * ROWS_LIMIT).to_bytes(8, "little") + packet[24:]


def _send(found: Received, waiting: Mapping[socket.socket, list[bytes]]) -> None:
    """Send each line's packets, the last first, to all lines at the same time."""
    look = select.poll()
    by_number = {line.fileno(): line for line in waiting}
    for number in by_number:
        look.register(number, select.POLLOUT)
    while by_number:
        for number, event in look.poll(60_000):
            line = by_number[number]
            packets = waiting[line]
            try:
                sent = packets and not event & select.POLLHUP and line.send(packets[-1])
            except BlockingIOError:
                continue
            except OSError:
                sent = 0
            if not sent:  # all of them, or the line was closed
                look.unregister(number)
                del by_number[number]
                continue
            packets.pop()
            found.sent += 1


def _refused(packet: bytes) -> bool:
    try:
        wire.decode(packet)
    except WireError:
        return bool(packet)
    return False


def _read_to_its_end(line: socket.socket) -> bool:
    """Wait until the receiver has taken all, or closed the line; whether it took all."""
    look, left = select.poll(), array.array("i", [1])
    look.register(line, 0)
    end = time.monotonic() + 60
    while left[0] and time.monotonic() < end:
        if look.poll(0):
            return False
        fcntl.ioctl(line, termios.TIOCOUTQ, left)
        time.sleep(0.002 if left[0] else 0)
    return not left[0] and not look.poll(0)


def _troubles(found: Received, receiver: Receiver, store: Store) -> Iterator[str]:
    """What a receiver that was hurt shows."""
    counts = Counter(found.counters)
    if not receiver.alive():
        yield "the receiver's thread ended"
    if not store.health().ok:
        yield f"the store commits no more: {store.health().reason}"
    if counts["malformed"] < found.refused_at_least:
        yield f"{counts['malformed']} counted as malformed, wanted {found.refused_at_least}"
    if found.jobs > Jobs().limit:
        yield f"{found.jobs} jobs in the book, wanted at most {Jobs().limit}"
