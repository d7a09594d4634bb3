"""Running tools: nothing outlives its time, nothing floods memory, nothing needs a shell."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from dvfd.errors import ToolError, ToolTimeout
from dvfd.shell import OUTPUT_LIMIT, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_exit_code_come_back() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)"
    done = run(python(code), timeout=20)
    assert (done.code, done.stdout, done.stderr) == (4, "out\n", "err\n")


def test_a_tool_reads_its_input() -> None:
    assert run(["cat"], timeout=20, stdin=b"x" * 1000).stdout == "x" * 1000


def test_the_locale_is_c_whatever_the_caller_has() -> None:
    assert run(["sh", "-c", "echo $LC_ALL"], timeout=20).stdout == "C\n"


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(ToolError, match="no-such-tool: cannot be started"):
        run(["no-such-tool"], timeout=1)


def test_a_tool_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "still-alive"
    began = time.monotonic()
    with pytest.raises(ToolTimeout, match=r"still running after 0.5 s"):
        run(["sh", "-c", f"(sleep 2; touch {mark}) & sleep 60"], timeout=0.5)
    assert time.monotonic() - began < 2
    time.sleep(2.2)
    assert not mark.exists()


def test_a_tool_that_closes_its_output_and_hangs_is_killed() -> None:
    with pytest.raises(ToolTimeout):
        run(["sh", "-c", "exec >&- 2>&-; sleep 60"], timeout=0.5)


def test_a_flood_is_cut_off() -> None:
    done = run(python("import sys; sys.stdout.write('x' * 5_000_000)"), timeout=20)
    assert len(done.stdout) == OUTPUT_LIMIT
    assert done.cut


def test_of_a_flood_the_end_is_kept_where_that_is_asked() -> None:
    done = run(["seq", "300000"], timeout=20, last=100)
    assert done.stdout.endswith("299999\n300000\n")
    assert (len(done.stdout), done.cut) == (100, True)
    assert run(["echo", "x" * 99], timeout=20, last=100).cut is False


def test_a_tool_that_does_not_read_its_input_is_no_trouble() -> None:
    assert run(["true"], timeout=20, stdin=b"x" * 10_000_000).code == 0


def test_a_tool_that_never_reads_does_not_hang_us() -> None:
    with pytest.raises(ToolTimeout):
        run(["sleep", "60"], timeout=0.5, stdin=b"x" * 10_000_000)


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert run(["printf", r"\377ok"], timeout=20).stdout == "\ufffdok"


def test_a_tool_may_be_given_years() -> None:
    assert run(["true"], timeout=1e9).code == 0
