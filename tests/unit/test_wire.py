"""Packets are hostile until decoded: whatever comes in, a record or WireError comes out."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.errors import WireError
from dvfd.telemetry import wire
from dvfd.telemetry.reporter import (
    ACKNOWLEDGEMENT,
    EVENT,
    HEADER,
    HELLO,
    MAGIC,
    ROW,
    ROWS_LIMIT,
    STEPS,
    VERSION,
    VOID,
)

HELLO_FIELDS = {"job": "gpt", "run": "r", "rank": 0, "world_size": 4, "local_rank": 0,
                "local_world_size": 4, "restarts": 0, "pid": 1, "start": 1, "python": "3.8",
                "reporter": 1, "checkpoint_every": 500}  # fmt: skip


def header(kind: int, rows: int = 0, first: int = 1, **other: object) -> bytes:
    values = {"magic": MAGIC, "version": VERSION, "boot": 1000.0, "monotonic": 900.0, **other}
    return HEADER.pack(values["magic"], values["version"], kind, rows, 7, first, 0,
                       values["monotonic"], values["boot"], 1.8e9)  # fmt: skip


def row(step: int = 1, mask: int = 2, loss: float = 1.5, at: float = 899.0) -> bytes:
    return ROW.pack(mask, step, at, -1.0, loss, *[0.0] * 7, 0, 0)


def text(kind: int, fields: object) -> bytes:
    return header(kind) + json.dumps(fields).encode()


def hello(**changes: object) -> bytes:
    return text(HELLO, {**HELLO_FIELDS, **changes})


def test_rows_are_numbered_from_the_first_and_timed_by_the_boot_clock() -> None:
    steps = wire.decode(header(STEPS, 2, first=10) + row(5) + row(6, at=899.5))

    assert [(r.sequence, r.step, r.boot) for r in steps.rows] == [(10, 5, 999.0), (11, 6, 999.5)]
    assert steps.last == 11


def test_a_nonfinite_loss_is_a_finding_and_not_an_error() -> None:
    steps = wire.decode(header(STEPS, 1) + row(loss=math.nan))

    assert math.isnan(steps.rows[0].loss)


def test_a_void_row_is_skipped_and_counts_in_the_sequence() -> None:
    steps = wire.decode(header(STEPS, 2) + row(mask=VOID) + row(2))

    assert [r.sequence for r in steps.rows] == [2]
    assert steps.last == 2


def test_an_amount_that_makes_no_sense_is_left_out_and_counted() -> None:
    steps = wire.decode(header(STEPS, 1) + row(mask=3))

    assert (steps.rows[0].samples, steps.rows[0].loss, steps.implausible) == (None, 1.5, 1)


def test_a_row_with_a_negative_step_is_left_out_and_counted() -> None:
    steps = wire.decode(header(STEPS, 2) + row(-1) + row(2))

    assert ([r.step for r in steps.rows], steps.implausible) == ([2], 1)


@pytest.mark.parametrize(
    ("clocks", "at"),
    [
        ({"monotonic": -1e308, "boot": 1e308}, 0.0), ({"monotonic": 1e308, "boot": -1e308}, 0.0),
        ({"monotonic": 0.0, "boot": 1e308}, 1e308), ({"boot": -5.0}, 1.0),
    ],
)  # fmt: skip
def test_a_step_that_ended_at_no_time_is_left_out_and_counted(
    clocks: dict[str, float], at: float
) -> None:
    steps = wire.decode(header(STEPS, 1, **clocks) + row(at=at))

    assert (steps.rows, steps.implausible) == ((), 1)


def test_an_acknowledgement_names_session_and_sequence() -> None:
    assert ACKNOWLEDGEMENT.unpack(wire.encode_ack(7, 99))[4:] == (7, 99)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"DVFD",
        b"x" * 65537,
        header(STEPS, 1, magic=b"HTTP") + row(),
        header(STEPS, 1, version=9) + row(),
        header(9),
        header(STEPS, 0),
        header(STEPS, 2) + row(),
        header(STEPS, 1) + row() + b"x",
        header(STEPS, ROWS_LIMIT + 1) + row() * (ROWS_LIMIT + 1),
        header(STEPS, 1, first=0) + row(),
        header(STEPS, 1, first=2**63) + row(),
        header(STEPS, 1, boot=math.nan) + row(),
        header(STEPS, 1, monotonic=math.inf) + row(),
        header(STEPS, 1) + row(mask=1 << 12),
        header(HELLO) + b"{",
        header(HELLO) + b"\xff",
        header(HELLO) + b"[" * 60000,
        text(HELLO, []),
        text(HELLO, {}),
        text(EVENT, {"event": "reboot", "at": 1}),
        text(EVENT, {"event": "end"}),
        text(EVENT, {"event": "end", "at": "now"}),
        text(EVENT, {"event": "end", "at": math.nan}),
        text(EVENT, {"event": "exception", "at": 1, "error": "x" * 5000}),
        text(EVENT, {"event": "checkpoint_saved", "at": 1, "step": -1}),
        text(EVENT, {"event": "collective", "at": 1, "message": "1KiB", "took": 0.1}),
        text(EVENT, {"event": "collective", "at": 1, "message": ["64KiB"], "took": 0.1}),
        text(EVENT, {"event": "collective", "at": 1, "message": "64KiB"}),
        text(EVENT, {"event": "collective", "at": 1, "message": "64KiB", "took": True}),
        text(EVENT, {"event": "collective", "at": 1, "message": "64KiB", "took": 0}),
        text(EVENT, {"event": "collective", "at": 1, "message": "64KiB", "took": math.nan}),
    ],
)
def test_a_malformed_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(packet)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 4}, {"rank": -1}, {"rank": 1.0}, {"rank": True}, {"rank": "0"},
        {"world_size": 0}, {"world_size": 2**40}, {"local_world_size": 5}, {"local_rank": 9},
        {"job": ""}, {"job": "a\nb"}, {"job": "x" * 200}, {"job": 5}, {"job": "gpt~2"},
        {"checkpoint_every": -1}, {"pid": -1},
    ],
)  # fmt: skip
def test_a_hello_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(WireError):
        wire.decode(hello(**change))


def test_a_hello_says_who_reports() -> None:
    found = wire.decode(hello())

    assert (found.job, found.world_size, found.checkpoint_every) == ("gpt", 4, 500)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    kinds = {STEPS: wire.Steps, HELLO: wire.Hello, EVENT: wire.Event}
    for kind, record in kinds.items():
        try:
            found = wire.decode(header(kind, kind == STEPS) + data)
        except WireError:
            continue
        assert isinstance(found, record)
    try:
        assert isinstance(wire.decode(data), tuple(kinds.values()))
    except WireError:
        return


@given(st.binary(min_size=ROW.size, max_size=ROW.size), st.floats(), st.floats())
def test_any_row_is_a_record_or_refused(data: bytes, boot: float, monotonic: float) -> None:
    try:
        steps = wire.decode(header(STEPS, 1, boot=boot, monotonic=monotonic) + data)
    except WireError:
        return
    assert steps.last == 1
    for found in steps.rows:  # none, where the rank says that it lost it
        assert found.sequence == 1
        assert found.samples is None or found.samples >= 0


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(sorted(HELLO_FIELDS)), anything)
def test_any_field_of_a_hello_is_taken_or_refused(key: str, value: object) -> None:
    try:
        found = wire.decode(hello(**{key: value}))
    except WireError:
        return
    assert 0 <= found.rank < found.world_size
    assert 0 <= found.local_rank < found.local_world_size <= found.world_size
    assert 0 < len(found.job) < 200
    assert found.job.isprintable()


@given(st.sampled_from(["event", "at", "step", "path", "error", "failed"]), anything)
def test_any_field_of_an_event_is_taken_or_refused(key: str, value: object) -> None:
    try:
        found = wire.decode(text(EVENT, {"event": "end", "at": 1.0, key: value}))
    except WireError:
        return
    assert math.isfinite(found.at)
    assert found.step is None or found.step >= 0
    assert isinstance(found.path + found.error, str)
    assert isinstance(found.failed, bool)
