"""Kill -9 at random moments everything of dvfd that writes, and count what is lost or doubled.

Each victim is one writing point under its real classes: store with rollups and retention,
migrations, checklists, alerts up to a webhook behind a real Alertmanager, what people say and the
ledger under it, incidents, stability runs, files that are written whole, and the whole daemon under
ranks that report. A victim says what it began and, after whoever asked was answered, what is done.
Most kills are aimed at a moment within a write, some at the start, the rest at any. After each kill
the victim is started on what it left: the files must be sound (`integrity_check`, foreign keys,
the ledger's hashes), what was done there exactly once, what was not either whole or absent.

    python -m bench.crash --short              # 200 kills
    python -m bench.crash --kills 1000 --seed 7

A seed names the same moments again, as far as the machine's own timing lets it.

What is not shown: a power cut. The page cache outlives SIGKILL, so nothing here says that a write
reached the disk, or that fsync is called where it must be and in the right order.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.crashing import alerts, daemon
from bench.crashing.checklist import Judged
from bench.crashing.incidents import Followed
from bench.crashing.killing import Killed, Victim, kill_often
from bench.crashing.migrations import Migrated
from bench.crashing.people import Spoken
from bench.crashing.runs import Conducted
from bench.crashing.store import Stored
from bench.crashing.whole import Replaced
from bench.harness import chosen, finish, quantile
from bench.record import Figure, exactly
from dvfd import log

SHORT = 200
SEED = 9

SHARES: Mapping[str, int] = {
    "store": 5, "migrations": 3, "checklist": 2, "alerts": 3, "people": 4, "incidents": 2,
    "runs": 3, "files": 2, "daemon": 1,
}  # fmt: skip
"""Of every 25 kills."""

PLAIN: tuple[type[Victim], ...] = (
    Stored, Migrated, Judged, Spoken, Followed, Conducted, Replaced,
)  # fmt: skip


def main() -> None:
    """Kill, count and keep."""
    options = chosen(__doc__, kills=1000, seed=SEED, only="")
    log.setup("critical")
    kills = SHORT if options.short and options.kills == 1000 else options.kills
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        found = list(killed(Path(place), kills, str(options.seed), options.only))
        told = _told(Path(place), found)
    spent = time.monotonic() - began
    raw = {
        "seed": options.seed, "seconds": round(spent, 1), "webhook": _raw_told(told),
        "victims": [_raw(each) for each in found],
    }  # fmt: skip
    finish("crash", options, figures(found, told), raw)
    sys.exit(any(each.faults for each in found) or bool(told and told.outside))


def killed(place: Path, kills: int, seed: str, only: str) -> Iterator[Killed]:
    """Each victim, killed as often as its share says."""
    shares = {name: share for name, share in SHARES.items() if only in name}
    every = sum(shares.values())
    for name, share in shares.items():
        with _victim(name, place) as victim:
            yield kill_often(victim, place / name, -(-kills * share // every), seed=seed)


@contextlib.contextmanager
def _victim(name: str, place: Path) -> Iterator[Victim]:
    """The victim of that name, with what it needs beside itself."""
    if name == "alerts":
        with alerts.listening(place) as url:
            yield alerts.Raised(url)
    elif name == "daemon":
        with daemon.reporting(place / name):
            yield daemon.Whole()
    else:
        yield next(each() for each in PLAIN if each.name == name)


def _told(place: Path, found: list[Killed]) -> alerts.Heard | None:
    """What the webhook was told; None where no alert was raised."""
    stories = [each.story for each in found if each.name == alerts.Raised.name]
    return alerts.heard(place / alerts.Raised.name, stories[0]) if stories else None


def figures(found: list[Killed], told: alerts.Heard | None) -> list[Figure]:
    """What must be zero, and how much was tried."""
    kills = sum(each.story.lives for each in found)
    inside = sum(each.story.inside for each in found)
    done = sum(len(each.story.done) for each in found)
    faults = sum(bool(each.faults) for each in found)
    what = f"kill -9 at random moments, {len(found)} kinds of writers"
    return [
        Figure("kills", what, kills, "kills"),
        Figure("inside", "kill -9: of these within a write", inside, "kills"),
        Figure("promised", "kill -9: answers that were given before", done, "answers"),
        exactly("faults", "kill -9: writers of which something was lost, doubled or damaged",
                faults, "writers", 0),
        *(_heard(told) if told else []),
    ]  # fmt: skip


def _heard(told: alerts.Heard) -> list[Figure]:
    """What became of alerts at a webhook, and how often a kill fell where it could not be known
    whether Alertmanager had been told.
    """
    spans, between = told.windows.milliseconds, "between Alertmanager's answer and the commit of it"
    return [
        exactly("again", f"kill -9: of {told.alerts} alerts told to a webhook told again",
                told.again, "alerts", 0),
        Figure("window_kills", f"kill -9: kills {between}", told.windows.kills, "kills"),
        Figure("window", f"kill -9: time {between}, p95", quantile(spans, 0.95), "ms"),
    ]  # fmt: skip


def _raw_told(told: alerts.Heard | None) -> dict[str, Any] | None:
    if told is None:
        return None
    spans = told.windows.milliseconds
    return {
        "alerts": told.alerts, "again_after_a_kill_in_the_window": told.inside,
        "again_else": told.outside, "given_up_by_alertmanager": told.undelivered,
        "kills_in_the_window": told.windows.kills,
        "window_ms": {"p50": quantile(spans, 0.5), "p95": quantile(spans, 0.95),
                      "longest": max(spans), "count": len(spans)},
    }  # fmt: skip


def _raw(each: Killed) -> dict[str, Any]:
    story = each.story
    return {
        "victim": each.name, "text": each.text, "kills": story.lives, "inside": story.inside,
        "while_starting": story.early, "begun": len(story.begun), "done": len(story.done),
        "write_ms": round(1000 * story.writes, 2), "seconds": round(each.seconds, 1),
        "faults": each.faults,
    }  # fmt: skip


if __name__ == "__main__":
    main()
