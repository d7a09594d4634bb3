"""Commands called in this process: help, wrong usage, the configuration. None needs a daemon."""

import inspect
import json
import re
import shlex

import click
import pytest

from dvfd import cli
from dvfd.cli import COMMANDS, SECTIONS

ROOT = click.Context(cli.dvfd, info_name="dvfd")


def walk(command: click.Command, path: tuple[str, ...] = ()):
    """Every command below *command* with the words that call it."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(ROOT):
            yield from walk(command.get_command(ROOT, name), (*path, name))


TREE = dict(walk(cli.dvfd))
LEAVES = [name for name, command in TREE.items() if not isinstance(command, click.Group)]
JUDGING = (
    "alerts test", "check", "checklist", "checkpoint verify", "cluster check", "config check",
    "doctor", "fleet", "run", "stability start", "stability status", "stability stop", "status",
    "store check",
)  # fmt: skip


def paragraphs(name: str) -> list[str]:
    return [" ".join(p.split()) for p in inspect.cleandoc(TREE[name].help).split("\n\n")]


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


@pytest.mark.parametrize("command", TREE)
@pytest.mark.parametrize("columns", [40, 80])
def test_every_command_has_a_help_that_fits_the_terminal(command, columns, dvfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = dvfd(f"{command} --help")

    assert (code, err) == (0, "")
    assert out.startswith("Usage: dvfd")
    assert not [line for line in out.splitlines() if len(line) > columns and " " in line.strip()]


@pytest.mark.parametrize("command", LEAVES)
def test_every_help_has_a_summary_a_paragraph_and_an_example_at_its_end(command):
    summary, *middle, example = paragraphs(command)

    assert summary.endswith(".")
    assert [p for p in middle if not p.startswith("Exit code")] or command in JUDGING
    assert example.startswith(f"Example: dvfd {command}")


@pytest.mark.parametrize("command", ["", *LEAVES])
def test_every_example_parses_as_the_command_that_it_is_an_example_of(command):
    said = paragraphs(command)[-1].removeprefix("Example: dvfd ").partition(" >")[0]
    arguments, found, name = shlex.split(said), cli.dvfd, []
    while isinstance(found, click.Group):
        name.append(arguments.pop(0))
        found = found.get_command(ROOT, name[-1])

    assert command in ("", " ".join(name))
    found.make_context(name[-1], arguments, ROOT)  # raises what a wrong usage raises


@pytest.mark.parametrize("command", JUDGING)
def test_what_judges_says_its_exit_codes(command):
    assert re.search(r"[Ee]xit code", TREE[command].help)


def test_the_help_has_every_command_once_below_what_one_wants_to_do(dvfd):
    listed = [name for names in SECTIONS.values() for name in names]
    out = dvfd("--help")[1]

    assert sorted(listed) == sorted(COMMANDS)
    assert re.findall(r"^(Watch|Judge|Decide|Look after|Set up):$", out, re.MULTILINE) == list(
        SECTIONS
    )
    assert re.findall(r"^  ([a-z]+)  ", out, re.MULTILINE) == listed


@pytest.mark.parametrize("section", SECTIONS)
def test_a_listed_summary_is_the_commands_own(section):
    for name, said in SECTIONS[section].items():
        assert said == TREE[name].get_short_help_str(80)


@pytest.mark.parametrize("command", [n for n, c in TREE.items() if isinstance(c, click.Group)])
def test_no_summary_is_cut_on_80_columns(command, dvfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    assert "..." not in dvfd(f"{command} --help")[1].replace("[ARGS]...", "")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("statsu", "status"), ("chekclist daily", "checklist"), ("job forgt x", "forget"),
        ("status --outptu json", "--output"), ("check hardware -o jsn", "json"),
    ],
)  # fmt: skip
def test_a_near_miss_is_named(typed, meant, dvfd):
    code, out, err = dvfd(typed)

    assert (code, out) == (3, "")
    assert meant in err.splitlines()[-1]


def test_what_is_near_nothing_gets_no_guess(dvfd):
    assert "Did you mean" not in dvfd("zzzzzz")[2]


@pytest.mark.parametrize(
    "command",
    ["", "nope", "--nope", "status extra", "status -o xml", "check", "checklist yearly",
     "history", "history job_loss --hours 0", "history job_loss --hours x", "job forget",
     "site forget", "site forget m nonsense",
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


@pytest.mark.parametrize("duration", ["nan", "inf", "1e308", "0", "-5", "x"])
def test_a_duration_that_is_none_is_refused_before_anything_runs(dvfd, duration):
    code, out, err = dvfd(f"check gradient_sync --duration {duration}")

    assert (code, out) == (3, "")
    assert "Invalid value for '--duration'" in err
