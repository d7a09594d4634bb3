"""Commands called in this process: help, wrong usage, the configuration. None needs a daemon."""

import json

import pytest

from dvfd import cli
from dvfd.cli import COMMANDS

LEAVES = (
    "alerts test", "assets export", "check", "checklist", "checkpoint verify", "config check",
    "config schema", "config show", "history", "job forget", "run", "status", "version",
)  # fmt: skip


@pytest.fixture
def dvfd(monkeypatch, capsys, tmp_path):
    """Call a command as typed; its exit code, stdout and stderr."""
    monkeypatch.delenv("DVFD_CONFIG", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))

    def call(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dvfd", *command.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.mark.parametrize("command", ["", *COMMANDS, *LEAVES])
def test_every_command_has_a_help(command, dvfd):
    code, out, err = dvfd(f"{command} --help")

    assert (code, err) == (0, "")
    assert "Usage: " in out
    assert command not in LEAVES or command == "version" or "Example: dvfd" in out


@pytest.mark.parametrize(
    "command",
    ["", "nope", "--nope", "status extra", "status -o xml", "check", "checklist yearly",
     "history", "history job_loss --hours 0", "history job_loss --hours x", "job forget",
     "checkpoint verify", "checkpoint verify . --nope", "config", "config nope"],
)  # fmt: skip
def test_wrong_usage_is_3_because_2_would_read_as_a_failure(command, dvfd):
    code, out, err = dvfd(command)

    assert (code, out) == (3, "")
    assert err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x", None])
def test_a_configuration_that_cannot_be_read_is_78(content, dvfd, tmp_path):
    path = tmp_path / "dvfd.toml"
    path.write_bytes(content) if content else path.mkdir()

    assert dvfd(f"config check -c {path}")[0] == 78


@pytest.mark.parametrize("command", ["config show", "config schema"])
def test_the_configuration_is_printed_as_json(command, dvfd):
    assert isinstance(json.loads(dvfd(command)[1]), dict)
