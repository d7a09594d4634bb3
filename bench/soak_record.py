"""What a soak notes on the way, a line of JSON each, and what follows. Pure but for `Notes`.

A soak that was broken off is judged from the lines that it left: `python -m bench.soak --of FILE`.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

CLEAN, FAULTS = "clean", "faults"
"""The halves: nothing is injected in the first."""

LATE = {"dvfd": 120.0, "rules": 900.0}
"""Seconds after its healing within which a fault still explains a new alert, by who raised that:
rules wait for minutes and look back over a quarter of an hour.
"""


HOURLY = ("DvfdUptime*", "DvfdRestarting")
"""Rules that look back an hour or more: true of the soak's faults for longer than it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The soak begins: what it was asked for, in seconds; `warm_up` of a life does not count."""

    at: float
    clean: float
    faults: float
    seed: int
    warm_up: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The daemon at one moment: memory in MiB, and what it holds. A life ends with its process's
    program: killed, or started anew by a reload.
    """

    at: float
    half: str
    life: int
    rss: float
    pss: float
    descriptors: int
    sockets: int
    threads: int
    children: int
    store: float
    load: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the webhook received of one alert."""

    at: float
    half: str
    status: str
    key: str
    severity: str
    source: str
    load: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A fault, from injection to healing; `told` must be told of it, `also` may be."""

    at: float
    healed: float
    fault: str
    told: tuple[str, ...]
    also: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question as people ask it, and whether it was answered."""

    at: float
    half: str
    what: str
    seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The soak ends: why, what still fires then, and scrapes that failed in the clean half."""

    at: float
    why: str
    firing: tuple[str, ...] = ()
    scrapes_failed: int | None = None


Note = Begun | Sampled | Heard | Tried | Asked | Ended
KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Begun, Sampled, Heard, Tried, Asked, Ended)
}


class Notes:
    """The file that is written on the way: each line is there before the next thing happens."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def add(self, note: Note) -> None:
        """Write *note* down."""
        line = json.dumps({"kind": type(note).__name__.lower(), **asdict(note)})
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """No more is written."""
        self._file.close()


def read(text: str) -> list[Note]:
    """The notes of a file; half a line at its end, of a soak that was killed, is left out."""
    notes: list[Note] = []
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            break
        kind = KINDS[fields.pop("kind")]
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        notes.append(kind(**given))
    return notes


Kind = TypeVar("Kind")


def of_kind(notes: Iterable[Note], kind: type[Kind]) -> list[Kind]:
    """Those of one *kind*, in order."""
    return [note for note in notes if isinstance(note, kind)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """An alert from the first word that it fires to the word that it is over, if that came."""

    first: Heard
    resolved: float | None


def episodes(heard: Sequence[Heard]) -> list[Episode]:
    """What was heard, by alert: Alertmanager may repeat that one fires."""
    found: dict[int, Episode] = {}
    open_by_key: dict[str, int] = {}
    for number, each in enumerate(heard):
        if each.status == "firing":
            if each.key not in open_by_key:
                open_by_key[each.key] = number
                found[number] = Episode(first=each, resolved=None)
        elif each.key in open_by_key:
            begun = open_by_key.pop(each.key)
            found[begun] = Episode(first=found[begun].first, resolved=each.at)
    return list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one alert that had to be told of a fault: seconds after the injection."""

    fault: str
    key: str
    at: float
    told: float | None
    resolved: float | None


def outcomes(notes: Sequence[Note]) -> list[Outcome]:
    """One for each alert that a fault had to raise."""
    known = episodes(of_kind(notes, Heard))
    found = []
    for tried in of_kind(notes, Tried):
        for key in tried.told:
            mine = [e for e in known if e.first.key == key and _within(e.first, tried)]
            first = mine[0] if mine else None
            found.append(
                Outcome(
                    fault=tried.fault,
                    key=key,
                    at=tried.at,
                    told=first.first.at - tried.at if first else None,
                    resolved=mine[-1].resolved if mine else None,
                )
            )
    return found


def to_end(keys: Iterable[str]) -> list[str]:
    """Those of *keys* that are over once what raised them is: all but those that look back long."""
    return [key for key in keys if not any(fnmatch.fnmatchcase(key, each) for each in HOURLY)]


def unexplained(notes: Sequence[Note]) -> list[Episode]:
    """Alerts of the second half that no fault of their time accounts for."""
    tried = of_kind(notes, Tried)
    return [
        episode
        for episode in episodes(of_kind(notes, Heard))
        if episode.first.half == FAULTS
        and not any(_accounts(each, episode.first) for each in tried)
    ]


def false_alarms(notes: Sequence[Note]) -> list[Episode]:
    """Alerts of the clean half: there was nothing to tell."""
    return [e for e in episodes(of_kind(notes, Heard)) if e.first.half == CLEAN]


def _within(heard: Heard, tried: Tried) -> bool:
    return tried.at <= heard.at <= tried.healed + LATE.get(heard.source, LATE["dvfd"])


def _accounts(tried: Tried, heard: Heard) -> bool:
    patterns = (*tried.told, *tried.also)
    return _within(heard, tried) and any(fnmatch.fnmatchcase(heard.key, p) for p in patterns)


# --- What does not grow ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A life of the daemon within one half, its warm-up taken off."""

    half: str
    life: int
    samples: tuple[Sampled, ...]

    @property
    def minutes(self) -> float:
        """How long it is."""
        return (self.samples[-1].at - self.samples[0].at) / 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """MiB in an hour, and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def stretches(notes: Sequence[Note], *, warm_up: float, least: float) -> list[Stretch]:
    """Those of at least *least* seconds after a *warm_up*, oldest first."""
    by_life: dict[tuple[int, str], list[Sampled]] = {}
    for sample in of_kind(notes, Sampled):
        by_life.setdefault((sample.life, sample.half), []).append(sample)
    found = []
    for (life, half), samples in by_life.items():
        kept = [s for s in samples if s.at >= samples[0].at + warm_up]
        if len(kept) > 1 and kept[-1].at - kept[0].at >= least:
            found.append(Stretch(half=half, life=life, samples=tuple(kept)))
    return found


def slope(stretch: Stretch) -> Slope:
    """Theil and Sen's, of the medians of minutes (of a short stretch, of twentieths): what is in
    flight at one moment does not count, and neighbours are less alike than samples, which the
    interval takes for independent.
    """
    from scipy import stats

    each = min(60.0, 3 * stretch.minutes)
    parts: dict[int, list[float]] = {}
    for sample in stretch.samples:
        parts.setdefault(int(sample.at // each), []).append(sample.pss)
    hours = [part * each / 3600 for part in parts]
    found = stats.theilslopes([median(values) for values in parts.values()], hours, 0.95)
    return Slope(value=float(found[0]), low=float(found[2]), high=float(found[3]))


def grown(stretch: Stretch, what: str) -> float:
    """The median of a count in the last third less that in the first: a connection that is being
    answered at the moment of a sample is no growth.
    """
    values = [float(getattr(sample, what)) for sample in stretch.samples]
    third = max(1, len(values) // 3)
    return median(values[-third:]) - median(values[:third])


def lives(notes: Sequence[Note]) -> Mapping[int, float]:
    """When each life was first seen."""
    found: dict[int, float] = {}
    for sample in of_kind(notes, Sampled):
        found.setdefault(sample.life, sample.at)
    return found
