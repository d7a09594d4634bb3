"""What pip-audit's answer comes to: vulnerable, clean, or not known. Never clean while blind.

    python scripts/audited.py ANSWER.json [WORDS]

Exit code: 0 every dependency was asked about and none has a known vulnerability, 2 some have, 3 for
some of them nobody could be asked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OWN = frozenset({"dvfd", "pip", "setuptools"})
"""What is no dependency: this, and what a virtual environment begins with."""


def audited(document: Any) -> tuple[int, list[str]]:
    """The exit code, and the lines that say why."""
    try:
        found = [each for each in document["dependencies"] if each["name"] not in OWN]
        holes = [(each, hole) for each in found for hole in each.get("vulns", ())]
        unasked = {each["name"]: each.get("skip_reason") for each in found if "vulns" not in each}
        lines = [
            f"{each['name']} {each['version']}: {hole['id']}, mended in "
            f"{', '.join(hole['fix_versions']) or 'no version yet'}"
            for each, hole in holes
        ]
    except (KeyError, TypeError):
        return 3, ["pip-audit's answer cannot be read: not known"]
    if not found:
        return 3, ["pip-audit names no dependency: not known"]
    if unasked:
        lines.append(f"not known of {len(unasked)} of {len(found)}: {', '.join(unasked)}")
        lines.append(f"pip-audit of the first: {next(iter(unasked.values())) or 'no reason'}")
    if holes:
        return 2, lines
    return (3, lines) if unasked else (0, [f"{len(found)} dependencies, no known vulnerability"])


def main() -> int:
    """Read the answer, print what it comes to."""
    try:
        document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = None
    code, lines = audited(document)
    print("\n".join(lines))
    if document is None and len(sys.argv) > 2:
        print(Path(sys.argv[2]).read_text(encoding="utf-8", errors="replace")[-2000:])
    return code


if __name__ == "__main__":
    sys.exit(main())
