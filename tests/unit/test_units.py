"""The units: systemd accepts them, they expose little, and their numbers fit the daemon's."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from testbed import need

from dvfd import daemon
from dvfd.config import Config, data_dir
from dvfd.notify import beat, watchdog_interval

UNITS = ("dvfd.service", "dvfd-ingest.socket", "dvfd-drill@.service")
DROP_INS = sorted((data_dir("systemd") / "drop-ins").glob("*.conf"))


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units in a directory of their own, with programs that exist here."""
    for name in UNITS:
        text = (data_dir("systemd") / name).read_text(encoding="utf-8")
        here = text.replace("/opt/dvfd/bin/dvfd run", f"{sys.executable} -m dvfd run")
        (tmp_path / name).write_text(here.replace("/opt/dvfd/bin/python", sys.executable))
    return tmp_path


def analyse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [need("systemd-analyze"), *arguments], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def with_drop_in(units: Path, drop_in: Path) -> None:
    (units / "dvfd.service.d").mkdir(exist_ok=True)
    shutil.copy(drop_in, units / "dvfd.service.d")


def directives(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (data_dir("systemd") / unit).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Z]\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def seconds(name: str) -> float:
    return float(directives("dvfd.service")[name][0])


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_with_a_unit(units: Path, unit: str) -> None:
    done = analyse("verify", "--man=no", str(units / unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda p: p.stem)
def test_systemd_finds_nothing_wrong_with_a_drop_in(units: Path, drop_in: Path) -> None:
    with_drop_in(units, drop_in)
    done = analyse("verify", "--man=no", str(units / "dvfd.service"))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_misspelt_directive_would_be_found(units: Path) -> None:
    with (units / "dvfd.service").open("a") as unit:
        unit.write("[Service]\nPrivateTmpp=yes\n")
    assert "PrivateTmpp" in analyse("verify", "--man=no", str(units / "dvfd.service")).stderr


def test_the_base_unit_is_exposed_by_two_at_most(units: Path) -> None:
    done = analyse("security", "--offline=true", "--threshold=20", str(units / "dvfd.service"))
    assert done.returncode == 0, done.stdout[-300:]


def test_a_looser_unit_would_be_refused(units: Path) -> None:
    (units / "dvfd.service.d").mkdir()
    (units / "dvfd.service.d" / "loose.conf").write_text(
        "[Service]\nUser=root\nPrivateDevices=no\n"
    )
    done = analyse("security", "--offline=true", "--threshold=20", str(units / "dvfd.service"))
    assert done.returncode != 0


def test_the_watchdog_waits_for_many_signs_of_life() -> None:
    assert seconds("WatchdogSec") >= 10 * daemon.TICK


def test_systemd_says_how_long_the_watchdog_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", str(int(seconds("WatchdogSec") * 1e6)))
    assert watchdog_interval() == seconds("WatchdogSec") / 2


@pytest.mark.parametrize(("wanted", "every"), [("", 1.0), ("1000000", 0.5), ("30000000", 1.0)])
def test_signs_of_life_come_as_often_as_systemd_wants(monkeypatch, wanted, every):
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", wanted)

    assert beat(1.0) == every


def test_a_crash_loop_never_ends_in_giving_up() -> None:
    restarts = seconds("StartLimitIntervalSec") / seconds("RestartSec")
    assert restarts < seconds("StartLimitBurst")


def test_a_mistake_in_the_configuration_is_not_tried_again() -> None:
    from dvfd.cli import CONFIG_ERROR

    assert directives("dvfd.service")["RestartPreventExitStatus"] == [str(CONFIG_ERROR)]


def test_every_rank_that_is_allowed_finds_a_descriptor() -> None:
    jobs = Config().jobs
    assert seconds("LimitNOFILE") > 2 * jobs.limit * jobs.ranks_limit


def test_the_verifier_fits_into_the_memory_limit() -> None:
    [limit] = directives("dvfd.service")["MemoryMax"]
    assert int(limit.removesuffix("G")) * 2**30 > Config().checkpoints.memory_bytes


def test_the_unit_knows_the_socket_that_reporters_look_for() -> None:
    from dvfd.telemetry.endpoint import BACKLOG

    socket = directives("dvfd-ingest.socket")
    assert socket["ListenSequentialPacket"] == ["/run/dvfd/ingest.sock"]
    assert socket["Backlog"] == [str(BACKLOG)]


def test_the_directory_of_the_socket_outlives_the_daemon() -> None:
    assert directives("dvfd.service")["RuntimeDirectoryPreserve"] == ["yes"]


def test_what_the_installer_imports_is_there() -> None:
    script = (Path(__file__).parents[2] / "scripts" / "install").read_text(encoding="utf-8")
    for module, name in re.findall(r"from (dvfd\S+) import (\w+)", script):
        assert hasattr(importlib.import_module(module), name)
    assert "from dvfd" in script
