"""The calibration file: what `dvfd calibrate` measured of a node, and whether that holds here.

Measures nothing. A baseline of another configuration is never compared with: it is refused, its
values stay unset, and a person is told. The watch goes on either way.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys as system
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd import __version__, shell
from dvfd.config import Calibrated
from dvfd.errors import DvfdError, ProbeError
from dvfd.probes import files

if TYPE_CHECKING:
    from dvfd.config import Config

SCHEMA = 1
"""Raised when a key changes its meaning."""

VALUES = ("expected_throughput", "single_process_throughput")
"""What a calibration may say of the profile, samples per second."""

MOST = 1e12
"""Samples per second that nothing reaches: what a reporter's row may not exceed in one step."""

LARGEST = 1 << 20
"""Bytes of a file that could be one."""

ASKING = 10.0
"""Seconds for an interpreter to say which torch it has: 0.05, a second from a cold network disk."""

AHEAD = 86_400.0
"""Seconds that a calibration may lie in the future: clocks of two machines differ, not by days."""

KIB, GIB = 1 << 10, 1 << 30

VERSION = "from importlib import metadata; print(metadata.version('torch'))"


# --- What makes results comparable ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What makes two throughputs comparable. Kernel and dvfd may differ: that is only told."""

    cpu: str  # the model's name
    cores: int  # physical, online; of the node, whatever the quota of who asks
    memory_gib: float  # rounded up to an eighth of its power of two: a kernel keeps some for itself
    numa_nodes: int
    accelerator: str
    gpus: str  # how many of which model
    backend: str
    nodes: int
    processes_per_node: int
    rank_cores: str
    torch: str

    @property
    def hash(self) -> str:
        """SHA-256 of all of them."""
        return digest(asdict(self))

    def differ(self, then: Mapping[str, Any]) -> list[str]:
        """What is otherwise than *then*, in words."""
        return [
            f"{key} was {then.get(key, 'not said')}, is {value}"
            for key, value in asdict(self).items()
            if then.get(key) != value
        ]


REFERENCE = "reference"
"""The name under which the reference job reports."""


def conditions(
    config: Config, torch: str, *, proc: Path = Path("/proc"), sys: Path = Path("/sys")
) -> Conditions:
    """Those of this node under *config*. Raises ProbeError if one cannot be read."""
    profile = config.profile
    return Conditions(
        cpu=_found(r"^model name\s*:\s*(.+)$", proc / "cpuinfo", "") or platform.machine(),
        cores=_cores(sys),
        memory_gib=_installed(int(_found(r"^MemTotal:\s*(\d+) kB", proc / "meminfo")) * KIB),
        numa_nodes=len(files.names(sys / "devices/system/node", r"node\d+")),
        accelerator=profile.accelerator,
        gpus=_gpus(proc),
        backend=profile.backend,
        nodes=profile.nodes,
        processes_per_node=profile.processes_per_node,
        rank_cores=" ".join(profile.rank_cores),
        torch=torch,
    )


def besides() -> dict[str, str]:
    """What may differ, and is told where it does."""
    return {"kernel": platform.release(), "dvfd": __version__}


def torch_of(python: Path) -> str:
    """The version of torch that an interpreter has, without loading it. Raises ProbeError."""
    if python == Path(system.executable):
        try:
            return metadata.version("torch")
        except metadata.PackageNotFoundError:
            raise ProbeError(f"{python} has no torch") from None
    try:
        said = shell.run([str(python), "-c", VERSION], timeout=ASKING)
    except DvfdError as error:
        raise ProbeError(f"which torch is there is not known: {error}") from None
    if said.code:
        words = said.stderr.strip().rpartition("\n")[2] or f"exit code {said.code}"
        raise ProbeError(f"{python} does not say which torch it has: {words}")
    return said.stdout.strip()


def _found(pattern: str, path: Path, default: str | None = None) -> str:
    """The first match's group. Raises ProbeError where there is none and no *default*."""
    text = files.text(path)
    match = re.search(pattern, text, re.MULTILINE)
    if match is None and default is None:
        raise ProbeError(f"{path}: read {text[:40]!r}, wanted {pattern}")
    return match[1].strip() if match else default or ""


def _cores(sys: Path) -> int:
    """Physical cores that are online: threads of one share its list of siblings."""
    base = sys / "devices/system/cpu"
    online = files.cpus(files.text(base / "online"))
    lists = (f"cpu{cpu}/topology/thread_siblings_list" for cpu in sorted(online))
    return len({files.text(base / siblings) for siblings in lists})


def _installed(total: int) -> float:
    """GiB of the memory modules behind MemTotal."""
    eighth = 2.0 ** (math.floor(math.log2(total / GIB)) - 3)
    return math.ceil(total / GIB / eighth) * eighth


def _gpus(proc: Path) -> str:
    """As the NVIDIA driver names them; empty without one."""
    base = proc / "driver/nvidia/gpus"
    models = [_found(r"^Model:\s*(.+)$", base / gpu / "information") for gpu in files.names(base)]
    return ", ".join(f"{models.count(model)} x {model}" for model in sorted(set(models)))


# --- The file -------------------------------------------------------------------------------------


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of what a table says, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, default=_value)  # JSON has no times
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(document: Mapping[str, Any]) -> str:
    """Of all that a file says but the checksum itself: an edit by hand shows."""
    told = {k: v for k, v in document["calibration"].items() if k != "checksum"}
    return digest({**document, "calibration": told})


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """*document* with its checksum."""
    told = document["calibration"]
    return {**document, "calibration": {**told, "checksum": checksum(document)}}


def read(path: Path) -> dict[str, Any]:
    """What the file says. Raises ProbeError if it is not one of `dvfd calibrate`."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ProbeError(f"larger than {LARGEST} bytes: no calibration is")
        document = tomllib.loads(text.decode())
    except OSError as error:
        raise ProbeError(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProbeError(f"not TOML: {error}") from None
    told = document.get("calibration")
    if not isinstance(told, dict) or not isinstance(document.get("profile"), dict):
        raise ProbeError("lacks [profile] or [calibration]: wanted a file of dvfd calibrate")
    if told.get("schema") != SCHEMA:
        raise ProbeError(f"its schema is {told.get('schema')!r}, this dvfd knows {SCHEMA}")
    for key, kind in (("configuration", str), ("conditions", dict), ("at", datetime)):
        if not isinstance(told.get(key), kind):
            raise ProbeError(f"calibration.{key} is {told.get(key)!r}, wanted a {kind.__name__}")
    return document


def values(document: Mapping[str, Any]) -> dict[str, float]:
    """What it says of the profile. Raises ProbeError for a number that cannot be."""
    found = {key: document["profile"][key] for key in VALUES if key in document["profile"]}
    for key, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= MOST:  # a NaN is not either
            raise ProbeError(
                f"profile.{key} is {value!r}, wanted samples/s above 0, up to {MOST:g}"
            )
    if strange := sorted(set(document["profile"]) - set(VALUES)):
        raise ProbeError(f"profile.{strange[0]}: a calibration says {' and '.join(VALUES)} only")
    if not found:
        raise ProbeError("[profile] is empty: nothing was measured")
    return {key: float(value) for key, value in found.items()}


def written(document: Mapping[str, Any], head: str = "") -> str:
    """*document* as TOML, with *head* as comment before it. Nothing in it may be None or NaN."""
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    return "\n".join([*lines, *_table("", document)]) + "\n"


def _table(name: str, table: Mapping[str, Any]) -> list[str]:
    """Its own keys first, then the tables in it and the lists of tables."""
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping) and not _tables(v)}
    lines = ["", f"[{name}]"] if name and (plain or not table) else []
    lines += [f"{key} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        inner = f"{name}.{key}" if name else key
        if isinstance(value, Mapping):
            lines += _table(inner, value)
        elif _tables(value):
            for each in value:
                lines += ["", f"[[{inner}]]", *(f"{k} = {_value(v)}" for k, v in each.items())]
    return lines


def _tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    text = str(value).encode("utf-8", "replace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


# --- Writing it -----------------------------------------------------------------------------------


def may_write(path: Path, *, replace: bool) -> None:
    """Whether `write` could. Raises DvfdError saying why not."""
    if path.is_dir():
        raise DvfdError(f"{path}: is a directory, wanted a file's name")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise DvfdError(f"{path.parent}: no directory that you may write to")
    if path.exists() and not replace:
        raise DvfdError(
            f"{path}: is there already, and an accepted baseline is not lost by a slip: "
            "--replace --by NAME --reason TEXT keeps it beside the new one"
        )
    if replace and not path.exists():
        raise DvfdError(f"{path}: there is nothing to replace")


def write(
    path: Path, document: dict[str, Any], head: str, *, reason: str = "", now: datetime
) -> Path | None:
    """Write *document*, sealed, to *path*; whole or not at all, and over nothing.

    With a *reason* it takes the place of what is there, which is kept beside it, named in the new
    one with its hash, and returned. Raises DvfdError, OSError.
    """
    may_write(path, replace=bool(reason))
    kept = None
    if reason:
        kept = path.with_name(f"{path.name}.replaced-{now:%Y%m%dT%H%M%SZ}")
        old = hashlib.sha256(path.read_bytes()).hexdigest()
        told = {"by": document["calibration"]["by"], "reason": reason, "sha256": old}
        replaced = {**told, "file": kept.name}
        document = {**document, "calibration": {**document["calibration"], "replaced": replaced}}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("x", encoding="utf-8") as file:
            file.write(written(sealed(document), head))
            file.flush()
            os.fsync(file.fileno())
        read(beside)  # what cannot be read again is no baseline
        if kept is None:
            os.link(beside, path)  # unlike a rename it replaces nothing
        else:
            os.link(path, kept)
            beside.replace(path)
    except FileExistsError as error:
        raise DvfdError(f"{error.filename2 or error.filename}: appeared meanwhile") from None
    finally:
        beside.unlink(missing_ok=True)
    return kept


# --- Using it -------------------------------------------------------------------------------------


def applied(
    config: Config,
    *,
    here: Callable[[Config], Conditions] | None = None,
    now: float | None = None,
) -> Config:
    """*config* with the values of the calibration that its profile names, if they hold *here*."""
    path = config.profile.calibration
    assert path is not None
    try:
        document = read(path)
        found = values(document)
        if why := _elsewhere(document, (here or _here)(config), now):
            raise ProbeError(why)
    except DvfdError as error:
        refused = f"the calibration {path} is refused: {error}"
        notice = f"{refused}; its values stay unset: measure anew with dvfd calibrate"
        return config.with_calibration({}, Calibrated(refused, (notice,)))
    notices = [f"calibration {path}: {said}" for said in _doubts(document, config)]
    return config.with_calibration(found, Calibrated("", tuple(notices)))


def _here(config: Config) -> Conditions:
    return conditions(config, torch_of(config.drills.interpreter))


def _elsewhere(document: Mapping[str, Any], here: Conditions, now: float | None) -> str:
    """Why what was measured is not of this configuration, or an empty string."""
    told = document["calibration"]
    if told["configuration"] != here.hash:
        differ = here.differ(told["conditions"]) or ["its hash is not that of its own conditions"]
        return f"it is of another configuration: {'; '.join(differ)}"
    later = _seconds(told["at"]) - (datetime.now(UTC).timestamp() if now is None else now)
    if later > AHEAD:
        return f"it was measured at {told['at']}, which is in the future"
    return ""


def _seconds(at: datetime) -> float:
    """Unix seconds; a time without an offset is taken as UTC."""
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _doubts(document: Mapping[str, Any], config: Config) -> list[str]:
    """What does not refuse it and must be read."""
    told = document["calibration"]
    found = (
        []
        if told.get("checksum") == checksum(document)
        else ["edited by hand since it was measured"]
    )
    then = told.get("besides")
    found += [
        f"measured with {key} {then[key]}, here is {value}"
        for key, value in besides().items()
        if isinstance(then, dict) and key in then and then[key] != value
    ]
    expected = config.jobs.expected
    if expected and told.get("job") not in expected:
        found.append(f"measured of job {told.get('job')}, [jobs] expects {', '.join(expected)}")
    elif not expected and told.get("job") == REFERENCE:
        found.append(
            "measured of the reference job, a baseline of no training of yours: "
            "dvfd calibrate -o FILE -- YOUR COMMAND"
        )
    return found
