"""Round parts so that what is read adds up to the whole that is read. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvfd.words import NONE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONG = 4 * 3600.0
"""Seconds from which times are told to the minute: a minute of it is less than half a percent."""


BRIEF = 60.0
"""Seconds below which times are told to the tenth."""

SMALL = 5e-4
"""A share of the time below which a loss is told as none, as is one of less than a second of a
long time.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the time as it is told: rounded, so that what is read adds up."""

    part: str
    words: str
    seconds: float
    percent: float
    money: float | None
    share: float
    before: float


def shown(time: Mapping[str, Any]) -> list[Part]:
    """The parts of a document's `time` in its order, without losses that would be told as 0."""
    least = min(1.0, SMALL * time["seconds"])
    told = [p for p in time["parts"] if p["part"] == "productive" or p["seconds"] > least]
    whole = time["seconds"]
    seconds = apportioned([p["seconds"] for p in told], _unit(whole), whole)
    percents = apportioned([100 * (p["share"] or 0.0) for p in told], 0.1, 100.0 if whole else 0.0)
    moneys = apportioned([p["money"] or 0.0 for p in told], 0.01, _paid(time))
    found: list[Part] = []
    for part, length, percent, paid in zip(told, seconds, percents, moneys, strict=True):
        before = found[-1].before + found[-1].share if found else 0.0
        share = part["share"] or 0.0
        price = None if part["money"] is None else paid
        found.append(Part(part["part"], part["words"], length, percent, price, share, before))
    return found


def _paid(time: Mapping[str, Any]) -> float:
    return math.fsum(part["money"] or 0.0 for part in time["parts"])


def _unit(whole: float) -> float:
    return 60.0 if whole >= LONG else 1.0 if whole >= BRIEF else 0.1


def apportioned(parts: Sequence[float], unit: float, whole: float | None = None) -> list[float]:
    """*parts* in whole *unit*s that add up to *whole*, their sum if None, rounded: the largest
    remainders go up, and the largest part takes what the smallest ones that are left out were.
    """
    count = round((math.fsum(parts) if whole is None else whole) / unit)
    floors = [math.floor(part / unit) for part in parts]
    left = max(0, count - sum(floors))
    by_rest = sorted(range(len(parts)), key=lambda n: (floors[n] - parts[n] / unit, n))
    up = set(by_rest[:left])
    found = [floor + (n in up) for n, floor in enumerate(floors)]
    if left > len(parts) > 0:
        found[max(range(len(parts)), key=lambda n: parts[n])] += left - len(parts)
    return [round(each * unit, 9) for each in found]


def hours(seconds: float) -> str:
    """Seconds as a table has them: to the tenth, to the second from a minute on, and to the minute
    from four hours on.
    """
    if round(seconds, 1) < BRIEF:
        return f"{round(seconds, 1):g} s"
    unit = int(_unit(seconds)) or 1
    whole = round(seconds / unit) * unit
    sizes = ((whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s"))
    return " ".join(f"{count} {name}" for count, name in sizes if count) or "0 s"


def money(amount: float | None) -> str:
    """An amount without its currency, to the hundredth."""
    return NONE if amount is None else f"{amount:,.2f}"
