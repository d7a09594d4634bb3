"""How a training is started: the order that is left for systemd, and the supervisor's line."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from pathlib import Path

import pytest

from dvfd.drills import order
from dvfd.errors import DvfdError
from dvfd.runs import start as starting
from dvfd.runs.hold import parse
from dvfd.runs.start import Start
from dvfd.shell import Output

RUN = "phase1_20261125T200000Z_ab12"
START = Start(
    run=RUN, argv=("torchrun", "--nproc_per_node=4", "train.py"), control=Path("/c.sock"),
    directory="/work", environment={"PATH": "/bin", "TOKEN": "x", "NOTIFY_SOCKET": "/n"},
    grace=90.0, only=True,
)  # fmt: skip


@pytest.fixture
def said(monkeypatch) -> list[tuple[str, ...]]:
    """What systemctl was told; it agrees to all."""
    told: list[tuple[str, ...]] = []

    def systemctl(*words: str, **_: float) -> Output:
        told.append(words)
        return Output(0, "", "", 0.0)

    monkeypatch.setattr(starting, "_systemctl", systemctl)
    return told


def test_the_supervisor_understands_the_line_that_is_made_for_it() -> None:
    found = parse(START.holder("--unit=u")[4:])
    assert (found.run, found.command, found.control) == (RUN, START.argv, Path("/c.sock"))
    assert (found.grace, found.only, found.unit, found.log) == (90.0, True, "u", None)


def test_a_unit_gets_an_order_with_the_environment_and_only_its_owner_may_read_it(
    said, tmp_path: Path
) -> None:
    starting.start_unit(START, tmp_path)
    left = order.read(RUN, tmp_path)
    assert left.argv == START.holder(f"--unit=dvfd-drill@{RUN}.service")
    assert left.user == pwd.getpwuid(os.geteuid()).pw_name
    assert left.environment == {"PATH": "/bin", "TOKEN": "x"}  # the socket is of another unit
    assert stat.S_IMODE(order.place(RUN, tmp_path).stat().st_mode) == 0o600
    assert said == [("start", f"dvfd-drill@{RUN}.service")]


def test_an_order_that_was_carried_out_is_removed(said, tmp_path: Path) -> None:
    starting.start_unit(START, tmp_path)
    starting.forget(RUN, tmp_path)
    starting.forget(RUN, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_systemd_says_against_it_is_told(monkeypatch, tmp_path: Path) -> None:
    refusal = Output(1, "", "Unit is masked.", 0.0)
    monkeypatch.setattr(starting, "_systemctl", lambda *_, **__: refusal)
    with pytest.raises(DvfdError, match="Unit is masked"):
        starting.start_unit(START, tmp_path)


def test_where_systemd_is_not_the_system_manager_no_unit_is_asked_for(said, tmp_path) -> None:
    assert not starting.by_systemd(tmp_path / "nowhere")
    assert not said


@pytest.mark.parametrize(("uid", "may"), [(0, True), (1000, False)])
def test_only_root_may_have_a_unit_hold_the_training(
    uid: int, may: bool, said, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert starting.by_systemd(tmp_path) is may


def test_the_supervisor_runs_in_the_interpreter_of_the_command() -> None:
    assert START.holder()[:4] == (sys.executable, "-P", "-m", "dvfd.runs.hold")
