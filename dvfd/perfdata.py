"""What a Nagios-style plugin prints: its words, and performance data in base units. Pure.

The format is that of the Monitoring Plugins Development Guidelines, "Performance data".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST = 64
"""Values taken of one run: each costs a series."""

LONGEST = 200
"""Characters of a label: two that begin with the same so many are one."""

TOLD = 5
"""Mistakes told of one run; nothing behind them is read."""

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# check_disk and check_swap divide by 1024 and write MB: so do we.
BYTES = {
    prefix + ending: 1024.0**power
    for power, prefix in enumerate(("", "K", "M", "G", "T", "P"))
    for ending in ("B", "iB")
    if prefix or ending == "B"
}
METRICS = {
    **{unit: ("plugin_seconds", times) for unit, times in SECONDS.items()},
    **{unit: ("plugin_bytes", times) for unit, times in BYTES.items()},
    "%": ("plugin_ratio", 0.01),
    "c": ("plugin_count_total", 1.0),
    "": ("plugin_value", 1.0),
}
"""The metric of each unit of measurement, and what makes a base unit of it."""

NUMBER = r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?"
ITEM = re.compile(r"\s*(?:'((?:[^']|'')+)'|([^\s='|]+))=([^\s;]*)((?:;[^\s;]*)*)(?=\s|$)")
VALUE = re.compile(rf"({NUMBER})([^\d\s;]*)")
RANGE = re.compile(rf"@?(?:({NUMBER}|~)?:({NUMBER})?|({NUMBER}))")


@dataclass(frozen=True, slots=True)
class Range:
    """Where a value is well: [low, high], or outside of it with `inside` (written @)."""

    low: float
    high: float
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Datum:
    """One value in the base unit of `metric`, and the plugin's own thresholds in its own unit."""

    label: str
    metric: str
    value: float
    warning: Range | None = None
    critical: Range | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """A value that is there and was not taken; without a label any that stands behind it. One that
    the plugin itself says it has not is no `mistake`.
    """

    label: str
    why: str
    mistake: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """What a run printed: its first words, its values, and those that were not taken."""

    text: str
    data: tuple[Datum, ...]
    unread: tuple[Unread, ...] = ()

    @property
    def wrong(self) -> tuple[str, ...]:
        """What of the values could not be read, in words."""
        return tuple(each.why for each in self.unread if each.mistake)


def read(output: str) -> Said:
    """Take a plugin's standard output apart. Of two values of one name neither is taken."""
    text, performance = _parts(output)
    data: dict[tuple[str, str], Datum] = {}
    unread: list[Unread] = []
    for found in _items(performance):
        if behind := _behind(len(data), unread):
            unread.append(behind)
            break
        if isinstance(found, Unread):
            unread.append(found)
        elif (found.metric, found.label) in data:
            unread.append(Unread(found.label, f"{found.label}: there twice"))
        else:
            data[found.metric, found.label] = found
    doubtful = {each.label for each in unread}
    return Said(text, tuple(d for d in data.values() if d.label not in doubtful), tuple(unread))


def _behind(taken: int, unread: Sequence[Unread]) -> Unread | None:
    """What stands for the rest, where there is too much to read it."""
    if sum(each.mistake for each in unread) >= TOLD:
        return Unread("", f"nothing is read behind {TOLD} mistakes", mistake=False)
    if taken + len(unread) >= MOST:
        return Unread("", f"more than {MOST} values")
    return None


def _parts(output: str) -> tuple[str, str]:
    """The first line's words, and all performance data: what follows its bar, and all that follows
    the bar in the lines below it.
    """
    first, _, rest = output.strip("\n").partition("\n")
    text, _, performance = first.partition("|")
    _, _, more = rest.partition("|")
    return text.strip(), f"{performance} {more}".replace("\n", " ").strip()


def _items(performance: str) -> Iterator[Datum | Unread]:
    """Each value, or why it is not taken."""
    place = 0
    while place < len(performance):
        found = ITEM.match(performance, place)
        if found is None:
            rest = performance[place:][:60]
            yield Unread("", f"read {rest!r}, wanted 'label'=value[unit];warn;crit;min;max")
            return
        place = found.end()
        label = printable(found[2] or found[1].replace("''", "'"))[:LONGEST]
        try:
            if found[3] == "U":
                yield Unread(label, f"{label}: the plugin itself does not know", mistake=False)
            else:
                yield _datum(label, found[3], found[4].split(";")[1:])
        except ValueError as error:
            yield Unread(label, f"{label}: {error}")


def _datum(label: str, given: str, ends: list[str]) -> Datum:
    """The value in its base unit. Raises ValueError with what is wrong."""
    found = VALUE.fullmatch(given)
    if found is None:
        raise ValueError(f"read {given[:40]!r}, wanted a number and its unit")
    if found[2] not in METRICS:
        known = " ".join(filter(None, METRICS))
        raise ValueError(f"unit {found[2][:20]!r} is none of {known}")
    metric, times = METRICS[found[2]]
    warning, critical, least, most = (*ends, "", "", "", "")[:4]
    value = _number(found[1])
    low = _number(least) if least else -math.inf
    high = _number(most) if most else math.inf
    if not low <= value <= high:
        raise ValueError(
            f"{given} is not from {least} to {most}, which the plugin says is possible"
        )
    if not math.isfinite(value * times):
        raise ValueError(f"{given[:40]} is beyond any number")
    return Datum(label, metric, value * times, _range(warning), _range(critical))


def _number(text: str) -> float:
    if not re.fullmatch(NUMBER, text):
        raise ValueError(f"read {text[:40]!r}, wanted a number")
    return float(text.replace(",", "."))


def _range(text: str) -> Range | None:
    """A threshold: `10` is 0 to 10, `10:` from 10, `~:10` up to 10, `@` turns it around."""
    if not text:
        return None
    found = RANGE.fullmatch(text)
    if found is None:
        raise ValueError(f"read {text[:40]!r}, wanted a range such as 10:20")
    start, end, only = found.groups()
    if only is not None:
        start, end = None, only
    low = -math.inf if start == "~" else _number(start or "0")
    high = math.inf if end is None else _number(end)
    if low > high:
        raise ValueError(f"{text[:40]!r} is empty")
    return Range(low, high, text.startswith("@"))
