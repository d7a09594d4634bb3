"""A calibration is used where it was measured, and told in every other case."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_calibration import AT, document, kept, node, put, seen, using
from hypothesis import given
from hypothesis import strategies as st

from dvfd import calibration
from dvfd.calibration import Conditions
from dvfd.catalogue import load
from dvfd.config import Config, parse
from dvfd.config import load as load_config
from dvfd.errors import DvfdError, ProbeError
from dvfd.judge import judge
from dvfd.sinks import page
from dvfd.state import Sources, State
from dvfd.status import document as status


@pytest.fixture
def here(tmp_path: Path) -> Conditions:
    return seen(node(tmp_path / "node"))


@pytest.fixture
def file(tmp_path: Path, here: Conditions) -> Path:
    return kept(tmp_path / "calibration.toml", here)


# --- Where it holds ---------------------------------------------------------------------------


def test_what_was_measured_here_fills_what_the_configuration_leaves_open(
    file: Path, here: Conditions
) -> None:
    config = using(file, here)
    assert config.profile.expected_throughput == 270.25
    assert config.profile.single_process_throughput == 62.5
    assert config.calibrated.notices == ()


def test_what_the_configuration_says_itself_stands(file: Path, here: Conditions) -> None:
    config = using(file, here, "expected_throughput = 300\n")
    assert config.profile.expected_throughput == 300
    assert config.profile.single_process_throughput == 62.5


def test_values_count_for_the_profiles_hash_wherever_they_stand(
    file: Path, here: Conditions
) -> None:
    said = "[profile]\nexpected_throughput = 270.25\nsingle_process_throughput = 62.5\n"
    assert using(file, here).profile_hash == parse(said).profile_hash != Config().profile_hash


def test_without_a_calibration_nothing_is_looked_at(tmp_path: Path) -> None:
    put(tmp_path / "dvfd.toml", "[profile]\nexpected_throughput = 5\n")
    assert load_config(tmp_path / "dvfd.toml").calibrated.notices == ()


def test_a_configuration_that_names_one_is_loaded_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Conditions
) -> None:
    monkeypatch.setattr(calibration, "_here", lambda _config: here)
    path = kept(tmp_path / "c.toml", here, at=datetime.now(UTC))
    put(tmp_path / "dvfd.toml", f'[profile]\ncalibration = "{path}"\n')
    assert load_config(tmp_path / "dvfd.toml").profile.expected_throughput == 270.25


# --- Where it does not ------------------------------------------------------------------------


OTHERWISE = {
    "cpu": "Xeon 6980P",
    "cores": 15,
    "memory_gib": 64.0,
    "numa_nodes": 2,
    "accelerator": "gpu",
    "gpus": "4 x H100",
    "backend": "nccl",
    "nodes": 2,
    "processes_per_node": 8,
    "rank_cores": "0-3 4-7",
    "torch": "2.14.0",
}


def test_every_condition_is_tried() -> None:
    assert set(OTHERWISE) == set(Conditions.__dataclass_fields__)


@pytest.mark.parametrize(("key", "value"), OTHERWISE.items())
def test_under_any_other_condition_it_is_refused_by_name(
    file: Path, here: Conditions, key: str, value: Any
) -> None:
    config = using(file, replace(here, **{key: value}))
    assert config.profile.expected_throughput is None
    assert config.profile.single_process_throughput is None
    assert f"{key} was {getattr(here, key)}, is {value}" in config.calibrated.refused
    assert config.calibrated.notices[0].startswith(config.calibrated.refused)


def test_criteria_on_it_are_unknown_and_say_that_it_was_refused(
    file: Path, here: Conditions
) -> None:
    catalogue = load(using(file, replace(here, cores=15)))
    result = judge(catalogue.criteria["daily.throughput"], [], at=0.0)
    assert result.verdict == "UNKNOWN"
    assert "profile.expected_throughput is not set: the calibration" in result.reason
    assert "cores was 16, is 15" in result.reason


def test_status_and_page_say_that_it_was_refused(file: Path, here: Conditions) -> None:
    config = using(file, replace(here, cores=15))
    held = State(config, load(config), Sources(), clock=FakeClock())
    snapshot = held.snapshot()
    assert "cores was 16, is 15" in status(snapshot, running=True)["notices"][0]
    assert "cores was 16, is 15" in page.render(snapshot)


DAMAGE = {
    "absent": None,
    "empty": "",
    "torn": "[profile]\nexpected_throughput = 2",
    "not TOML": "expected_throughput: 270\n",
    "not text": b"\xff\xfe\x00",
    "no calibration": "[profile]\nexpected_throughput = 270\n",
    "another schema": "SCHEMA",
    "too large": "# " + "x" * (1 << 20),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_and_the_configuration_still_loads(
    file: Path, here: Conditions, damage: str
) -> None:
    text = DAMAGE[damage]
    if text is None:
        file.unlink()
    elif isinstance(text, bytes):
        file.write_bytes(text)
    elif text == "SCHEMA":
        file.write_text(file.read_text().replace("schema = 1", "schema = 2"))
    else:
        file.write_text(text)
    config = using(file, here)
    assert config.profile.expected_throughput is None
    assert "is refused" in config.calibrated.refused


@pytest.mark.parametrize("cut", range(0, 1200, 97))
def test_a_file_that_was_cut_anywhere_gives_no_value(
    file: Path, here: Conditions, cut: int
) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    config = using(file, here)
    assert cut >= len(whole) or config.calibrated.notices


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "-270.25", "0", "0.0", "1e13", "true", '"270"', "[270]"]
)
def test_a_value_that_cannot_be_is_refused(file: Path, here: Conditions, value: str) -> None:
    file.write_text(file.read_text().replace("= 270.25", f"= {value}"))
    config = using(file, here)
    assert config.profile.expected_throughput is None
    assert "profile.expected_throughput is " in config.calibrated.refused


def test_a_calibration_cannot_say_anything_else_of_the_profile(
    file: Path, here: Conditions
) -> None:
    file.write_text(file.read_text().replace("[profile]", "[profile]\nlink_gbps = 1"))
    assert "profile.link_gbps: a calibration says" in using(file, here).calibrated.refused


def test_one_from_the_future_is_refused(tmp_path: Path, here: Conditions) -> None:
    path = kept(tmp_path / "c.toml", here, at=AT + timedelta(days=3))
    assert "in the future" in using(path, here).calibrated.refused


def test_conditions_that_cannot_be_read_refuse_it(file: Path) -> None:
    def blind(_config: Config) -> Conditions:
        raise ProbeError("which torch is there is not known")

    config = parse(f'[profile]\ncalibration = "{file}"\n')
    taken = calibration.applied(config, here=blind, now=AT.timestamp())
    assert "which torch is there is not known" in taken.calibrated.refused


# --- What is told and used --------------------------------------------------------------------


def test_an_edit_by_hand_is_used_and_named(file: Path, here: Conditions) -> None:
    file.write_text(file.read_text().replace("= 270.25", "= 260"))
    config = using(file, here)
    assert config.profile.expected_throughput == 260
    assert "edited by hand" in config.calibrated.notices[0]


def test_a_comment_is_no_edit(file: Path, here: Conditions) -> None:
    file.write_text(f"{file.read_text()}\n# reviewed by Bea\n")
    assert using(file, here).calibrated.notices == ()


def test_a_hash_that_is_not_of_its_conditions_holds_nowhere(file: Path, here: Conditions) -> None:
    file.write_text(re.sub(r'configuration = "\w', 'configuration = "x', file.read_text()))
    assert "its hash is not that of its own conditions" in using(file, here).calibrated.refused


@pytest.mark.parametrize("key", ["kernel", "dvfd"])
def test_another_kernel_and_another_dvfd_are_told_only(
    tmp_path: Path, here: Conditions, key: str
) -> None:
    path = kept(tmp_path / "c.toml", here, besides=calibration.besides() | {key: "0.0.1"})
    config = using(path, here)
    assert config.profile.expected_throughput == 270.25
    assert f"measured with {key} 0.0.1, here is" in config.calibrated.notices[0]


def test_a_job_that_is_not_the_expected_one_is_told(file: Path, here: Conditions) -> None:
    told = using(file, here, '[jobs]\nexpected = ["bert"]\n').calibrated.notices
    assert "measured of job gpt, [jobs] expects bert" in told[0]
    assert not using(file, here, '[jobs]\nexpected = ["gpt"]\n').calibrated.notices


# --- Conditions -------------------------------------------------------------------------------


def test_conditions_are_read_from_the_node(here: Conditions) -> None:
    assert (here.cpu, here.cores, here.memory_gib, here.numa_nodes) == ("Xeon 8480", 16, 128.0, 1)


@pytest.mark.parametrize(
    ("total", "installed"), [(7.6, 8), (15.5, 16), (62.7, 64), (125.4, 128), (503.5, 512)]
)
def test_what_a_kernel_keeps_for_itself_does_not_change_the_memory(
    tmp_path: Path, total: float, installed: float
) -> None:
    first = seen(node(tmp_path / "a", gib=total))
    second = seen(node(tmp_path / "b", gib=total - 0.02))
    assert first.memory_gib == second.memory_gib == installed


def test_a_module_less_is_another_memory(tmp_path: Path) -> None:
    assert seen(node(tmp_path, gib=125.6 - 16)).memory_gib == 112.0


def test_gpus_are_named_by_the_driver(tmp_path: Path) -> None:
    root = node(tmp_path)
    for number in range(2):
        put(root / f"proc/driver/nvidia/gpus/{number}/information", "Model: \t H100\nIRQ: 5\n")
    assert seen(root).gpus == "2 x H100"


def test_the_torch_of_another_interpreter_is_asked_of_it(tmp_path: Path) -> None:
    python = tmp_path / "python"
    put(python, "#!/bin/sh\necho 2.99.1\n")
    python.chmod(0o755)
    assert calibration.torch_of(python) == "2.99.1"


@pytest.mark.parametrize("script", ["#!/bin/sh\necho no torch >&2\nexit 1\n", None])
def test_an_interpreter_that_does_not_say_is_an_error(tmp_path: Path, script: str | None) -> None:
    python = tmp_path / "python"
    if script:
        put(python, script)
        python.chmod(0o755)
    with pytest.raises(ProbeError):
        calibration.torch_of(python)


# --- Writing ----------------------------------------------------------------------------------


def test_what_is_there_is_not_written_over(file: Path, here: Conditions) -> None:
    before = file.read_bytes()
    with pytest.raises(DvfdError, match="is there already"):
        calibration.write(file, document(here), "", now=AT)
    assert file.read_bytes() == before


def test_a_file_that_appears_meanwhile_is_not_written_over(
    file: Path, here: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "may_write", lambda _path, *, replace: None)
    before = file.read_bytes()
    with pytest.raises(DvfdError, match="appeared meanwhile"):
        calibration.write(file, document(here), "Another.", now=AT)
    assert file.read_bytes() == before
    assert not list(file.parent.glob(".calibration*"))


def test_a_replaced_one_is_kept_and_the_new_one_names_it(file: Path, here: Conditions) -> None:
    before = file.read_bytes()
    old = calibration.write(file, document(here), "New.", reason="new memory", now=AT)
    assert old is not None
    assert (old.name, old.read_bytes()) == ("calibration.toml.replaced-20260301T120000Z", before)
    told = tomllib.loads(file.read_text())["calibration"]["replaced"]
    assert (told["by"], told["reason"], told["file"]) == ("anna", "new memory", old.name)
    assert told["sha256"] == hashlib.sha256(before).hexdigest()
    assert using(file, here).calibrated.notices == ()


def test_nothing_of_a_failure_is_left(tmp_path: Path, here: Conditions) -> None:
    broken = document(here) | {"profile": {}}
    broken["calibration"]["schema"] = 99
    with pytest.raises(ProbeError):
        calibration.write(tmp_path / "c.toml", broken, "", now=AT)
    assert [p.name for p in tmp_path.iterdir()] == ["node"]


@pytest.mark.parametrize("where", ["nowhere/c.toml", "."])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, where: str) -> None:
    with pytest.raises(DvfdError):
        calibration.may_write(tmp_path / where, replace=False)


def test_nothing_can_be_replaced_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="nothing to replace"):
        calibration.may_write(tmp_path / "c.toml", replace=True)


WORDS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), WORDS, st.floats(allow_nan=False))
KEYS = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)


@pytest.mark.slow
@given(
    st.dictionaries(
        KEYS,
        st.one_of(
            PLAIN,
            st.lists(WORDS),
            st.dictionaries(KEYS, PLAIN),
            st.lists(st.dictionaries(KEYS, PLAIN), min_size=1),
        ),
    )
)
def test_what_is_written_is_read_again(table: dict[str, Any]) -> None:
    document = {"profile": {"a": 1.5}, "calibration": table}
    assert tomllib.loads(calibration.written(document, "A head\nof two lines.")) == document


def test_infinite_figures_are_told_as_such() -> None:
    assert math.isinf(tomllib.loads(calibration.written({"a": math.inf}))["a"])


def test_a_baseline_of_the_reference_job_is_told_to_be_that(
    tmp_path: Path, here: Conditions
) -> None:
    config = using(kept(tmp_path / "c.toml", here, job="reference"), here)
    assert config.profile.expected_throughput == 270.25
    assert "measured of the reference job" in config.calibrated.notices[0]
