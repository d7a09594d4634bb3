"""The node's own settings: one TOML file, every mistake in it reported at once.

No file at all is a valid configuration: the defaults watch any job that reports, on a CPU node.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import re
import socket
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime  # at run time: pydantic reads them
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from dvfd import places
from dvfd.errors import ConfigError
from dvfd.masking import STARS, masked, redacted_command

data_dir, runtime_dir, state_dir = places.data_dir, places.runtime_dir, places.state_dir

DEFAULT_CONFIG = Path("/etc/dvfd/dvfd.toml")

LARGEST = 1 << 20
"""Bytes of a configuration: one that names a thousand nodes has a tenth of that."""

MISTAKES, MISTAKE = 100, 1000
"""Mistakes that are told of one configuration, and letters of each."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A table of the file: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Login(Section):
    """A section whose other end may want a name and a password."""

    username: str = ""
    password_file: Path | None = None
    password_credential: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")  # LoadCredential=

    @model_validator(mode="after")
    def _one_password(self) -> Login:
        given = self.password_file or self.password_credential
        if self.password_file and self.password_credential:
            raise ValueError("give either password_file or password_credential")
        if given and not self.username:
            raise ValueError("a password needs a username")
        return self


HIGHEST_CORE = 8191
"""Linux' own bound, CONFIG_NR_CPUS of x86-64."""


class Node(Section):
    """Who this node is."""

    name: str = Field(default_factory=socket.gethostname, min_length=1)
    phase: Literal["", "phase1", "phase2a", "phase2b", "phase2c", "production"] = ""


class Profile(Section):
    """What this node and site should be. NOT_APPLICABLE comes from here and nowhere else."""

    accelerator: Literal["cpu", "gpu"] = "cpu"
    backend: Literal["gloo", "nccl"] = "gloo"
    nodes: int = Field(default=1, ge=1)
    processes_per_node: int = Field(default=4, ge=1)
    gpus: int = Field(default=0, ge=0)
    link_gbps: Positive = 400.0
    link_gbps_reason: str = ""  # why this site's ports are not the framework's 400
    expected_throughput: Positive | None = None
    single_process_throughput: Positive | None = None
    calibration: Path | None = None  # a file of `dvfd calibrate`, for what is not said here
    temperature_sensors: bool = True
    power_meters: bool = True
    interfaces: tuple[str, ...] = ()
    openmpi: Literal["required", "optional"] = "required"
    process_group_timeout: Positive | None = None  # seconds, as the site's jobs set it
    rank_cores: tuple[Annotated[str, Field(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")], ...] = ()

    @model_validator(mode="after")
    def _cores_for_every_rank(self) -> Profile:
        given, wanted = len(self.rank_cores), self.processes_per_node
        numbers = [int(n) for cores in self.rank_cores for n in re.findall(r"\d+", cores)]
        if any(number > HIGHEST_CORE for number in numbers):
            raise ValueError(
                f"rank_cores names processor {max(numbers)}: the most is {HIGHEST_CORE}"
            )
        if given not in (0, wanted):
            raise ValueError(
                f"rank_cores lists {given} ranks, processes_per_node is {wanted}: "
                'give one kernel list for each rank, like ["0-3", "4-7"]'
            )
        return self

    @model_validator(mode="after")
    def _gpus_need_an_accelerator(self) -> Profile:
        if self.gpus and self.accelerator != "gpu":
            raise ValueError(f'gpus = {self.gpus}, but accelerator = "cpu": set it to "gpu"')
        return self


class Cost(Section):
    """What the node costs, for dashboards. Apart from the profile: it changes no verdict, so it
    must not change the hash by which results compare.
    """

    per_hour: Positive | None = None
    currency: str = Field(default="", pattern="^([A-Z]{3})?$")

    @model_validator(mode="after")
    def _in_a_currency(self) -> Cost:
        if (self.per_hour is None) == bool(self.currency):
            raise ValueError('give both or neither: per_hour = 12.5, currency = "EUR"')
        return self


class Schedule(Section):
    """When the checklists run: five-field cron in one declared time zone, jitter by node name."""

    timezone: str = "UTC"
    daily: str = "0 6 * * *"
    weekly: str = "0 7 * * 1"
    monthly: str = "0 8 1 * *"
    jitter: float = Field(default=300.0, ge=0, le=43200)

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        if name not in available_timezones():
            near = difflib.get_close_matches(name, available_timezones(), 1)
            raise ValueError(f"no such time zone: {name!r}{_near(near)}")
        return name

    @property
    def zone(self) -> ZoneInfo:
        """The declared time zone."""
        return ZoneInfo(self.timezone)


class Alerting(Login):
    """Where breaches are pushed. Without a URL they go to the log, and say so."""

    urls: tuple[str, ...] = ()
    mode: Literal["push", "rules", "both"] = "push"
    resend: float = Field(default=60.0, ge=1, le=3600)
    timeout: float = Field(default=5.0, gt=0, le=30)  # more would make the sender a late loop
    storm_count: int = Field(default=10, ge=2)
    storm_window: Positive = 60.0
    external_url: str = ""
    runbooks: str = Field(default="docs/runbooks", min_length=1)

    @field_validator("urls")
    @classmethod
    def _http(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not _is_address(url):
                raise ValueError(f"{_seen(url)!r} is no http:// or https:// address")
        return urls


class Http(Section):
    """The read-only listener for /metrics, /healthz and the page."""

    host: str = Field(default="127.0.0.1", min_length=1)  # "" would mean every interface
    port: int = Field(default=9109, ge=0, le=65535)
    workers: int = Field(default=8, ge=1, le=64)
    web_config: Path | None = None  # TLS and passwords, in the format of Prometheus' exporters


class Allow(Section):
    """A log line that is known and accepted until a date."""

    pattern: str
    until: datetime
    reason: str = Field(min_length=1)


class LogSource(Section):
    """A file (or the journal of a unit) whose lines are searched for errors."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9_]+$")
    path: Path | None = None
    journal_unit: str = ""
    patterns: str = "training"
    metrics: Literal["", "huggingface", "torchtitan", "megatron", "nanogpt", "dvfd"] = ""
    job: str = ""
    samples_per_step: Positive | None = None  # what few logs say, and throughput is made of
    allow: tuple[Allow, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> LogSource:
        if (self.path is None) == (not self.journal_unit):
            raise ValueError("give either path or journal_unit")
        if self.samples_per_step and self.metrics in {"", "huggingface"}:
            raise ValueError(
                "samples_per_step: the lines of this log do not number their steps, so no"
                " throughput can be known: use the callback of dvfd.integrations, or leave it out"
            )
        return self


class Site(Section):
    """What a site adds to the framework: its own criteria, and how much they may cost."""

    checks: Path | None = None  # a directory of metrics.toml and lists: docs/neighbours/README.md
    series: int = Field(default=200, ge=1, le=2000)  # of plugins, text files and scrapes together

    @field_validator("checks")
    @classmethod
    def _absolute(cls, checks: Path | None) -> Path | None:
        return None if checks is None else _from_the_root(checks)


SLACK = 5.0
"""Seconds that a sample may come late: a pass is written and judged after it was made."""

InputName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Plugin(Section):
    """A check of the site's own with the exit codes of Nagios. No shell ever sees the command."""

    name: InputName
    command: tuple[str, ...] = Field(min_length=1)
    interval: float = Field(default=60.0, ge=5, le=86400)
    timeout: float = Field(default=10.0, ge=1, le=300)
    user: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")  # only root can become another

    @model_validator(mode="after")
    def _can_be_run(self) -> Plugin:
        if not os.path.isabs(self.command[0]):  # noqa: PTH117  # a string
            raise ValueError(
                f"command {self.command[0]!r}: wanted an absolute path, no shell finds it"
            )
        if self.timeout > self.interval:
            raise ValueError(f"timeout {self.timeout:g} is above interval {self.interval:g}")
        return self

    @property
    def max_age(self) -> float:
        """Seconds that a result stands: until the next run's must be there."""
        return _stands(self.interval, self.timeout)


class TextFile(Section):
    """A directory of *.prom files, as node_exporter's textfile collector reads them."""

    name: InputName
    directory: Path
    max_age: float = Field(default=900.0, ge=5, le=604_800)  # seconds since a file was written
    interval: float = Field(default=15.0, ge=1, le=3600)

    @field_validator("directory")
    @classmethod
    def _absolute(cls, directory: Path) -> Path:
        return _from_the_root(directory)


class Scrape(Section):
    """The /metrics of an exporter on this node."""

    name: InputName
    url: str
    interval: float = Field(default=15.0, ge=1, le=3600)
    timeout: float = Field(default=5.0, gt=0, le=60)
    elsewhere: bool = False  # may lie on another host
    ca_file: Path | None = None  # whom its certificate is from; the system's if not given
    self_signed: bool = False  # takes any certificate: on this node only

    @model_validator(mode="after")
    def _on_this_node(self) -> Scrape:
        if not _is_address(self.url):
            raise ValueError(f"{_seen(self.url)!r} is no http:// or https:// address")
        host = urlsplit(self.url).hostname or ""
        if not (self.elsewhere or host == "localhost" or _loopback(host)):
            raise ValueError(f"{host} is not this node: wanted 127.0.0.1, or elsewhere = true")
        if self.elsewhere and self.self_signed:
            raise ValueError("self_signed trusts whoever answers: elsewhere give a ca_file")
        if self.timeout > self.interval:
            raise ValueError(f"timeout {self.timeout:g} is above interval {self.interval:g}")
        return self

    @property
    def max_age(self) -> float:
        """Seconds that an answer stands: until the next one must be there."""
        return _stands(self.interval, self.timeout)


def _from_the_root(directory: Path) -> Path:
    if not directory.is_absolute():
        raise ValueError(f"{str(directory)!r} is relative: wanted an absolute path")
    return directory


def _stands(interval: float, timeout: float) -> float:
    """Seconds until the next one must be there, and never more than three intervals."""
    return min(interval + timeout + SLACK, 3 * interval)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Metrics(Section):
    """A JSON-lines file that a job writes and that cannot use the reporter."""

    path: Path
    job: str = Field(min_length=1)
    rank: int = Field(default=0, ge=0)
    world_size: int = Field(default=1, ge=1)


class Jobs(Section):
    """Jobs that must be there, and bounds on those that come by themselves."""

    expected: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    limit: int = Field(default=16, ge=1, le=256)
    ranks_limit: int = Field(default=64, ge=1, le=4096)
    files: tuple[Metrics, ...] = ()


class Checkpoints(Section):
    """How checkpoints are verified, outside the daemon, at idle priority."""

    python: Path | None = None
    verify_every: Positive = 3600.0
    timeout: Positive = 600.0
    memory_bytes: int = Field(default=8 * 2**30, ge=2**26)
    weights_only: bool = True


class Incidents(Section):
    """What is done at once where a phase's test failed."""

    action: Literal["", "notify", "stop"] = ""  # not said: stop in a phase, notify in production
    grace: float = Field(default=60.0, ge=0, le=600)  # seconds for a job's last checkpoint
    bundle_bytes: int = Field(default=256 << 20, ge=1 << 20)  # what is preserved, at most
    free_bytes: int = Field(default=1 << 30, ge=0)  # what stays free on the disk of the state
    window: float = Field(default=3600.0, gt=0, le=604_800)  # seconds of metrics before the end


class Drills(Section):
    """How active tests are run."""

    python: Path | None = None  # the job's interpreter, which has torch; dvfd's own if not given

    @property
    def interpreter(self) -> Path:
        """The interpreter in which torch is looked for."""
        return self.python or Path(sys.executable)


class Member(Section):
    """A node of the cluster, as the others find it."""

    name: str = Field(min_length=1)
    address: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.:-]+$")  # on the training network
    url: str = ""  # of its dvfd, like http://10.0.0.1:9109

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        return _one_address(url)


Port = Annotated[int, Field(ge=1, le=65535)]

PORTS_LEAST = 64
"""Ports that tests between nodes need at the least: four nodes of four ranks, and their flows."""


class Cluster(Login):
    """The nodes that train together. Without any, this node trains alone."""

    lead: str = ""  # judges what is of all nodes, and is where torchrun's ranks find each other
    nodes: tuple[Member, ...] = ()
    interface: str = ""  # of the training network; the one with this node's address if not given
    port: Port = 29511
    ports: tuple[Port, Port] = (29600, 29799)  # what tests listen on, the last one included
    rsh: str = Field(default="ssh", min_length=1)  # how mpirun reaches other nodes
    wait: float = Field(default=300.0, ge=5, le=3600)  # seconds for all nodes to come to a test
    ca_file: Path | None = None  # whom the nodes' certificates are from; the system's if not given
    prometheus: str = ""  # that scrapes all of them: what `dvfd fleet` asks instead of the nodes

    @field_validator("prometheus")
    @classmethod
    def _address(cls, url: str) -> str:
        return _one_address(url)

    @model_validator(mode="after")
    def _led_by_one_of_them(self) -> Cluster:
        names = [node.name for node in self.nodes]
        for what, given in (("name", names), ("address", [node.address for node in self.nodes])):
            if twice := sorted({each for each in given if given.count(each) > 1}):
                raise ValueError(f"two nodes have the {what} {', '.join(twice)}")
        if self.lead not in (names or [""]):
            known = ", ".join(names) or "none, [[cluster.nodes]] is empty"
            raise ValueError(f"lead {self.lead!r} is no node of the cluster: wanted one of {known}")
        return self

    @model_validator(mode="after")
    def _ports_in_order(self) -> Cluster:
        first, last = self.ports
        if last - first + 1 < PORTS_LEAST:
            raise ValueError(
                f"ports {first} to {last}: wanted the first and the last of at least {PORTS_LEAST}"
            )
        if first <= self.port <= last:
            raise ValueError(
                f"port {self.port} lies within ports {first} to {last}: tests use them"
            )
        return self

    def named(self, name: str) -> Member | None:
        """The node of that *name*, if it is one of them."""
        return next((node for node in self.nodes if node.name == name), None)


Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
"""The name of a label of Prometheus."""

Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]

Word = Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")]
"""What a header can carry: no end of line in it."""


class History(Login):
    """The engine that long history is asked of: whatever speaks PromQL over HTTP."""

    url: str = ""  # with its path, like http://mimir:8080/prometheus; /api/v1/query follows it
    use: Literal["lists", "asked"] = "lists"  # asked: by `dvfd history --engine` and the fleet only
    matchers: dict[Label, str] = Field(default_factory=dict)  # that select this cluster, exactly
    node_label: Label = "instance"  # which label names the node
    node: str = ""  # its value for this node; else HOST:PORT, name or address of [[cluster.nodes]]
    tenant: Word = ""
    tenant_header: Header = "X-Scope-OrgID"
    token_file: Path | None = None  # a bearer token
    token_credential: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")
    ca_file: Path | None = None  # whom its certificate is from; the system's if not given
    timeout: float = Field(default=30.0, gt=0, le=300)  # seconds for one answer
    points: int = Field(default=11_000, ge=100, le=1_000_000)  # of one series in one answer
    range_days: float = Field(default=32.0, ge=0.5, le=1000)  # that one question may be about
    answer_bytes: int = Field(default=64 << 20, ge=1 << 16, le=1 << 30)
    clock: float = Field(default=30.0, gt=0, le=3600)  # seconds that its clock may be off

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        return _one_address(url)

    @model_validator(mode="after")
    def _one_way_in(self) -> History:
        if self.token_file and self.token_credential:
            raise ValueError("give either token_file or token_credential")
        token = bool(self.token_file or self.token_credential)
        if token and self.username:
            raise ValueError("give either a username and its password or a token")
        return self

    @model_validator(mode="after")
    def _asked_of_something(self) -> History:
        if not self.url and self.model_fields_set - {"url"}:
            raise ValueError("its url is not given: whom to ask, like http://prometheus:9090")
        return self


class Programme(Section):
    """The way through the phases: when it began, and how long what was measured counts."""

    start: date | None = None  # the first day of week 1; without it gates have no date
    # A gate is due every two weeks: what is older was measured in another phase.
    evidence_days: float = Field(default=14.0, gt=0, le=366)


class Maintenance(Section):
    """A window declared in advance: job criteria are not applicable inside it."""

    since: datetime
    until: datetime
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Maintenance:
        if self.since.tzinfo is None or self.until.tzinfo is None:
            raise ValueError("since and until need an offset, like 2026-03-01T08:00:00Z")
        if self.until <= self.since:
            raise ValueError("until must come after since")
        return self

    def covers(self, at: float) -> bool:
        """Whether Unix time *at* lies in the window."""
        return self.since.timestamp() <= at < self.until.timestamp()


class Override(Section):
    """A site's own threshold for one criterion; every report lists it with its reason."""

    limit: Finite | None = None
    window: Annotated[float, Field(ge=0)] | None = None
    max_age: float | None = Field(default=None, gt=0, le=604_800)
    hold: Annotated[float, Field(ge=0)] | None = Field(default=None, alias="for")
    severity: Literal["critical", "warning", "info"] | None = None
    reason: str = Field(min_length=1)


class Sampling(Section):
    """How often the passive sources are read, in seconds."""

    interval: float = Field(default=5.0, ge=0.5, le=60)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How a calibration file was taken: why not, or an empty string, and what must be read."""

    refused: str = ""
    notices: tuple[str, ...] = ()


class Config(Section):
    """All of it."""

    node: Node = Node()
    profile: Profile = Profile()
    cost: Cost = Cost()
    schedule: Schedule = Schedule()
    sampling: Sampling = Sampling()
    alerting: Alerting = Alerting()
    http: Http = Http()
    jobs: Jobs = Jobs()
    logs: tuple[LogSource, ...] = ()
    site: Site = Site()
    plugin: tuple[Plugin, ...] = Field(default=(), max_length=32)
    textfile: tuple[TextFile, ...] = Field(default=(), max_length=16)
    scrape: tuple[Scrape, ...] = Field(default=(), max_length=16)
    checkpoints: Checkpoints = Checkpoints()
    drills: Drills = Drills()
    incidents: Incidents = Incidents()
    cluster: Cluster = Cluster()
    history: History = History()
    programme: Programme = Programme()
    maintenance: tuple[Maintenance, ...] = ()
    override: dict[str, Override] = Field(default_factory=dict)
    readings: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    _origin: str = PrivateAttr("embedded defaults")
    _calibrated: Calibrated = PrivateAttr(Calibrated())

    @property
    def engine(self) -> History:
        """Whom long history and all nodes are asked of: [history], or what an older key names."""
        if self.history.url or not self.cluster.prometheus:
            return self.history
        url, ca_file = self.cluster.prometheus, self.cluster.ca_file
        return History(url=url, ca_file=ca_file, use="asked")

    @property
    def outdated(self) -> tuple[str, ...]:
        """Keys that are read still and have another place now."""
        if not self.cluster.prometheus:
            return ()
        if self.history.url:
            return ("[cluster] prometheus is not read beside [history] url: take it out",)
        return ("[cluster] prometheus is an older name of [history] url: move it there",)

    @field_validator("logs")
    @classmethod
    def _told_apart(cls, logs: tuple[LogSource, ...]) -> tuple[LogSource, ...]:
        names = [log.name for log in logs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two logs are named {', '.join(twice)}: one would go unread")
        return logs

    @field_validator("plugin", "textfile", "scrape")
    @classmethod
    def _inputs_told_apart(
        cls, inputs: tuple[Plugin | TextFile | Scrape, ...]
    ) -> tuple[Plugin | TextFile | Scrape, ...]:
        names = [each.name for each in inputs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two are named {', '.join(twice)}: which is meant?")
        return inputs

    @property
    def origin(self) -> str:
        """The file that this was read from, to lead complaints about it."""
        return self._origin

    def shown(self) -> dict[str, Any]:
        """As JSON for people: without the secrets in addresses and commands."""
        found: dict[str, Any] = masked(self.model_dump(mode="json"))
        for plugin, told in zip(self.plugin, found["plugin"], strict=True):
            told["command"] = redacted_command(plugin.command)
        return found

    @property
    def calibrated(self) -> Calibrated:
        """How the profile's calibration was taken."""
        return self._calibrated

    def with_calibration(self, values: Mapping[str, float], taken: Calibrated) -> Config:
        """This with *values* where the profile says none, and how they were *taken*."""
        unset = {key: v for key, v in values.items() if getattr(self.profile, key) is None}
        profile = self.profile.model_copy(update=unset)
        config = self.model_copy(update={"profile": profile})
        config._calibrated = taken
        return config

    @property
    def stops(self) -> bool:
        """Whether the job whose run failed is stopped (reading 35)."""
        said = self.incidents.action
        return said == "stop" if said else self.node.phase.startswith("phase")

    @property
    def profile_hash(self) -> str:
        """SHA-256 of the profile and the overrides: results of unequal hashes do not compare.

        Of a calibration its values count, not where it lies.
        """
        text = self.profile.model_dump_json(exclude={"calibration"}) + repr(
            sorted((k, v.model_dump_json()) for k, v in self.override.items())
        )
        return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path | None = None) -> Config:
    """Read the configuration, or the defaults if the default file is absent, and the calibration
    that it names: one that does not hold here leaves its values unset, and a notice.

    Raises ConfigError with one line for each mistake: file, key, reason, nearest known name.
    """
    chosen = path or Path(os.environ.get("DVFD_CONFIG") or DEFAULT_CONFIG)
    try:
        text = plain_text(chosen)
    except FileNotFoundError:
        if path is None and "DVFD_CONFIG" not in os.environ:
            return Config()
        raise ConfigError([f"{chosen}: no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{chosen}: cannot be read: {error}"]) from None
    config = parse(text, str(chosen))
    if config.profile.calibration is None:
        return config
    from dvfd import calibration  # noqa: PLC0415  # it imports this

    return calibration.applied(config)


def plain_text(path: Path) -> str:
    """The text of a plain file, at most LARGEST bytes of it: a FIFO would be waited for, a device
    read for ever. Raises OSError, UnicodeDecodeError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("no plain file")
    with os.fdopen(handle, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(f"more than {LARGEST} bytes")
    return data.decode()


def parse(text: str, origin: str = "configuration") -> Config:
    """Turn TOML into Config. Raises ConfigError like `load`; *origin* names the source in it."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{origin}: not TOML: {error}"]) from None
    except RecursionError:
        raise _too_deep(origin) from None
    try:
        if nul := _nul(raw):
            raise ConfigError(_told([f"{origin}: {key}: holds a NUL character" for key in nul]))
        config = Config.model_validate(raw)
    except RecursionError:
        raise _too_deep(origin) from None
    except ValidationError as error:
        raise ConfigError(_told([_explain(origin, dict(e)) for e in error.errors()])) from None
    config._origin = origin
    return config


def _too_deep(origin: str) -> ConfigError:
    return ConfigError([f"{origin}: not taken: tables or lists nest too deep"])


def _told(problems: list[str]) -> list[str]:
    """Mistakes as a person can read them: not every one of thousands, none of a megabyte."""
    more = [f"and {len(problems) - MISTAKES} more mistakes"] if len(problems) > MISTAKES else []
    return [problem[:MISTAKE] for problem in problems[:MISTAKES]] + more


def _nul(value: object, key: str = "") -> list[str]:
    """The keys of strings that hold a NUL, which no path, host or command can."""
    if isinstance(value, dict):
        return [k for name, v in value.items() for k in _nul(v, f"{key}.{name}".lstrip("."))]
    if isinstance(value, list):
        return [k for number, v in enumerate(value) for k in _nul(v, f"{key}.{number}")]
    return [key] if isinstance(value, str) and "\0" in value else []


def _is_address(url: str) -> bool:
    """Whether *url* has a scheme we speak, a host and, if any, a port that can be."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host) and " " not in url


def _one_address(url: str) -> str:
    """*url* without a slash at its end, or the empty string that it is. Raises ValueError."""
    if url and not _is_address(url):
        raise ValueError(f"{_seen(url)!r} is no http:// or https:// address")
    return url.rstrip("/")


def _seen(url: str) -> str:
    """A wrong address as a complaint may show it: it may lack the scheme but have a password."""
    return masked(url) if "://" in url or "@" not in url else f"{STARS}@{url.rpartition('@')[2]}"


def _explain(origin: str, error: dict[str, Any]) -> str:
    where = error["loc"]
    key = ".".join(str(part) for part in where) or "(whole file)"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(where[-1]), _known(where[:-1]), 1)
        return f"{origin}: {key}: no such key{_near(near)}"
    got = "" if isinstance(error["input"], dict) else f" (read {error['input']!r})"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":  # says itself what was read
        got = ""
    return masked(f"{origin}: {key}: {message}{got}")


def _known(where: tuple[Any, ...]) -> list[str]:
    """The keys that the table at *where* may have."""
    section: Any = Config
    for part in where:
        if not isinstance(part, str) or not hasattr(section, "model_fields"):
            continue
        field = section.model_fields.get(part)
        if field is None:
            continue
        inner = [a for a in getattr(field.annotation, "__args__", ()) if hasattr(a, "model_fields")]
        section = inner[0] if inner else field.annotation
    return list(getattr(section, "model_fields", {}))


def _near(names: list[str]) -> str:
    return f"; did you mean {names[0]!r}?" if names else ""


def credential(name: str) -> Path:
    """The file in which systemd shows the credential *name*. Raises OSError if it shows none."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(directory) / name
    if not directory or not path.exists():
        wanted = f"LoadCredential={name}:FILE in dvfd.service"
        raise FileNotFoundError(f"no credential {name!r} was passed: wanted {wanted}")
    return path
