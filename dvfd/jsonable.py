"""What JSON can hold of a value: no number that is none, no half of a letter. Pure."""

from __future__ import annotations

import math
from typing import Any


def jsonable(value: Any) -> Any:
    """*value* with null for what is not finite, and UTF-8 for every text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {jsonable(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    return value
