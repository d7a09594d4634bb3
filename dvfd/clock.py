"""Where time comes from. The only file that reads a clock for the daemon."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def boot(self) -> float:
        """CLOCK_BOOTTIME seconds: counts suspend, unaffected by steps of the wall clock."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
