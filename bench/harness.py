"""What the measurements of the whole daemon share: the tests' node, and what /proc says of it.

The node, the Alertmanager and the reference job are those of the system tests, imported from
tests/, so that what is measured is what is tested.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from bench.record import Figure, document, keep, leave, tell

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
node = importlib.import_module("node")
testbed = importlib.import_module("testbed")

# An installed dvfd is compiled; a container image may say that nothing is to be.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

TICKS = os.sysconf("SC_CLK_TCK")

CONFIG = """
[node]
name = "node-under-test"
[http]
port = 0
[alerting]
urls = {urls}
storm_count = 1000  # trials follow each other faster than faults do: each is told by itself
"""
"""As delivered otherwise: 5 s sampling, every probe, no log files named."""


UNDISCIPLINED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""


def clock_override() -> str:
    """For where nothing disciplines the machine's clock: that would be told, and be true."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, all zero: read only
    ctypes.CDLL(None).adjtimex(buffer)
    state = int.from_bytes(buffer.raw[40:44], sys.byteorder)
    if not state & UNDISCIPLINED:
        return ""
    return '[override."live.clock"]\nlimit = 0\nreason = "nothing disciplines the clock here"\n'


def build_node(directory: Path, urls: Sequence[str] = ()) -> Any:
    """A node of the tests with the settings above, not yet started."""
    built = node.Node(directory, list(urls))
    listed = ", ".join(f'"{url}"' for url in urls)
    (directory / "dvfd.toml").write_text(CONFIG.format(urls=f"[{listed}]"), encoding="utf-8")
    return built


def start_ready(built: Any) -> float:
    """Start the daemon as systemd does; seconds from before its fork until READY=1 came."""
    path = built.directory / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(30)
        environment = built.environment | {"NOTIFY_SOCKET": str(path)}
        command = [sys.executable, "-m", "dvfd", "run"]
        with (built.directory / "daemon.log").open("ab") as log:
            began = time.monotonic()
            built.daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while b"READY=1" not in channel.recv(4096):
            pass
        seconds = time.monotonic() - began
    path.unlink()  # a full queue that nobody reads would hold the daemon up
    return seconds


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time so far: of the process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    own, children = fields[11:13], fields[13:15]
    return sum(map(int, own)) / TICKS, sum(map(int, children)) / TICKS


def status(pid: int, key: str) -> int:
    """A number of /proc/PID/status: KiB for VmRSS and VmHWM, a count for Threads."""
    for text in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if text.startswith(f"{key}:"):
            return int(text.split()[1])
    raise LookupError(key)


def descriptors(pid: int) -> int:
    """Open file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def written(pid: int | str) -> dict[str, int]:
    """Bytes that a process has handed to the kernel (wchar), and bound for a disk (write_bytes)."""
    told = Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines()
    pairs = (text.split(": ") for text in told)
    return {key: int(value) for key, value in pairs if key in {"wchar", "write_bytes"}}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least *share* of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def chosen(what: str | None, **given: float | str) -> argparse.Namespace:
    """The command line of a measurement, and the load average that it found.

    *given* are further options and their defaults.
    """
    parser = argparse.ArgumentParser(
        description=what, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="a smoke run; its figures mean little")
    parser.add_argument("--keep", action="store_true", help="keep a short run's figures too")
    for name, default in given.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.set_defaults(load=os.getloadavg())
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _on_term)
    return options


def _on_term(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leave through every context: what was started is ended."""
    raise SystemExit("ended by a signal")


def finish(
    name: str, options: argparse.Namespace, figures: Sequence[Figure], raw: Mapping[str, Any]
) -> None:
    """Keep what a full run found; of a short one print it, and leave it where bench.all asks."""
    load = {"load_at_begin": options.load, "load_at_end": os.getloadavg()}
    if options.keep or not options.short:
        keep(name, figures, raw={**raw, **load})
        return
    leave(document(name, figures, {**raw, **load}))
    tell(figures)
