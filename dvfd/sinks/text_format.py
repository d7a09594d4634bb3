"""Families of values as Prometheus' text format, byte for byte as its client library writes them.

The library sorts and checks the labels of every sample anew, which is most of what a scrape costs;
here a family's labels are in order once. Names are ours, so they need no escape; values do.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Family:
    """The series of one name. `kind` is gauge or counter; a counter's name ends in _total.

    `values` has a text for each of `labels`, and a finite number.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    values: Sequence[tuple[tuple[str, ...], float]]


def lines(family: Family) -> Iterator[str]:
    """What is written of *family*, each with its end of line."""
    name = family.name
    yield f"# HELP {name} {family.text.replace(_BACK, _BACKS).replace(_END, _ENDS)}\n"
    yield f"# TYPE {name} {family.kind}\n"
    order = sorted(enumerate(family.labels), key=itemgetter(1))
    for texts, value in family.values:
        inside = ",".join([f'{label}="{_escaped(texts[place])}"' for place, label in order])
        where = f"{{{inside}}}" if inside else ""
        yield f"{name}{where} {_number(value)}\n"


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]  # the library's own


_BACK, _BACKS, _END, _ENDS = "\\", r"\\", "\n", r"\n"


def _escaped(text: str) -> str:
    if _BACK in text or _END in text or '"' in text:
        return text.replace(_BACK, _BACKS).replace(_END, _ENDS).replace('"', r"\"")
    return text
