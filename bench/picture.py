"""Take docs/images/page.png anew: a real daemon that has watched the reference job for a while.

`python -m bench.picture --minutes 20`. Needs torch, Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path

from bench.harness import node

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "page.png"

LARGEST = 200_000
"""Bytes that the picture may have."""

SETTINGS = """
[profile]
expected_throughput = {expected}
temperature_sensors = false
power_meters = false
"""
"""As for a virtual machine, which has neither sensors nor meters."""


def main() -> None:
    """Watch, then take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--step-time", type=float, default=0.5)
    parser.add_argument("--expected", type=float, default=25.0, help="samples/s of the profile")
    parser.add_argument("--to", type=Path, default=PICTURE)
    options = parser.parse_args()
    settings = SETTINGS.format(expected=options.expected)
    pace = (f"--step-time={options.step_time}", "--checkpoint-every=200", "--validate-every=100")
    with tempfile.TemporaryDirectory() as directory:
        watched = node.Node(Path(directory), [], settings)
        with node.running(watched), node.training(watched, *pace):
            time.sleep(60 * options.minutes)
            take(f"http://{watched.address}/", options.to)


def take(url: str, path: Path) -> None:
    """Keep what a desktop shows of the page at *url*."""
    browser = importlib.import_module("browser")
    path.parent.mkdir(parents=True, exist_ok=True)
    with browser.chromium() as chromium, browser.visit(chromium, url, size=(1280, 1100)) as page:
        page.screenshot(path=path)
    size = path.stat().st_size
    print(f"{path}: {size} bytes")
    if size > LARGEST:
        raise SystemExit(f"{path} has {size} bytes, wanted at most {LARGEST}")


if __name__ == "__main__":
    main()
