"""Leave an answer as JSON, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, found: Mapping[str, object]) -> None:
    """Write beside *path*, then rename: a reader never sees half of it."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(found), encoding="utf-8")
    beside.replace(path)
