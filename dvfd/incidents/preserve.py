"""Seal what is known of a failure at once: logs, metrics, configuration, environment, kernel.

A child makes the bundle, `python -m dvfd.incidents.preserve`, so that neither its time nor its
memory is the watch's. It reads Orders from our own pipe, nothing else. What another program wrote
is redacted; what could not be preserved, and why, stands in the bundle's manifest.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import sys
import tarfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dvfd import shell
from dvfd.errors import DvfdError, StoreError, ToolError
from dvfd.masking import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from dvfd.model import Metric, Sample

SCHEMA = 1

MANIFEST = "manifest.json"

PART = 8 << 20
"""Bytes of one part at most: of a log its end. Redacting takes a second a MiB, whatever it is."""

WINDOW = 64 << 20
"""Bytes of metrics at most: an hour of 700 series. gzip makes a fifteenth of them."""

ROOM = 64 << 10
"""Bytes kept for the manifest and the archive's own: below that nothing is begun."""

PRESERVING = 600.0
"""Seconds that it may take: some twenty logs of PART on a slow disk take below half of that."""

EMPTY = "-- No entries --"
"""What journalctl says where there is nothing."""

COMMAND = 20.0
"""Seconds for one tool: journalctl reads a day of messages in about one."""

EACH = 180.0
"""Seconds for one part: PART takes up to ten to redact, on a core that nobody else wants."""

AGAIN = 5.0
"""Seconds after which a part is told again that it is late: a destructor may have eaten it."""

SEALING = 60.0
"""Seconds of PRESERVING that are kept to pack the last part, and to seal what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What goes into the bundle at `path`, under which name, the most important first.

    `texts` are made already, `files` are read from their end, `commands` are run. Of the `store`
    the values of `since` to `until` (Unix seconds). The bundle is at most `limit` bytes, and leaves
    `spare` bytes of the disk free.
    """

    incident: str
    node: str
    path: Path
    limit: int
    spare: int
    at: float
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    store: Path | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    since: float = 0.0
    until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of the bundle: where it came from, and whether only its end is there."""

    name: str
    source: str
    bytes: int
    sha256: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """What a part holds, and whether its beginning, or some of it, was left out already."""

    data: bytes
    cut: bool = False


class Late(BaseException):
    """A part takes too long. No handler of errors on the way may take it for one."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Late here after *seconds*, even amid a read or a search. For the main thread only."""
    began = time.monotonic()

    def late(_signal: int, _frame: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    waits, every = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if waits:  # somebody's own alarm, a test's for one
            left = waits - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What was sealed. `path` is empty where nothing was; `missing` says of each part why."""

    path: str = ""
    sha256: str = ""
    bytes: int = 0
    parts: int = 0
    missing: tuple[str, ...] = ()


def free(directory: Path) -> int:
    """Bytes that this user may still write there."""
    return shutil.disk_usage(directory).free


class Sealing:
    """A bundle while it is made: takes parts as long as there is room for them."""

    def __init__(
        self,
        orders: Orders,
        *,
        left: Callable[[Path], int] = free,
        each: float = EACH,
        seconds: float = PRESERVING - SEALING,
    ) -> None:
        """*left* tells the bytes free in a directory; a part gets *each* seconds, all of them
        *seconds*. Raises DvfdError if there is no room.
        """
        self._orders = orders
        self._left = left
        self._each = each
        self._until = time.monotonic() + seconds
        self._parts: list[Part] = []
        self._missing: list[str] = []
        self._written = 0
        directory = orders.path.parent
        if (room := self._room()) < ROOM:
            raise DvfdError(
                f"{directory}: room for {max(0, room)} bytes, wanted at least {ROOM}: "
                f"{left(directory)} are free, and {orders.spare} stay free"
            )

    def make(self) -> Bundle:
        """Write all of it, seal it, and give it its name. Raises OSError: then nothing is left."""
        path = self._orders.path
        beside = path.with_name(f".{path.name}.part")
        try:
            with beside.open("wb") as raw:
                self._fill(raw)
                raw.flush()
                os.fsync(raw.fileno())
            beside.chmod(0o440)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        digest, size = _digest(path)
        return Bundle(
            path=str(path),
            sha256=digest,
            bytes=size,
            parts=len(self._parts),
            missing=tuple(self._missing),
        )

    def _fill(self, raw: IO[bytes]) -> None:
        name = self._orders.path.name.removesuffix(".tar.gz")
        with (
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for part, where, make in self._offered():
                data = self._made(part, make)
                packed.flush()
                self._written = raw.tell()
                if data is not None:
                    self._take(tar, f"{name}/{part}", redacted(where), data)
            manifest = json.dumps(self._manifest(), indent=1).encode()
            _add(tar, f"{name}/{MANIFEST}", manifest, self._orders.at)

    def _made(self, name: str, make: Callable[[], Data | None]) -> Data | None:
        """What *make* gives, if it gives it in time: no part costs more than itself."""
        seconds = min(self._each, self._until - time.monotonic())
        if seconds <= 0:
            self._lacks(f"{name}: no time left for it")
            return None
        try:
            with within(seconds):
                return make()
        except Late:
            self._lacks(f"{name}: not ready after {seconds:.1f} s: left out")
        except Exception as error:  # noqa: BLE001  # else one part would lose all the others
            self._lacks(f"{name}: {type(error).__name__}: {error}")
        return None

    def _take(self, tar: tarfile.TarFile, name: str, source: str, found: Data) -> None:
        """Add a part, or as much of its end as there is room for."""
        data = found.data
        room = self._room() - ROOM
        if room < min(len(data), 1024):
            self._lacks(f"{name}: no room: {room} bytes left of {self._orders.limit}")
            return
        kept = data[-room:] if len(data) > room else data
        _add(tar, name, kept, self._orders.at)
        cut = found.cut or len(kept) < len(data)
        digest = hashlib.sha256(kept).hexdigest()
        self._parts.append(Part(name=name, source=source, bytes=len(kept), sha256=digest, cut=cut))

    def _lacks(self, why: str) -> None:
        self._missing.append(redacted(why))

    def _room(self) -> int:
        """Bytes that may still be written: of the bundle's own limit, and of the disk."""
        orders = self._orders
        disk = self._left(orders.path.parent) - orders.spare
        return min(orders.limit - self._written, disk)

    def _manifest(self) -> dict[str, Any]:
        orders = self._orders
        return {
            "schema": SCHEMA,
            "incident": orders.incident,
            "node": orders.node,
            "at": orders.at,
            "since": orders.since,
            "until": orders.until,
            "parts": [asdict(part) for part in self._parts],
            "missing": self._missing,
        }

    # --- What there is --------------------------------------------------------------------------

    def _offered(self) -> Iterator[tuple[str, str, Callable[[], Data | None]]]:
        """Every part: its name, where it comes from, and what makes it, redacted."""
        orders = self._orders
        for name, text in orders.texts.items():
            yield name, "dvfd", partial(_encoded, text)
        for name, path in orders.files.items():
            yield name, str(path), partial(self._tail, path)
        for name, argv in orders.commands.items():
            yield name, " ".join(argv), partial(self._said, argv)
        if (store := orders.store) is not None:
            yield "metrics.jsonl", str(store), partial(self._metrics, store)

    def _tail(self, path: Path) -> Data | None:
        """The last PART bytes of a file, from the beginning of a line.

        A tool reads it, which can be killed: a file system that hangs holds whoever reads.
        """
        argv = ("tail", f"--bytes={PART + 1}", "--", str(path))
        try:
            done = shell.run(argv, timeout=COMMAND, bound=True, last=PART)
        except ToolError as error:
            self._lacks(f"{path}: {error}")
            return None
        if done.code:
            self._lacks(f"{path}: cannot be read: {done.stderr.strip().rpartition(': ')[2]}")
            return None
        return _from_a_line(done)

    def _said(self, argv: tuple[str, ...]) -> Data | None:
        try:
            done = shell.run(argv, timeout=COMMAND, bound=True, last=PART)
        except ToolError as error:
            self._lacks(str(error))
            return None
        words = done.stderr.strip().splitlines()
        if done.code or words:  # journalctl hints here at what it does not show
            said = words[0][:200] if words else f"it ended with code {done.code}"
            self._lacks(f"{' '.join(argv)}: {said}")
        return _from_a_line(done) if done.stdout.strip() not in ("", EMPTY) else None

    def _metrics(self, path: Path) -> Data:
        """The window of every series that lived in it, a sample a line, as far as it fits."""
        kept = bytearray()
        limit = min(WINDOW, max(0, self._room() - ROOM))
        for line in self._window(path):
            if len(kept) + len(line) > limit:
                self._lacks(f"metrics.jsonl: cut at {limit} bytes: later series are not in it")
                return Data(bytes(kept), cut=True)
            kept += line
        return Data(bytes(kept))

    def _window(self, path: Path) -> Iterator[bytes]:
        from dvfd.clock import SystemClock  # noqa: PLC0415  # the daemon only asks for a child
        from dvfd.store import Store  # noqa: PLC0415

        orders = self._orders
        try:
            store = Store.read_only(path, orders.metrics, SystemClock())
        except StoreError as error:
            self._lacks(f"metrics: {error}")
            return
        try:
            for metric, labels in store.lived(orders.since):
                course = store.series(metric, labels, since=orders.since, until=orders.until)
                yield from map(_line, course)
        finally:
            store.stop()


def _encoded(text: str, *, cut: bool = False) -> Data:
    """*text* redacted; half a character, of a name for one, comes as an escape."""
    return Data(redacted(text).encode(errors="backslashreplace"), cut)


def _from_a_line(said: shell.Output) -> Data:
    """What was said, without the line that was cut through; a line without an end is kept."""
    text = said.stdout
    return _encoded((text.partition("\n")[2] or text) if said.cut else text, cut=said.cut)


def _line(sample: Sample) -> bytes:
    document = {
        "metric": sample.metric,
        "labels": dict(sample.labels),
        "at": sample.at,
        "value": sample.value,
        "span": sample.span,
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _add(tar: tarfile.TarFile, name: str, data: bytes, at: float) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), int(at), 0o440
    tar.addfile(member, io.BytesIO(data))


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def problems(path: Path, sha256: str = "") -> list[str]:
    """What is wrong with a bundle: its own hash, if that is known, and those in its manifest."""
    try:
        if sha256 and _digest(path)[0] != sha256:
            return [f"{path}: its SHA-256 is {_digest(path)[0]}, wanted {sha256}: it was changed"]
        with tarfile.open(path, "r:gz") as tar:
            members = {each.name: tar.extractfile(each) for each in tar.getmembers()}
            found = {name: file.read() for name, file in members.items() if file}
    except (OSError, tarfile.TarError, EOFError) as error:
        return [f"{path}: cannot be read: {error}"]
    text = next((data for name, data in found.items() if name.endswith(f"/{MANIFEST}")), None)
    if text is None:
        return [f"{path}: it has no {MANIFEST}: nothing says what was in it"]
    parts = json.loads(text)["parts"]
    return [
        f"{path}: {part['name']} is not what the manifest says"
        for part in parts
        if hashlib.sha256(found.get(part["name"], b"")).hexdigest() != part["sha256"]
    ]


def by_child(orders: Orders) -> Bundle:
    """The bundle, made by a process of its own; of one that could not be made, why."""
    argv = [sys.executable, "-P", "-m", "dvfd.incidents.preserve"]
    try:
        orders.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        done = shell.run(argv, timeout=PRESERVING, stdin=pickle.dumps(orders), nice=10, bound=True)
    except (OSError, ToolError) as error:
        return Bundle(missing=(f"nothing was preserved: {error}",))
    if done.code != 0:
        said = done.stderr.strip().splitlines()
        return Bundle(missing=(f"nothing was preserved: {said[-1] if said else done.code}",))
    found = json.loads(done.stdout)
    return Bundle(**{**found, "missing": tuple(found["missing"])})


def main() -> int:
    """Make the bundle that the daemon orders; what it is, on standard output."""
    orders = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own parent
    try:
        bundle = Sealing(orders).make()
    except (DvfdError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(asdict(bundle)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
