"""What each node has to tell the others, told: it came with the plan. No options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvfd.drills.workers.fleet import Crew


def run(crew: Crew, _options: Mapping[str, Any]) -> Any:
    """This node's, by its first rank."""
    return crew.carried if crew.head else None
