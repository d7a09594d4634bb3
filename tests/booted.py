"""A small Debian with a real systemd as its first process, in systemd-nspawn, without a network.

The tree is made once by debootstrap and kept below .cache; each machine runs on a copy.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed import eventually, outside

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", ROOT / ".cache")) / "dvfd-tests"
RELEASE, PYTHON = "bookworm", "3.11"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv"
WHEELS = "/wheels"
SOURCE = "/src"
HOSTS = "127.0.0.1 localhost vm\n::1 localhost vm\n"
"""minbase has none, and torchrun looks itself up."""


def need_root_and_systemd() -> None:
    """Skip, or in CI fail, where no machine can be booted."""
    lacking = [p for p in ("debootstrap", "systemd-nspawn", "nsenter") if not shutil.which(p)]
    if lacking or os.geteuid() != 0:
        message = f"needs root and systemd-container and debootstrap; lacking: {lacking}"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)


def tree() -> Path:
    """The Debian tree, made if it is not there yet: a minute and a half."""
    made = CACHE / RELEASE
    if not made.is_dir():
        part = CACHE / f"{RELEASE}.{os.getpid()}"
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [
            *outside(),
            *("unshare", "--mount"),  # one that is killed leaves no /proc mounted in there
            "debootstrap",
            "--variant=minbase",
            f"--include={PACKAGES}",
            RELEASE,
            str(part),
        ]
        try:
            subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=280)
            part.rename(made)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return made


def wheelhouse(directory: Path) -> Path:
    """dvfd and all that it needs, as wheels for the tree's Python."""
    pip = [*outside(), sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(directory), str(ROOT)], check=True)
    [wheel] = directory.glob("dvfd-*.whl")
    only = ["--only-binary=:all:", f"--python-version={PYTHON}"]
    subprocess.run([*pip, "download", *only, "-d", str(directory), str(wheel)], check=True)
    return directory


class Machine:
    """A booted machine. `run` executes in it, as root or as another user."""

    def __init__(self, root: Path, init: int) -> None:
        self.root = root
        self._init = init

    def run(
        self, *argv: str, user: str = "", check: bool = True, timeout: float = 120, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._enter(argv, user), input=text, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        if check and done.returncode:
            pytest.fail(f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def start(self, *argv: str, user: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(self._enter(argv, user), stdout=subprocess.PIPE, text=True)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def journal(self, unit: str, *options: str) -> str:
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager", *options).stdout

    def write(self, path: str, text: str) -> None:
        (self.root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path.lstrip("/")).write_text(text)

    def host_pid(self, pid: int) -> int:
        """The number by which we know the process that is *pid* in there."""
        ours = Path(f"/proc/{self._init}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                [numbers] = [x for x in status.read_text().splitlines() if x.startswith("NSpid:")]
                if numbers.split()[-1] == str(pid) and (
                    (status.parent / "ns/pid").readlink() == ours
                ):
                    return int(status.parent.name)
        raise ProcessLookupError(pid)

    def _enter(self, argv: tuple[str, ...], user: str) -> list[str]:
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", "-t", str(self._init), "-a", "env", "-i", path, *become, *argv]


@contextlib.contextmanager
def machine(directory: Path, *binds: str) -> Iterator[Machine]:
    """Boot a copy of the tree; it ends with the test, and with the tester if that is killed."""
    root = directory / "machine"
    subprocess.run(["cp", "-a", "--reflink=auto", str(tree()), str(root)], check=True)
    (root / "etc/hosts").write_text(HOSTS)
    with (directory / "console").open("wb") as console:
        nspawn = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", "systemd-nspawn", "--quiet", "-D", str(root), "--boot",
             "--register=no", "--keep-unit", "--private-network", "--hostname=vm",
             f"--machine=dvfd{os.getpid()}",
             "--system-call-filter=adjtimex clock_adjtime",  # a machine of one's own may read it
             *(f"--bind-ro={bind}" for bind in binds)],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
        )  # fmt: skip
    try:
        init = eventually(lambda: _init(nspawn, directory / "console"), 60)
        booted = Machine(root, init)
        eventually(lambda: _is_up(booted), 150, 0.3)  # 2 s where nobody else works
        yield booted
    finally:
        nspawn.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            nspawn.wait(10)
        nspawn.kill()
        nspawn.wait()
        shutil.rmtree(root, ignore_errors=True)


def _init(nspawn: subprocess.Popen[bytes], console: Path) -> int:
    if nspawn.poll() is not None:
        pytest.fail(f"systemd-nspawn ended: {console.read_text(errors='replace')[-2000:]}")
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
    for child in children:  # the first is a helper that soon ends
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return 0


def _is_up(booted: Machine) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        said = booted.run("systemctl", "is-system-running", check=False, timeout=20).stdout.strip()
        return said in {"running", "degraded"}
    return False


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON that a command printed."""
    return dict(json.loads(done.stdout))
