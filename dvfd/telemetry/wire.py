"""Packets between a job's reporter and the daemon: bytes in, frozen records out, or WireError.

A packet is hostile until it is decoded: every length, count, type and number is checked here, and
what comes out is bounded. The layout itself is the reporter's, since that file is copied alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dvfd.errors import WireError
from dvfd.telemetry.reporter import (
    ACK,
    ACKNOWLEDGEMENT,
    EVENT,
    FIELDS,
    HEADER,
    HELLO,
    MAGIC,
    PACKET_LIMIT,
    PAUSE_LIMIT,
    ROW,
    ROWS_LIMIT,
    STEPS,
    TEXT_LIMIT,
    VERSION,
    VOID,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_LIMIT = 128
"""Characters of a job's or a run's name: they become labels."""

WORLD_LIMIT = 1 << 20
"""Ranks in a world: above the largest machines that there are."""

SEQUENCE_LIMIT = 1 << 62
"""Sequences and steps: SQLite's integers are signed and of 64 bits."""

EVENTS = frozenset((
    "checkpoint_begin", "checkpoint_staged", "checkpoint_saved", "checkpoint_failed",
    "checkpoint_loaded", "collective", "pause", "exception", "note", "end",
))  # fmt: skip

COLLECTIVES = ("64KiB", "bucket")
"""What a timed collective may have moved: the sizes that criteria are on."""

_KNOWN = (1 << len(FIELDS)) - 1

AMOUNTS = {
    "samples": 1e12,
    "compute": 86400.0,
    "communication": 86400.0,
    "allreduce": 86400.0,
    "bytes": 1e18,
}
"""Fields that are amounts, and what each must stay below: what no step can reach (a day, 1 EB)."""

_BOUNDS = tuple(AMOUNTS.get(name) for name in FIELDS)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every packet says of itself: its session, first sequence, losses, and three clocks."""

    session: int
    first: int
    lost: int
    monotonic: float
    boot: float
    wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who connects, as the process says it; pid and uid are the kernel's to tell."""

    stamp: Stamp
    job: str
    run: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    checkpoint_every: int
    restarts: int
    pid: int
    start: int
    python: str
    reporter: int


class Row(NamedTuple):
    """One optimizer step of one rank; `boot` is when it ended, CLOCK_BOOTTIME seconds.

    None is what the job did not give. NaN and infinities are kept: they are findings.
    """

    sequence: int
    step: int
    boot: float
    samples: float | None = None
    loss: float | None = None
    grad_norm: float | None = None
    compute: float | None = None
    communication: float | None = None
    allreduce: float | None = None
    bytes: float | None = None
    lr: float | None = None
    val_loss: float | None = None
    grad_hash: int | None = None
    param_hash: int | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """The rows of a packet, the last sequence that it covers, and how many values made no sense."""

    stamp: Stamp
    rows: tuple[Row, ...]
    last: int
    implausible: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a rank; `at` is its own Unix time."""

    stamp: Stamp
    event: str
    at: float
    step: int | None = None
    path: str = ""
    error: str = ""
    type: str = ""
    reason: str = ""
    failed: bool = False
    seconds: int = 0
    message: str = ""  # of a collective, one of COLLECTIVES
    took: float = 0.0  # seconds of a collective


def decode(packet: bytes) -> Hello | Steps | Event:
    """Read one packet. Raises WireError, and nothing else, on anything that is not one."""
    if len(packet) > PACKET_LIMIT:
        raise WireError(f"{len(packet)} bytes, at most {PACKET_LIMIT} are taken")
    if len(packet) < HEADER.size:
        raise WireError(f"{len(packet)} bytes, a header alone has {HEADER.size}")
    magic, version, kind, rows, *stamped = HEADER.unpack_from(packet)
    if magic != MAGIC or version != VERSION:
        raise WireError(f"magic {magic!r} version {version}, wanted {MAGIC!r} version {VERSION}")
    stamp = _stamp(*stamped)
    if kind == STEPS:
        return _steps(stamp, packet, rows)
    if kind == HELLO:
        return _hello(stamp, _fields(packet))
    if kind == EVENT:
        return event_of(stamp, _fields(packet))
    raise WireError(f"kind {kind} is none of hello {HELLO}, steps {STEPS}, event {EVENT}")


def encode_ack(session: int, committed: int) -> bytes:
    """Pack the answer that everything up to sequence *committed* is durable."""
    return ACKNOWLEDGEMENT.pack(MAGIC, VERSION, ACK, 0, session, committed)


def _stamp(  # noqa: PLR0917  # the header, in its order
    session: int, first: int, lost: int, monotonic: float, boot: float, wall: float
) -> Stamp:
    if first >= SEQUENCE_LIMIT or lost >= SEQUENCE_LIMIT:
        raise WireError(f"sequence {first}, lost {lost}: at most {SEQUENCE_LIMIT}")
    if not all(map(math.isfinite, (monotonic, boot, wall))):
        raise WireError(f"clocks {monotonic}, {boot}, {wall} are not all finite")
    return Stamp(session, first, lost, monotonic, boot, wall)


# --- Steps ------------------------------------------------------------------------------------


def _steps(stamp: Stamp, packet: bytes, rows: int) -> Steps:
    wanted = HEADER.size + rows * ROW.size
    if not 1 <= rows <= ROWS_LIMIT or len(packet) != wanted or stamp.first < 1:
        raise WireError(f"{len(packet)} bytes with {rows} rows from {stamp.first}, wanted {wanted}")
    shift = stamp.boot - stamp.monotonic
    found, implausible = [], 0
    for sequence, raw in enumerate(ROW.iter_unpack(packet[HEADER.size :]), stamp.first):
        if raw[0] & VOID:
            continue
        row, refused = _row(sequence, raw, shift)
        implausible += refused
        if row is not None:
            found.append(row)
    return Steps(stamp, tuple(found), stamp.first + rows - 1, implausible)


def _row(sequence: int, raw: tuple[Any, ...], shift: float) -> tuple[Row | None, int]:
    """The row, without the values that make no sense, and how many these were.

    One odd value must not cost the others, nor block what is queued behind it.
    """
    mask, step, monotonic, *values = raw
    if mask & ~_KNOWN:
        raise WireError(f"row {sequence}: mask {mask:#x} has bits that mean nothing")
    boot = monotonic + shift
    if not 0 <= step < SEQUENCE_LIMIT or not 0 <= boot < math.inf:  # finite clocks may add to inf
        return None, 1
    refused = 0
    absent, bounded = _meant(mask)
    for bit in absent:
        values[bit] = None
    for bit, bound in bounded:
        if not 0 <= values[bit] < bound:  # NaN is neither
            values[bit] = None
            refused += 1
    return Row(sequence, step, boot, *values), refused


@cache  # 4096 known masks at most: others are refused before
def _meant(mask: int) -> tuple[tuple[int, ...], tuple[tuple[int, float], ...]]:
    """Which fields are absent under a mask, and which present ones have a bound."""
    absent = tuple(bit for bit in range(len(_BOUNDS)) if not mask >> bit & 1)
    bounds = ((bit, bound) for bit, bound in enumerate(_BOUNDS) if mask >> bit & 1)
    return absent, tuple((bit, bound) for bit, bound in bounds if bound is not None)


# --- Hello and event: JSON --------------------------------------------------------------------


def _fields(packet: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(packet[HEADER.size :].decode())
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise WireError(f"a JSON object wanted, got {type(fields).__name__}")
    return fields


def _hello(stamp: Stamp, fields: dict[str, Any]) -> Hello:
    world = _whole(fields, "world_size", 1, WORLD_LIMIT)
    local_world = _whole(fields, "local_world_size", 1, world)
    return Hello(
        stamp=stamp,
        job=_name(fields, "job"),
        run=_name(fields, "run", required=False),
        rank=_whole(fields, "rank", 0, world - 1),
        world_size=world,
        local_rank=_whole(fields, "local_rank", 0, local_world - 1),
        local_world_size=local_world,
        checkpoint_every=_whole(fields, "checkpoint_every", 0, SEQUENCE_LIMIT),
        restarts=_whole(fields, "restarts", 0, WORLD_LIMIT),
        pid=_whole(fields, "pid", 0, SEQUENCE_LIMIT),
        start=_whole(fields, "start", 0, SEQUENCE_LIMIT),
        python=_text(fields, "python", NAME_LIMIT),
        reporter=_whole(fields, "reporter", 0, WORLD_LIMIT),
    )


def event_of(stamp: Stamp, fields: Mapping[str, Any]) -> Event:
    """Read an event's fields. Raises WireError on any that makes no sense."""
    if stamp.first < 1:
        raise WireError("an event without a sequence")
    event = _text(fields, "event", NAME_LIMIT)
    if event not in EVENTS:
        raise WireError(f"event {event!r} is none of {', '.join(sorted(EVENTS))}")
    at = fields.get("at")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e11:
        raise WireError(f"at: Unix seconds wanted, got {at!r:.40}")
    step = fields.get("step")
    timed = _collective(fields) if event == "collective" else ("", 0.0)
    return Event(
        stamp=stamp,
        event=event,
        at=float(at),
        step=None if step is None else _whole(fields, "step", 0, SEQUENCE_LIMIT),
        path=_text(fields, "path", TEXT_LIMIT),
        error=_text(fields, "error", TEXT_LIMIT),
        type=_text(fields, "type", TEXT_LIMIT),
        reason=_text(fields, "reason", TEXT_LIMIT),
        failed=fields.get("failed") is True,
        seconds=min(_whole({"seconds": 0, **fields}, "seconds", 0, SEQUENCE_LIMIT), PAUSE_LIMIT),
        message=timed[0],
        took=timed[1],
    )


def _collective(fields: Mapping[str, Any]) -> tuple[str, float]:
    message, took = fields.get("message"), fields.get("took")
    if message not in COLLECTIVES:
        raise WireError(f"message: one of {', '.join(COLLECTIVES)} wanted, got {message!r:.40}")
    if (
        isinstance(took, bool)
        or not isinstance(took, int | float)
        or not 0 < took < AMOUNTS["allreduce"]
    ):
        raise WireError(f"took: seconds wanted, got {took!r:.40}")
    return message, float(took)


def _whole(fields: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = fields.get(key)
    if type(value) is not int or not low <= value <= high:  # a bool is no number here
        raise WireError(f"{key}: a whole number from {low} to {high} wanted, got {value!r:.40}")
    return value


def _name(fields: dict[str, Any], key: str, *, required: bool = True) -> str:
    """A text that may become a label: printable, bounded, not empty where *required*."""
    text = _text(fields, key, NAME_LIMIT)
    if (required and not text) or not text.isprintable() or "~" in text:
        raise WireError(f"{key}: a printable name without ~ wanted, got {text!r:.40}")
    return text


def _text(fields: Mapping[str, Any], key: str, limit: int) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str) or len(value) > limit:
        raise WireError(f"{key}: a text of at most {limit} characters wanted, got {value!r:.40}")
    return value.encode(errors="replace").decode()  # lone surrogates cannot be stored
