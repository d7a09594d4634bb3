"""The daemon's part in a stability run: arms it, watches it, moves it on, has it judged and frozen.

One run at a time on a node. The run lives in the store and in its own file, so a daemon that was
killed takes it up where it stands; what was not seen meanwhile is a gap in it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.errors import DvfdError, StoreError
from dvfd.judgements import unwatched
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Axis, Launched, Plan, Run, name, reanchored
from dvfd.runs.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dvfd.model import Check, Clock, Result, Sample
    from dvfd.runs.freezing import Frozen
    from dvfd.runs.verdicts import Judged
    from dvfd.store import Store
    from dvfd.telemetry.jobs import JobBook

log = structlog.get_logger()

KIND = "run"
"""Kind of the records in the store; their key is the run's id."""

BEAT = 1.0
"""Seconds between looks at a run: its transitions are resolved to this, 5 s are wanted."""

IDLE = 5.0
"""The same while there is no run; one that begins waits for none."""

ROUND = 2.0
"""Seconds between rounds through the other nodes of a run."""

JUDGED = 60.0
"""Seconds between judgements of a run; of a short one a sixtieth of it."""

LATE = (60.0, 3600.0)
"""First and longest pause, in seconds, before a report that could not be written is tried again: a
disk gets its room back, another report in its place is moved away.
"""

LEAST = 1.0
"""Seconds that a run may be shortened to: less than a beat is no run."""

NEVER = "no run of it was made on this node: dvfd stability start {}"


class Watch(Protocol):
    """Builds what watches a run: with a new file, or from the one that it has."""

    def __call__(self, run: Run, check: Check, *, fresh: bool) -> Watched:
        """Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody asks for; see Plan. With `force`, ranks may be placed as they are."""

    check: str
    job: str
    duration: float | None = None
    on_failure: str = "continue"
    argv: tuple[str, ...] = ()
    directory: str = "/"
    note: str = ""
    force: bool = False


class Conductor:
    """Every run that this node knows, and the one that is on. Any thread."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        store: Store,
        clock: Clock,
        node: str,
        boot_id: str,
        book: JobBook,
        watch: Watch,
        past: Callable[[Run, Check], tuple[Judged, ...]],
        judge: Callable[[Check], object],
        freeze: Callable[[Watched], Frozen],
        reports: Callable[[Run, Check], Frozen],
        leader: Callable[[Check], str | None] = lambda _check: None,
        catch_up: Callable[[Run], Run] = lambda run: run,
    ) -> None:
        """*watch* builds what watches a run; *past* judges a finished one from its file; *judge*
        has the daemon judge a check and tell its sinks; *freeze* closes a run's file, has it judged
        from that alone and the report written, *reports* does so where the file was closed before.
        *leader* names the node that leads a run of this one, empty if that is this node, None for
        a run of no cluster. *catch_up* makes of a run what its own file says that it became.
        """
        self._catch_up = catch_up
        self._untaken = False
        self._leader = leader
        self._checks = {check.id: check for check in checks.values() if check.every}
        self._store = store
        self._clock = clock
        self._node = node
        self._boot_id = boot_id
        self._watch = watch
        self._book = book
        self._finished = past
        self._judge = judge
        self._freeze = freeze
        self._reports = reports
        self._lock = threading.RLock()
        self._on: Watched | None = None
        self._newest: Run | None = None
        self._judged_at = -1.0
        self._found: dict[str, tuple[Judged, ...]] = {}
        self._force: dict[str, bool] = {}
        self._trouble = ""
        self._reporting = False
        self._unreported: list[tuple[Run, Check]] = []
        self._late_at = self._late_pause = 0.0
        self._stop = threading.Event()
        self._called = threading.Event()
        self._beat = clock.boot()
        self._thread = threading.Thread(target=self._go, name="run", daemon=True)
        self._others = threading.Thread(target=self._go_round, name="peers", daemon=True)

    # --- The loop -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look."""
        self._beat = self._clock.boot()
        self._thread.start()
        self._others.start()

    def stop(self) -> None:
        """Stop looking; the run goes on, and shows a gap."""
        self._stop.set()
        self._called.set()
        for thread in (self._thread, self._others):
            if thread.is_alive():
                thread.join(5)
        with self._lock:
            if self._on is not None:
                on = self._on
                self._keep(on.run)
                self._set(None)
                on.close()

    def beat(self) -> float:
        """Boot time of the loop's last progress. A report is made by a child, which has a limit of
        its own.
        """
        return self._clock.boot() if self._reporting else self._beat

    def _go(self) -> None:
        while not self._called_off():
            self._beat = self._clock.boot()
            try:
                self._report_late()
                self.tick()
            except Exception as error:  # a run that cannot be watched is a gap, not a dead daemon
                log.exception("looking at the run failed")
                self._trouble = f"looking at the run failed: {error!r}; see the log"

    def _called_off(self) -> bool:
        """Wait until it is time for a look; whether there is to be none any more."""
        self._called.wait(BEAT if self._on is not None or self._late() else IDLE)
        self._called.clear()
        return self._stop.is_set()

    def _go_round(self) -> None:
        """Ask the other nodes of the run, in a thread that may wait for them."""
        while not self._stop.wait(ROUND):
            on = self._on
            if on is None or on.closing:
                continue
            try:
                on.company.poll()
            except Exception:  # whoever is not asked is silent before long, and that is told
                log.exception("asking the other nodes failed")

    def tick(self) -> None:
        """Look at the run that is on; judge it when it is time or something happened."""
        with self._lock:
            self._take_up_late()
            on = self._on
            if on is None:
                return
            before = on.run
            moved = on.tick() or (before.of, before.peers) != (on.run.of, on.run.peers)
            if moved:
                log.info("run moved on", run=on.run.id, stage=on.run.stage, reason=on.run.reason)
            if moved or self._clock.boot() - self._judged_at >= self._every(on.run):
                self._keep(on.run)
                self._judged_at = self._clock.boot()
                check = on.check
            else:
                check = None
        if check is not None:
            self._judge(check)  # asks us for `results`
        self._close_if_settled(on)

    @staticmethod
    def _every(run: Run) -> float:
        return min(JUDGED, max(BEAT, run.plan.duration / 60.0))

    def _close_if_settled(self, on: Watched) -> None:
        """Freeze a run that is over once nothing more is waited for."""
        if not on.settled():
            return
        with self._lock:
            if self._on is not on or on.closing:
                return
            on.closing = True
            on.last_words()
            on.let_go()
        self._reporting = True
        try:
            digest, trouble = self._frozen(on)
        finally:
            self._reporting = False
        with self._lock:
            self._trouble = trouble
            on.run = replace(on.run, frozen=digest)
            self._keep(on.run)
            self._set(None)
            on.close()
            if not digest:
                self._later(on.run, on.check)
        log.info("run over", run=on.run.id, stage=on.run.stage, reason=on.run.reason, report=digest)
        self._judge(on.check)

    def _late(self) -> bool:
        """Whether a report is to be tried that could not be written when its run ended."""
        return bool(self._unreported) and self._clock.boot() >= self._late_at

    def _report_late(self) -> None:
        """Write the report of a run that is over, and no more. One that cannot be written is tried
        again after the others.
        """
        if not self._late():
            return
        run, check = self._unreported.pop(0)
        self._reporting = True
        try:
            made = self._made(run, check)
        except (OSError, DvfdError) as error:
            log.warning("report not written", run=run.id, error=str(error))
            self._trouble = f"the report of {run.id} could not be written: {error}"
            self._later(run, check)
            return
        finally:
            self._reporting = False
        self._trouble, self._late_pause = "", 0.0
        if (last := self._last(run)) and last.id == run.id:  # no later one says how things stand
            self._found[check.id] = made.judged
        self._keep(replace(run, frozen=made.sha256))
        log.info("report written late", run=run.id, report=made.sha256)
        self._judge(check)

    def _made(self, run: Run, check: Check) -> Frozen:
        """The report of a run that is over; its file is closed first, if it is not."""
        try:
            on = self._watch(run, check, fresh=False)
        except StoreError:
            return self._reports(run, check)
        try:
            on.complete()
            return self._freeze(on)
        finally:
            on.close()

    def _later(self, run: Run, check: Check) -> None:
        self._unreported.append((run, check))
        first, longest = LATE
        self._late_pause = min(longest, max(first, 2 * self._late_pause))
        self._late_at = self._clock.boot() + self._late_pause

    def _frozen(self, on: Watched) -> tuple[str, str]:
        """Judge it from its file and write the report: its SHA-256, and what went wrong."""
        try:
            made = self._freeze(on)
        except (OSError, DvfdError) as error:
            log.exception("report not written", run=on.run.id)
            with suppress(StoreError):
                self._found[on.check.id] = self._finished(on.run, on.check)
            return "", f"the report of {on.run.id} could not be written: {error}"
        self._found[on.check.id] = made.judged
        return made.sha256, ""

    # --- What the daemon hands over -------------------------------------------------------------

    def sampled(self, samples: Iterable[Sample]) -> None:
        """What the probes measured."""
        with self._lock:
            if self._on is not None:
                self._on.sampled(samples)

    def results(self, check: Check, at: float) -> tuple[Result, ...]:
        """Every criterion of a stability check, on the newest run of it."""
        with self._lock:
            on = self._on
            if on is not None and on.check.id == check.id and not on.closing:
                self._found[check.id] = on.judged()
            elif check.id not in self._found and (past := self._past(check)):
                self._found[check.id] = past
            found = self._found.get(check.id)
        if found is None:
            words = NEVER.format(check.id.removeprefix("stability_"))
            return unwatched(check, at, words)
        return tuple(judged.result for judged in found)

    def _past(self, check: Check) -> tuple[Judged, ...] | None:
        """The newest finished run of *check*, judged again from its file."""
        runs = [run for run in self.runs() if run.plan.check == check.id and run.stage.over]
        for run in reversed(runs):
            with suppress(StoreError):
                return self._finished(run, check)
        return None

    # --- What people ask ------------------------------------------------------------------------

    def arm(self, order: Order, *, by: str) -> Run:
        """Begin to wait for the job. Raises DvfdError if that cannot be, or another run is on."""
        check = self._check(order.check)
        if order.duration is not None and not LEAST <= order.duration <= check.duration:
            raise DvfdError(
                f"duration {order.duration!r}: wanted {LEAST:g} to {check.duration:g} seconds"
            )
        if not order.job:
            raise DvfdError("no name of the job that is to report: --job NAME")
        with self._lock:
            self._take_up_late()
            if self._on is not None and not self._on.run.stage.over:
                on = self._on.run
                raise DvfdError(
                    f"run {on.id} is {on.stage} on this node: one at a time; "
                    f"dvfd stability stop {on.id} ends it"
                )
            if self._on is not None:
                raise DvfdError(
                    f"run {self._on.run.id} is over and its last checkpoints are being verified: "
                    "try again when dvfd stability status shows its report"
                )
            run = self._new(check, order, by)
            self._force[run.id] = order.force
            self._set(self._watch(run, check, fresh=True))
            self._note(run.armed_t, What.STAGE, str(run.stage))
            self._keep(run)
            self._found.pop(check.id, None)
            self._judged_at = self._clock.boot()
            self._trouble = ""
        log.info("run armed", run=run.id, check=check.id, job=order.job, by=by)
        return run

    def launched(self, run_id: str, launched: Launched) -> Run:
        """Note what was started for the run. Raises DvfdError if that is not on."""
        with self._lock:
            on = self._named(run_id)
            on.run = replace(on.run, launched=launched)
            self._keep(on.run)
            return on.run

    def exited(self, run_id: str, how: str) -> Run:
        """Note that the training command ended: *how*, like `ended with exit code 1`."""
        with self._lock:
            on = self._named(run_id)
            on.run = replace(on.run, exited=on.run.exited or how)
            self._note(on.t(), What.NOTE, f"the training command {how}")
        log.info("training command ended", run=run_id, how=how)
        self.tick()
        return self.run(run_id)

    def injected(self, job: str, text: str, seconds: float, *, by: str) -> str:
        """Note that a fault is injected into *job*, for so long at most; the run that it falls
        into, empty if none watches that job.
        """
        log.warning("fault injected", job=job, what=text, seconds=seconds, by=by)
        with self._lock:
            on = self._of(job)
            if on is None:
                return ""
            on.injected(f"{text}, by {by}", seconds)
            return on.run.id

    def healed(self, job: str, *, by: str) -> str:
        """Note that it was taken back; the run, as `injected` says."""
        log.warning("fault healed", job=job, by=by)
        with self._lock:
            on = self._of(job)
            if on is None:
                return ""
            on.healed()
            return on.run.id

    def _of(self, job: str) -> Watched | None:
        """The run that is on, if it watches *job*."""
        on = self._on
        return on if on and not on.run.stage.over and on.run.plan.job == job else None

    def abort(self, run_id: str, reason: str, *, by: str) -> Run:
        """End the run. Raises DvfdError if it is not on, or over."""
        with self._lock:
            on = self._named(run_id)
            on.abort(f"stopped by {by}: {reason}" if reason else f"stopped by {by}", by=by)
            self._keep(on.run)
        log.info("run stopped", run=run_id, by=by, reason=reason)
        self.tick()
        return self.run(run_id)

    def runs(self) -> list[Run]:
        """Every run that this node knows, oldest first."""
        found = []
        for document in self._store.all(KIND).values():
            with suppress(DvfdError):
                found.append(Run.from_document(document))
        return sorted(found, key=lambda run: run.armed_at)

    def run(self, run_id: str = "") -> Run:
        """The run of that name, or the newest. Raises DvfdError if there is none."""
        with self._lock:
            if self._on is not None and run_id in {"", self._on.run.id}:
                return self._on.run
        found = [run for run in self.runs() if run_id in {"", run.id}]
        if not found:
            what = f"no run {run_id!r}" if run_id else "no run"
            raise DvfdError(f"{what} is known here: dvfd stability list")
        return found[-1]

    def standing(self, run: Run) -> tuple[Run, float | None, bool]:
        """*run* as it is now, its run second where that can be said, and whether no row of it will
        follow.
        """
        with self._lock:
            on = self._on if self._on is not None and self._on.run.id == run.id else None
            run = on.run if on else run
            here = run.axis.boot_id == self._boot_id
            t = run.axis.t(self._clock.boot()) if here else None
            return run, t, run.stage.over and (on is None or on.file.closed)

    def status(self, run_id: str = "") -> dict[str, Any]:
        """The run, its times and its criteria, as JSON. Raises DvfdError if there is none."""
        run = self.run(run_id)
        with self._lock:
            on = self._on if self._on is not None and self._on.run.id == run.id else None
            t = on.t() if on else (run.ended_t or run.seen_t)
            found = self._found.get(run.plan.check, ()) if on or run == self._last(run) else ()
            parts = (self._trouble, *((on.file.trouble, on.company.trouble) if on else ()))
            trouble = "; ".join(filter(None, parts))
            others = on.company.documents() if on else {"peers": [], "led_by": None}
        left = run.left(t)
        return {
            "run": run.shown(),
            "t": t,
            "elapsed": run.elapsed(t),
            "left": left,
            "ends_at": None if run.stage.over or run.began_t is None else self._clock.now() + left,
            "judged": [judged.to_document() for judged in found],
            "trouble": trouble,
            **others,
        }

    def _last(self, run: Run) -> Run | None:
        same = [other for other in self.runs() if other.plan.check == run.plan.check]
        return same[-1] if same else None

    # --- Inside ---------------------------------------------------------------------------------

    def _check(self, check_id: str) -> Check:
        if check_id not in self._checks:
            known = ", ".join(self._checks)
            raise DvfdError(f"{check_id!r} is no stability run: wanted one of {known}")
        return self._checks[check_id]

    def _named(self, run_id: str) -> Watched:
        """The run that is on, if it has that name."""
        if self._on is None or self._on.run.id != run_id:
            raise DvfdError(f"run {run_id!r} is not on: dvfd stability status shows what is")
        return self._on

    def _new(self, check: Check, order: Order, by: str) -> Run:
        at = self._clock.now()
        plan = Plan.of(
            check,
            job=order.job,
            duration=order.duration,
            on_failure=order.on_failure,
            by=by,
            note=order.note,
            argv=order.argv,
            directory=order.directory,
        )
        leader = self._leader(check)
        armed_t = 0.0 if leader is None else at % 60.0
        axis = Axis(boot_id=self._boot_id, offset=armed_t - self._clock.boot())
        return Run(
            id=name(check.id, at), plan=plan, node=self._node, armed_at=at, armed_t=armed_t,
            axis=axis, seen_t=armed_t, seen_at=at, leader=leader or "",
        )  # fmt: skip

    def _keep(self, run: Run) -> None:
        self._store.put(KIND, run.id, run.to_document() | {"force": self._force.get(run.id, False)})

    def _set(self, on: Watched | None) -> None:
        """Watch *on*; its telemetry goes to its file, its job's events to its recorder."""
        self._on = on
        self._called.set()
        listens = on is not None and not on.run.stage.over
        self._store.record(on.file if on is not None and listens else None)
        self._book.listener = on.heard if on is not None and listens else None
        if on is not None:
            on.accepts = self._force.get(on.run.id, False)

    def _note(self, t: float, what: What, text: str) -> None:
        on = self._on
        assert on
        on.file.add([Event(node=on.run.node, t=t, at=self._clock.now(), what=what, text=text)])

    def take_up(self) -> None:
        """After a restart: the run that was on, from its file; what nobody saw is a gap. To be
        called before ranks are heard: what they are told is safe must be in its file.
        """
        with self._lock:
            self._take_up()

    def _take_up_late(self) -> None:
        """The same as soon as a store or a file that could not be read can be."""
        if self._untaken and self._on is None and self._store.known:
            self._take_up()

    def _take_up(self) -> None:
        self._untaken = not self._store.known  # then no run is known: it is tried at each look
        waiting = {run.id for run, _ in self._unreported}
        unfinished = [
            run
            for run in self.runs()
            if not run.stage.over
            or (not run.frozen and run.ended_t is not None and run.id not in waiting)
        ]
        newest = [run.id for run in self.runs()[-1:]]
        for run in map(self._catch_up, unfinished):
            check = self._checks.get(run.plan.check)
            if check is None:
                continue
            document = self._store.get(KIND, run.id) or {}
            self._force[run.id] = bool(document.get("force"))
            if run.stage.over and run.id not in newest:
                self._unreported.append((run, check))  # another followed it
            elif run.id == unfinished[-1].id:
                self._watch_on(run, check)

    def _watch_on(self, run: Run, check: Check) -> None:
        """Go on with *run* as it is known from before the restart."""
        boot, now = self._clock.boot(), self._clock.now()
        here = reanchored(run, boot_id=self._boot_id, boot=boot, now=now)
        try:
            self._set(self._watch(here, check, fresh=False))
        except StoreError as error:
            if run.stage.over:  # its file is closed, and the daemon ended before the report
                self._unreported.append((run, check))
                return
            self._untaken = True
            trouble = f"run {run.id} cannot be taken up: {error}"
            if trouble != self._trouble:
                log.exception("run cannot be taken up", run=run.id)
            self._trouble = trouble
            return
        self._trouble = ""
        assert self._on
        self._on.resumed()
        self._keep(self._on.run)
        gap = here.axis.t(boot) - run.seen_t
        log.info("run taken up", run=run.id, stage=here.stage, gap=gap)
