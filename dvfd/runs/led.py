"""A run that another node leads: which of that node's runs it is part of, and what became of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.reduce import seconds
from dvfd.runs.advance import Led
from dvfd.runs.clocks import Difference, measured
from dvfd.runs.company import QUIET, Abroad
from dvfd.runs.told import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dvfd.config import Member
    from dvfd.model import Clock
    from dvfd.runs.run import Run


class Leader:
    """The node that leads a run of this one. Implements Company."""

    def __init__(
        self,
        run: Run,
        member: Member,
        *,
        clock: Clock,
        connect: Callable[[], Callable[[str], Any]],
    ) -> None:
        self._run = run
        self._member = member
        self._clock = clock
        self._connect = connect
        self._get: Callable[[str], Any] | None = None
        self._lock = threading.Lock()
        self._of = run.of
        self._told: Told | None = None
        self._axis: Difference | None = None  # its run seconds less ours
        self._heard = self._t()  # of a leader that never spoke: since we may have heard it
        self._ever = False
        self._trouble = "not asked yet"

    def _t(self) -> float:
        return self._run.axis.t(self._clock.boot())

    # --- Asking, in a thread of its own ---------------------------------------------------------

    def poll(self) -> None:
        """Ask which run it leads, and where that stands."""
        try:
            self._ask()
        except DvfdError as error:
            with self._lock:
                self._trouble = str(error)

    def _ask(self) -> None:
        if not self._member.url:
            raise DvfdError("[[cluster.nodes]] gives no url of its dvfd")
        if self._get is None:
            self._get = self._connect()
        asked = self._t()
        found = self._get(f"{self._member.url}/api/v1/runs")
        came = self._t()
        if not isinstance(found, list):
            raise DvfdError(f"a list of its runs wanted, got {found!r:.40}")
        told = self._chosen([Told.from_document(each) for each in found])
        with self._lock:
            self._told, self._of, self._heard, self._trouble = told, told.id, came, ""
            self._ever = True
            if told.t is not None:
                self._axis = measured(self._axis, asked=asked, came=came, theirs=told.t)

    def _chosen(self, runs: Sequence[Told]) -> Told:
        """Ours: the known one, else the newest of this check that is on. Raises DvfdError."""
        if self._of:
            if own := next((told for told in runs if told.id == self._of), None):
                return own
            raise DvfdError(f"it no longer knows run {self._of}")
        plan = self._run.plan
        on = [told for told in runs if told.check == plan.check and not told.stage.over]
        if not on:
            raise DvfdError(f"no run of {plan.check} is on there: dvfd stability start, there too")
        theirs = (on[0].job, on[0].duration, on[0].processes)
        if theirs != (plan.job, plan.duration, plan.processes):
            raise DvfdError(
                f"its run is of job {on[0].job} for {seconds(on[0].duration)}, this one of job "
                f"{plan.job} for {seconds(plan.duration)}: order both alike"
            )
        return on[0]

    # --- What the conductor asks ----------------------------------------------------------------

    def look(self, run: Run, *, t: float, at: float) -> Abroad:
        """What the leader says of the run."""
        name, waits = self._member.name, ""
        with self._lock:
            told = self._told
            if not self._of:
                waits = f"{name}, which leads, has no run for this one: {self._trouble}"
            led = Led(
                node=name,
                stage=told.stage if told else None,
                ended_t=self._ours(told.ended_t) if told else None,
                reason=told.reason if told else "",
                stopped_by=told.stopped_by if told else "",
                silent=max(0.0, t - self._heard),
            )
            return Abroad(waits=waits, of=self._of, led=led)

    def _ours(self, theirs: float | None) -> float | None:
        """A run second of the leader's as one of ours."""
        return None if theirs is None or self._axis is None else theirs - self._axis.seconds

    def ready(self, run: Run, *, t: float) -> bool:
        """The leader waits for us, not we for it."""
        return True

    def close(self, run: Run, *, t: float, at: float) -> None:
        """The leader says who is missing."""

    @property
    def trouble(self) -> str:
        """Since when the leader is silent, or nothing."""
        silent = self._t() - self._heard
        with self._lock:
            if silent <= QUIET:
                return ""
            since = f"silent for {seconds(silent)}"
            return f"{self._member.name}, which leads, is {since}: {self._trouble}"

    def documents(self) -> dict[str, Any]:
        """The leader, and when it was heard."""
        heard = self._t() - self._heard if self._ever else None
        with self._lock:
            found = {
                "node": self._member.name, "run": self._of, "heard": heard,
                "stage": str(self._told.stage) if self._told else "", "trouble": self._trouble,
            }  # fmt: skip
            return {"peers": [], "led_by": found}
