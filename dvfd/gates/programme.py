"""When each gate is due: by the programme's start, moved by the delays before it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from dvfd.errors import DvfdError
from dvfd.gates.proof import number

if TYPE_CHECKING:
    from dvfd.evidence.chain import Record
    from dvfd.model import Gate

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DUE = re.compile(rf"({'|'.join(DAYS)}), week ([1-9]\d?)")

WEEK = 7 * 86_400.0

MOST = 10_000.0
"""Weeks: two centuries are late enough for any sum."""


@dataclass(frozen=True, slots=True)
class Due:
    """The day of a gate: as the source has it, and as it is now, so many weeks later."""

    planned: date
    day: date
    slipped: int


def day_of(text: str, start: date) -> date:
    """The day that *text*, like `Friday, week 2`, is in a programme whose week 1 begins on *start*.

    Raises DvfdError if it says no such day.
    """
    found = DUE.fullmatch(text)
    if found is None:
        raise DvfdError(f"{text!r} is no day of a programme, such as 'Friday, week 2'")
    week = _after(start, 7 * (int(found[2]) - 1))
    return _after(week, (DAYS.index(found[1]) - week.weekday()) % 7)


def _after(day: date, days: int) -> date:
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return date.max


def dates(gates: Iterable[Gate], start: date | None, records: Iterable[Record]) -> dict[str, Due]:
    """The day of each of *gates*, which follow each other; none without a start. A delay of one
    moves those after it as well; beyond the end of the calendar it is its last day.
    """
    if start is None:
        return {}
    waits = slips(records)
    found, slipped = {}, 0
    for gate in gates:
        slipped += waits.get(gate.id, 0)
        planned = day_of(gate.due, start)
        found[gate.id] = Due(planned, _after(planned, 7 * slipped), slipped)
    return found


def slips(records: Iterable[Record]) -> Mapping[str, int]:
    """Whole weeks by which each gate is late: delays at one time count once, others add up."""
    newest: dict[tuple[str, object], tuple[float, float]] = {}
    for record in records:
        weeks, until = number(record.body.get("weeks")), number(record.body.get("until"))
        if record.kind == "delay" and weeks and until:  # a longer one takes a shorter one's place
            key = record.subject, record.body.get("incident") or record.number
            newest[key] = (until - weeks * WEEK, until)
    gates = {gate for gate, _ in newest}
    return {g: _weeks(span for (of, _), span in newest.items() if of == g) for g in gates}


def _weeks(spans: Iterable[tuple[float, float]]) -> int:
    """The weeks, begun ones counting, that *spans* of time cover together."""
    covered, reached = 0.0, -math.inf
    for began, ended in sorted(spans):
        covered += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return math.ceil(min(covered / WEEK, MOST) - 1e-6)
