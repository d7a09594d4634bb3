"""Pictures of the dashboards, from things that run: `python -m bench.preview` makes them anew.

Everything on them came out of a real Prometheus. For node, job, fleet and validation it scraped a
real daemon, with four simulated ranks to which a few things happen, beside recordings played as
the other nodes. For trends promtool wrote the past. Chromium photographs what boards/preview.py
draws.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.engine import prometheus
from bench.fleet import playing
from bench.harness import build_node, testbed
from bench.months import DAY, KEEP, Months, backfill, last_hour
from bench.png import shrink
from bench.simulated import order, simulated
from boards.ask import Look
from boards.ask import Prometheus as Asked
from boards.preview import read, write

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
RULES = ROOT / "alert_rules" / "dvfd-recording-dashboards.rules.yml"
NODE = "trainer-01:9109"
JOB = "language"
SCRAPE = 5.0
OTHERS = 40
ILL = 1

SAID = """
[profile]
expected_throughput = 80.0
single_process_throughput = 20.5
[cost]
per_hour = 12.5
currency = "EUR"
[jobs]
expected = ["language"]
[[logs]]
name = "training"
path = "{log}"
"""

BROWSER = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio"),
    "--force-device-scale-factor=1",
)


@contextlib.contextmanager
def scene(place: Path, seconds: float) -> Iterator[str]:
    """The address of a Prometheus that watched all nodes for *seconds*."""
    targets, node = place / "targets.json", build_node(place / "node")
    port, log = testbed.free_port(), place / "job.log"
    log.touch()
    config = node.directory / "dvfd.toml"
    text = config.read_text(encoding="utf-8").replace("port = 0", f"port = {port}")
    config.write_text(text + SAID.format(log=log), encoding="utf-8")
    node.start()
    try:
        with playing(targets, OTHERS, ILL, seconds + 900):
            _also(targets, port)
            with prometheus(place, targets, interval=SCRAPE, rules=[]) as server:
                story(node, log, seconds)
                yield server.url
    finally:
        node.stop()


def _also(targets: Path, port: int) -> None:
    known = json.loads(targets.read_text(encoding="utf-8"))
    known.append({"targets": [f"127.0.0.1:{port}"], "labels": {"instance": NODE}})
    whole = targets.with_suffix(".new")
    whole.write_text(json.dumps(known), encoding="utf-8")
    whole.replace(targets)


def story(node: Any, log: Path, seconds: float) -> None:
    """A quiet start, a rank that stops for a while, a loss that is NaN, a daemon that is gone."""
    torch = importlib.import_module("torch")
    checkpoint = node.directory / "checkpoint.pt"
    torch.save({"step": 0}, checkpoint)
    part = seconds / 8
    ranks = simulated(node, JOB, rate=2.5, checkpoint=str(checkpoint))
    stack = contextlib.ExitStack()
    processes: Sequence[subprocess.Popen[str]] = stack.enter_context(ranks)
    with stack:
        time.sleep(2 * part)
        processes[2].send_signal(signal.SIGSTOP)
        time.sleep(part)
        processes[2].send_signal(signal.SIGCONT)
        time.sleep(part)
        order(processes[1], "nan")
        log.write_text("ERROR: CUDA error: an illegal memory access was encountered\n")
        time.sleep(part)
        node.stop()
        time.sleep(part / 2)
        node.start()
        time.sleep(2.5 * part)


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    """Chromium's view of a page."""
    command = [
        testbed.need("chromium"), *BROWSER, f"--window-size={width},{height}",
        f"--user-data-dir={page.parent / 'browser'}", f"--screenshot={picture}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def draw(board: str, server: str, look: Look, place: Path, images: Path) -> None:
    """One dashboard's picture."""
    page = place / f"{board}.html"
    width, height = write(page, read(board), Asked(server), look)
    picture = images / f"dashboard-{board}.png"
    photograph(page, picture, width, height)
    shrink(picture)


def trends(place: Path, images: Path) -> None:
    """Three months in a few seconds."""
    months = Months(last_hour(time.time()))
    backfill(place, months, RULES)
    options = {"interval": "1h", "options": KEEP}
    with testbed.prometheus(place, "127.0.0.1:9", **options) as server:
        look = Look(months.end + 1200, months.days * DAY)
        draw("trends", server.url, look, place, images)


def nodes(place: Path, images: Path, seconds: float) -> None:
    """Those that need things to happen."""
    with scene(place, seconds) as url:
        end = time.time()
        one = {"instance": NODE, "training_job": JOB, "check": "live|daily"}
        for board, chosen in (("node", one), ("job", one), ("fleet", {}), ("validation", one)):
            draw(board, url, Look(end, seconds + 20, SCRAPE, chosen), place, images)


def main() -> None:
    """Write docs/images/dashboard-*.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="how long things happen")
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--only", choices=("trends", "nodes"), default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if options.only != "nodes":
            (Path(place) / "past").mkdir()
            trends(Path(place) / "past", options.images)
        if options.only != "trends":
            (Path(place) / "now").mkdir()
            nodes(Path(place) / "now", options.images, 60 * options.minutes)


if __name__ == "__main__":
    main()
