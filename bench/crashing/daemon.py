"""The whole daemon, asked through its control socket, while ranks report into it.

The ranks are processes of their own that outlive every kill: what they told no daemon is in their
rings. Who asks is a thread of the daemon's process, and dies with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from bench.crashing.files import once, rows
from bench.crashing.killing import Story, Words, eventually
from bench.crashing.people import WHO, Desk, Spoken, requests
from dvfd.asking import ask
from dvfd.clock import SystemClock
from dvfd.config import parse
from dvfd.daemon import Daemon
from dvfd.errors import DvfdError

JOB = "gpt"
RANKS, RATE = 4, 50.0
CONFIG = '[node]\nname = "n1"\n[http]\nport = 0\n'


class Whole:
    """See the module."""

    name, text = "daemon", "the whole daemon under reporting ranks"

    def prepare(self, place: Path) -> None:
        """Its state directory."""
        (place / "state").mkdir(exist_ok=True)

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Be the daemon, and ask it."""
        os.environ |= environment(place)
        asking = threading.Thread(target=_ask_on, args=(place, story.lives, words), daemon=True)
        asking.start()
        Daemon(parse(CONFIG)).run()

    def hold(self, place: Path, story: Story) -> list[str]:
        """What people were told, lists that were judged, runs; and every step of the ranks once."""
        state = place / "state"
        desk = Desk(state, SystemClock())
        runs = desk.store.all("run").values()
        notes = [str(run["plan"]["note"]) for run in runs]
        on = [i for i in story.finished("stop ") for r in runs if r["id"] == i and not _over(r)]
        found = [
            *Spoken.looked(desk, state, story),
            *once("runs", story.finished("arm "), notes),
            *([f"stopped, and on again: {on}"] if on else []),
        ]
        kept = [repr(at) for (at,) in rows(state / "dvfd.db", LISTS)]
        return [*found, *once("lists", _lists(story), kept), *_steps(state / "dvfd.db")]

    def end(self, place: Path, story: Story) -> list[str]:
        """The same."""
        return self.hold(place, story)


LISTS = "SELECT at FROM reports WHERE check_id = 'daily'"


def environment(place: Path) -> dict[str, str]:
    """Where daemon and ranks find each other."""
    return {
        "DVFD_STATE_DIR": str(place / "state"), "RUNTIME_DIRECTORY": str(place),
        "DVFD_SOCKET": str(place / "ingest.sock"),
    }  # fmt: skip


def _ask_on(place: Path, life: int, words: Words) -> None:
    """Ask for one change after another as soon as the daemon answers."""
    control = place / "control.sock"
    chance = Random(life)

    def up() -> bool:
        with contextlib.suppress(DvfdError):
            return bool(ask(control, "ping") == "pong")
        return False

    if not eventually(up):
        os._exit(71)
    words.ready()
    number = 0
    while True:
        number += 1
        _ask_once(control, f"{life}/{number}", words, chance)


def _ask_once(control: Path, key: str, words: Words, chance: Random) -> None:
    draw = chance.random()
    if draw < 0.15:
        words.begin(f"check {key}")
        words.note(f"list {key} {ask(control, 'check', check='daily')['at']!r}")
        words.done(f"check {key}")
    elif draw < 0.3:
        _run(control, key, words)
    else:
        op, more = requests(SystemClock().now(), chance)
        said = f"{op} {key}"
        words.begin(said)
        ask(control, op, **{**WHO, "note": said, "reason": said, **more})
        words.done(said)


def _run(control: Path, key: str, words: Words) -> None:
    """Arm a run, or stop the one that is on."""
    found = [run for run in ask(control, "stability_list") if not run["frozen"]]
    if found:
        if not _over(found[-1]):
            words.begin(f"stop {found[-1]['id']}")
            ask(control, "stability_stop", id=found[-1]["id"], reason="r")
            words.done(f"stop {found[-1]['id']}")
        return
    words.begin(f"arm {key}")
    ask(control, "stability_arm", check="stability_phase1", job=JOB, note=key, force=True)
    words.done(f"arm {key}")


def _over(run: Any) -> bool:
    return run["stage"] in {"complete", "aborted"}


def _lists(story: Story) -> list[str]:
    """When the lists were judged whose answers came."""
    told = [note.split() for note in story.notes if note.startswith("list ")]
    return [at for _, key, at in told if f"check {key}" in story.done]


def _steps(path: Path) -> list[str]:
    """Every rank's steps once, without a hole from its first to its last."""
    found = []
    folds = rows(path, "SELECT rank, first_step, last_step, count FROM folds ORDER BY 1, 2")
    for rank in range(RANKS):
        mine = [fold[1:] for fold in folds if fold[0] == rank]
        torn = [(a, b) for a, b in pairwise(mine) if a[1] + 1 != b[0]]
        torn += [(a, a) for a in mine if a[1] - a[0] + 1 != a[2]]
        found += [f"steps of rank {rank}: missing or doubled at {torn[:3]}"] if torn else []
    return found


def steps(place: Path) -> int:
    """How many steps of all ranks the store has."""
    return int(rows(place / "state" / "dvfd.db", "SELECT sum(count) FROM folds")[0][0] or 0)


@contextlib.contextmanager
def reporting(place: Path) -> Iterator[None]:
    """The job's ranks, each a process that reports wherever a daemon is."""
    command = [sys.executable, "-m", "bench.simulated", f"--job={JOB}", f"--world={RANKS}"]
    ranks = [
        subprocess.Popen(
            [*command, f"--rank={n}", f"--rate={RATE}"],
            env=os.environ | environment(place), stdout=subprocess.DEVNULL,
        )
        for n in range(RANKS)
    ]  # fmt: skip
    try:
        yield
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
