"""How long it takes to judge 48 hours of 16 ranks: feeding the rows, and every criterion at once.

python -m bench.run_judging
"""

from __future__ import annotations

import importlib
import resource
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from dvfd.runs.tally import Tally
from dvfd.runs.verdicts import judged

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
fakes_runs = importlib.import_module("fakes_runs")

HOURS = 48.0
TIMES = 7
"""Judgements of which the median counts."""


def main() -> None:
    """Print what was asked beside what was seen."""
    length = HOURS * 3600.0
    check = fakes_runs.check("stability_phase2c", length=length)
    story = fakes_runs.Story(check, context=fakes_runs.context(check), length=length)
    run = story.run()
    parts = {
        "windows": list(fakes_runs.windows(check, length)),
        "minutes": list(fakes_runs.minutes(check, length)),
        "events": list(fakes_runs.events(check, length)),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally, fed = Tally(run.plan, story.context), 0.0
    for name, rows in parts.items():
        began = time.process_time()
        for row in rows:
            tally.add(row)
        took = time.process_time() - began
        fed += took
        print(f"{len(rows)} {name}: {took:.2f} s")
    t = fakes_runs.BEGAN + length
    looks = []
    for n in range(TIMES):
        tally.add(replace(parts["events"][0], t=1.0 + n))  # what was known is asked again
        began = time.process_time()
        found = judged(check, run, tally, t=t, at=0.0)
        looks.append(time.process_time() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"feeding: {fed:.2f} s, wanted at most 1.5 s")
    print(f"all {len(found)} criteria: {1e3 * statistics.median(looks):.0f} ms, wanted 30 ms")
    print(f"the tally: {grown:.0f} MiB")


if __name__ == "__main__":
    main()
