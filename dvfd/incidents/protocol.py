"""Keep the incidents of this node: open them from the ledger, move them on, tell, answer.

Where they stand lies in the store, so that a restart loses no deadline; their opening, delays and
end stand in the ledger as well. What is done at once is done by somebody else, in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.control import Operation
from dvfd.errors import DvfdError, StoreError
from dvfd.incidents import incident as rules
from dvfd.incidents.incident import Cause, Incident, Moment, Need, Ran, State
from dvfd.masking import masked
from dvfd.model import Severity, Verdict, worst
from dvfd.people.attestations import moment, words
from dvfd.reduce import seconds
from dvfd.sinks.alert import delayed_alert, phase_test_alert
from dvfd.state import Failures

if TYPE_CHECKING:
    from dvfd.control import Peer
    from dvfd.evidence.chain import Record
    from dvfd.evidence.ledger import Evidence
    from dvfd.model import Catalogue, Clock
    from dvfd.sinks.alert import Alert
    from dvfd.sinks.pager import Pager
    from dvfd.telemetry.processes import Process

KIND, SEEN = "incident", "incidents seen"
"""Kinds of the records in the store: an incident by its id, and how far the ledger was read."""

KEY = "incident:"
"""How the keys of our alerts begin; check and phase follow, and whom it calls."""

BEAT = 5.0
"""Seconds between looks at the deadlines, which are hours away; news of the ledger wakes us."""

MARKED = 60.0
"""Seconds after which an incident's age is written down again: a reboot is measured from there by
the wall clock, so that a step of it before counts for nothing.
"""

LATE = 600.0
"""Seconds after which a failure is too old to stop anything: what runs now is not what failed."""

TICKS = os.sysconf("SC_CLK_TCK")
"""Of a process's start time in a second: after boot, as CLOCK_BOOTTIME has it."""

STUCK = 60.0
"""Seconds without a look at the deadlines after which that is told."""

ENDING = 10.0
"""Seconds that a bundle in the making may hold up the daemon's end: most take two."""

NAME, TEXT = 100, 2000
"""Letters of a name, and of a finding, at most."""

ATTACHED = 1 << 20
"""Bytes of an attached file: it comes through the control socket, in Base64."""

log = structlog.get_logger()


class Kept(Protocol):
    """What is asked of the store."""

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep a record."""
        ...

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """The records of a kind by key."""
        ...


class Acted(Protocol):
    """Who writes down what is done to a job, as it is done."""

    def __call__(self, action: Mapping[str, Any], again: Callable[[], str] | None = None) -> object:
        """Take *action*. *again* looks for some seconds whether what was stopped comes back, and
        says what it did then.
        """
        ...


AtOnce = Callable[[Incident, "Record | None", Acted], Mapping[str, Any]]
"""Stops or not, and says so; then preserves, and returns the sealed bundle as a document. Takes
seconds to minutes.
"""


class Incidents:
    """Every incident of this node. Any thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        store: Kept,
        evidence: Evidence,
        clock: Clock,
        boot_id: str,
        directory: Path,
        node: str = "",
        phase: str = "",
        pager: Pager | None = None,
        at_once: AtOnce | None = None,
        keeps: bool = True,
        known: Callable[[], bool] = lambda: True,
    ) -> None:
        """*phase* is the one that this node is in; attached files lie in *directory*. One that does
        not keep anything only says how things stand. *known* tells whether the store was read.
        """
        self._known = known
        self._restored = False
        self._keeps = keeps
        self._acts: list[threading.Thread] = []
        self._catalogue = catalogue
        self._store = store
        self._evidence = evidence
        self._clock = clock
        self._boot_id = boot_id
        self._directory = directory
        self._node = node
        self._phase = phase
        self._pager = pager
        self._at_once = at_once
        self._found: dict[str, Incident] = {}
        self._runs: list[Ran] = []
        self._read = 0
        self._cluster = ""
        self._busy: set[str] = set()
        self._owing: set[str] = set()
        self._trouble = ""
        self._shown: Sequence[Mapping[str, Any]] = ()
        self._looked = clock.boot()
        self._lock = threading.RLock()
        self._news = True
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="incidents", daemon=True)
        evidence.listen(self._heard)

    # --- Over time ------------------------------------------------------------------------------

    def load(self) -> None:
        """Bring back what was kept, and open what failed while nobody listened."""
        self.tick()

    def _restore(self) -> None:
        """Bring back what was kept, once. Raises StoreError while the store cannot be read: what
        was opened meanwhile would take the place of what people said of it.
        """
        if not self._known():
            raise StoreError("the store could not be read yet")
        for document in self._store.all(KIND).values():
            try:
                found = Incident.from_document(document)
            except DvfdError as error:
                log.error("stored incident not restored", problem=str(error))  # noqa: TRY400
                continue
            self._found[found.id] = found
            if self._keeps:
                self._owing.add(found.id)
        self._restored = True

    def start(self) -> None:
        """Begin to look after deadlines."""
        self._looked = self._clock.boot()
        self._thread.start()

    def stop(self) -> None:
        """Look no more. What is being preserved has some seconds left; what is not preserved by
        then is preserved by the next daemon. Nothing is stopped twice.
        """
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)
        until = time.monotonic() + ENDING
        for act in self._acts:
            act.join(max(0.0, until - time.monotonic()))

    def _go(self) -> None:
        while not self._stop.is_set():
            self.tick()
            self._wake.wait(BEAT)
            self._wake.clear()

    def tick(self) -> None:
        """Take what the ledger has, move every incident on, tell, and have done what is to be done
        at once. What cannot be done now is tried again, and shown as `trouble`.
        """
        try:
            with self._lock:
                fresh = not self._restored
                if fresh:
                    self._restore()
                self._take()
                for incident in [each for each in self._found.values() if not each.over]:
                    self._move(incident)
                if fresh:
                    self._tell_all()
                self._pay()
            self._trouble = ""
        except (DvfdError, OSError) as error:
            if str(error) != self._trouble:
                log.error("incidents not moved on", problem=str(error))  # noqa: TRY400  # said in full
            self._trouble = str(error)
        self._shown = self.on()
        self._looked = self._clock.boot()
        self._do_at_once()

    @property
    def trouble(self) -> str:
        """Why incidents do not move on; empty while they do."""
        silent = self._clock.boot() - self._looked
        watching = self._thread.ident is not None and not self._stop.is_set()
        if watching and silent > STUCK:  # it waits for a disk, or died
            return f"nobody looked after them for {seconds(silent)}: the disk hangs, or see the log"
        return self._trouble

    def now(self) -> Moment:
        """By all clocks."""
        return present(self._clock, self._boot_id)

    def _heard(self, record: Record) -> None:
        if record.kind in ("run", "waiver"):
            self._news = True
            self._wake.set()

    # --- From the ledger ------------------------------------------------------------------------

    def _take(self) -> None:
        """Read the runs that were recorded since the last time."""
        if not self._news:
            return
        seen = self._seen()
        records = self._evidence.records("run")
        waived = self._waived()
        runs = [run for record in records if (run := self._ran(record, waived))]
        self._runs = runs  # all of them: what was waived meanwhile counts for earlier ones too
        fresh = [run for run in runs if run.number > self._read]
        ended = self._ended() if fresh else {}
        for run in fresh:
            self._read = run.number
            if run.number > max(seen, ended.get((run.check, run.phase), 0)):
                self._happened(run)
        if self._read > seen and self._keeps:
            self._store.put(SEEN, "ledger", {"number": self._read, "cluster": self._cluster})
        self._news = False

    def _seen(self) -> int:
        """How far the ledger was read, by whoever did. Of another ledger nothing was."""
        known, cluster = self._store.all(SEEN).get("ledger", {}), self._evidence.cluster
        before = self._cluster or str(known.get("cluster", cluster))
        self._cluster = cluster
        if before == cluster:
            return int(known.get("number", 0))
        self._read = 0
        for incident in [each for each in self._found.values() if not each.over]:
            self._keep(replace(incident, fixed_after=0), incident)  # its opening is owed anew
        return 0

    def _ran(self, record: Record, waived: Mapping[str, float]) -> Ran | None:
        """A recorded run; None for one that says no verdict we know, which opens nothing."""
        try:
            return ran(record, waived, self._phase_of(record), self._cluster)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if record.number > self._read:
                log.error("run in the ledger not understood", number=record.number, why=repr(error))  # noqa: TRY400
            return None

    def _waived(self) -> dict[str, float]:
        """Until when each criterion is waived."""
        newest = {record.subject: record.body for record in self._evidence.records("waiver")}
        ends = {name: body.get("expires") for name, body in newest.items()}
        return {name: float(at) for name, at in ends.items() if isinstance(at, int | float)}

    def _ended(self) -> dict[tuple[str, str], int]:
        """The last record of the ledger at which a check's incident was resolved. What failed
        before that is history, whatever became of the store.
        """
        records = self._evidence.records("incident")
        over = [record for record in records if record.body.get("state") == State.RESOLVED]
        return {
            (str(each.body.get("check")), str(each.body.get("phase"))): each.number for each in over
        }

    def _phase_of(self, record: Record) -> str:
        """The phase that a run was made for: this node's, if its gate asks for that test."""
        gate = self._catalogue.gates.get(self._phase)
        if gate is not None and record.subject in gate.tests:
            return gate.id
        return str(record.body.get("phase", ""))

    def _happened(self, run: Ran) -> None:
        """Open an incident for *run*, or attach it to the one that is open."""
        on = next((i for i in self._found.values() if _same(i, run)), None)
        if on is not None:
            self._keep(rules.attached(on, run, self.now()), on)
        elif run.verdict == Verdict.FAIL and run.phase in self._catalogue.gates:
            id_ = f"{run.check}-{run.number}"
            if id_ in self._found:  # of the ledger before this one
                id_ = f"{id_}-{run.ledger[:6]}"
            made = rules.opened(run, incident_id=id_, node=self._node, now=self.now())
            log.error("incident opened", incident=id_, phase=run.phase, run=run.run)
            self._keep(made, None)

    # --- Moving on ------------------------------------------------------------------------------

    def _move(self, incident: Incident) -> None:
        now, before = self.now(), incident
        while (after := rules.advance(incident, now)) is not incident:
            incident = after
        incident = rules.settled(incident, self._needs(incident), now)
        if incident.elapsed(now) - incident.mark.elapsed >= MARKED:
            incident = replace(incident, mark=incident.mark.moved(now))
        if incident is not before:
            self._keep(incident, before)

    def _keep(self, incident: Incident, before: Incident | None) -> None:
        """Write *incident* down and tell. What belongs into the ledger is owed until it is there: a
        full disk must not keep the team lead from hearing of it.
        """
        if incident is before:
            return
        self._found[incident.id] = incident
        if not self._keeps:
            return
        self._store.put(KIND, incident.id, incident.to_document())
        for entry in incident.journal[len(before.journal) if before else 0 :]:
            log.info(
                "incident", incident=incident.id, what=entry.what, who=entry.who, why=entry.why
            )
        self._tell(incident)
        self._owing.add(incident.id)

    def _pay(self) -> None:
        """Append to the ledger what it does not have yet. Raises StoreError."""
        for id_ in sorted(self._owing):
            incident = self._found[id_]
            if incident.over and not self._is_here(incident):
                self._owing.discard(id_)
                continue
            known = self._evidence.newest("incident", id_)
            if known is None:
                self._append(incident, State.OPEN)
            if incident.delay is not None and not self._has_delay(incident, incident.delay):
                delay = incident.delay
                body = {"weeks": delay.weeks, "until": delay.until, "reason": delay.why}
                body |= {"incident": id_}
                self._evidence.append("delay", incident.phase, body, submitted=delay.by)
            if incident.over and (known is None or known.body.get("state") != State.RESOLVED):
                self._append(incident, State.RESOLVED)
            self._owing.discard(id_)

    def _is_here(self, incident: Incident) -> bool:
        """Whether the ledger has anything of *incident*: it may have been of the one before."""
        runs = (*incident.failures, *incident.reruns)
        return any(run.ledger in ("", self._cluster) for run in runs)

    def _append(self, incident: Incident, state: State) -> None:
        entry = incident.journal[-1 if state is State.RESOLVED else 0]
        body = {
            "state": str(state),
            "check": incident.check,
            "phase": incident.phase,
            "why": entry.why,
            "failures": [run.number for run in incident.failures],
            "reruns": [run.number for run in incident.reruns],
        }
        self._evidence.append("incident", incident.id, body, submitted=entry.who)

    def _has_delay(self, incident: Incident, delay: rules.Delay) -> bool:
        bodies = [each.body for each in self._evidence.records("delay", incident.phase)]
        ours = [body for body in bodies if body.get("incident") == incident.id]
        return any(body.get("weeks") == delay.weeks for body in ours)

    def _needs(self, incident: Incident) -> tuple[Need, ...]:
        wanted = self._processes(incident.phase)
        return rules.needed(incident, self.suite(incident), self._runs, processes=wanted)

    def _processes(self, phase: str) -> int:
        """How many processes the tests of a phase are run with: its stability run says so. A test
        that several phases ask for is not shown by a run of fewer.
        """
        gate = self._catalogue.gates.get(phase)
        checks = [self._catalogue.checks[name] for name in gate.tests] if gate else []
        return max((check.processes for check in checks if check.every), default=0)

    def suite(self, incident: Incident) -> tuple[str, ...]:
        """The checks that are run again once the cause is fixed: all that the phase's gate asks
        for, and the one that failed.
        """
        gate = self._catalogue.gates.get(incident.phase)
        tests = gate.tests if gate else ()
        return tuple(dict.fromkeys((*tests, incident.check)))

    # --- Alerts ---------------------------------------------------------------------------------

    def _alerts(self, incident: Incident) -> dict[str, Alert]:
        """What is to fire for *incident*, by key."""
        if incident.over:
            return {}
        step = rules.next_step(incident, self._needs(incident))
        found = [phase_test_alert(incident, KEY, step)]
        if incident.delay is not None:
            found.append(delayed_alert(incident, KEY, moment(incident.delay.until)))
        return {alert.key: alert for alert in found}

    def _tell_all(self) -> None:
        """See that what fires is what is to fire: without a daemon incidents moved on unheard."""
        if self._pager is None:
            return
        wanted = {key for each in self._found.values() for key in self._alerts(each)}
        for key in {k for k in self._pager.firing() if k.startswith(KEY)} - wanted:
            self._pager.clear_alert(key, self._clock.now(), {})
        for incident in self._found.values():
            if not incident.over:  # of the same test a later one may be open
                self._tell(incident)

    def _tell(self, incident: Incident) -> None:
        """The old label set ends, the new one begins: whom an alert calls is one of its labels."""
        if self._pager is None:
            return
        wanted = self._alerts(incident)
        ours = f"{KEY}{incident.check}:{incident.phase}:"
        for key in {k for k in self._pager.firing() if k.startswith(ours)} - set(wanted):
            self._pager.clear_alert(key, self._clock.now(), {})
        for alert in wanted.values():
            self._pager.raise_alert(alert, {})

    # --- At once --------------------------------------------------------------------------------

    def _do_at_once(self) -> None:
        """Have what is not yet preserved preserved, each in a thread of its own."""
        if self._at_once is None or not self._thread.is_alive():
            return
        with self._lock:
            todo = [id_ for id_ in self.unpreserved() if id_ not in self._busy]
            self._busy |= set(todo)
        for id_ in todo:
            act = threading.Thread(target=self.act, args=(id_,), name="incident", daemon=True)
            self._acts = [*(other for other in self._acts if other.is_alive()), act]
            act.start()

    def unpreserved(self) -> list[str]:
        """The incidents of which nothing was preserved yet."""
        with self._lock:
            found = self._found.values()
            return [each.id for each in found if each.bundle is None and not each.over]

    def act(self, incident_id: str) -> None:
        """Do for an incident what is to be done at once, and write down what became of it."""
        crashed = ""
        try:
            bundle = self._act(incident_id)
        except Exception as error:  # it must not be tried again and again
            log.exception("nothing done at once", incident=incident_id)
            crashed = f"it could not be done: {error!r}"
            bundle = {"missing": [crashed]}
        said = _sealed(bundle)
        try:
            with self._lock:
                before = self._found[incident_id]
                action = dict(before.action or {"action": "", "words": ""})
                if crashed:
                    action["words"] = "; ".join(filter(None, (action["words"], crashed)))
                after = replace(before, bundle=dict(bundle), action=action)
                self._keep(rules.noted(after, self.now(), rules.DVFD, "preserved", said), before)
        finally:
            self._busy.discard(incident_id)

    def _act(self, incident_id: str) -> Mapping[str, Any]:
        incident = self._found[incident_id]
        assert self._at_once is not None
        first = incident.failures[0]
        ours = self._evidence.records("run") if first.ledger in ("", self._cluster) else []
        record = next((r for r in ours if r.number == first.number), None)
        return self._at_once(incident, record, partial(self._acted, incident_id))

    def _acted(
        self,
        incident_id: str,
        action: Mapping[str, Any],
        again: Callable[[], str] | None = None,
    ) -> None:
        """Write *action* down when it is taken: no daemon after this one takes it once more."""
        with self._lock:
            before = self._found[incident_id]
            words = str(action.get("words", ""))
            after = replace(before, action=dict(action))
            self._keep(rules.noted(after, self.now(), rules.DVFD, "stop", words), before)
        if again is not None:
            args = (incident_id, again)
            threading.Thread(target=self._look_again, args=args, name="again", daemon=True).start()

    def _look_again(self, incident_id: str, again: Callable[[], str]) -> None:
        if words := again():
            with self._lock:
                before = self._found[incident_id]
                self._keep(rules.noted(before, self.now(), rules.DVFD, "stop", words), before)

    # --- What people ask and say ----------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Every incident in short, those that are not over first, the newest first of each."""
        with self._lock:
            found = sorted(self._found.values(), key=lambda i: (i.over, -i.opened_at))
            told = [self._brief(incident) for incident in found]
            document = {"at": self._clock.now(), "trouble": self.trouble, "incidents": told}
            return masked(document)

    def failures(self) -> Failures:
        """Those that are not over, for page and status, as they were at the last look: whoever asks
        never waits for the disk.
        """
        return Failures(on=self._shown, trouble=self.trouble)

    def ids(self) -> list[str]:
        """All names."""
        with self._lock:
            return sorted(self._found)

    def on(self) -> list[dict[str, Any]]:
        """Those that are not over, in short."""
        with self._lock:
            found = [incident for incident in self._found.values() if not incident.over]
            return [self._brief(each) for each in sorted(found, key=lambda i: i.opened_at)]

    def show(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One of them, all that is known of it. Raises DvfdError if there is none."""
        with self._lock:
            incident = self._named(request)
            document = incident.to_document()
            for private in ("mark", "fixed_after"):
                del document[private]
            suite = list(self.suite(incident))
            return masked({**document, **self._brief(incident), "suite": suite})

    def update(self, request: Mapping[str, Any], submitted: str) -> dict[str, Any]:
        """Take what *request* says of an incident: `finding`, `cause`, `delay` in weeks, `file`
        with its `content` in Base64; `name` is whose word it is. Raises DvfdError.
        """
        by = words(request, "name", NAME)
        finding = words(request, "finding", TEXT, empty=True)
        cause, weeks = _cause(request.get("cause")), request.get("delay")
        if not (finding or cause or weeks or request.get("file")):
            raise DvfdError("nothing said: --finding, --attach, --cause or --delay")
        if cause and not finding:
            raise DvfdError(f"cause {cause}: say with --finding what it is, or what was looked at")
        who = by if by == submitted else f"{by} (as {submitted})"
        with self._lock:
            before = self._named(request)
            after, now = before, self.now()
            if before.over:
                raise DvfdError(f"incident {before.id} is resolved: a new failure opens another")
            if cause:
                newest = max((run.number for run in self._runs), default=0)
                after = rules.caused(after, cause, now, who=who, why=finding, newest=newest)
            elif finding and not request.get("file"):
                after = rules.found(after, finding, now, who=who)
            if weeks:
                why = finding or "said so"
                after = rules.delayed(after, weeks, now, who=who, why=why)
            if request.get("file"):
                kept = self._attach(before, request)
                after = rules.found(
                    after, finding or str(request["file"]), now, who=who, attached=kept
                )
            self._keep(after, before)
        self.tick()
        return self.show(request)

    def _named(self, request: Mapping[str, Any]) -> Incident:
        """The incident that *request* means. Raises DvfdError if there is none."""
        id_ = str(request.get("id", ""))
        if id_ in self._found:
            return self._found[id_]
        raise DvfdError(f"no incident {id_!r:.80} is known here: dvfd incident list")

    def _attach(self, incident: Incident, request: Mapping[str, Any]) -> str:
        """Keep the file in *request* beside the incident; its name, size and hash. Raises
        DvfdError.
        """
        name = Path(words(request, "file", NAME)).name
        try:
            data = base64.b64decode(str(request.get("content", "")), validate=True)
        except binascii.Error:
            raise DvfdError("content: Base64 wanted") from None
        if not name or len(data) > ATTACHED:
            limit = f"wanted at most {ATTACHED}: put it where it stays, and name it in --finding"
            raise DvfdError(f"attach: {len(data)} bytes, {limit}")
        # The journal does not know a file of its next number: one that lies there was never told.
        place = self._directory / incident.id / f"{len(incident.journal):03d}-{name}"
        beside = place.with_name(f".{place.name}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise StoreError(f"{place}: not attached: {error.strerror}") from None
        return f"{place}, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"

    def _brief(self, incident: Incident) -> dict[str, Any]:
        now = self.now()
        needs = self._needs(incident)
        coming = rules.due(incident)
        elapsed = incident.elapsed(now)
        return {
            "id": incident.id,
            "check": incident.check,
            "title": incident.title,
            "phase": incident.phase,
            "node": incident.node,
            "state": str(incident.state),
            "escalation": "" if incident.over else str(incident.escalation),
            "opened_at": incident.opened_at,
            "resolved_at": incident.resolved_at,
            "age": elapsed,
            "due": {"what": coming[0], "at": now.wall + coming[1] - elapsed} if coming else None,
            "cause": str(incident.cause),
            "why": incident.failures[-1].reasons[0] if incident.failures[-1].reasons else "",
            "failed": len(incident.failures),
            "reran": len(incident.reruns),
            "delayed_until": incident.delay.until if incident.delay else None,
            "needs": [asdict(need) for need in needs] if incident.fixed_at else [],
            "bundle": dict(incident.bundle) if incident.bundle is not None else None,
            "action": dict(incident.action) if incident.action is not None else None,
            "next": rules.next_step(incident, needs),
        }


def present(clock: Clock, boot_id: str) -> Moment:
    """Now, by all clocks, in the boot of that name."""
    return Moment(wall=clock.now(), boot=clock.boot(), boot_id=boot_id)


def ran(record: Record, waived: Mapping[str, float], phase: str, ledger: str = "") -> Ran:
    """A `run` record of the ledger of that name, with what was *waived* when it was made."""
    body = record.body
    rows = [
        (row, _verdict(row, waived, record.at))
        for row in body.get("results", ())
        if row.get("severity") == Severity.CRITICAL
    ]
    verdict = worst(v for _, v in rows) if rows else Verdict(str(body.get("verdict", "UNKNOWN")))
    failed = [row for row, found in rows if found is Verdict.FAIL]
    return Ran(
        number=record.number,
        at=record.at,
        run=str(body.get("run", "")),
        check=record.subject,
        title=str(body.get("title", "")),
        phase=phase,
        verdict=verdict.value,
        processes=int(body.get("processes") or 0),
        began=float(body.get("began") or 0.0),
        ended=float(body.get("ended") or 0.0),
        shortened=str(body.get("shortened") or ""),
        reasons=tuple(f"{row['criterion']}: {row.get('reason', '')}" for row in failed),
        ledger=ledger,
    )


def _verdict(row: Mapping[str, Any], waived: Mapping[str, float], at: float) -> Verdict:
    verdict = Verdict(row["verdict"])
    lets = verdict in (Verdict.FAIL, Verdict.UNKNOWN) and at < waived.get(row["criterion"], 0.0)
    return Verdict.WAIVED if lets else verdict


def _same(incident: Incident, run: Ran) -> bool:
    return (not incident.over) and (incident.check, incident.phase) == (run.check, run.phase)


def _cause(said: object) -> Cause:
    try:
        return Cause(str(said or ""))
    except ValueError:
        raise DvfdError(f"cause {said!r:.40}: wanted fixed or unknown") from None


def _sealed(bundle: Mapping[str, Any]) -> str:
    """What was preserved, in a sentence."""
    missing = "; ".join(bundle.get("missing", ()))
    if not bundle.get("path"):
        return missing
    size = f"{bundle['bytes']} bytes in {bundle['parts']} parts, sha256 {bundle['sha256']}"
    return f"{bundle['path']}: {size}" + (f"; missing: {missing}" if missing else "")


def overdue(incident: Incident, now: Moment) -> bool:
    """Whether the failure is too old for anything to be stopped."""
    return incident.elapsed(now) > LATE


def too_late(incident: Incident, now: Moment) -> str:
    """Why nothing is stopped any more."""
    age = seconds(incident.elapsed(now))
    return f"nothing was stopped: the failure was noticed {age} after it was recorded"


def between(process: Process, incident: Incident, now: Moment) -> bool:
    """Whether *process* began after the failure and before *now*: it is no part of what failed."""
    run, age = incident.failures[0], now.boot - process.start / TICKS
    return 0.0 <= age < incident.elapsed(now) + max(0.0, run.at - (run.ended or run.at))


def operations(incidents: Incidents) -> dict[str, Operation]:
    """What can be asked of a daemon."""

    def update(request: Mapping[str, Any], peer: Peer) -> Any:
        return incidents.update(request, peer.name)

    return {
        "incidents": Operation(lambda request, peer: incidents.document()),
        "incident": Operation(lambda request, peer: incidents.show(request)),
        "incident_update": Operation(update, changes=True),
    }
