"""Look at this machine as a first-day user would: what works, what does not, the line to type.

Every look is a plain function from the world to findings. It changes nothing, loads nothing, and
never says ok of what it could not look at.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dvfd import __version__
from dvfd.config import Config, Profile
from dvfd.errors import HistoryError, ProbeError, ToolError
from dvfd.fitting import RIGHT, gaps
from dvfd.masking import masked
from dvfd.words import ago

if TYPE_CHECKING:
    from dvfd.history.look import Looked

SCHEMA = 1
"""Raised when a key of the document changes its meaning or goes."""

REACH = 2.0
"""Seconds that one address may take to answer: it is in the same network."""

SCRAPED = 300.0
"""Seconds after which nobody scrapes: the longest usual scrape interval is a minute."""

DAY = 86_400.0

WANTED_DAYS = 30
"""What the monthly list is about."""

SPACE = 2**30
"""Bytes free below which the store may not last: 35 days of 300 series take about 170 MB."""

HIDDEN = ("/home", "/root", "/run/user")
"""Where other users' rights decide: ProtectHome=read-only shows what is there, no more."""


class Mark(StrEnum):
    """How a thing is. UNKNOWN is what could not be looked at."""

    OK = "ok"
    IMPROVE = "improve"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it is, and what to do about it."""

    section: str
    subject: str
    mark: Mark
    text: str
    do: str = ""


def reach(host: str, port: int) -> str:
    """Why nothing listens there, or an empty string."""
    try:
        socket.create_connection((host, port), timeout=REACH).close()
    except OSError as error:
        return f"{host} port {port} does not answer: {error.strerror or error}"
    return ""


def run(argv: list[str]) -> str:
    """What a tool prints, stripped. Raises ToolError if it fails."""
    from dvfd import shell  # noqa: PLC0415  # subprocess and selectors, for this one look

    done = shell.run(argv, timeout=REACH)
    if done.code:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise ToolError(f"{argv[0]} ended with {done.code}: {last}")
    return done.stdout.strip()


def free(place: Path) -> int:
    """Bytes that *place*'s file system has left. Raises OSError."""
    return shutil.disk_usage(place).free


def engine(config: Config) -> Looked:
    """What the engine of long history shows of this node. Raises HistoryError."""
    from dvfd.history.look import look  # noqa: PLC0415  # http and ssl, where there is one to ask

    return look(config)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the looks look at; tests bring their own."""

    config: Config | None
    problems: tuple[str, ...] = ()  # why there is no configuration
    status: Mapping[str, Any] | None = None  # of the daemon, if one answers
    silence: str = ""  # why a daemon that is there did not answer
    state: Path = Path("/var/lib/dvfd")
    socket: Path = Path("/run/dvfd/ingest.sock")
    root: Path = Path("/")
    user: int = 0
    which: Callable[[str], str | None] = shutil.which
    reach: Callable[[str, int], str] = reach
    run: Callable[[list[str]], str] = run
    free: Callable[[Path], int] = free
    engine: Callable[[Config], Looked] = engine


def examine(world: World) -> list[Finding]:
    """Everything, section by section, in the order in which a person would mend it."""
    return [finding for look in LOOKS for finding in look(world)]


def document(findings: Iterable[Finding]) -> dict[str, Any]:
    """The findings as plain JSON values."""
    rows = [{**_plain(f), "mark": str(f.mark)} for f in findings]
    return {"schema": SCHEMA, "version": __version__, "findings": rows}


def exit_code(findings: Iterable[Finding]) -> int:
    """0 all well, 1 something to improve, 2 something broken, 3 something could not be told."""
    marks = {finding.mark for finding in findings}
    order = ((Mark.BROKEN, 2), (Mark.UNKNOWN, 3), (Mark.IMPROVE, 1))
    return next((code for mark, code in order if mark in marks), 0)


# --- The looks ----------------------------------------------------------------------------------


def look_at_configuration(world: World) -> Iterator[Finding]:
    """Whether the file can be read and fits the framework."""
    if world.config is None:
        for problem in world.problems:
            yield Finding(
                "dvfd", "configuration", Mark.BROKEN, problem, "mend it, then: dvfd config check"
            )
        return
    yield Finding("dvfd", "configuration", Mark.OK, f"sound: {world.config.origin}")
    if not world.config.node.phase:
        yield Finding(
            "dvfd", "phase", Mark.IMPROVE, "the node does not say which phase it is in",
            '[node] phase = "phase1"',
        )  # fmt: skip


def look_at_daemon(world: World) -> Iterator[Finding]:
    """Whether one runs, which, and whether it is well."""
    if world.silence:
        yield Finding(
            "dvfd", "daemon", Mark.BROKEN, world.silence, "journalctl -u dvfd, its log has more"
        )
    elif world.status is None:
        start = "systemctl start dvfd" if _installed(world) else "dvfd run, or scripts/install"
        yield Finding("dvfd", "daemon", Mark.BROKEN, "none runs here: nothing is watched", start)
    else:
        yield from _daemon(world.status)


def _daemon(status: Mapping[str, Any]) -> Iterator[Finding]:
    if status["version"] == __version__:
        yield Finding("dvfd", "daemon", Mark.OK, f"dvfd {__version__} runs")
    else:
        yield Finding(
            "dvfd", "daemon", Mark.IMPROVE,
            f"dvfd {status['version']} runs, this command is {__version__}",
            "systemctl restart dvfd",
        )  # fmt: skip
    for trouble in status["troubles"]:
        yield Finding("dvfd", "daemon", Mark.BROKEN, trouble, "journalctl -u dvfd")
    for notice in status["notices"]:
        yield Finding("dvfd", "daemon", Mark.IMPROVE, notice, "dvfd status says more")


def look_at_store(world: World) -> Iterator[Finding]:
    """Where measurements are kept, and whether they will fit."""
    told = (world.status or {}).get("store", {})
    place = Path(told["path"]).parent if told.get("path") else world.state
    there = next((p for p in (place, *place.parents) if p.exists()), None)
    try:
        free = world.free(there or Path("/"))
    except OSError as error:
        yield Finding("dvfd", "store", Mark.UNKNOWN, f"{place}: {error.strerror}")
        return
    text = f"{place}, {free / 2**30:.1f} GiB free"
    if free < SPACE:
        yield Finding(
            "dvfd", "store", Mark.IMPROVE, f"{text}, wanted at least 1",
            "make room, or move it: StateDirectory= or DVFD_STATE_DIR",
        )  # fmt: skip
    elif world.status is None:
        yield Finding("dvfd", "store", Mark.UNKNOWN, f"{text}; no daemon writes to it")
    else:
        yield Finding("dvfd", "store", Mark.OK if told.get("ok") else Mark.BROKEN, text)


def look_at_sources(world: World) -> Iterator[Finding]:
    """What the daemon's probes say; a source that is down beside what usually mends it."""
    if world.status is None:
        yield Finding(
            "sources", "probes", Mark.UNKNOWN, "the daemon reads them, and none answers",
            "start it, then ask again",
        )  # fmt: skip
        return
    if not world.status["probes"]:
        yield Finding("sources", "probes", Mark.UNKNOWN, "none was read yet", "ask again in 10 s")
    well, none = [], []
    for probe in world.status["probes"]:
        name, error = probe["probe"], probe["error"]
        if probe["not_applicable"] and not probe["overdue"]:
            none.append(name)
        elif probe["up"] and not probe["overdue"] and not error:
            well.append(name)
        elif probe["last_run"] is None:
            yield Finding("sources", name, Mark.UNKNOWN, "not read yet", "ask again in 10 s")
        else:
            mark = Mark.IMPROVE if probe["up"] and not probe["overdue"] else Mark.BROKEN
            yield Finding("sources", name, mark, error or "overdue", _remedy(name, world))
    if well:
        yield Finding("sources", "read", Mark.OK, ", ".join(well))
    if none:
        yield Finding("sources", "not here, says the profile", Mark.OK, ", ".join(none))


def look_at_hardware(world: World) -> Iterator[Finding]:
    """Where the profile and this machine differ, and what it does not say yet."""
    profile = world.config.profile if world.config else None
    if profile is None:
        return
    yield from _fitting(profile, world)
    if profile.link_gbps == 400 and not profile.link_gbps_reason:
        yield Finding(
            "sources", "link", Mark.IMPROVE, "the profile has the framework's 400 Gbps ports",
            "[profile] link_gbps and link_gbps_reason, if this site's are others",
        )  # fmt: skip
    if profile.expected_throughput is None:
        yield Finding(
            "sources", "baseline", Mark.IMPROVE, "no accepted throughput: that line stays UNKNOWN",
            "dvfd calibrate -o FILE, then [profile] calibration = FILE; or say expected_throughput",
        )  # fmt: skip


def _fitting(profile: Profile, world: World) -> Iterator[Finding]:
    """What differs; a source that the daemon's probes tell of is not told twice."""
    try:
        found = list(gaps(profile, world.root))
    except ProbeError as error:
        why = f"whether it fits this machine is not known: {error}"
        yield Finding("sources", "profile", Mark.UNKNOWN, why, "look at it as root")
        return
    told = {probe["probe"] for probe in (world.status or {}).get("probes", ()) if probe["error"]}
    for gap in (gap for gap in found if not (gap.lacking and gap.probe in told)):
        mark = Mark.BROKEN if gap.lacking else Mark.IMPROVE
        yield Finding("sources", gap.subject, mark, gap.text, gap.do)


def look_at_paths(world: World) -> Iterator[Finding]:
    """Logs and files of jobs that are configured: there, and in the daemon's sight."""
    config = world.config
    if config is None:
        return
    paths = [log.path for log in config.logs if log.path] + [f.path for f in config.jobs.files]
    for path in paths:
        yield _path(path, world)
    if not any(log.patterns == "training" for log in config.logs):
        yield Finding(
            "paths", "logs", Mark.IMPROVE, "no training's log is watched: errors in it go unseen",
            UNNAMED_LOG,
        )  # fmt: skip


def _path(path: Path, world: World) -> Finding:
    try:
        with (world.root / str(path).lstrip("/")).open("rb"):
            pass
    except FileNotFoundError:
        return Finding(
            "paths",
            str(path),
            Mark.IMPROVE,
            "not there yet",
            "the job writes it, or the path is wrong",
        )
    except PermissionError:
        return Finding(
            "paths", str(path), Mark.UNKNOWN, f"user {world.user} may not read it: may the daemon?",
            f"setfacl -m u:dvfd:r {path}",
        )  # fmt: skip
    except OSError as error:
        return Finding("paths", str(path), Mark.BROKEN, error.strerror or str(error))
    if str(path).startswith("/tmp/") and _installed(world):  # noqa: S108  # told, not written
        return Finding(
            "paths", str(path), Mark.BROKEN, "PrivateTmp hides it from the daemon",
            f"{RIGHT} tmp, or another place",
        )  # fmt: skip
    if str(path).startswith(HIDDEN):
        return Finding(
            "paths", str(path), Mark.IMPROVE, "in a home: its owner's rights decide what dvfd sees",
            "dvfd status shows whether the source is read",
        )  # fmt: skip
    return Finding("paths", str(path), Mark.OK, "there and readable")


def look_at_jobs(world: World) -> Iterator[Finding]:
    """Whether ranks can report, and whether any does."""
    if not world.socket.exists():
        yield Finding(
            "jobs", "socket", Mark.BROKEN, f"{world.socket} is not there: no rank can report",
            "start the daemon; containers mount the socket",
        )  # fmt: skip
    elif not os.access(world.socket, os.W_OK):
        yield Finding(
            "jobs", "socket", Mark.BROKEN, f"{world.socket}: user {world.user} may not connect",
            "join the socket's group, then log in again",
        )  # fmt: skip
    else:
        yield Finding("jobs", "socket", Mark.OK, f"{world.socket} takes connections")
    if world.status is None:
        return
    if running := _reporting(world.status):
        yield Finding("jobs", "reporting", Mark.OK, ", ".join(running))
    else:
        yield Finding(
            "jobs", "reporting", Mark.IMPROVE, "no job reports: what rests on one is UNKNOWN",
            OWN_JOB,
        )  # fmt: skip


def _reporting(status: Mapping[str, Any]) -> list[str]:
    return [job["job"] for job in status.get("jobs", ()) if job["state"] != "ended"]


def _ranks(status: Mapping[str, Any]) -> int:
    """How many ranks are here; those that are lost are not. A daemon of before does not say."""
    return sum(job.get("present", 1) for job in status["jobs"] if job["state"] != "ended")


def look_at_torch(world: World) -> Iterator[Finding]:
    """Whether checkpoints can be loaded: the interpreter that verifies them has torch."""
    chosen = world.config.checkpoints.python if world.config else None
    python = str(chosen or sys.executable)
    code = "import importlib.util as u; print(u.find_spec('torch') is not None)"
    try:
        found = world.run([python, "-c", code])
    except ToolError as error:
        yield Finding("jobs", "torch", Mark.BROKEN, str(error), "[checkpoints] python = a path")
        return
    if found == "True":
        yield Finding("jobs", "torch", Mark.OK, f"{python} has it: checkpoints can be loaded")
    else:
        yield Finding(
            "jobs", "torch", Mark.IMPROVE,
            f"{python} has none: whether checkpoints load stays UNKNOWN",
            "[checkpoints] python = the interpreter of your jobs",
        )  # fmt: skip


def look_at_alerting(world: World) -> Iterator[Finding]:
    """Whether a breach would reach a person."""
    if world.config is None:
        return
    alerting = world.config.alerting
    if alerting.mode == "rules":
        yield Finding(
            "alerting", "mode", Mark.UNKNOWN, "left to Prometheus' rules, which are not seen here",
            "promtool check rules, then amtool alert",
        )  # fmt: skip
    elif not alerting.urls:
        meant = "urls" in alerting.model_fields_set
        yield Finding(
            "alerting", "alertmanager", Mark.IMPROVE if meant else Mark.BROKEN,
            f"{'urls is empty' if meant else 'none is configured'}: breaches go to the log",
            '[alerting] urls = ["http://alertmanager:9093"]',
        )  # fmt: skip
    peers = {p["url"]: p for p in (world.status or {}).get("delivery", {}).get("peers", ())}
    for url in alerting.urls if alerting.mode != "rules" else ():
        yield _alertmanager(url, peers.get(masked(url)), world)


def _alertmanager(url: str, peer: Mapping[str, Any] | None, world: World) -> Finding:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    shown = f"{parts.scheme}://{host}:{port}{parts.path}"  # never the password in it
    if error := world.reach(host, port):
        return Finding("alerting", shown, Mark.BROKEN, error, f"curl {shown}/-/ready")
    if peer and peer["error"]:
        return Finding("alerting", shown, Mark.BROKEN, str(peer["error"]), "dvfd alerts test")
    if peer and peer["last_success"] and world.status:
        took = ago(peer["last_success"], world.status["at"])
        return Finding("alerting", shown, Mark.OK, f"last took alerts {took}")
    return Finding(
        "alerting", shown, Mark.UNKNOWN, "listens; whether it takes alerts was not tried",
        "dvfd alerts test",
    )  # fmt: skip


def look_at_scraping(world: World) -> Iterator[Finding]:
    """Whether somebody reads /metrics, and who could."""
    http = world.config.http if world.config else None
    if http and http.host not in {"127.0.0.1", "localhost", "::1"} and not _guarded(http):
        yield Finding(
            "prometheus", "listener", Mark.IMPROVE, f"{http.host}: in plain text for the network",
            "[http] web_config, or host = a management address",
        )  # fmt: skip
    if world.status is None:
        return
    at, scraped = world.status["at"], world.status.get("scraped_at")
    if scraped is not None and at - scraped <= SCRAPED:
        yield Finding("prometheus", "scrape", Mark.OK, f"/metrics was read {ago(scraped, at)}")
    else:
        yield Finding(
            "prometheus", "scrape", Mark.IMPROVE, f"/metrics was last read: {ago(scraped, at)}",
            "dvfd assets export DIR: alert_rules/ has an example for prometheus.yml",
        )  # fmt: skip


def look_at_history(world: World) -> Iterator[Finding]:
    """Whether the engine of [history] answers, how far back it reaches, and of which series."""
    if world.config is None or not world.config.history.url:
        return
    try:
        found = world.engine(world.config)
    except HistoryError as error:
        yield Finding(
            "history", "engine", Mark.BROKEN, str(error), "curl URL/api/v1/query?query=up"
        )
        return
    most = world.config.history.clock
    if abs(found.ahead) > most:
        yield Finding(
            "history", "clock", Mark.BROKEN,
            f"{found.words}: {found.ahead:+.0f} s against this node's, wanted within {most:g}",
            "chronyc tracking, here and there",
        )  # fmt: skip
    if len(found.targets) != 1:
        there = ", ".join(found.targets) or "none"
        yield Finding(
            "history", "engine", Mark.BROKEN,
            f"{found.words} answers; of {{{found.called}}} there are {there}, wanted one target",
            "[history] node, node_label, matchers",
        )  # fmt: skip
    else:
        yield from _shown(found)


def _shown(found: Looked) -> Iterator[Finding]:
    """What an engine that knows this node has of it."""
    now, [target] = time.time(), found.targets
    yield Finding("history", "engine", Mark.OK, f"{found.words} answers, and knows {target}")
    if found.newest is None or now - found.newest > SCRAPED:
        yield Finding(
            "history", "newest", Mark.BROKEN, f"newest sample: {ago(found.newest, now)}",
            "is this node scraped, and does what is scraped reach the engine?",
        )  # fmt: skip
    days = 0.0 if found.since is None else (now - found.since) / DAY
    reach = f"it reaches {days:.1f} days back"
    if days < WANTED_DAYS:
        yield Finding(
            "history", "reach", Mark.IMPROVE,
            f"{reach}, wanted {WANTED_DAYS}: until then the monthly list's uptime is UNKNOWN",
            "--storage.tsdb.retention.time, -retentionPeriod; or wait",
        )  # fmt: skip
    else:
        yield Finding("history", "reach", Mark.OK, f"{reach}, or further")
    series = found.series or {}
    if missing := [metric for metric in found.needed if not series.get(metric)]:
        lines = ", ".join(sorted({found.needed[metric] for metric in missing}))
        yield Finding(
            "history", "series", Mark.IMPROVE,
            f"none in the last hour of {', '.join(missing)}: {lines} stay UNKNOWN",
            "does a job report them, or does a relabeling drop them?",
        )  # fmt: skip
    else:
        yield Finding("history", "series", Mark.OK, f"all {len(series)} that the lists rest on")


def look_at_tools(world: World) -> Iterator[Finding]:
    """Programs that validations run. The daemon itself needs none of them."""
    missing = [tool for tool in TOOLS if not world.which(tool)]
    there = [tool for tool in TOOLS if tool not in missing]
    if there:
        yield Finding("tools", "there", Mark.OK, ", ".join(there))
    if missing:
        packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
        yield Finding(
            "tools", "missing", Mark.IMPROVE, f"{', '.join(missing)}: for validations only",
            f"apt-get install {packages}",
        )  # fmt: skip


def look_at_schedule(world: World) -> Iterator[Finding]:
    """When the checklists run."""
    if world.config is None:
        return
    schedule = world.config.schedule
    crons = (schedule.daily, schedule.weekly, schedule.monthly)
    plan = f"daily {crons[0]}, weekly {crons[1]}, monthly {crons[2]}, in {schedule.timezone}"
    mark = Mark.OK if world.status is not None else Mark.UNKNOWN
    yield Finding("schedule", "checklists", mark, plan if mark is Mark.OK else f"{plan}: no daemon")


LOOKS: tuple[Callable[[World], Iterator[Finding]], ...] = (
    look_at_configuration,
    look_at_daemon,
    look_at_store,
    look_at_sources,
    look_at_hardware,
    look_at_paths,
    look_at_jobs,
    look_at_torch,
    look_at_alerting,
    look_at_scraping,
    look_at_history,
    look_at_tools,
    look_at_schedule,
)

TOOLS = {
    "iperf3": "iperf3",
    "mpirun": "openmpi-bin",
    "numactl": "numactl",
    "openssl": "openssl",
    "ping": "iputils-ping",
    "stress-ng": "stress-ng",
}
"""What validations run, and Debian's package of each."""


# --- The world ----------------------------------------------------------------------------------


def _installed(world: World) -> bool:
    """Whether the unit is installed here: then the daemon sees what its sandbox shows."""
    places = ("usr/local/lib", "etc", "usr/lib", "lib")
    return any((world.root / p / "systemd/system/dvfd.service").exists() for p in places)


def _remedy(probe: str, world: World) -> str:
    """What usually brings a source back."""
    sys_class = world.root / "sys/class"
    if probe == "power":
        if any((sys_class / "powercap").glob("intel-rapl:*")):
            return f"{RIGHT} rapl"
        return "no RAPL on this machine: [profile] power_meters = false"
    if probe == "temperature" and not any((sys_class / "hwmon").glob("hwmon*")):
        return (
            "no sensors on this machine, a virtual one say: [profile] temperature_sensors = false"
        )
    if probe == "logs" and world.config and not world.config.logs:
        return UNNAMED_LOG
    if probe == "cpu" and world.status and not _ranks(world.status):
        return OWN_JOB
    kind = probe.partition(".")[0]  # of a site's inputs each has its own name behind that
    log = "journalctl -u dvfd" if _installed(world) else "what dvfd run says"
    return REMEDIES.get(kind, f"{log} | grep {probe}")


UNNAMED_LOG = "[[logs]] name and path, see docs/operations.md"

OWN_JOB = 'README, "Watch your own job": one import, one line a step'


REMEDIES = {
    "cpu": "ps -p PID; findmnt /proc: does hidepid hide the ranks from dvfd?",
    "network": (
        "ip -br link: [profile] interfaces, if the training port is another; a virtual port tells "
        "no speed: dvfd waive live.network"
    ),
    "gpu": f"nvidia-smi; in the sandbox: {RIGHT} gpu",
    "logs": "the error names the log; its owner lets dvfd read it: setfacl -m u:dvfd:r FILE",
    "node": "timedatectl, chronyc tracking: is the clock disciplined?",
    "checkpoints": "dvfd checkpoint verify PATH",
    "plugin": "run its command as dvfd does: sudo -u dvfd env -i PATH=/usr/bin:/bin COMMAND",
    "textfile": "who writes it: the series of [[textfile]], a whole file, renamed into place",
    "scrape": "curl the url of [[scrape]] on this node",
}


def _guarded(http: Any) -> bool:
    return bool(getattr(http, "web_config", None))


def _plain(finding: Finding) -> dict[str, str]:
    return {name: str(getattr(finding, name)) for name in Finding.__dataclass_fields__}
