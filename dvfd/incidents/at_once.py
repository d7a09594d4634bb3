"""What is done at once where a phase's test failed: stop the job, or only say so, and preserve."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from dvfd.environment import environment_facts
from dvfd.errors import DvfdError
from dvfd.incidents.halt import halt
from dvfd.incidents.preserve import Bundle, Orders, by_child
from dvfd.incidents.protocol import between, overdue, too_late
from dvfd.masking import redacted_environment
from dvfd.telemetry.processes import GONE, Process, Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dvfd.config import Config
    from dvfd.evidence.chain import Record
    from dvfd.incidents.incident import Incident, Moment
    from dvfd.incidents.protocol import Acted
    from dvfd.model import Catalogue

RETURNS = 20.0
"""Seconds in which a launcher that restarts its ranks has them registered again: importing torch
takes ten of them on a busy node.
"""

log = structlog.get_logger()

SUFFIX = ".tar.gz"

BEFORE = 60.0
"""Seconds of the tools' messages before the run began: what led to it."""


class AtOnce:
    """Stops and preserves, in the calling thread: up to the grace and some minutes."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        *,
        state: Path,
        now: Callable[[], Moment],
        job_of: Callable[[str], str] = lambda _run: "",
        named: Callable[[str], Sequence[str]] = lambda _name: (),
        registered: Callable[[str], Iterable[Process]] = lambda _job: (),
        unseen: Callable[[str], int] = lambda _job: 0,
        status: Callable[[], Mapping[str, Any]] = dict,
        settle: Callable[[], object] = bool,
        seal: Callable[[Orders], Bundle] = by_child,
        proc: Path = Path("/proc"),
    ) -> None:
        """*job_of* names the job of a run, empty where there is none; *named* gives the labels of
        the jobs of a name, of which namesakes have one each; *registered* gives a job's
        processes, *unseen* how many of its ranks run where they cannot be seen; *status* is the
        status document; *settle* has the store write what waits.
        """
        self._config = config
        self._catalogue = catalogue
        self._state = state
        self._now = now
        self._job_of = job_of
        self._named = named
        self._registered = registered
        self._unseen = unseen
        self._status = status
        self._settle = settle
        self._seal = seal
        self._proc = proc

    def __call__(self, incident: Incident, record: Record | None, acted: Acted) -> dict[str, Any]:
        """Read what a stop takes away, stop, then preserve: logs tell of a last checkpoint."""
        job = self._job(incident)
        labels = self._named(job) or [job]
        texts = self._environments(labels)
        if incident.action is None or incident.action.get("begun"):
            self._act(incident, job, labels, acted)
        self._settle()
        bundle = self._seal(self.orders(incident, record, texts))
        if bundle.path:
            log.info("evidence preserved", incident=incident.id, path=bundle.path)
        else:
            log.error("evidence not preserved", incident=incident.id, why=bundle.missing)
        return asdict(bundle)

    # --- Stop, or only say so -------------------------------------------------------------------

    def _job(self, incident: Incident) -> str:
        with suppress(DvfdError):
            return self._job_of(incident.failures[0].run)
        return ""

    def _act(self, incident: Incident, job: str, labels: Sequence[str], acted: Acted) -> None:
        """Stop the job, unless there is a reason not to. That it is being stopped is written down
        before, for the daemon that finds it begun. What began after the failure and before this is
        spared: people may have started it. What begins from here on a launcher brings back.
        """
        action = "stop" if self._config.stops else "notify"
        told = {"action": action, "job": job}
        if reason := self._left_alone(incident, job, labels):
            acted(told | {"words": reason})
            return
        spared = partial(between, incident=incident, now=self._now())
        ours = partial(self._ours, labels[0], spared)
        acted(told | {"begun": True, "words": f"job {job} is being stopped"})
        self._settle()
        halted = halt(ours, grace=self._config.incidents.grace)
        cut_off = [_unknown(job)] if incident.action and not halted.asked else []
        left = self._not_ours(job, labels[0], spared)
        words = "; ".join([halted.words(job), *left, *cut_off])
        log.warning("job stopped", incident=incident.id, job=job, words=words)
        again = partial(self._again, job, ours) if halted.asked else None
        acted(told | {"words": words, "asked": len(halted.asked)}, again)

    def _left_alone(self, incident: Incident, job: str, labels: Sequence[str]) -> str:
        """Why nothing is stopped; nothing where it is."""
        if not job:
            return "nothing to stop: the test's own processes ended with it"
        if not self._config.stops:
            return f"job {job} was left alone: [incidents] action is notify here"
        if overdue(incident, self._now()):
            return too_late(incident, self._now())
        if len(labels) > 1:
            which = f"more than one job is named {job}: {', '.join(labels)}"
            return f"nothing was stopped: {which}; end the one that failed"
        return ""

    def _ours(self, label: str, spared: Callable[[Process], bool]) -> list[Process]:
        return [process for process in self._registered(label) if not spared(process)]

    def _not_ours(self, job: str, label: str, spared: Callable[[Process], bool]) -> Iterator[str]:
        table = Processes(self._proc)
        left = [p for p in self._registered(label) if spared(p) and table.state(p) not in GONE]
        if left:
            yield f"{len(left)} processes of job {job} began after the failure and were left alone"
        if unseen := self._unseen(label):
            where = "run where they cannot be seen from here: end them yourself"
            yield f"{unseen} ranks of job {job} {where}"

    def _again(self, job: str, ours: Callable[[], Iterable[Process]]) -> str:
        """Stop what a launcher started again; what was done, or nothing."""
        halted = halt(ours, grace=self._config.incidents.grace, linger=RETURNS)
        if not (halted.asked or halted.refused):
            return ""
        log.warning("job stopped again", job=job, words=halted.words(job))
        return f"job {job} was started again, and stopped again: {halted.words(job)}"

    # --- Preserve -------------------------------------------------------------------------------

    def orders(self, incident: Incident, record: Record | None, texts: Mapping[str, str]) -> Orders:
        """What goes into the bundle of *incident*; *texts* is what was read already."""
        run, settings, now = incident.failures[0], self._config.incidents, self._now()
        until = max(run.ended, run.at)
        since = max(until - settings.window, 0.0)
        made = {
            "incident.json": _json(incident.to_document()),
            "record.json": _json(record.to_document() if record else {}),
            "configuration.json": _json(self._config.shown()),
            "catalogue.json": _json(self._framework()),
            "status.json": _json(dict(self._status())),
            "environment/node.json": _json(environment_facts(self._proc)),
            **texts,
        }
        return Orders(
            incident=incident.id,
            node=incident.node,
            path=self._place(incident.id),
            limit=settings.bundle_bytes,
            spare=settings.free_bytes,
            at=now.wall,
            texts=made,
            files=self._files(run.run, record),
            commands=self._commands(min(since, run.began or since) - BEFORE),
            store=self._state / "dvfd.db",
            metrics=self._catalogue.metrics,
            since=since,
            until=until,
        )

    def _place(self, id_: str) -> Path:
        """Where the bundle goes: what lies there, of a ledger before this one, is not touched."""
        place = self._state / "incidents" / f"{id_}{SUFFIX}"
        return place.with_name(f"{id_}-{self._now().wall:.0f}{SUFFIX}") if place.exists() else place

    def _framework(self) -> dict[str, Any]:
        return {"hash": self._catalogue.hash, "overrides": list(self._catalogue.overrides)}

    def _environments(self, labels: Iterable[str]) -> dict[str, str]:
        """The environment of each process of the jobs, redacted, by its name in the bundle."""
        found = {}
        for process in (each for label in labels for each in self._registered(label)):
            name = f"environment/pid-{process.pid}.json"
            try:
                data = (self._proc / str(process.pid) / "environ").read_bytes()
            except OSError as error:
                found[name] = _json({"not readable": error.strerror})
                continue
            pairs = (pair.partition("=") for pair in data.decode(errors="replace").split("\0"))
            given = {name: value for name, sign, value in pairs if sign}
            found[name] = _json(redacted_environment(given))
        return found

    def _files(self, run: str, record: Record | None) -> dict[str, Path]:
        report = (record.body.get("report") or {}).get("where", "") if record else ""
        logs = {f"logs/{s.name}.log": s.path for s in self._config.logs if s.path is not None}
        ours = self._state / "runs" / f"{run}.log"
        return {
            **({"report.json": self._state / report} if report else {}),
            **({"logs/run.log": ours} if ours.exists() else {}),
            **logs,
        }

    def _commands(self, since: float) -> dict[str, tuple[str, ...]]:
        """The kernel's messages both ways, the daemon's own, and those of watched units."""
        journal = ("journalctl", "--no-pager", "--output=short-iso", f"--since=@{since:.0f}")
        units = {s.name: s.journal_unit for s in self._config.logs if s.journal_unit}
        named = {name: ("--dmesg",) if unit == "kernel" else (f"--unit={unit}",)
                 for name, unit in units.items()}  # fmt: skip
        return {
            "kernel/dmesg.txt": ("dmesg", "--ctime"),
            "kernel/journal.txt": (*journal, "--dmesg"),
            "logs/dvfd.txt": (*journal, "--unit=dvfd"),
            **{f"logs/{name}.txt": (*journal, *which) for name, which in named.items()},
        }


def _unknown(job: str) -> str:
    return f"dvfd ended while it stopped job {job}: look whether that still runs"


def _json(document: object) -> str:
    return json.dumps(document, indent=1, default=str, ensure_ascii=False)
