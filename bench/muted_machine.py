"""The tree of files that a muted node reads, and the hand that takes them away and gives them back.

Counters that move on a machine move here, five times a second, unless they are held.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.mute_table import Way

FIXTURES = Path(__file__).resolve().parents[1] / "tests/fixtures"

INTERFACE = "eth0"

TREES = ("hwmon_coretemp", "rapl_intel", "nic", "numa1", "loaded")

GPU = {
    "utilisation": 87, "temperature": 61, "memory": [40, 80], "energy": 1000, "uncorrected": 0,
    "slowdowns": 0,
}  # fmt: skip

GARBAGE = "\x00garbage\n"
NOT_AVAILABLE = 2**32 - 1

BEAT = 0.2


class Machine:
    """ROOT of bench.muted_node, and what lies beside it."""

    def __init__(self, root: Path, voice: Any) -> None:
        self.root, self.voice = root, voice
        for name in TREES:
            shutil.copytree(FIXTURES / name, root, dirs_exist_ok=True)
        for name in ("raises", "hangs"):
            (root / name).mkdir()
        self.log, self.plugin = root / "training.log", root / "check"
        self.textfiles = root / "textfiles"
        self.textfiles.mkdir()
        self.log.write_text("all is well\n", encoding="utf-8")
        self.ranks: list[int] = []
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._put(self.plugin, "#!/bin/sh\necho fine\n")
        self.plugin.chmod(0o755)
        self._put(root / "step", "0")
        self._put(root / "clock.json", json.dumps({"status": 0, "error": 0.001}))
        self._put(root / "nvml.json", json.dumps(GPU))
        self._beat()

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Its counters move until the end."""
        over = threading.Event()

        def move() -> None:
            while not over.wait(BEAT):
                self._beat()

        thread = threading.Thread(target=move, name="machine", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def show(self, pids: Sequence[int]) -> None:
        """Let the processes of the ranks be seen in its /proc."""
        self.ranks = list(pids)
        for pid in pids:
            (self.root / f"proc/{pid}").symlink_to(f"/proc/{pid}")

    # --- Muting ----------------------------------------------------------------------------------

    def mute(self, source: str, way: Way) -> None:
        """As bench.mute_table has it."""
        if way in {Way.RAISES, Way.BACK, Way.FORWARD}:
            (self.root / "raises" / source).touch()
            step = {Way.BACK: -3600, Way.FORWARD: 3600}.get(way, 0)
            self._put(self.root / "step", str(step))
        elif way is Way.HANG:
            (self.root / "hangs" / source).touch()
        elif source.startswith("scrape"):
            self.voice.way = way
        elif source == "gpu" and way is Way.GARBAGE:
            self._put(self.root / "nvml.json", json.dumps(dict.fromkeys(GPU, NOT_AVAILABLE) | {
                "memory": [NOT_AVAILABLE, NOT_AVAILABLE]}))  # fmt: skip
        else:
            self._spoil(source, way)

    def heal(self, source: str, way: Way) -> None:
        """As it was."""
        for place in ("raises", "hangs"):
            (self.root / place / source).unlink(missing_ok=True)
        self._put(self.root / "step", "0")
        self.voice.way = None
        if source == "gpu":
            self._mend(self.root / "nvml.json", json.dumps(GPU))
        for path in self._files(source):
            self._give_back(path)

    def _files(self, source: str) -> list[Path]:
        """What a source reads."""
        root, sys = self.root, self.root / "sys"
        return {
            "cpu": [root / "proc/stat", *(root / f"proc/{pid}" for pid in self.ranks)],
            "memory": [sys / "devices/system/node/node0/meminfo"],
            "temperature": [
                *sys.glob("class/hwmon/*/temp*_input"),
                *sys.glob("class/hwmon/*/temp*_input.away"),
                *sys.glob("devices/system/cpu/cpu*/thermal_throttle/package_throttle_count*"),
            ],
            "power": [sys / f"class/powercap/intel-rapl:{n}/energy_uj" for n in (0, 1)],
            "gpu": [root / "nvml.json"],
            "network": [sys / f"class/net/{INTERFACE}/statistics", root / "proc/net/snmp"],
            "logs": [self.log],
            "node": [root / "proc/loadavg", root / "clock.json"],
            "plugin.check": [self.plugin],
            "textfile.cron": [self.textfiles / "cron.prom"],
        }.get(source, [])

    def _spoil(self, source: str, way: Way) -> None:
        with self._lock:
            for path in self._files(source):
                self._held.add(path)
                self._held.update(path.iterdir() if path.is_dir() else ())
                self._take(path, way)

    def _take(self, path: Path, way: Way) -> None:
        if way is Way.FROZEN:
            return
        if way is Way.GONE:
            path.rename(path.with_name(path.name + ".away"))
        elif path.is_symlink():  # a process: its own files are not ours to spoil
            path.rename(path.with_name(path.name + ".away"))
            if way is Way.GARBAGE:
                path.mkdir()
                (path / "stat").write_text(GARBAGE, encoding="utf-8")
        elif way is Way.DENIED:
            path.chmod(0)
        elif path.is_dir():
            shutil.copytree(path, path.with_name(path.name + ".away"))
            for each in path.iterdir():
                each.write_text(GARBAGE, encoding="utf-8")
        else:
            shutil.copy2(path, path.with_name(path.name + ".away"))
            text = "#!/bin/sh\necho garbage\nexit 7\n" if path == self.plugin else GARBAGE
            self._put(path, text)
            path.chmod(0o755)

    def _give_back(self, path: Path) -> None:
        path = path.with_name(path.name.removesuffix(".away"))
        away = path.with_name(path.name + ".away")
        with self._lock:
            if away.exists() or away.is_symlink():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                away.rename(path)
            if not path.is_symlink():
                path.chmod(0o755)
            self._held = {p for p in self._held if p != path and path not in p.parents}

    def _mend(self, path: Path, text: str) -> None:
        with self._lock:
            if path.exists():
                self._put(path, text)

    # --- What moves ------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Everything that grows on a machine, as far as nobody holds it."""
        age = time.monotonic() - self._began
        ticks, sys = int(1000 + 100 * age), self.root / "sys"
        moves = {
            self.root / "proc/stat": f"cpu  {ticks} 0 0 {ticks} 0 0 0 0\n",
            self.root / "proc/net/snmp": _snmp(int(1e6 + 2e4 * age)),
            self.textfiles / "cron.prom": "written 1\n",
        }
        for n in (0, 1):
            moves[sys / f"class/powercap/intel-rapl:{n}/energy_uj"] = str(int(1e8 + 5e7 * age))
        for name in ("rx_bytes", "tx_bytes"):
            place = sys / f"class/net/{INTERFACE}/statistics" / name
            moves[place] = str(int(1e9 + 1e6 * age))
        with self._lock:
            for path, text in moves.items():
                if path not in self._held:
                    self._put(path, text)

    def _put(self, path: Path, text: str) -> None:
        """Whole, or not at all."""
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)  # noqa: PTH105  # says that it replaces


def _snmp(sent: int) -> str:
    return f"Tcp: OutSegs RetransSegs\nTcp: {sent} 0\n"
