"""Fill the disk to the brim, and make it read-only, under every place where dvfd writes.

Each writing point works on a small disk of its own (a tmpfs in a mount namespace). It is filled at
a random moment with a random rest of up to 64 KiB, written to until something is refused and then
on, and gets its room back. Wanted: what is refused is said, what was promised is there, nothing is
damaged, and it goes on by itself. Read-only: closed, made read-only, started and written to, and
made writable under it; the kernel remounts no file system that has a file open to be written.

Then the whole daemon: its socket answers all the while, `/healthz` says 503, and says 200 again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from bench.crashing import daemon, people
from bench.crashing.files import once
from bench.crashing.killing import eventually, in_child
from bench.crashing.points import Point, Sitter, points
from bench.crashing.small_disk import SmallDisk, alone
from bench.harness import chosen, finish
from bench.record import Figure, at_most, exactly
from dvfd import log
from dvfd.asking import ask
from dvfd.clock import SystemClock
from dvfd.errors import DvfdError

FULL, READ_ONLY = "full", "read-only"
SPARES = (0, 4096, 16_384, 65_536)
TRIES = 600
"""Writes after which a disk without room has refused something: the store fills holes of its own
first.
"""
AFTER = 4
"""Writes after the first refusal."""
RECOVERY = 45.0
"""Seconds within which it must go on: the store looks again after 30 at the latest."""


@dataclass
class Suffered:
    """What a writing point did under a fault."""

    point: str
    fault: str
    said: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    promised: list[str] = field(default_factory=list)
    recovered: float = 0.0  # seconds from the room to the next promise
    faults: list[str] = field(default_factory=list)

    def write(self, sitter: Sitter, key: str) -> bool:
        """Try one; whether it was promised."""
        said = sitter.write(key)
        self.tried.append(key)
        if said:
            self.said.append(said)
        else:
            self.promised.append(key)
        return not said


def main() -> None:
    """Break every disk, count and keep."""
    alone("bench.disk_full")
    options = chosen(__doc__, rounds=5, seed=9, only="")
    log.setup("critical")
    rounds = 1 if options.short else options.rounds
    with tempfile.TemporaryDirectory() as place:
        found = list(_all(Path(place), rounds, str(options.seed), options.only))
    for each in found:
        for fault in each.faults:
            print(f"{each.point}, {each.fault}, seed {options.seed}: {fault}")
    raw = {"seed": options.seed, "points": [_raw(each) for each in found]}
    finish("disk_full", options, figures(found), raw)
    sys.exit(any(each.faults for each in found))


def _all(place: Path, rounds: int, seed: str, only: str) -> Iterator[Suffered]:
    disk = SmallDisk(place / "disk")
    beside = place / "beside"
    beside.mkdir()
    try:
        every = [each for each in (*points(beside), LASTING) if only in each.name]
        for number in range(rounds):
            for point, fault in product(every, (FULL, READ_ONLY)):
                yield _child(disk, point, fault, f"{seed}/{number}/{point.name}/{fault}")
                disk.heal()
                disk.clear()
    finally:
        subprocess.run(["umount", "--lazy", disk.place], check=True)


def _child(disk: SmallDisk, point: Point, fault: str, seed: str) -> Suffered:
    """One case in a process of its own, which must not break off."""
    chance = Random(seed)  # to be repeated

    def work() -> dict[str, Any]:
        if point is LASTING:
            return asdict(_daemon(disk, fault))
        return asdict(_point(disk, point, fault, chance))

    try:
        return Suffered(**in_child(work, 300.0))
    except ChildProcessError as error:
        return Suffered(point.name, fault, faults=[str(error)])


def _point(disk: SmallDisk, point: Point, fault: str, chance: Random) -> Suffered:
    """One writing point under one fault."""
    place, found = disk.place / "it", Suffered(point.name, fault)
    place.mkdir()
    sitter = point.sit(place)
    started: Sitter | None = sitter
    before = chance.randint(1, 6)
    if before != sum(found.write(sitter, f"before/{n}") for n in range(before)):
        found.faults.append(f"refused on a disk that is well: {found.said}")
    if fault == FULL:
        disk.fill(chance.choice(SPARES))
    else:
        sitter.close()
        disk.freeze()
        started = _started(point, place, found)
    if started:
        _write_on(found, started)
    disk.heal()
    started = started or point.sit(place)
    _again(found, started)
    started.close()
    found.faults += point.faults(place, found.tried, found.promised)
    return found


def _started(point: Point, place: Path, found: Suffered) -> Sitter | None:
    """The point started on a disk that cannot be written; None if it says so and ends."""
    try:
        return point.sit(place)
    except (DvfdError, OSError) as error:
        found.said.append(str(error))
        return None


def _write_on(found: Suffered, sitter: Sitter) -> None:
    """Write until something is refused, and then some more."""
    for number in range(TRIES):
        if not found.write(sitter, f"fault/{number}"):
            break
    else:
        found.faults.append(f"{TRIES} writes were promised on a disk that takes none")
    for number in range(AFTER):
        found.write(sitter, f"after/{number}")


def _again(found: Suffered, sitter: Sitter) -> None:
    """Write on a disk that is well again until it is promised, and note how long that took."""
    began, number = time.monotonic(), 0
    while not found.write(sitter, f"room/{number}"):
        number += 1
        if time.monotonic() > began + RECOVERY:
            found.faults.append(f"not on again within {RECOVERY:g} s: {found.said[-1]}")
            break
        time.sleep(0.2)
    found.recovered = time.monotonic() - began


# --- The whole daemon -----------------------------------------------------------------------------


def _daemon(disk: SmallDisk, fault: str) -> Suffered:
    """The daemon under one fault: it answers, says what is wrong, and goes on."""
    place, found = disk.place / "it", Suffered("daemon", fault)
    (place / "state").mkdir(parents=True)
    (place / "dvfd.toml").write_text(daemon.CONFIG, encoding="utf-8")
    with tempfile.TemporaryDirectory() as runtime:
        control = Path(runtime) / "control.sock"
        if fault == READ_ONLY:
            disk.freeze()
        with _running(place, Path(runtime)) as process:
            sitter = _Asked(control)
            if fault == FULL:
                found.write(sitter, "before/0")
                disk.fill(0)
            _write_on(found, sitter)
            found.faults += _unsaid(control)
            disk.heal()
            _again(found, sitter)
            well = eventually(lambda: _health(control) == 200, RECOVERY)
            found.faults += [] if well else ["/healthz does not say that all is well again"]
            found.faults += [] if process.poll() is None else [f"it ended: {process.poll()}"]
    desk = people.Desk(place / "state", SystemClock())
    there = [said.note for item in people.ITEMS for said in desk.attestations.history(item)]
    found.faults += [*once("attestations", found.promised, there), *desk.evidence.verify()]
    desk.store.stop()
    return found


@contextlib.contextmanager
def _running(place: Path, runtime: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | daemon.environment(place)
    environment |= {"RUNTIME_DIRECTORY": str(runtime), "DVFD_SOCKET": str(runtime / "ingest.sock"),
                    "DVFD_CONFIG": str(place / "dvfd.toml")}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "dvfd", "run"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        if not eventually(lambda: _answers(runtime / "control.sock")):
            raise ChildProcessError("the daemon does not answer")
        yield process
    finally:
        process.kill()
        process.wait()


def _answers(control: Path) -> bool:
    with contextlib.suppress(DvfdError):
        return bool(ask(control, "ping") == "pong")
    return False


class _Asked:
    """Attestations, asked for on the control socket."""

    def __init__(self, control: Path) -> None:
        self._control = control

    def write(self, key: str) -> str:
        """See Sitter."""
        more: dict[str, Any] = {**people.WHO, "item": people.ITEMS[0], "value": True, "note": key}
        try:
            ask(self._control, "attest", **more)
        except DvfdError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """See Sitter."""


LASTING = Point(name="daemon", sit=lambda _place: _Asked(Path()), there=lambda _p, _t: ([], []))


def _unsaid(control: Path) -> list[str]:
    """What the daemon does not say of a disk that takes nothing."""
    told = eventually(lambda: not ask(control, "status")["store"]["ok"], 30.0)
    ill = eventually(lambda: _health(control) == 503, 30.0)
    judged = ask(control, "check", check="daily")["verdict"]
    return [
        *([] if told else ["status says that the store is well"]),
        *([] if ill else ["/healthz says that all is well"]),
        *([] if judged == "UNKNOWN" else [f"daily is {judged} on a node without a job"]),
    ]


def _health(control: Path) -> int:
    try:
        with urllib.request.urlopen(f"{ask(control, 'address')}healthz", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# --- What is kept ---------------------------------------------------------------------------------


def figures(found: Sequence[Suffered]) -> list[Figure]:
    """What must be zero, and how long it took to go on."""
    refused = sum(len(each.said) for each in found)
    silent = sum(not each.said for each in found)
    wrong = sum(bool(each.faults) for each in found)
    what = f"disk full and read-only, {len({e.point for e in found})} writing points"
    return [
        Figure("cases", what, len(found), "cases"),
        Figure("refused", "disk full and read-only: writes refused, and told", refused, "writes"),
        exactly("silent", "disk full and read-only: cases of which nothing was told", silent,
                "cases", 0),
        exactly("wrong", "disk full and read-only: cases with something lost, doubled, damaged, "
                "ended or stuck", wrong, "cases", 0),
        at_most("recovery", "disk full and read-only: longest until it went on with room again",
                max(each.recovered for each in found), "s", RECOVERY),
    ]  # fmt: skip


def _raw(each: Suffered) -> dict[str, Any]:
    return {
        "point": each.point, "fault": each.fault, "tried": len(each.tried),
        "promised": len(each.promised), "said": each.said[0] if each.said else "",
        "recovered_s": round(each.recovered, 2), "faults": each.faults,
    }  # fmt: skip


if __name__ == "__main__":
    main()
