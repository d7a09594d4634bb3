"""Orders of drills: only one that nobody else could have written is carried out."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dvfd.drills.order import Order, leave, read, reference_job
from dvfd.errors import ConfigError

ORDER = Order(argv=("/bin/true", "a b"), user="trainer", environment={"A": "1"})


def test_an_order_comes_back_as_it_was_left(tmp_path: Path) -> None:
    leave("run_1", ORDER, tmp_path)
    assert read("run_1", tmp_path) == ORDER


@pytest.mark.parametrize("run", ["", "../x", "a/b", "a-b", "x" * 65, ".hidden"])
def test_a_name_that_no_unit_can_have_is_refused(run: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted up to 64"):
        leave(run, ORDER, tmp_path)


def test_an_order_that_others_may_write_is_not_carried_out(tmp_path: Path) -> None:
    leave("x", ORDER, tmp_path).chmod(0o666)
    with pytest.raises(ConfigError, match="writable for no other"):
        read("x", tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "y.json").symlink_to(leave("x", ORDER, tmp_path))
    with pytest.raises(ConfigError, match="symbolic links"):
        read("y", tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"argv": "true", "user": "a"}', '{"argv": [], "user": "a"}',
             '{"argv": ["a"], "user": "b", "x": 1}', '{"argv": ["a"]}'],
)  # fmt: skip
def test_what_is_no_order_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError):
        read("x", tmp_path)


def launch(run: str, directory: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from pathlib import Path; from dvfd.drills import launch, order\n"
        "order.read.__defaults__ = (Path(sys.argv[2]),)\n"
        "sys.exit(launch.main([sys.argv[1]]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, run, str(directory)], capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip


def test_the_launcher_becomes_the_drill(tmp_path: Path) -> None:
    shows = "import os, json; print(json.dumps([os.getcwd(), os.environ['A'], os.environ['USER']]))"
    me = getpass.getuser()
    order = Order(
        argv=(sys.executable, "-c", shows), user=me, directory="/", environment={"A": "1"}
    )
    leave("x", order, tmp_path)
    assert json.loads(launch("x", tmp_path).stdout) == ["/", "1", me]


@pytest.mark.parametrize(
    ("order", "code", "says"),
    [
        (Order(argv=("true",), user="nobody-of-that-name"), 78, "no such user"),
        (Order(argv=("/nonexistent",), user=getpass.getuser()), 127, "/nonexistent"),
        (Order(argv=("true",), user=getpass.getuser(), directory="/nonexistent"), 127, "/none"),
    ],
)
def test_a_drill_that_cannot_start_says_why(
    order: Order, code: int, says: str, tmp_path: Path
) -> None:
    leave("x", order, tmp_path)
    done = launch("x", tmp_path)
    assert done.returncode == code
    assert says in done.stderr


def test_the_reference_job_is_ordered_with_restarts_that_work() -> None:
    order = reference_job("/venv/bin/python", user="a", processes=2, directory="/")
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in order.environment
    assert "--nproc_per_node=2" in order.argv
