"""Write dashboards/*.json anew, or with --check say which of them are not current."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from boards import boards, text

DIRECTORY = Path(__file__).resolve().parents[1] / "dashboards"


def main() -> int:
    """0, or 1 if --check found one that is not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for made in boards():
        path = DIRECTORY / f"{made.uid}.json"
        if path.exists() and path.read_text(encoding="utf-8") == text(made):
            continue
        stale.append(path.name)
        if not check:
            path.write_text(text(made), encoding="utf-8")
    if stale:
        said = "not current, run python -m boards" if check else "written"
        sys.stdout.write(f"{said}: {', '.join(stale)}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
