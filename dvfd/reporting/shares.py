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
    """The parts of a document's `time` in its order, without losses below a second."""
    told = [p for p in time["parts"] if p["part"] == "productive" or p["seconds"] >= 1]
    seconds = apportioned([p["seconds"] for p in told], _unit(time["seconds"]))
    percents = apportioned([100 * (p["share"] or 0.0) for p in told], 0.1)
    moneys = apportioned([p["money"] or 0.0 for p in told], 0.01)
    found: list[Part] = []
    for part, whole, percent, paid in zip(told, seconds, percents, moneys, strict=True):
        before = found[-1].before + found[-1].share if found else 0.0
        share = part["share"] or 0.0
        price = None if part["money"] is None else paid
        found.append(Part(part["part"], part["words"], whole, percent, price, share, before))
    return found


def _unit(whole: float) -> float:
    return 60.0 if whole >= LONG else 1.0


def apportioned(parts: Sequence[float], unit: float) -> list[float]:
    """*parts* in whole *unit*s that add up to their rounded sum: the largest remainders go up."""
    whole = round(math.fsum(parts) / unit)
    floors = [math.floor(part / unit) for part in parts]
    left = whole - sum(floors)
    by_rest = sorted(range(len(parts)), key=lambda n: (floors[n] - parts[n] / unit, n))
    up = set(by_rest[: max(0, left)])
    return [(floor + (n in up)) * unit for n, floor in enumerate(floors)]


def hours(seconds: float) -> str:
    """Seconds as a table has them: to the second, and to the minute from four hours on."""
    unit = int(_unit(seconds))
    whole = round(seconds / unit) * unit
    sizes = ((whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s"))
    return " ".join(f"{count} {name}" for count, name in sizes if count) or "0 s"


def money(amount: float | None) -> str:
    """An amount without its currency, to the hundredth."""
    return NONE if amount is None else f"{amount:,.2f}"
