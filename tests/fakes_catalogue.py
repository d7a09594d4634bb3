"""A catalogue of a few lines, written to a directory; each test spoils one thing in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

METRICS = """
[heat]
help = "Heat of a package"
unit = "celsius"
labels = ["package", "load"]
source = "temperature"
possible = [-20, 130]

[energy_total]
help = "Energy used"
unit = "joules"
kind = "counter"
labels = ["package"]

[goodput]
help = "Bytes received"
unit = "bytes/second"

[wanted_goodput]
help = "Bytes wanted"
unit = "bytes/second"
"""

HEAD = 'id = "day"\ntitle = "A day"\nclause = "Daily"\nphase = "production"\n'

HEAT = """
[[criterion]]
id = "heat"
item = "item 1"
text = "Not too hot"
metric = "heat"
unit = "celsius"
comparison = "<"
limit = 75
"""

GATE = """
[[gate]]
id = "phase1"
title = "Phase 1"
clause = "Gate"
authority = ["VP"]
due = "Friday, week 2"
tests = ["day"]

[[gate.go]]
id = "day"
text = "The day was good"
checks = ["day"]
"""


def criterion(**changes: object) -> str:
    """The criterion on heat as TOML, with some keys changed, or left out where None."""
    keys = dict(line.split(" = ", 1) for line in HEAT.strip().splitlines()[1:])
    keys |= {k.rstrip("_"): v for k, v in changes.items()}
    lines = [
        f"{k} = {v if isinstance(v, str) else repr(v)}" for k, v in keys.items() if v is not None
    ]
    return "\n[[criterion]]\n" + "\n".join(lines) + "\n"


def write(directory: Path, day: str = HEAT, *, gates: str = "", metrics: str = METRICS) -> Path:
    """A directory with metrics.toml, day.toml and, if given, gates.toml."""
    (directory / "metrics.toml").write_text(metrics)
    (directory / "day.toml").write_text(HEAD + day)
    if gates:
        (directory / "gates.toml").write_text(gates)
    return directory


def problems(directory: Path, config: Config | None = None) -> tuple[str, ...]:
    """What loading complains of; it must complain."""
    with pytest.raises(ConfigError) as caught:
        load(config or Config(), directory)
    return caught.value.problems
