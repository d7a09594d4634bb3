"""What the job's interpreter says of torch, asked in a child of it. Imports no torch itself."""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.errors import ProbeError, ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.drills.drill import Task
    from dvfd.shell import Output

BARE = Path(__file__).with_name("bare.py")

LOADING = 120.0
"""Seconds for torch to load: 2 from a warm disk, a minute and more from a cold network one."""

MEND = "pip install 'torch>=2.1', or [drills] python = the interpreter of your jobs"


@dataclass(frozen=True, slots=True)
class Torch:
    """What the interpreter has. `version` is empty where there is no torch."""

    version: str
    backends: Mapping[str, bool]  # gloo, mpi, nccl, ucc: whether this torch was built with it
    processors: int  # os.cpu_count()
    usable: int  # of these, by affinity
    python: str  # its own version
    rendezvous: float | None  # seconds that a rendezvous waits for all nodes, unless told


def torch(task: Task) -> Torch:
    """What the job's interpreter has, from a child of it.

    Raises ToolError or ProbeError if it cannot be started, hangs, dies, or answers nonsense. No
    torch in an interpreter that works is an answer.
    """
    return task.memo.get(("torch", task.python), lambda: _ask(task), task.clock)


def _ask(task: Task) -> Torch:
    answer = Path(tempfile.mkdtemp(dir=task.scratch)) / "torch.json"
    command = [task.python, str(BARE), "dvfd.drills.workers.torch_facts", str(answer)]
    try:
        output = task.run(command, timeout=LOADING)
    except ToolError as error:
        raise ToolError(f"{error}; it is the interpreter that [drills] python names") from None
    if output.code:
        raise ProbeError(f"{task.python}: {last_words(output)}")
    said = read_answer(answer)
    if why := said.get("broken"):
        raise ProbeError(f"{task.python}: torch is there and cannot be imported: {why}")
    return _torch(said, task.python)


def _torch(said: Mapping[str, Any], python: str) -> Torch:
    try:
        return Torch(
            version=str(said["version"]),
            backends={str(name): bool(there) for name, there in said["backends"].items()},
            processors=int(said["processors"]),
            usable=int(said["usable"]),
            python=str(said["python"]),
            rendezvous=finite(said["rendezvous"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeError(f"{python}: its answer lacks something: {error!r}") from None


def read_answer(path: Path) -> dict[str, Any]:
    """The JSON object that a worker left. Raises ProbeError with the reason there is none."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProbeError(f"it ended well and left no answer in {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ProbeError(f"{path.name}: its answer cannot be read: {error}") from None
    if not isinstance(said, dict):
        raise ProbeError(f"{path.name}: its answer is no table: {said!r:.80}")
    return said


def finite(value: object) -> float | None:
    """A number that is one, None for none. Raises ValueError for anything else."""
    if value is None:
        return None
    most = sys.float_info.max  # a number of 400 digits is finite and fits into no float
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:
        raise ValueError(f"{value!r:.80} is no finite number")
    return float(value)


FALLEN = re.compile(
    r"(?:^ *time *: (?P<time>\S+)\n.*\n)?^ *rank *: (?P<rank>\d+).*\n"
    r" *exitcode *: (?P<code>-?\d+) \(pid: \d+\) *(?P<signal>.*)$",
    re.MULTILINE,
)
"""What torchrun reports of each rank that ended: https://pytorch.org/docs/stable/elastic/errors.html."""


def first_to_fall(stderr: str) -> str:
    """Which rank torchrun saw end first, and how; nothing if it said of none.

    It looks ten times a second: of ranks that it saw end in the same second, one that SIGKILL
    ended was killed from outside, and those that lost it ended because of that.
    """
    _, _, root = stderr.rpartition("Root Cause")
    found = [*FALLEN.finditer(root), *FALLEN.finditer(stderr)]
    if not found or not root:
        return ""
    at_once = [each for each in found if each["time"] == found[0]["time"]]
    first = min(at_once, key=lambda each: int(each["code"]) != -signal.SIGKILL)
    how = f"{first['code']} {first['signal']}".strip()
    return f"rank {first['rank']} ended first, exit code {how}"


def last_words(output: Output) -> str:
    """How a tool that failed ended, and the last line it said that has words in it."""
    said = [line.strip() for line in f"{output.stdout}\n{output.stderr}".splitlines()]
    words = next((line for line in reversed(said) if any(map(str.isalnum, line))), "")
    return f"{ended(output.code)}: {words[:300]}" if words else f"{ended(output.code)}, silent"


def ended(code: int) -> str:
    """An exit code in words: `killed by SIGSEGV` for -11."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
