"""Full load on chosen processors, and a call at every tick of it. Ends with the caller."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dvfd.drills import bare, processors
from dvfd.drills.workers import burn
from dvfd.errors import ProbeError, ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dvfd.drills.drill import Task

TICK = "tick"


def hold(
    task: Task,
    wanted: Collection[int],
    seconds: float,
    every: float,
    each: Callable[[], None],
    *,
    kind: str = "",
) -> None:
    """Load the processors *wanted*; call *each* once they are, and *every* so many seconds.

    What *each* raises ends the load. Raises ToolError if it cannot be held for *seconds*.
    """

    def hear(line: str) -> None:
        if line.strip() == TICK:
            each()

    answer = str(task.scratch / "load.json")
    names = ",".join(map(str, sorted(wanted)))
    argv = [task.python, str(bare.__file__), burn.__name__]
    argv += [answer, str(seconds), str(every), names, *([kind] if kind else [])]
    limit = seconds + 2 * burn.START
    out = task.run(argv, timeout=limit, env=processors.alone(), on_line=hear)
    if out.code:
        words = out.stderr.strip().rpartition("\n")[2] or f"exit code {out.code}"
        raise ToolError(f"load: {words}")


def words(task: Task) -> str:
    """What the load consisted of. Raises ProbeError if the worker did not say."""
    try:
        document = json.loads((task.scratch / "load.json").read_text(encoding="utf-8"))
        return str(document["words"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProbeError(f"load: the worker did not say what it is: {error!r}") from None
