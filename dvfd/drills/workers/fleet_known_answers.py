"""Known answers on every node at once: each node's first rank has its processors examined.

In a process of its own: the examination forks, and a rank has threads. No options.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvfd.drills import bare
from dvfd.drills.workers import known_answers
from dvfd.drills.workers.fleet import Crew

START = 60.0
"""Seconds for it to begin: importing torch from a cold network disk."""


def run(crew: Crew, _options: Mapping[str, Any]) -> dict[str, Any]:
    """What a node's `processors` answered, as `document`; nothing of another rank.

    Raises OSError, ValueError, subprocess.SubprocessError where there is no answer.
    """
    if not crew.head:
        return {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "known_answers.json"
        listed = ",".join(map(str, crew.processors))
        subprocess.run(
            [sys.executable, str(bare.__file__), known_answers.__name__, str(place), listed],
            timeout=START + len(crew.processors) * known_answers.PATIENCE,
            check=True,
        )
        document = json.loads(place.read_text(encoding="utf-8"))
    return {"processors": crew.processors, "document": document}
