"""Run one command of a site's and see its whole tree gone: a process of its own, light.

The daemon cannot do this itself: whoever adopts orphans adopts those of every thread, and could not
tell one plugin's from another's. So each run has a parent that ends with it.

    echo '{"argv": ["/bin/true"], "timeout": 5}' | python -P -m dvfd.contained
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from types import FrameType
from typing import Any

from dvfd import shell
from dvfd.drills import tree
from dvfd.errors import DvfdError, ToolError

SAID = 64 << 10
"""Characters of standard output handed on: Nagios itself takes 8 KiB."""

COMPLAINED = 2 << 10

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""What a command sees: neither the daemon's credentials nor systemd's sockets."""


def main() -> int:
    """Do what stands on standard input, and say on standard output how it went."""
    orders = json.load(sys.stdin)
    signal.signal(signal.SIGTERM, end)
    shell.LIBC.prctl(shell.PR_SET_PDEATHSIG, signal.SIGTERM)  # in place of the SIGKILL we came with
    try:
        become(orders.get("user", ""))
        os.chdir("/")
        answer = run(orders["argv"], orders["timeout"])
    except DvfdError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)
    return 0


def end(number: int, _frame: FrameType | None) -> None:
    """Our daemon has ended: whatever runs here is cleared away on the way out."""
    sys.exit(128 + number)


def run(argv: list[str], timeout: float) -> dict[str, Any]:
    """Exit code and bounded words. Raises ToolError, also where something cannot be ended."""
    done = tree.run(argv, timeout=timeout, env=ENVIRONMENT)
    return {
        "code": done.code,
        "stdout": done.stdout[:SAID],
        "stderr": done.stderr[:COMPLAINED],
        "cut": done.cut or len(done.stdout) > SAID,
    }


def become(name: str) -> None:
    """Go on as user *name*, if one is given and we are not. Raises ToolError."""
    if not name:
        return
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ToolError(f"there is no user {name!r}") from None
    if user.pw_uid == os.geteuid():
        return
    try:
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except PermissionError:
        raise ToolError(
            f"cannot become user {name}: wanted root, dvfd runs as user {os.geteuid()}"
        ) from None
    shell.LIBC.prctl(shell.PR_SET_PDEATHSIG, signal.SIGTERM)  # becoming another ends it


if __name__ == "__main__":
    sys.exit(main())
