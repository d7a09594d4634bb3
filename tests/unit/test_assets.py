"""Exporting the packaged files: the package is followed, what a site changed is spared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dvfd.assets import LIST, Action, carry_out, packaged, plan
from dvfd.cli.assets import KINDS, assets
from dvfd.config import Config, data_dir, load
from dvfd.errors import DvfdError

OLD, NEW = {"a/unit": b"old\n", "a/same": b"same\n"}, {"a/unit": b"new\n", "a/same": b"same\n"}


def export(directory: Path, files: dict[str, bytes], *, force: bool = False) -> list[Action]:
    steps = plan(directory, files, force=force)
    carry_out(directory, steps)
    return [step.action for step in steps]


def test_the_first_export_writes_everything(tmp_path: Path) -> None:
    assert export(tmp_path, OLD) == [Action.WRITE, Action.WRITE]
    assert (tmp_path / "a/unit").read_bytes() == b"old\n"


def test_a_second_export_touches_nothing(tmp_path: Path) -> None:
    export(tmp_path, OLD)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}

    assert export(tmp_path, OLD) == [Action.NOTHING, Action.NOTHING]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_file_that_nobody_changed_follows_the_package(tmp_path: Path) -> None:
    export(tmp_path, OLD)
    assert export(tmp_path, NEW) == [Action.UPDATE, Action.NOTHING]
    assert (tmp_path / "a/unit").read_bytes() == b"new\n"


def test_a_changed_file_is_kept_until_it_is_forced(tmp_path: Path) -> None:
    export(tmp_path, OLD)
    (tmp_path / "a/unit").write_bytes(b"theirs\n")

    assert export(tmp_path, NEW) == [Action.KEEP, Action.NOTHING]
    assert (tmp_path / "a/unit").read_bytes() == b"theirs\n"
    assert export(tmp_path, NEW, force=True) == [Action.OVERWRITE, Action.NOTHING]
    assert (tmp_path / "a/unit").read_bytes() == b"new\n"


def test_a_file_that_was_there_before_us_is_theirs(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/unit").write_bytes(b"theirs\n")
    assert export(tmp_path, NEW) == [Action.KEEP, Action.WRITE]


def test_with_a_damaged_list_every_difference_counts_as_theirs(tmp_path: Path) -> None:
    export(tmp_path, OLD)
    (tmp_path / LIST).write_text("[")
    assert export(tmp_path, NEW) == [Action.KEEP, Action.NOTHING]


def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/unit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DvfdError, match="no plain file"):
        plan(tmp_path, OLD)


def test_units_rules_and_dashboards_are_in_the_package() -> None:
    files = packaged()
    assert {"systemd/dvfd.service", "systemd/drop-ins/gpu.conf", "systemd/dvfd.toml"} <= set(files)
    assert {name.partition("/")[0] for name in files} == {*KINDS}


def test_copies_for_a_job_never_take_the_name_of_a_framework() -> None:
    copies = {name for name in packaged() if name.startswith("job/")}
    assert {"job/dvfd_reporter.py", "job/dvfd_gradient_hook.py"} <= copies
    assert all(name.startswith("job/dvfd_") for name in copies)


def test_one_kind_of_file_can_be_exported_alone(tmp_path: Path) -> None:
    done = CliRunner().invoke(assets, ["export", "--only", "job", str(tmp_path)])
    assert done.exit_code == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["job"]


def test_the_example_configuration_is_a_valid_one() -> None:
    assert isinstance(load(data_dir("systemd") / "dvfd.toml"), Config)


def test_the_example_is_still_valid_with_everything_that_it_offers(tmp_path: Path) -> None:
    example = (data_dir("systemd") / "dvfd.toml").read_text(encoding="utf-8")
    (tmp_path / "dvfd.toml").write_text(
        re.sub(r"^#(?=[\[a-z_]+\W)(?=.*[=\]])", "", example, flags=re.MULTILINE)
    )
    settings = load(tmp_path / "dvfd.toml")
    assert [log.name for log in settings.logs] == ["training", "kernel"]
    assert settings.alerting.password_credential == "alertmanager-password"
