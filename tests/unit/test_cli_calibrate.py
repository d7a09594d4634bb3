"""`dvfd calibrate`: what it refuses before any work, what it writes, and its exit codes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes_calibration import node, seen

from dvfd import calibration, cli
from dvfd.cli import here as surroundings
from dvfd.drills import calibrate, conduct
from dvfd.drills.calibrate import Found
from dvfd.drills.trial import Throughput
from dvfd.errors import ToolError

Call = Callable[..., tuple[int, str, str]]

MEASURED = Throughput(
    median=270.123456789, low=260.0, high=280.0, windows=15, steps=100, seconds=30.0, processes=4,
    job="gpt", command=("torchrun", "t.py"),
)  # fmt: skip

WELL = Found(
    MEASURED, None, {"core": [{"cpu": 0, "seconds": 1.23456789}]}, (), ("one process: it broke",)
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """A node that measures well at once; what was asked of it. `measured[:0] = [x]` changes it."""
    answers: list[Any] = [WELL]
    here = seen(node(tmp_path / "node"))

    def measure(_task: Any, _wish: Any) -> Found:
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    monkeypatch.setattr("dvfd.log.setup", lambda _level: None)  # for good, in this process
    monkeypatch.setattr(calibrate, "measure", measure)
    monkeypatch.setattr(calibration, "conditions", lambda _config, _torch: here)
    monkeypatch.setattr(calibration, "torch_of", lambda _python: "2.13.0")
    monkeypatch.setattr(surroundings, "training_here", lambda: "")
    monkeypatch.setattr(conduct, "LOCK", f"\0dvfd-test-{tmp_path}"[:100])
    monkeypatch.setenv("DVFD_CONFIG", str(tmp_path / "dvfd.toml"))
    (tmp_path / "dvfd.toml").write_text("")
    return answers


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], measured: list[Any]
) -> Call:
    def typed(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dvfd", "calibrate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert "it measured" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    return typed


def test_what_was_measured_is_written_for_review(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "c.toml"
    code, out, err = call("-o", str(file), "--by", "anna", "--", "torchrun", "t.py")
    assert code == 0
    assert out == (
        "expected_throughput = 270.123 samples/s (95 % confidence: 260 to 280, 15 windows)\n"
    )
    assert "left out: one process: it broke" in err
    assert f'[profile] calibration = "{file}"' in err
    told = tomllib.loads(file.read_text())
    assert told["profile"] == {"expected_throughput": 270.123}
    assert told["calibration"]["by"] == "anna"
    assert told["calibration"]["left_out"] == ["one process: it broke"]
    assert told["calibration"]["expected_throughput"]["command"] == ["torchrun", "t.py"]
    assert told["calibration"]["core"] == [{"cpu": 0, "seconds": 1.23457}]
    assert told["calibration"]["checksum"] == calibration.checksum(told)


def test_it_never_touches_the_configuration(tmp_path: Path, call: Call) -> None:
    call("-o", str(tmp_path / "c.toml"))
    assert (tmp_path / "dvfd.toml").read_text() == ""


def test_a_file_that_is_there_is_refused_before_any_work(
    tmp_path: Path, call: Call, measured: list[Any]
) -> None:
    measured[0] = AssertionError("it measured")
    (tmp_path / "c.toml").write_text("accepted")
    code, _, err = call("-o", str(tmp_path / "c.toml"))
    assert code == 3
    assert "--replace --by NAME --reason TEXT" in err
    assert (tmp_path / "c.toml").read_text() == "accepted"


@pytest.mark.parametrize(
    "words",
    [
        ["--replace"],
        ["--replace", "--by", "anna"],
        ["--replace", "--reason", "new memory"],
        ["--replace", "--by", " ", "--reason", "new memory"],
        ["--reason", "new memory"],
        ["--seconds", "1"],
    ],
)
def test_a_replacement_without_a_name_and_a_reason_is_refused(
    tmp_path: Path, call: Call, measured: list[Any], words: list[str]
) -> None:
    measured[0] = AssertionError("it measured")
    (tmp_path / "c.toml").write_text("accepted")
    code, _, err = call("-o", str(tmp_path / "c.toml"), *words)
    assert code == 3, err
    assert (tmp_path / "c.toml").read_text() == "accepted"


def test_a_replaced_one_is_kept_beside_and_named(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "c.toml"
    file.write_text("accepted")
    code, _, err = call(
        "-o", str(file), "--replace", "--by", "anna", "--reason", "new memory modules"
    )
    assert code == 0
    [kept] = tmp_path.glob("c.toml.replaced-*")
    assert kept.read_text() == "accepted"
    assert str(kept) in err
    replaced = tomllib.loads(file.read_text())["calibration"]["replaced"]
    assert (replaced["by"], replaced["reason"]) == ("anna", "new memory modules")


def test_an_ill_node_is_no_baseline(tmp_path: Path, call: Call, measured: list[Any]) -> None:
    measured[0] = Found(ill=("processor 1: FFT gave other bits",))
    code, out, err = call("-o", str(tmp_path / "c.toml"))
    assert (code, out) == (2, "")
    assert "processor 1: FFT gave other bits" in err
    assert not (tmp_path / "c.toml").exists()


def test_without_a_throughput_nothing_is_written(
    tmp_path: Path, call: Call, measured: list[Any]
) -> None:
    measured[0] = ToolError("the job failed: exit code 1: no train.py")
    code, _, err = call("-o", str(tmp_path / "c.toml"))
    assert code == 3
    assert "no train.py" in err
    assert not (tmp_path / "c.toml").exists()


def test_beside_a_training_job_it_is_refused_unless_forced(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "training_here", lambda: "train.py: rank 0 (pid 7)")
    code, _, err = call("-o", str(tmp_path / "c.toml"))
    assert code == 3
    assert "train.py: rank 0 (pid 7)" in err
    assert not (tmp_path / "c.toml").exists()
    assert call("-o", str(tmp_path / "c.toml"), "--force")[0] == 0


def test_beside_another_drill_it_is_refused(tmp_path: Path, call: Call) -> None:
    with conduct.alone():
        code, _, err = call("-o", str(tmp_path / "c.toml"))
    assert code == 3
    assert "another drill runs" in err


def test_a_dry_run_says_what_and_for_how_long_and_does_nothing(
    tmp_path: Path, call: Call, measured: list[Any]
) -> None:
    measured[0] = AssertionError("it measured")
    code, out, _ = call("-o", str(tmp_path / "c.toml"), "--dry-run", "--", "torchrun", "t.py")
    assert code == 0
    assert "30 s of: torchrun t.py" in out
    assert "about " in out.splitlines()[-1]
    assert not (tmp_path / "c.toml").exists()


def test_a_dry_run_refuses_what_the_doing_would(tmp_path: Path, call: Call) -> None:
    (tmp_path / "c.toml").write_text("accepted")
    assert call("-o", str(tmp_path / "c.toml"), "--dry-run")[0] == 3


@pytest.mark.parametrize("file", ["nowhere/c.toml", "node"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, call: Call, measured: list[Any], file: str
) -> None:
    measured[0] = AssertionError("it measured")
    assert call("-o", str(tmp_path / file))[0] == 3


def test_a_broken_configuration_is_its_own_exit_code(tmp_path: Path, call: Call) -> None:
    (tmp_path / "dvfd.toml").write_text("[profil]\n")
    assert call("-o", str(tmp_path / "c.toml"))[0] == 78


def test_config_check_names_a_refused_calibration_and_is_well(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.toml"
    (tmp_path / "dvfd.toml").write_text(f'[profile]\ncalibration = "{absent}"\n')
    monkeypatch.setattr("sys.argv", ["dvfd", "config", "check"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert (ended.value.code or 0) == 0
    assert f"notice: the calibration {absent} is refused: cannot be read" in said.out
