"""The closed vocabulary of `checks/*.toml`: which keys a table may have, and what each may hold.

Shape only: what the keys mean to each other is `catalogue_lint`'s concern.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dvfd.model import Combine, Comparison, Kind, Limit, Origin, Range, Scope, Severity

Read = Callable[[object], Any]
"""Turn a TOML value into ours; raises ValueError with the reason when it is not one."""

Table = dict[str, Any]

WINDOWED = ("mean", "median", "min", "max", "sum", "stdev", "rate", "increase", "count")
QUANTILE = re.compile(r"p\d{1,2}(\.\d+)?")
REDUCTIONS = ("latest", *WINDOWED, "p95", "p99", "fraction_within")
"""All reductions, with the usual quantiles standing for pNN."""

SCHEDULES = ("daily", "weekly", "monthly")
FEATURES = (
    "cpu",
    "gpu",
    "gloo",
    "nccl",
    "multi_node",
    "temperature_sensors",
    "power_meters",
    "openmpi",
    "declared_job",
    "job",
    "injection",
)
"""What a criterion may require. `job` and `injection` are not the profile's: a maintenance window
takes the first away, a run that nobody disturbed on purpose has nothing of the second."""

PHASES = ("phase1", "phase2a", "phase2b", "phase2c", "production")
ITEM = re.compile(
    r"(item|acceptance|passes if|pass criteria|GO|No-Go) [1-9][0-9]?|beyond the source"
)
NAME = re.compile(r"[a-z][a-z0-9_]*")
OLDEST = 604_800.0
"""Seconds of a `max_age` at most, a week: what is never too old is never missed."""

LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def near(name: object, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of *names*, or nothing when none is near."""
    found = difflib.get_close_matches(str(name), [str(known) for known in names], 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def number(value: object) -> float:
    """A finite number; TOML's true, inf and nan are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def at_least(low: float) -> Read:
    """A number not below *low*."""

    def read(value: object) -> float:
        found = number(value)
        if found < low:
            raise ValueError(f"{value!r} is below {low:g}")
        return found

    return read


def between(low: float, high: float) -> Read:
    """A number from *low* to *high*."""

    def read(value: object) -> float:
        found = number(value)
        if not low <= found <= high:
            raise ValueError(f"{value!r} is not from {low:g} to {high:g}")
        return found

    return read


def share(value: object) -> float:
    """A number from 0 to 1."""
    found = number(value)
    if not 0 <= found <= 1:
        raise ValueError(f"{value!r} is not between 0 and 1")
    return found


def count(value: object) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a whole number from 1")
    return value


def text(value: object) -> str:
    """A string that says something."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a string with words in it")
    return value


def name(value: object) -> str:
    """An identifier: lower case, digits and underscores."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a lower-case name")
    return value


def flag(value: object) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004  # one error type
    return value


def item(value: object) -> str:
    """A line of the source: `acceptance 2`, `item 4`, or `beyond the source`."""
    if not isinstance(value, str) or not ITEM.fullmatch(value):
        raise ValueError(f"{value!r} is no line of the source, such as 'acceptance 2'")
    return value


def reduction(value: object) -> str:
    """One of the reductions; any quantile from p0 to p99.9 is one."""
    if isinstance(value, str) and (value in REDUCTIONS or QUANTILE.fullmatch(value)):
        return value
    raise ValueError(f"no reduction {value!r}{near(value, REDUCTIONS)}")


def one_of(kind: str, names: Iterable[str], make: Callable[[str], Any] = str) -> Read:
    """A member of a closed list; *kind* names the list in the error."""
    known = tuple(names)

    def read(value: object) -> Any:
        if value not in known:
            raise ValueError(f"no {kind} {value!r}{near(value, known)}; known: {', '.join(known)}")
        return make(str(value))

    return read


def many(read: Read) -> Read:
    """A list, each element read by *read*."""

    def read_all(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list")  # noqa: TRY004  # one error type
        return tuple(read(element) for element in value)

    return read_all


def pairs(value: object) -> tuple[tuple[str, str], ...]:
    """A table of label names and values, in the canonical order of model.Labels."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a table of labels")  # noqa: TRY004  # one error type
    return tuple(sorted((name(key), text(found)) for key, found in value.items()))


def label(value: object) -> str:
    """A label as others write theirs: dcgm-exporter's are GPU_I_ID and modelName."""
    if not isinstance(value, str) or not LABEL.fullmatch(value) or value.startswith("__"):
        raise ValueError(f"{value!r} is no name of a label")
    return value


def label_pairs(value: object) -> tuple[tuple[str, str], ...]:
    """Like `pairs`, of labels that others named."""
    return tuple(sorted((label(key), text(found)) for key, found in table(value).items()))


def limit(value: object) -> Limit:
    """A number, or `{ of = "profile.KEY" | "metric.NAME", times = 0.9, plus = 0.02 }`."""
    if not isinstance(value, dict):
        return Limit(value=number(value))
    for key in value.keys() - {"of", "times", "plus"}:
        raise ValueError(f"no such key {key!r}{near(key, ('of', 'times', 'plus'))}")
    of = text(value.get("of"))
    if not of.startswith(("profile.", "metric.")):
        raise ValueError(f"of = {of!r} is neither 'profile.KEY' nor 'metric.NAME'")
    return Limit(of=of, times=number(value.get("times", 1.0)), plus=number(value.get("plus", 0.0)))


def limits(value: object) -> tuple[tuple[int, Limit], ...]:
    """`{ 12 = 1.08, 16 = 1.10 }`: a limit for each of some process counts."""
    found = table(value)
    for key in found:
        if not key.isdecimal() or key != str(int(key)):
            raise ValueError(f"{key!r} is no process count")
    return tuple(sorted((count(int(key)), limit(each)) for key, each in found.items()))


def bounds(value: object) -> tuple[Limit, Limit]:
    """`[low, high]`, each a limit in its own right."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{value!r} is not [low, high]")
    return limit(value[0]), limit(value[1])


def table(value: object) -> Table:
    """A table, read further by whoever asked."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a table")  # noqa: TRY004  # one error type
    return value


def origin(value: object) -> Origin:
    """`{ textfile | scrape = "INPUT", series = "NAME", where = { label = "x" }, times = 0.01 }`."""
    given = table(value)
    known = ("textfile", "scrape", "series", "where", "times")
    for key in given.keys() - set(known):
        raise ValueError(f"no such key {key!r}{near(key, known)}")
    sources = [key for key in ("textfile", "scrape") if key in given]
    if len(sources) != 1:
        raise ValueError("give either textfile or scrape, the name of one")
    return Origin(
        source=sources[0],
        input=text(given[sources[0]]),
        series=text(given.get("series")),
        where=label_pairs(given.get("where", {})),
        times=_factor(given.get("times", 1.0)),
    )


def _factor(value: object) -> float:
    """A number that makes another of another: of 0 every value would be the same."""
    if not (found := number(value)):
        raise ValueError("times 0 makes every value 0")
    return found


def plain_range(ends: tuple[Limit, Limit] | None, place: str, problems: list[str]) -> Range | None:
    """The interval between two numbers: a metric knows no profile."""
    if ends is None:
        return None
    low, high = (end.value for end in ends)
    if low is None or high is None or low > high:
        problems.append(f"{place}: not [low, high] in numbers")
        return None
    return Range(low, high)


METRIC: Mapping[str, Read] = {
    "help": text,
    "unit": text,
    "kind": one_of("kind", tuple(Kind), Kind),
    "labels": many(name),
    "source": text,
    "drilled": flag,
    "max_age": between(0.5, OLDEST),
    "possible": bounds,
    "only": one_of("input", ("plugin",)),
}

SITE_METRIC: Mapping[str, Read] = {
    **{key: METRIC[key] for key in ("help", "unit", "kind", "max_age", "possible")},
    "labels": many(label),
    "from": origin,
}

CRITERION: Mapping[str, Read] = {
    "id": name,
    "like": text,
    "item": item,
    "also": many(item),
    "clause": text,
    "text": text,
    "metric": text,
    "unit": text,
    "reduce": reduction,
    "window": at_least(0),
    "band": at_least(0),
    "across": name,
    "combine": one_of("combination", tuple(Combine), Combine),
    "where": pairs,
    "comparison": one_of("comparison", tuple(Comparison), Comparison),
    "limit": limit,
    "counts": many(count),
    "limits": limits,
    "written": table,
    "possible": bounds,
    "expected": bounds,
    "max_age": between(0.5, OLDEST),
    "coverage": share,
    "for": at_least(0),
    "streak": count,
    "recovery": at_least(0),
    "clear": share,
    "latch": flag,
    "severity": one_of("severity", tuple(Severity), Severity),
    "scope": one_of("scope", tuple(Scope), Scope),
    "requires": many(one_of("feature", FEATURES)),
    "note": text,
}

SITE_CRITERION: Mapping[str, Read] = {
    **{
        key: read
        for key, read in CRITERION.items()
        if key not in ("item", "also", "clause", "counts", "limits", "written", "scope")
    },
    "where": label_pairs,
    "across": label,
}
"""Keys of a site's criterion: it answers no line of the source, and tells no phases apart."""

OWN = ("id", "like", "also", "written", "counts", "limits")
"""Keys that a criterion never takes from another."""

WRITTEN: Mapping[str, Read] = {key: read for key, read in CRITERION.items() if key not in OWN}

DEFAULTS: Mapping[str, Read] = {
    key: CRITERION[key]
    for key in (
        "window",
        "coverage",
        "max_age",
        "requires",
        "scope",
        "severity",
        "recovery",
        "counts",
    )
}

CHECK: Mapping[str, Read] = {
    "id": name,
    "title": text,
    "phase": one_of("phase", PHASES),
    "clause": text,
    "duration": at_least(0),
    "nodes": count,
    "processes": count,
    "run": text,
    "schedule": one_of("schedule", SCHEDULES),
    "watch": flag,
    "drill": flag,
    "ledger": flag,
    "own_size": flag,
    "every": count,
    "checkpoint_every": count,
    "whole": many(item),
    "defaults": table,
    "criterion": many(table),
}

SITE_CHECK: Mapping[str, Read] = {
    key: CHECK[key] for key in ("id", "clause", "defaults", "criterion")
}

GATE: Mapping[str, Read] = {
    "id": name,
    "title": text,
    "clause": text,
    "authority": many(text),
    "due": text,
    "note": text,
    "tests": many(name),
    "defaults": table,
    "go": many(table),
    "no_go": many(table),
}

GO: Mapping[str, Read] = {
    "id": name,
    "text": text,
    "checks": many(name),
    "criteria": many(text),
    "attestations": many(name),
    "note": text,
}

ROW: Mapping[str, Read] = {"title": text, "tests": many(name), "gate": name}

SIGNOFF: Mapping[str, Read] = {"role": text, "text": text, "clause": text}

FLAT: Mapping[str, Mapping[str, Read]] = {"go": GO, "row": ROW, "signoff": SIGNOFF}
"""Tables that become what they say, by name."""

REQUIRED: Mapping[str, tuple[str, ...]] = {
    "metric": ("help", "unit"),
    "site metric": ("help", "unit", "from"),
    "check": ("id", "title", "clause", "criterion"),
    "criterion": ("id", "item", "clause", "text", "metric", "unit", "comparison", "limit"),
    "gate": ("id", "title", "clause", "authority", "due", "tests", "go"),
    "go": ("id", "text"),
    "signoff": ("role", "text", "clause"),
    "row": ("title",),
}


def read_table(
    raw: Mapping[str, object], keys: Mapping[str, Read], place: str, problems: list[str]
) -> Table:
    """Read each key of *raw* by its reader; what is wrong goes to *problems* and is left out."""
    found: Table = {}
    for key, value in raw.items():
        if key not in keys:
            problems.append(f"{place}{key}: no such key{near(key, keys)}")
            continue
        try:
            found[key] = keys[key](value)
        except ValueError as error:
            problems.append(f"{place}{key}: {error}")
    return found


def lacking(
    kind: str, found: Table, raw: Mapping[str, object], place: str, problems: list[str]
) -> bool:
    """Whether a required key is absent; one there but misread was reported where it was read."""
    missing = [key for key in REQUIRED[kind] if key not in found]
    problems.extend(f"{place}{key}: missing" for key in missing if key not in raw)
    return bool(missing)
