"""Become one drill: `python -m dvfd.drills.launch RUN`, which dvfd-drill@RUN.service starts.

Takes on the user that the order names, with that user's groups and nothing of root's, and then is
the drill: systemd watches the drill itself, and the journal holds its words.
"""

from __future__ import annotations

import os
import pwd
import sys

from dvfd.drills import order as orders
from dvfd.errors import ConfigError

CONFIG_ERROR = 78
CANNOT_START = 127
"""What a shell says of a program that it does not find."""


def main(arguments: list[str]) -> int:
    """Run the order named in *arguments*; returns only if that is impossible."""
    if len(arguments) != 1:
        print("usage: python -m dvfd.drills.launch RUN", file=sys.stderr)  # noqa: T201
        return 2
    try:
        order = orders.read(arguments[0])
        environment = _become(order)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return CONFIG_ERROR
    try:
        os.chdir(order.directory)
        os.execvpe(order.argv[0], order.argv, environment)  # noqa: S606  # no shell is the point
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        print(f"{error.filename or order.argv[0]}: {cause}", file=sys.stderr)  # noqa: T201
        return CANNOT_START


def _become(order: orders.Order) -> dict[str, str]:
    """Take on the order's user; the environment to run with. Raises ConfigError."""
    try:
        user = pwd.getpwnam(order.user)
    except KeyError:
        raise ConfigError([f"no such user: {order.user!r}"]) from None
    if os.geteuid() == 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    elif os.geteuid() != user.pw_uid:
        raise ConfigError([f"only root can run a drill as {order.user!r}"])
    home = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    return {**os.environ, **home, **order.environment}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
