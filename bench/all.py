"""All measurements, one after the other, and one table of what they found: `scripts/bench`.

Each is a process of its own, with its words and its figures in a folder of the run. One that
breaks, leaves no figure or takes too long is "not measured", which is no success: the exit code is
0 where all was measured and is within its limits, 1 where a figure is outside, 3 where something
was not measured. Short forms are smoke: they leave bench/results alone, which `--long` writes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.record import RUN
from bench.render import row

ROOT = Path(__file__).resolve().parents[1]

BUDGET = 1200.0
"""Seconds for the short form of all of it."""

PATIENCE = (3.0, 60.0)
"""Times its budget, and seconds more, that a short measurement may take: machines are busy."""

LONGEST = 6 * 3600.0
"""Seconds that a long one may take: a soak of hours is the longest."""

SHORT = ("--short",)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A module of bench/, how it is called, the question that it answers, seconds of budget."""

    name: str
    module: str
    short: tuple[str, ...]
    long: tuple[str, ...]
    answers: str
    budget: float


MEASUREMENTS = (
    Measurement("detection", "bench.detection", SHORT, (),
                "how soon is a fault told, beside scrape and rule?", 215),
    Measurement("overhead", "bench.overhead", SHORT, (), "what does it cost the job?", 100),
    Measurement("reporter", "bench.reporter", SHORT, (), "what does a step's report cost?", 10),
    Measurement("daemon", "bench.daemon", SHORT, (), "what does the daemon take?", 125),
    Measurement("history", "bench.history", SHORT, (), "how large are 35 days, how fast read?", 25),
    Measurement("crash", "bench.crash", SHORT, (), "what does kill -9 lose?", 50),
    Measurement("disk_full", "bench.disk_full", SHORT, (), "what does a full disk break?", 80),
    Measurement("fuzz", "bench.fuzz", SHORT, (), "what does hostile input break?", 100),
    Measurement("mutes", "bench.mutes", SHORT, (), "does silence ever stay green?", 175),
    Measurement("mutants", "bench.mutants", SHORT, (), "do the tests see a wrong line?", 170),
    Measurement("speed", "bench.speed", SHORT, (), "how far is each part from its limit?", 10),
    Measurement("soak", "bench.soak", SHORT, (), "does it cry wolf, does it grow?", 90),
    Measurement("cli", "bench.cli", SHORT, (), "how long does a command take?", 5),
    Measurement("page", "bench.page", SHORT, (), "how long does the page take?", 35),
)  # fmt: skip
"""Edit freely: a line each, in the order in which they are run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one: the documents that it left, seconds that it took, why it broke."""

    name: str
    documents: tuple[dict[str, Any], ...]
    seconds: float
    why: str = ""


def main() -> int:
    """Run what was asked for, print the table; the exit code is in the file's first words."""
    options = _options()
    if options.list:
        print("\n".join(f"{m.name:10} {m.budget:4.0f} s  {m.answers}" for m in MEASUREMENTS))
        return 0
    wanted = [m for m in MEASUREMENTS if not options.only or m.name in options.only]
    place = ROOT / "run" / time.strftime("bench-%Y%m%d-%H%M%S", time.gmtime())
    found = []
    for measurement in wanted:
        outcome = measure(measurement, place / measurement.name, long=options.long)
        print(f"{outcome.name}: {outcome.seconds:.0f} s{_said(outcome)}", file=sys.stderr)
        found.append(outcome)
    text = table(found)
    (place / "table.md").write_text(text, encoding="utf-8")
    print(f"{text}\nWords and figures of each: {place}")
    return code(found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--long", action="store_true", help="the long forms; keep their results")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        default=[],
        choices=[m.name for m in MEASUREMENTS],
        help="only these; again for more",
    )
    parser.add_argument("--list", action="store_true", help="what there is")  # fmt: skip
    return parser.parse_args()


def measure(measurement: Measurement, place: Path, *, long: bool) -> Outcome:
    """Run one as a process of its own; its words go to *place*/log."""
    place.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    if importlib.util.find_spec(measurement.module) is None:
        return Outcome(measurement.name, (), 0.0, f"there is no {measurement.module}")
    arguments = measurement.long if long else measurement.short
    argv = [sys.executable, "-m", measurement.module, *arguments]
    times, more = PATIENCE
    why = _run(argv, place, LONGEST if long else times * measurement.budget + more)
    documents = tuple(_documents(place))
    if not why and not any(document["figures"] for document in documents):
        why = "it left no figure"
    return Outcome(measurement.name, documents, time.monotonic() - began, why)


def _run(argv: Sequence[str], place: Path, limit: float) -> str:
    """Why it broke, or an empty string. Whatever it started is ended with it."""
    environment = {**os.environ, RUN: str(place), "PYTHONPATH": os.pathsep.join(_path())}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )
        try:
            returned = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"not done after {limit:.0f} s: {place / 'log'}"
        finally:
            _end(process)
    return f"exit code {returned}: {place / 'log'}" if returned else ""


def _path() -> list[str]:
    return [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, at which it ends what it started; SIGKILL to what is left of its group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _documents(place: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))]


# --- What is shown --------------------------------------------------------------------------------


def table(found: Sequence[Outcome]) -> str:
    """Every figure under the name of its measurement, and what was not measured."""
    lines = ["| measured | value | interval | wanted | reached |", "|---|---:|---|---|---|"]
    for outcome in found:
        lines.append(f"| **{outcome.name}**, {outcome.seconds:.0f} s | | | | |")
        lines += [row(figure) for document in outcome.documents for figure in document["figures"]]
        if outcome.why:
            lines.append(
                f"| {outcome.name}: {_cell(outcome.why)} | **not measured** | | | **no** |"
            )
    return "\n".join([*lines, "", _sum(found), ""])


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _sum(found: Sequence[Outcome]) -> str:
    limited = [f for o in found for d in o.documents for f in d["figures"] if f["wanted"]]
    count = {state: sum(f["reached"] is state for f in limited) for state in (True, False, None)}
    broken = [outcome.name for outcome in found if outcome.why]
    seconds = sum(outcome.seconds for outcome in found)
    blind = f"; NOT MEASURED: {', '.join(broken)}" if broken else ""
    return (
        f"{len(found)} measurements in {seconds:.0f} s; of {len(limited)} figures with a limit "
        f"{count[True]} within, {count[False]} outside, {count[None]} not known{blind}"
    )


def _said(outcome: Outcome) -> str:
    return f", NOT MEASURED: {outcome.why}" if outcome.why else ""


def code(found: Sequence[Outcome]) -> int:
    """0, 1 or 3: nothing is green that was not seen."""
    if not found or any(outcome.why for outcome in found):
        return 3
    figures = [figure for o in found for d in o.documents for figure in d["figures"]]
    return int(any(figure["reached"] is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
