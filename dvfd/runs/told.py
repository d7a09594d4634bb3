"""What daemons tell each other of a run: where it stands and its rows, as JSON and back. Pure.

What another node says is read with distrust: every value has its type, and what has not is refused
whole, in words. Its run seconds are its own; dvfd.runs.clocks says how they lie to ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.runs.rows import Event, Minute, What, Window
from dvfd.runs.run import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dvfd.runs.rows import Row
    from dvfd.runs.run import Run

PAGE = 2000
"""Rows of each kind in one answer, about: half a megabyte."""

KINDS: dict[str, type[Window | Minute | Event]] = {
    "windows": Window, "minutes": Minute, "events": Event,
}  # fmt: skip

WORDS = 65_536
"""Letters of a text at most."""

WIDEST = 2**63
"""What a file can hold of a whole number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One run of a node. Times `*_t` are its own run seconds: `t` is now, None where that cannot be
    said, `looked_t` when its daemon looked at it last; `at` is Unix time of that node. `done`: no
    row will follow.
    """

    id: str
    of: str
    check: str
    job: str
    node: str
    stage: Stage
    reason: str
    stopped_by: str
    duration: float
    processes: int
    discounts: tuple[str, ...]
    armed_at: float
    began_t: float | None
    ended_t: float | None
    looked_t: float
    t: float | None
    at: float
    done: bool

    @classmethod
    def of_run(cls, run: Run, *, t: float | None, at: float, done: bool) -> Told:
        """Of a run here, at run second *t* and Unix time *at*."""
        plan = run.plan
        return cls(
            id=run.id, of=run.of, check=plan.check, job=plan.job, node=run.node, stage=run.stage,
            reason=run.reason, stopped_by=run.stopped_by, duration=plan.duration,
            processes=plan.processes, discounts=plan.discounts, armed_at=run.armed_at,
            began_t=run.began_t, ended_t=run.ended_t, looked_t=run.seen_t, t=t, at=at, done=done,
        )  # fmt: skip

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"discounts": list(self.discounts)}

    @classmethod
    def from_document(cls, document: Any) -> Told:
        """Raises DvfdError on anything else."""
        return cls(**_read(cls, _keyed(document)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a run's file holds after mark `since` and up to `until`; `newest` is its newest mark."""

    run: Told
    since: int
    until: int
    newest: int
    rows: tuple[Row, ...]

    @classmethod
    def from_document(cls, document: Any, node: str) -> Page:
        """Rows of *node*, whatever they say of where they are from. Raises DvfdError."""
        found = _keyed(document)
        rows: list[Row] = []
        for name, kind in KINDS.items():
            table = _keyed(found.get(name))
            columns = tuple(map(_text, _list(table.get("columns"))))
            for row in _list(table.get("rows")):
                values = dict(zip(columns, _list(row), strict=False))
                rows.append(kind(**_read(kind, values | {"node": node})))
        return cls(
            run=Told.from_document(found.get("run")),
            since=_whole(found.get("since")),
            until=_whole(found.get("until")),
            newest=_whole(found.get("newest")),
            rows=tuple(rows),
        )


def table(kind: str, rows: Iterable[Row]) -> dict[str, Any]:
    """Rows of one kind: the columns once, then each row's values."""
    columns = [name for name in _annotated(KINDS[kind]) if name != "node"]
    values = attrgetter(*columns)
    return {"columns": columns, "rows": [list(values(row)) for row in rows]}


# --- Reading with distrust ---------------------------------------------------------------------


def _read(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of *kind* as its annotation wants it; further keys are a newer dvfd's."""
    found = {}
    for name, wanted in _annotated(kind).items():
        if name not in values:
            raise DvfdError(f"{kind.__name__.lower()}: {name} is missing")
        try:
            found[name] = READERS[wanted](values[name])
        except DvfdError as error:
            raise DvfdError(f"{kind.__name__.lower()}: {name}: {error}") from None
    return found


def _annotated(kind: type) -> dict[str, str]:
    """The fields of a record and how each is annotated; a tuple's annotations are wrapped."""
    return {n: str(getattr(a, "__forward_arg__", a)) for n, a in kind.__annotations__.items()}


def _keyed(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DvfdError(f"keys and values wanted, got {value!r:.40}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise DvfdError(f"a list wanted, got {value!r:.40}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > WORDS or "\0" in value:
        raise DvfdError(f"words wanted, got {value!r:.40}")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not -WIDEST <= value < WIDEST:
        raise DvfdError(f"a whole number wanted, got {value!r:.40}")
    return value


INFINITE: Mapping[str, Any] = {"+Inf": math.inf, "-Inf": -math.inf}


def _real(value: Any) -> float:
    number = INFINITE.get(value, value) if isinstance(value, str) else value
    try:
        found = math.nan if isinstance(number, bool | str) else float(number)
    except (TypeError, OverflowError):  # an integer of hundreds of digits
        found = math.nan
    if math.isnan(found):
        raise DvfdError(f"a number wanted, got {value!r:.40}")
    return found


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise DvfdError(f"true or false wanted, got {value!r:.40}")
    return value


def _named(kind: type[What | Stage], value: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise DvfdError(f"{value!r:.40} is none that this dvfd knows") from None


def _maybe(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else reader(value)


def _labels(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = [_list(pair) for pair in _list(value)]
    if any(len(pair) != 2 for pair in pairs):
        raise DvfdError(f"names and values wanted, got {value!r:.40}")
    return tuple((_text(name), _text(own)) for name, own in pairs)


READERS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _whole,
    "float": _real,
    "bool": _flag,
    "int | None": _maybe(_whole),
    "float | None": _maybe(_real),
    "tuple[str, ...]": lambda value: tuple(map(_text, _list(value))),
    "Labels": _labels,
    "What": lambda value: _named(What, value),
    "Stage": lambda value: _named(Stage, value),
}
"""How a field is read, by its annotation."""
