"""Tell dvfd what a training rank does: one file to copy, standard library only, Python >= 3.8.

It never raises into the job, never blocks it, starts no thread and waits for no device: pass
floats, and turn tensors into floats only where the job itself already does. Rows wait in a bounded
ring until the daemon says that they are committed; without a daemon they cost a microsecond each
and the oldest are overwritten, counted.

    with Reporter(job="gpt", checkpoint_every=500) as reporter:
        for step, batch in enumerate(loader):
            ...
            reporter.step(step, samples=len(batch), loss=loss, compute=seconds)
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket as sockets
import struct
import sys
import time
import weakref
from collections import deque
from functools import partial, wraps
from itertools import product
from threading import Lock

TYPE_CHECKING = False  # typing is not imported in somebody's job for nothing
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Callable, Deque, Dict, Tuple

# --- The wire. The daemon's wire.py imports these, so that the layout exists once ---------------

MAGIC = b"DVFD"
VERSION = 1
HELLO, STEPS, EVENT, ACK = 1, 2, 3, 4

HEADER = struct.Struct("<4sBBHQQQddd")
"""Magic, version, kind, rows, session, first sequence, rows lost so far, then CLOCK_MONOTONIC,
CLOCK_BOOTTIME and Unix seconds at sending. JSON follows in a hello and an event, rows in steps."""

ACKNOWLEDGEMENT = struct.Struct("<4sBBHQQ")
"""Magic, version, kind, 0, session, last committed sequence."""

FIELDS = ("samples", "loss", "grad_norm", "compute", "communication", "allreduce", "bytes", "lr",
          "val_loss", "grad_hash", "param_hash")  # fmt: skip
"""What a row may hold, in the order of its mask's bits and of its values."""

COMMON = struct.Struct("<H6xqd5d")
"""Mask, step, CLOCK_MONOTONIC of the call, and the five fields that every job gives."""

RARE = struct.Struct("<4dQQ")
ROW = struct.Struct(COMMON.format + RARE.format[1:])
VOID = 0x8000
"""The mask of a row that stands for an event, sent apart: skip it."""

PACKET_LIMIT = 65536
ROWS_LIMIT = 512  # 57 KiB: with its header inside PACKET_LIMIT
TEXT_LIMIT = 4096  # characters of a path or of an error's words: PATH_MAX
EVENTS_LIMIT = 256  # events kept until acknowledged; each is at most some 8 KiB

PAUSE_LIMIT = 3600
"""Seconds that a job may declare itself away: a longer silence is for a person to look at."""

RETRY = 1.0
RETRY_LIMIT = 5.0
END_LIMIT = 0.2
"""Seconds between attempts to connect, the most that they back off to, and what `end` may take."""

_NONE = type(None)
_MASKS = {
    (int, *kinds): sum(1 << bit for bit, kind in enumerate(kinds) if kind is not _NONE)
    for kinds in product((int, float, _NONE), repeat=5)
}
"""The mask of a row by the types of its step and its common fields: one look-up, not six tests.
Types that are not here (NumPy's, tensors) take the careful way."""

_monotonic = time.monotonic
_pack_common = COMMON.pack_into
_pack_rare = RARE.pack_into
_RARE_AT = COMMON.size
_RATE = 1 << FIELDS.index("lr")
_ROW_SIZE = ROW.size


class Reporter:
    """One rank's line to the daemon on its node. Every method returns at once and never raises.

    What is not given comes from the environment that torchrun or Slurm sets. `checkpoint_every`
    is the number of steps between checkpoints, so that one that is missing can be seen.
    `batch` rows or `interval` seconds, whichever is first, make a packet; events and values that
    are not finite go at once. `capacity` rows (112 bytes each) wait for the daemon.
    """

    _is_copy = False

    def __init__(  # noqa: PLR0917  # the interface's order: job, run, rank first
        self,
        job: str = "",
        run: str = "",
        rank: int | None = None,
        world_size: int | None = None,
        local_rank: int | None = None,
        local_world_size: int | None = None,
        socket: str = "",
        checkpoint_every: int = 0,
        batch: int = 128,
        interval: float = 1.0,
        capacity: int = 8192,
    ) -> None:
        self._ended = False
        self._errors = 0
        self._begin()
        try:
            self._path = socket or default_socket()
            self._batch = max(1, min(int(batch), ROWS_LIMIT))
            self._interval = float(interval)
            self._capacity = max(2 * self._batch, int(capacity))
            self._ring = bytearray(self._capacity * _ROW_SIZE)
            local = {"local_rank": local_rank, "local_world_size": local_world_size}
            self._who = identity(job, run, rank=rank, world_size=world_size, **local)
            self._who["checkpoint_every"] = int(checkpoint_every)
            after_fork(self)
            atexit.register(self._at_exit)
            self._quiet = self._is_copy or _is_read_again()
            if not self._quiet:
                self._flush(_monotonic())
        except Exception:
            self._errors += 1
            self._ended = True  # one that could not be built keeps silent

    def _begin(self) -> None:
        """Start a session: nothing said, nothing connected, no lock held by a lost thread."""
        lock = Lock()
        self._acquire, self._release = lock.acquire, lock.release
        self._late: Deque[Tuple[str, Dict[str, Any]]] = deque()  # events that met a held lock
        self._pid = os.getpid()
        self._session = int.from_bytes(os.urandom(8), "little")
        self._socket: sockets.socket | None = None
        self._events: Dict[int, bytes] = {}
        self._head = self._sent = self._acked = 0  # sequences given out, sent, committed
        self._lost = 0
        self._offset = 0  # of the next row in the ring
        self._gradient: int | None = None  # a hash that waits for its step
        self.last_step: int | None = None  # the newest that was reported
        self._mark = 0  # the head at which a packet is full
        self._due = self._retry = 0.0
        self._backoff = RETRY
        self._quiet = False
        self._complained = False

    # --- What a job calls -----------------------------------------------------------------------

    def step(
        self,
        step: int,
        *,
        samples: float | None = None,
        loss: float | None = None,
        grad_norm: float | None = None,
        compute: float | None = None,
        communication: float | None = None,
        allreduce: float | None = None,
        bytes: float | None = None,  # noqa: A002  # the interface's own word
        lr: float | None = None,
        val_loss: float | None = None,
        grad_hash: int | None = None,
        param_hash: int | None = None,
        at: float | None = None,
    ) -> None:
        """Report that optimizer step *step* is done.

        Seconds of `compute` (collectives excluded), of exposed `communication` and of `allreduce`;
        `samples` and `bytes` of this rank in this step; hashes of 64 bits. *at* is when it was
        done, of `time.monotonic()`, where that is not now.
        """
        if self._ended or not self._acquire(True, _PATIENCE):
            self._errors += not self._ended
            return
        try:
            now = _monotonic()
            mask = _MASKS.get((
                step.__class__, samples.__class__, loss.__class__, grad_norm.__class__,
                compute.__class__, communication.__class__,
            ))  # fmt: skip
            if mask is None:
                common = (samples, loss, grad_norm, compute, communication)
                step, mask, samples, loss, grad_norm, compute, communication = self._plain(
                    step, common
                )
            if grad_hash is None:
                grad_hash = self._gradient
            self._gradient = None
            self.last_step = step
            if not (allreduce is bytes is val_loss is grad_hash is param_hash is None):
                mask |= self._rare(allreduce, bytes, lr, val_loss, grad_hash, param_hash)
            elif lr is not None:  # alone, as trainers log it: the other way takes twice as long
                rate = lr if lr.__class__ is float else self._number(lr)
                _pack_rare(self._ring, self._offset + _RARE_AT, 0.0, 0.0, rate or 0.0, 0.0, 0, 0)
                mask |= 0 if rate is None else _RATE
            _pack_common(
                self._ring, self._offset, mask, step, now if at is None else at,
                samples or 0.0, loss or 0.0,
                grad_norm or 0.0, compute or 0.0, communication or 0.0,
            )  # fmt: skip
            self._offset = (self._offset + _ROW_SIZE) % len(self._ring)
            self._head += 1
            odd = (loss or 0.0) * 0.0 + (grad_norm or 0.0) * 0.0 != 0.0  # NaN or infinite
            if odd or now >= self._due or self._head >= self._mark:
                self._flush(now)
        except Exception:
            self._errors += 1
        finally:
            self._release()

    def gradient(self, hash64: int) -> None:
        """Give the hash of a reduced gradient to the next `step` that is told none itself."""
        self._gradient = hash64

    def checkpoint_begin(self, path: object, step: int) -> None:
        """Report that a checkpoint of *step* is about to be written; hangs have their own limit."""
        self._tell("checkpoint_begin", path=path, step=step)

    def checkpoint_saved(self, path: object, step: int) -> None:
        """Report that the checkpoint of *step* is complete at *path*."""
        self._tell("checkpoint_saved", path=path, step=step)

    def checkpoint_loaded(self, path: object, step: int, seconds: float) -> None:
        """Report that the checkpoint of *step* was loaded, and the *seconds* that it took."""
        self._tell("checkpoint_loaded", path=path, step=step, seconds=seconds)

    def checkpoint_failed(self, path: object, step: int, error: object = "") -> None:
        """Report that the checkpoint of *step* could not be written."""
        self._tell("checkpoint_failed", path=path, step=step, error=error)

    def collective(self, message: str, seconds: float) -> None:
        """Report the *seconds* that a collective took which was made to be timed.

        *message* is what it moved: "64KiB" or "bucket".
        """
        self._tell("collective", message=message, took=seconds)

    def pause(self, seconds: float, reason: str = "") -> None:
        """Say that the next step may take up to *seconds*, an hour at most: a validation, say.

        Without it a rank that makes no step for five times its usual slow one counts as hung.
        """
        self._tell("pause", seconds=seconds, reason=reason)

    def exception(self, error: object) -> None:
        """Report an exception: its type and words, no traceback and no variables.

        One of a forked child that has reported nothing is no matter of the job's.
        """
        if self._quiet:
            return
        kind = type(error).__name__ if isinstance(error, BaseException) else ""
        self._tell("exception", type=kind, error=error)

    def note(self, text: str) -> None:
        """Count something that went wrong in the reporting, and tell the daemon's log the first."""
        self._errors += 1
        if self._complained:
            return
        try:
            self._late.append(("note", {"error": str(text)[:TEXT_LIMIT]}))
            self._complained = True
        except Exception:
            self._errors += 1

    def end(self, reason: str = "", *, failed: bool = False) -> None:
        """Report the end of this rank and close the line; takes at most END_LIMIT seconds.

        A rank that goes without this has died as far as the daemon can tell; so has one that
        *failed*.
        """
        if self._ended or self._quiet:
            return
        self._tell("end", reason=reason, failed=bool(failed))
        try:
            atexit.unregister(self._at_exit)
            self._last_words(_monotonic() + END_LIMIT)
            self._ended = True
            self._close()
        except Exception:
            self._errors += 1

    def __reduce__(self) -> Tuple[Any, ...]:
        """Go with a data set into its workers, and with what is copied: silent until it reports."""
        try:
            who = {name: self._who[name] for name in _IDENTITY}
            more = (self._path, self._batch, self._interval, self._capacity)
            return _copied, (who, *more)
        except Exception:
            return _copied, ({}, "", 0, 0.0, 0)  # of one that could not be built

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.end()
            return
        self.exception(error)
        self.end("exception", failed=True)

    def stats(self) -> Dict[str, int]:
        """What this session gave out, sent, had committed, lost to overflow, and got wrong."""
        given = {"rows": self._head, "sent": self._sent, "committed": self._acked}
        connected = int(self._socket is not None)
        return {**given, "lost": self._lost, "errors": self._errors, "connected": connected}

    # --- Rows and events ------------------------------------------------------------------------

    def _plain(self, step: Any, common: Tuple[Any, ...]) -> Tuple[Any, ...]:
        """Turn whatever was given into plain numbers: (step, mask, the common fields)."""
        values = [self._number(value) for value in common]
        mask = sum(1 << bit for bit, value in enumerate(values) if value is not None)
        number = self._number(step)
        if number is None:
            raise TypeError("a row needs a step")
        return (int(number), mask, *values)

    def _rare(self, *given: Any) -> int:
        """Pack the fields that few rows have into the next row; return their part of the mask."""
        numbers = [self._number(value) for value in given[:4]]
        hashes = [None if value is None else int(value) & (1 << 64) - 1 for value in given[4:]]
        present = numbers + hashes
        RARE.pack_into(self._ring, self._offset + COMMON.size, *[value or 0 for value in present])
        return sum(32 << bit for bit, value in enumerate(present) if value is not None)

    def _number(self, value: Any) -> float | None:
        """Read a number, unless it lives on a device: reading would wait for the device."""
        if value is None:
            return None
        device = getattr(value, "device", "cpu")
        if str(getattr(device, "type", device)) != "cpu":
            self.note("a value on %s was left out: pass floats" % device)
            return None
        return float(value)

    def _tell(self, event: str, **fields: Any) -> None:
        """Queue an event and send it at once, or leave it to the step that a signal broke into."""
        if self._ended:
            return
        try:
            step = fields.get("step")
            fields["step"] = None if step is None else int(step)
            if "seconds" in fields:
                limit = PAUSE_LIMIT if event == "pause" else float("inf")
                fields["seconds"] = round(min(float(fields["seconds"]), limit))
            if "took" in fields:
                fields["took"] = float(fields["took"])
                if not 0.0 < fields["took"] < 1e5:
                    raise ValueError("no time that anything takes")
            texts = {k: str(v)[:TEXT_LIMIT] for k, v in fields.items() if k in _TEXTS}
            self._late.append((event, {**fields, **texts}))
            if self._acquire(True, _PATIENCE):
                try:
                    self._flush(_monotonic())
                finally:
                    self._release()
        except Exception:
            self._errors += 1

    def _settle(self) -> None:
        """Give every event that waits its sequence, in the same ring as the rows."""
        while self._late:
            event, fields = self._late.popleft()
            text = json.dumps({"event": event, "at": time.time(), **fields}).encode()
            _pack_common(self._ring, self._offset, VOID, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            self._offset = (self._offset + _ROW_SIZE) % len(self._ring)
            self._head += 1
            self._events[self._head] = text
            if len(self._events) > EVENTS_LIMIT:
                self._lost += min(self._events) > self._sent
                del self._events[min(self._events)]

    # --- The line to the daemon -----------------------------------------------------------------

    def _flush(self, now: float) -> None:
        """Send what is not sent yet, as far as the socket takes it without waiting."""
        if self._ended or self._pid != os.getpid():
            return  # in a child forked behind Python's back, the ring and the line are the parent's
        self._quiet = False
        self._settle()
        # All ranks of a node report at the same moments, so that the daemon wakes once for them.
        self._due = now + self._interval - (now % self._interval if self._interval else 0.0)
        self._mark = self._head + self._batch
        self._overflow()
        if self._socket is None and not self._connect(now):
            return
        try:
            self._hear()
            while self._socket is not None and self._sent < self._head:
                self._send(self._socket, self._sent + 1)
        except BlockingIOError:
            pass  # the daemon is slow: the ring keeps what did not go
        except OSError:
            self._close()

    def _overflow(self) -> None:
        """Give up what the ring has overwritten; only what was never sent counts as lost."""
        gone = self._head - self._capacity
        if gone > self._acked:
            self._acked = gone
            self._lost += max(0, gone - self._sent)
            self._sent = max(self._sent, gone)
            self._events = {s: text for s, text in self._events.items() if s > gone}

    def _connect(self, now: float) -> bool:
        """Try to reach the daemon, at most every RETRY seconds and less often while it is away."""
        if now < self._retry:
            return False
        self._retry = now + self._backoff
        self._backoff = min(2 * self._backoff, RETRY_LIMIT)
        line = sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET | sockets.SOCK_NONBLOCK)
        try:
            line.connect(self._path)
            line.send(self._header(HELLO, 0, 0) + json.dumps(self._who).encode(), _QUIETLY)
        except OSError:
            line.close()
            return False
        self._socket = line
        self._sent = self._acked  # what was sent on the last line may never have been committed
        return True

    def _send(self, line: sockets.socket, first: int) -> None:
        """Send one packet that begins with sequence *first*."""
        if first in self._events:
            line.send(self._header(EVENT, 0, first) + self._events[first], _QUIETLY)
            self._sent = first
            return
        slot = (first - 1) % self._capacity
        event = min((s for s in self._events if s > first), default=self._head + 1)
        rows = min(event - first, self._capacity - slot, ROWS_LIMIT)
        view = memoryview(self._ring)[slot * _ROW_SIZE : (slot + rows) * _ROW_SIZE]
        line.sendmsg((self._header(STEPS, rows, first), view), (), _QUIETLY)
        self._sent = first + rows - 1

    def _header(self, kind: int, rows: int, first: int) -> bytes:
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return HEADER.pack(
            MAGIC, VERSION, kind, rows, self._session, first, self._lost,
            _monotonic(), boot, time.time(),
        )  # fmt: skip

    def _hear(self) -> None:
        """Take the daemon's acknowledgements and forget what they cover."""
        while self._socket is not None:
            try:
                packet = self._socket.recv(ACKNOWLEDGEMENT.size + 1)
            except BlockingIOError:
                return
            if len(packet) != ACKNOWLEDGEMENT.size:
                self._close()  # closed by the daemon, or no daemon of ours
                return
            magic, _, kind, _, session, sequence = ACKNOWLEDGEMENT.unpack(packet)
            if magic == MAGIC and kind == ACK and session == self._session:
                self._acked = max(self._acked, min(sequence, self._head))
                self._sent = max(self._sent, self._acked)
                self._backoff = RETRY
                for known in [s for s in self._events if s <= self._acked]:
                    del self._events[known]

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _last_words(self, deadline: float) -> None:
        """Send what is left, waiting for a slow daemon until *deadline* (CLOCK_MONOTONIC)."""
        self._retry = 0.0
        self._flush(_monotonic())
        while self._sent < self._head and self._socket is not None:
            left = deadline - _monotonic()
            if left <= 0:
                return
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT)
            poll.poll(left * 1000)
            self._flush(_monotonic())

    def _at_exit(self) -> None:
        """End with the interpreter, as failed if an exception is what ends it."""
        error = getattr(sys, "last_value", None)
        if error is not None:
            self.exception(error)
        self.end("exit", failed=error is not None)

    def _in_child(self) -> None:
        """Leave the line to the parent: a child that reports is a session of its own."""
        self._close()
        self._begin()
        self._quiet = True
        self._who.update(pid=self._pid, start=_start_time("self"))


_PATIENCE = 0.001  # seconds to wait for another thread's call; nothing inside one waits
_QUIETLY = sockets.MSG_NOSIGNAL  # whatever the job does about SIGPIPE
_TEXTS = frozenset(("path", "error", "reason", "type", "message"))


def quietly(method: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a method of an object that has a `reporter`: it never raises, and what broke is noted.

    For integrations, which a framework calls: an interrupt and an exit pass through.
    """

    @wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            complain(self, getattr(method, "__qualname__", "?"), error)

    return called


def complain(integration: Any, where: str, error: Exception) -> None:
    """Have the reporter of *integration*, if it has one yet, note an error that was caught."""
    try:
        integration.reporter.note("%s: %r" % (where, error))
    except Exception:  # before its reporter, or an error that cannot even be put into words
        return


def after_fork(owner: Any) -> None:
    """Call `_in_child` of *owner* in each child that this process forks, as long as it lives."""
    # Registering is for ever, so it must not keep the owner alive.
    os.register_at_fork(after_in_child=partial(_begin_again, weakref.ref(owner)))


_IDENTITY = ("job", "run", "rank", "world_size", "local_rank", "local_world_size",
             "checkpoint_every")  # fmt: skip


def _copied(
    who: Dict[str, Any], socket: str, batch: int, interval: float, capacity: int
) -> Reporter:
    copy = Reporter.__new__(Reporter)
    copy._is_copy = True
    copy.__init__(  # type: ignore[misc]  # made in two steps, so that it knows what it is
        socket=socket, batch=batch, interval=interval, capacity=capacity, **who
    )
    return copy


def _is_read_again() -> bool:
    """Whether the job's script is only read again, as `spawn` and `forkserver` do in each worker of
    a data loader: a reporter made there may never report.
    """
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__mp_main__":
            return True
        frame = frame.f_back
    return False


def _begin_again(reference: weakref.ref[Any]) -> None:
    owner = reference()
    if owner is not None:
        owner._in_child()


# --- Who reports, and where to ---------------------------------------------------------------


def default_socket() -> str:
    """Where the daemon listens: $DVFD_SOCKET, else the system's, the user's, or /tmp/dvfd-UID."""
    given = os.environ.get("DVFD_SOCKET", "")
    if given:
        return given
    private = "/tmp/dvfd-%d" % os.getuid()  # noqa: S108  # mode 0700, its owner checked below
    user = os.environ.get("XDG_RUNTIME_DIR", "")
    places = ["/run/dvfd", user + "/dvfd" if user else private]
    for place in places:
        if os.path.exists(place + "/ingest.sock"):
            return place + "/ingest.sock"
    return places[-1] + "/ingest.sock"


def identity(job: str = "", run: str = "", **given: int | None) -> Dict[str, Any]:
    """Say who this process is, from what is given and else from torchrun's or Slurm's variables."""
    world = _whole(given.get("world_size"), "WORLD_SIZE", "SLURM_NTASKS", default=1)
    local_names = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")  # Slurm's "4(x2),2" is left aside
    local_world = _whole(given.get("local_world_size"), *local_names, default=0)
    return {
        "job": job or _word("DVFD_JOB", "SLURM_JOB_NAME") or _script(),
        "run": run or _word("DVFD_RUN", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID") or _parent(),
        "rank": _whole(given.get("rank"), "RANK", "SLURM_PROCID", default=0),
        "world_size": world,
        "local_rank": _whole(given.get("local_rank"), "LOCAL_RANK", "SLURM_LOCALID", default=0),
        "local_world_size": local_world or world,
        "restarts": _whole(None, "TORCHELASTIC_RESTART_COUNT", default=0),
        "pid": os.getpid(),
        "start": _start_time("self"),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "reporter": VERSION,
    }


def _word(*names: str) -> str:
    """The first variable that says something; torchrun without an id says "none"."""
    words = (os.environ.get(name, "") for name in names)
    return next((word for word in words if word and word != "none"), "")


def _whole(given: int | None, *names: str, default: int) -> int:
    if given is not None:
        return int(given)
    word = _word(*names)
    return int(word) if word.isdigit() else default


def _script() -> str:
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return os.path.splitext(name)[0] or "python"


def _parent() -> str:
    """Name a run without an id by the process that launched all of its ranks here."""
    parent = os.getppid()
    return "%d-%d" % (parent, _start_time(str(parent)))


def _start_time(process: str) -> int:
    """Clock ticks from boot to the start of *process*: field 22 of its stat, proc(5); else 0."""
    try:
        with open("/proc/%s/stat" % process, "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
