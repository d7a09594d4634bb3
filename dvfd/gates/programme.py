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
    week = start + timedelta(weeks=int(found[2]) - 1)
    return week + timedelta(days=(DAYS.index(found[1]) - week.weekday()) % 7)


def dates(gates: Iterable[Gate], start: date | None, records: Iterable[Record]) -> dict[str, Due]:
    """The day of each of *gates*, which follow each other; none without a start. A delay of one
    moves those after it as well.
    """
    if start is None:
        return {}
    waits = slips(records)
    found, slipped = {}, 0
    for gate in gates:
        slipped += waits.get(gate.id, 0)
        planned = day_of(gate.due, start)
        found[gate.id] = Due(planned, planned + timedelta(weeks=slipped), slipped)
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
    return math.ceil(covered / WEEK - 1e-6)
