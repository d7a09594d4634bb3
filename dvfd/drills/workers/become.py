"""Become another program that ends with its parent: `bare.py dvfd.drills.workers.become ARGV...`.

By SIGTERM, not SIGKILL: a launcher that is killed leaves its ranks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); kept over execve

NOT_FOUND = 127
"""What a shell says of a program that it does not find."""

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  # no shell is the point
    except OSError as error:
        print(f"{sys.argv[1]}: {(error.strerror or str(error)).lower()}", file=sys.stderr)  # noqa: T201
        sys.exit(NOT_FOUND)
