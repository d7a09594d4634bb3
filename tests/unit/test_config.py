"""The configuration: defaults that work, and every mistake said at once."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dvfd.config import Config, data_dir, load, parse, state_dir
from dvfd.errors import ConfigError, DvfdError


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "dvfd.toml")
    return list(caught.value.problems)


def test_no_file_is_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVFD_CONFIG", raising=False)
    monkeypatch.setattr("dvfd.config.DEFAULT_CONFIG", Path("/nonexistent/dvfd.toml"))
    assert load().alerting.urls == ()


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "dvfd.toml")


def test_all_mistakes_come_at_once() -> None:
    found = problems('[http]\nport = 99999\nhots = "x"\n[profile]\naccelerator = "tpu"\n')
    assert len(found) == 3


def test_a_near_miss_is_named() -> None:
    [line] = problems('[alerting]\nurl = ["http://a"]\n')
    assert line == "dvfd.toml: alerting.url: no such key; did you mean 'urls'?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http]\nport = 'x'\n", "http.port"),
        ("[alerting]\nurls = ['alertmanager:9093']\n", "no http:// or https:// address"),
        ("[schedule]\ntimezone = 'Europe/Berln'\n", "did you mean 'Europe/Berlin'"),
        ("[profile]\ngpus = 8\n", 'accelerator = "cpu"'),
        ("[profile]\nlink_gbps = nan\n", "link_gbps"),
        ("[profile]\nlink_gbps = -1\n", "link_gbps"),
        ("[override.'daily.memory']\nlimit = 0.9\n", "reason"),
        ("[override.'daily.memory']\nlimit = inf\nreason = 'x'\n", "limit"),
        ("[[logs]]\nname = 'x'\n", "either path or journal_unit"),
        (
            "[[maintenance]]\nsince = 2026-01-01T00:00:00\nuntil = 2026-01-02T00:00:00\nreason='x'",
            "offset",
        ),
        ("[[maintenance]]\nsince = 2026-01-02\nuntil = 2026-01-01\nreason = 'x'\n", "since"),
        ("not toml", "not TOML"),
        ("[cost]\nper_hour = 3.2\n", 'give both or neither: per_hour = 12.5, currency = "EUR"'),
        ("[cost]\ncurrency = 'EUR'\n", "give both or neither"),
        ("[cost]\nper_hour = 3.2\ncurrency = 'euro'\n", "cost.currency"),
        ("[cost]\nper_hour = 0\ncurrency = 'EUR'\n", "cost.per_hour"),
        ("[http]\nhost = ''\n", "http.host"),
        ('[http]\nhost = "a\\u0000b"\n', "http.host: holds a NUL character"),
        ('[[logs]]\nname = "x"\npath = "/a\\u0000"\n', "logs.0.path: holds a NUL character"),
        ("[alerting]\nurls = ['http://[']\n", "no http:// or https:// address"),
        ("[alerting]\nurls = ['http://']\n", "no http:// or https:// address"),
        ("[alerting]\nurls = ['http://a:99999/']\n", "no http:// or https:// address"),
        ("[alerting]\ntimeout = 1e300\n", "alerting.timeout"),
        ("[jobs]\nexpected = ['']\n", "jobs.expected"),
        (
            "[[logs]]\nname = 'x'\npath = '/a'\n[[logs]]\nname = 'x'\npath = '/b'\n",
            "two logs are named x",
        ),
    ],
)
def test_nonsense_is_refused_with_its_key(text: str, said: str) -> None:
    assert any(said in line for line in problems(text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dvfd.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)


def test_a_maintenance_window_covers_its_time() -> None:
    window = parse(
        "[[maintenance]]\nsince = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\nreason='x'"
    ).maintenance[0]
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    assert window.covers(noon)
    assert not window.covers(noon + 86400)


def test_what_a_node_costs_does_not_change_what_results_compare_with() -> None:
    priced = parse("[cost]\nper_hour = 3.2\ncurrency = 'EUR'\n")
    assert priced.profile_hash == Config().profile_hash


def test_the_profile_hash_tells_profiles_and_overrides_apart() -> None:
    other = parse("[profile]\nnodes = 2\n")
    override = parse("[override.'daily.memory']\nlimit = 0.9\nreason = 'x'\n")
    assert len({Config().profile_hash, other.profile_hash, override.profile_hash}) == 3


def test_the_state_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    monkeypatch.delenv("DVFD_STATE_DIR", raising=False)
    assert state_dir() == Path("/var/lib/one")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "DVFD_STATE_DIR", "HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(DvfdError, match="user 54321 has no home: set HOME, or DVFD_STATE_DIR"):
        state_dir()


def test_the_catalogue_is_found() -> None:
    assert (data_dir("checks") / "metrics.toml").is_file()


def test_missing_data_says_where_it_looked() -> None:
    with pytest.raises(ConfigError, match="reinstall"):
        data_dir("no-such-data")


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ('username = "a"\npassword_file = "/x"\npassword_credential = "y"', "give either"),
        ('password_credential = "y"', "needs a username"),
        ('username = "a"\npassword_credential = "../y"', "pattern"),
    ],
)
def test_a_password_has_one_place_and_a_user(lines: str, wanted: str) -> None:
    [line] = problems(f"[alerting]\n{lines}\n")
    assert wanted in line


@pytest.mark.parametrize(
    ("cores", "said"),
    [
        ('["0-3"]', "rank_cores lists 1 ranks, processes_per_node is 4"),
        ('["0", "1", "2", "x"]', "rank_cores"),
        ('["0", "1", "2", "3-99999999999"]', "processor 99999999999: the most is 8191"),
    ],
)
def test_cores_of_ranks_that_cannot_be_are_refused(cores: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(f"[profile]\nrank_cores = {cores}")


@pytest.mark.parametrize(
    ("phase", "action", "stops"),
    [("phase1", "", True), ("phase2c", "", True), ("production", "", False), ("", "", False),
     ("phase1", "notify", False), ("production", "stop", True)],
)  # fmt: skip
def test_a_failed_run_stops_its_job_in_a_phase_and_not_in_production(phase, action, stops):
    text = f'[node]\nphase = "{phase}"\n[incidents]\naction = "{action}"'

    assert parse(text).stops is stops


def test_it_is_shown_without_the_secrets_in_addresses_and_commands():
    config = parse(
        '[alerting]\nurls = ["http://u:hunter2@am:9093"]\n'
        '[[plugin]]\nname = "disk"\ncommand = ["/bin/check", "--token", "hunter2", "-w", "5%"]\n'
    )

    assert "hunter2" not in str(config.shown())
    assert config.shown()["plugin"][0]["command"] == ["/bin/check", "--token", "***", "-w", "5%"]
    assert config.plugin[0].command[2] == "hunter2"
