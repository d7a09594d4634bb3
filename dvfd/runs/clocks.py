"""How another node's seconds lie to ours, measured where it answers. Pure.

Whatever its clocks say, an answer was made between the moments at which it was asked for and came:
that bounds the difference by half the way there and back (Cristian, 1989). So two nodes need not
agree on the time of day for their rows to lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

DRIFT = 100e-6
"""Seconds by which two clocks part in a second at the most: quartz has 20 to 50 ppm, NTP slews by
up to 500 for minutes where a clock was set wrong."""


@dataclass(frozen=True, slots=True)
class Difference:
    """*theirs - ours*, true to `error` seconds when it was measured, at our second `at`."""

    seconds: float
    error: float
    at: float

    def doubt(self, now: float) -> float:
        """Seconds by which it may be wrong at *now*."""
        return self.error + DRIFT * max(0.0, now - self.at)


def measured(held: Difference | None, *, asked: float, came: float, theirs: float) -> Difference:
    """The best that is known of it after one more answer: *asked* and *came* are our seconds,
    *theirs* what the other had in between.

    A surer one stays, so that rows do not jitter with the network; one that the answer contradicts
    goes, for a clock was set.
    """
    middle, error = (asked + came) / 2.0, max(0.0, came - asked) / 2.0
    new = Difference(theirs - middle, error, came)
    if held is None:
        return new
    contradicted = abs(new.seconds - held.seconds) > error + held.doubt(came)
    return new if contradicted or error <= held.doubt(came) else held
