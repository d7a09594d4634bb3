"""/api/v1: what is known, as JSON for programs. One table of routes; it reads and never changes.

An answer is `{"schema": 1, "data": ...}`, a refusal `{"schema": 1, "error": ...}` that says what
was read and what was wanted. Numbers that JSON has no word for are "NaN", "+Inf" and "-Inf", as
in Prometheus' own interface. dvfd.sinks.openapi describes the same table.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from dvfd.errors import DvfdError
from dvfd.masking import masked
from dvfd.model import ATTESTATION, DRILL, REVIEW, RUN
from dvfd.query import LISTED, course, near
from dvfd.runs.told import PAGE
from dvfd.sinks import shapes
from dvfd.sinks.http import Response
from dvfd.state import NoRuns
from dvfd.status import SCHEMA as STATUS_SCHEMA
from dvfd.status import check_document, document

if TYPE_CHECKING:
    from dvfd.model import Catalogue
    from dvfd.sinks.http import Request
    from dvfd.state import Past, Runs, Snapshot

ROOT = "/api/v1"

SCHEMA = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""

UNEXPORTED = frozenset({DRILL, REVIEW, RUN, ATTESTATION})
"""Sources whose figures are not on /metrics: the verdicts on them are."""

REPORTS = 50
"""Reports of one answer at most: one has 10 to 40 KB."""

HOURS = 9600.0
"""Hours that history looks back at most: 400 days, as long as anything is kept."""

FIELDS = 32
"""Parameters of one request at most."""

LABEL = "label."
"""What a parameter's name begins with that picks series by a label."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"-?\d{1,9}", re.ASCII)


Identify = Callable[[], Mapping[str, Any]]
"""dvfd.identity.Identity, or a fake of it."""


def nobody() -> Mapping[str, Any]:
    """The identity of a node that says nothing of itself."""
    return {
        "python": "",
        "torch": None,
        "torch_missing": "not looked for",
        "cluster": {"lead": "", "nodes": [], "port": 0, "ports": []},
        "interface": None,
    }


class Refused(Exception):
    """A request that cannot be answered, and what would have been."""

    def __init__(
        self, status: HTTPStatus, message: str, *, read: str, wanted: Sequence[str], meant: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {
            "status": status.value,
            "message": f"{message}; did you mean {meant!r}?" if meant else message,
            "read": read,
            "wanted": list(wanted),
            "near": meant or None,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What a route answers from: what is known, what was, and the parameters as they were read.

    `identity` is what the node tells the others of itself.
    """

    snapshot: Snapshot
    past: Past
    values: Mapping[str, Any]
    identity: Identify
    runs: Runs = NoRuns()  # noqa: RUF009  # it holds nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A part of the path or of the query. `names` are the only ones that exist, where known."""

    name: str
    text: str
    shape: Mapping[str, Any]
    default: Any = None
    in_path: bool = False
    names: Callable[[Catalogue], Collection[str]] | None = None

    @property
    def required(self) -> bool:
        """Whether there is no answer without it."""
        return self.default is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path: who answers, the shape of `data`, and what may be asked."""

    path: str
    text: str
    answer: Callable[[Asked], Any]
    data: Mapping[str, Any]
    parameters: tuple[Parameter, ...] = ()
    labels: bool = field(default=False)  # takes label.NAME=VALUE

    def matches(self, segments: Sequence[str]) -> dict[str, str] | None:
        """The parameters in a path that is ours, or None."""
        own = self.path.split("/")
        if len(own) != len(segments):
            return None
        pairs = list(zip(own, segments, strict=True))
        if any(mine != given and mine[:1] != "{" for mine, given in pairs):
            return None
        return {mine[1:-1]: given for mine, given in pairs if mine[:1] == "{"}


def response(
    request: Request,
    snapshot: Callable[[], Snapshot],
    past: Past,
    identity: Identify = nobody,
    runs: Runs | None = None,
) -> Response:
    """The answer to a request for a path below /api."""
    known = snapshot()
    try:
        route, given = _find(request.path)
        values = _values(route, given, request.query, known)
        found = route.answer(Asked(known, past, values, identity, runs or NoRuns()))
        if route.path == "/openapi.json":  # a document of its own kind, that tools must load
            return _json(HTTPStatus.OK, found)
        return _json(HTTPStatus.OK, {"schema": SCHEMA, "data": _plain(masked(found))})
    except Refused as refused:
        return _json(refused.status, {"schema": SCHEMA, "error": masked(refused.error)})


# --- What is asked --------------------------------------------------------------------------------


def _find(path: str) -> tuple[Route, dict[str, str]]:
    below = path.removeprefix(ROOT)
    segments = [_decoded(part) for part in below.split("/")] if below != path else []
    for route in ROUTES:
        if (given := route.matches(segments)) is not None:
            return route, given
    paths = [ROOT + route.path for route in ROUTES]
    raise Refused(
        HTTPStatus.NOT_FOUND, f"no such path: {path!r}", read=path, wanted=paths,
        meant=near(path, paths),
    )  # fmt: skip


def _decoded(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise _bad("the path is not UTF-8", part, "percent-encoded UTF-8") from None


def _values(route: Route, given: dict[str, str], query: str, known: Snapshot) -> dict[str, Any]:
    """Every parameter as its type. Raises Refused."""
    asked = _pairs(query)
    takes = {p.name: p for p in route.parameters}
    fitting = [p.name for p in route.parameters if not p.in_path]
    for name in asked:
        is_label = route.labels and name.startswith(LABEL)
        if name not in fitting and not is_label:
            wanted = [*fitting, *([f"{LABEL}NAME"] if route.labels else [])]
            raise _bad(f"no such parameter: {name!r}", name, *wanted, meant=near(name, fitting))
    values = {name: _value(p, (asked | given).get(name), known) for name, p in takes.items()}
    labels = {n.removeprefix(LABEL): v for n, v in asked.items() if n not in takes}
    return values | ({"labels": labels} if route.labels else {})


def _pairs(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
    except UnicodeDecodeError:
        raise _bad("the query is not UTF-8", query, "percent-encoded UTF-8") from None
    except ValueError:
        raise _bad("too many parameters", query, f"at most {FIELDS}") from None
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise _bad(f"{name} is given {times} times", query, f"{name} once")
    return dict(pairs)


def _value(parameter: Parameter, text: str | None, known: Snapshot) -> Any:
    if text is None and not parameter.required:
        return parameter.default
    if text is None:
        raise _bad(f"{parameter.name} is missing", "", f"{parameter.name}: {parameter.text}")
    if parameter.names:
        return _name(parameter.name, text, parameter.names(known.catalogue))
    if pattern := parameter.shape.get("pattern"):
        return _matching(parameter.name, text, pattern)
    return _number(parameter, text)


def _matching(what: str, text: str, pattern: str) -> str:
    if re.fullmatch(pattern, text, re.ASCII):
        return text
    raise _bad(f"{what} is {text!r}", text, f"what {pattern} describes")


def _name(what: str, name: str, names: Collection[str]) -> str:
    if name in names:
        return name
    meant = near(name, names)
    wanted = [meant] if meant else list(names)[:LISTED]
    message = f"no such {what}: {name!r}"
    raise Refused(HTTPStatus.NOT_FOUND, message, read=name, wanted=wanted, meant=meant)


def _number(parameter: Parameter, text: str) -> float:
    """*text* as the number that *parameter* takes; "nan" is none."""
    shape = parameter.shape
    whole, above = shape["type"] == "integer", "exclusiveMinimum" in shape
    least, most = shape["exclusiveMinimum" if above else "minimum"], shape["maximum"]
    if (INTEGER if whole else NUMBER).fullmatch(text):
        value = int(text) if whole else float(text)
        if least <= value <= most and not (above and value == least):
            return value
    kind = "a whole number" if whole else "a number"
    wanted = f"{kind} {'above' if above else 'of at least'} {least:g} and at most {most:g}"
    raise _bad(f"{parameter.name} is {text!r}, wanted {wanted}", text, wanted)


def _bad(message: str, read: str, *wanted: str, meant: str = "") -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, message, read=read, wanted=wanted, meant=meant)


# --- What is answered -----------------------------------------------------------------------------


def _json(status: HTTPStatus, found: Any) -> Response:
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # A lone surrogate, of a name in no encoding, becomes "?": JSON must be UTF-8.
    return Response(status, text.encode("utf-8", "replace") + b"\n", "application/json")


def _plain(value: Any) -> Any:
    """*value* with words for the numbers that JSON has none for."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _status(asked: Asked) -> dict[str, Any]:
    return document(asked.snapshot, running=True)


def _part(*keys: str) -> Callable[[Asked], Any]:
    """Parts of the status document: one alone, several by name."""

    def part(asked: Asked) -> Any:
        whole = _status(asked)
        return whole[keys[0]] if len(keys) == 1 else {key: whole[key] for key in keys}

    return part


def _checks(asked: Asked) -> list[dict[str, Any]]:
    """Every check without its results, but how many have which verdict."""
    found = []
    for state in asked.snapshot.checks.values():
        counts = Counter(str(result.verdict) for result in state.results)
        whole = check_document(state)
        del whole["results"]
        found.append(whole | {"schedule": state.check.schedule, "counts": dict(counts)})
    return found


def _check(asked: Asked) -> dict[str, Any]:
    state = asked.snapshot.checks[asked.values["check"]]
    return check_document(state) | {"schedule": state.check.schedule}


def _reports(asked: Asked) -> dict[str, Any]:
    check, limit = asked.values["check"], asked.values["limit"]
    found = [
        {"at": run.at, "verdict": run.verdict, "late": run.late, "report": run.document}
        for run in asked.past.reports(check, limit)
    ]
    return {"check": check, "limit": limit, "reports": found, "store": _store(asked)}


def _history(asked: Asked) -> dict[str, Any]:
    metric = asked.snapshot.catalogue.metrics[asked.values["metric"]]
    where = asked.values["labels"]
    for label in where:
        if label not in metric.labels:
            wanted = [f"{LABEL}{name}" for name in metric.labels]
            raise _bad(f"{metric.name} has no label {label!r}", label, *wanted,
                       meant=near(label, metric.labels))  # fmt: skip
    until = asked.snapshot.at
    since = until - 3600.0 * asked.values["hours"]
    rows, cut = course(metric.name, asked.past, since=since, until=until, where=where)
    return {
        "metric": metric.name,
        "unit": metric.unit,
        "kind": str(metric.kind),
        "source": metric.source,
        "since": since,
        "until": until,
        "truncated": cut,
        "rows": rows,
        "store": _store(asked),
    }


def _store(asked: Asked) -> dict[str, Any]:
    """Beside what was read from it: an empty answer of a broken store says nothing."""
    return {"ok": asked.snapshot.store.ok, "reason": asked.snapshot.store.reason}


def _metrics(asked: Asked) -> list[dict[str, Any]]:
    """Every metric of the catalogue, with the number of its series that are fresh now."""
    return [
        {
            "name": metric.name,
            "exported_as": "" if metric.source in UNEXPORTED else f"dvfd_{metric.name}",
            "unit": metric.unit,
            "help": metric.help,
            "labels": list(metric.labels),
            "source": metric.source,
            "kind": str(metric.kind),
            "max_age": metric.max_age,
            "series": len(asked.snapshot.samples.get(metric.name, ())),
        }
        for metric in asked.snapshot.catalogue.metrics.values()
    ]


def _version(asked: Asked) -> dict[str, Any]:
    taken = asked.snapshot
    return {
        "version": taken.version,
        "node": taken.config.node.name,
        "started_at": taken.started_at,
        "catalogue": taken.catalogue.hash,
        "profile": taken.config.profile_hash,
        "schemas": {"api": SCHEMA, "status": STATUS_SCHEMA},
    }


def _node(asked: Asked) -> dict[str, Any]:
    """What the others compare with their own before a test between nodes."""
    whole = _version(asked)
    del whole["schemas"]
    running = [str(job["job"]) for job in asked.snapshot.jobs if job["state"] != "ended"]
    return whole | {"at": asked.snapshot.at, "jobs": running, **asked.identity()}


def _gates(asked: Asked) -> Mapping[str, Any]:
    return asked.snapshot.gates


def _runs(asked: Asked) -> list[Any]:
    return list(asked.runs.told(asked.values["limit"]))


def _rows(asked: Asked) -> Any:
    run = asked.values["run"]
    try:
        return asked.runs.rows(run, asked.values["since"], asked.values["limit"])
    except DvfdError as error:
        known = [str(each["id"]) for each in asked.runs.told(LISTED)]
        raise Refused(
            HTTPStatus.NOT_FOUND, str(error), read=run, wanted=known, meant=near(run, known)
        ) from None


def _described(asked: Asked) -> dict[str, Any]:
    from dvfd.sinks import openapi  # noqa: PLC0415  # it describes this table, and few ask

    return openapi.described(ROUTES, asked.snapshot)


CHECK = Parameter(
    name="check", text="the id of a check", in_path=True, shape={"type": "string"},
    names=lambda catalogue: catalogue.checks,
)  # fmt: skip

METRIC = Parameter(
    name="metric", text="the name of a metric, without dvfd_", shape={"type": "string"},
    names=lambda catalogue: catalogue.metrics,
)  # fmt: skip

LAST = Parameter(
    name="limit", text="reports at most, the newest first", default=10,
    shape={"type": "integer", "minimum": 1, "maximum": REPORTS},
)  # fmt: skip

RUNS = Parameter(
    name="limit", text="runs at most, the newest first", default=10,
    shape={"type": "integer", "minimum": 1, "maximum": REPORTS},
)  # fmt: skip

RUN_ID = Parameter(
    name="run", text="the id of a run", in_path=True,
    shape={"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,100}$"},
)  # fmt: skip

SINCE = Parameter(
    name="since", text="only rows after this mark: `until` of the answer before", default=0,
    shape={"type": "integer", "minimum": 0, "maximum": 999_999_999},
)  # fmt: skip

ROWS = Parameter(
    name="limit", text="rows of each kind, about: those of one mark come together", default=PAGE,
    shape={"type": "integer", "minimum": 1, "maximum": PAGE},
)  # fmt: skip

BACK = Parameter(
    name="hours", text="how far back", default=1.0,
    shape={"type": "number", "exclusiveMinimum": 0, "maximum": HOURS},
)  # fmt: skip

ROUTES = (
    Route(path="/status", text="Everything that is known now", answer=_status,
          data=shapes.STATUS),
    Route(path="/checks", text="Every check, with how many criteria have which verdict",
          answer=_checks, data=shapes.listed(shapes.CHECK_COUNTS)),
    Route(path="/checks/{check}", text="One check with the result of each criterion",
          answer=_check, data=shapes.CHECK, parameters=(CHECK,)),
    Route(path="/checks/{check}/reports", text="The newest kept reports of one check",
          answer=_reports, data=shapes.REPORTS, parameters=(CHECK, LAST)),
    Route(path="/gates", text="The gates, line by line with their evidence, and the summary table",
          answer=_gates, data=shapes.GATES),
    Route(path="/jobs", text="Jobs and their ranks", answer=_part("jobs"),
          data=shapes.listed(shapes.JOB)),
    Route(path="/alerts", text="Alerts that fire, and whether they get out",
          answer=_part("alerts", "delivery"), data=shapes.ALERTS),
    Route(path="/probes", text="How each source is doing", answer=_part("probes"),
          data=shapes.listed(shapes.PROBE)),
    Route(path="/history", text="The newest values of a metric's live series, oldest first",
          answer=_history, data=shapes.HISTORY, parameters=(METRIC, BACK), labels=True),
    Route(path="/runs", text="Stability runs and where they stand, the newest first",
          answer=_runs, data=shapes.listed(shapes.TOLD), parameters=(RUNS,)),
    Route(path="/runs/{run}/rows", text="What a run recorded after a mark: its leader reads it",
          answer=_rows, data=shapes.ROWS, parameters=(RUN_ID, SINCE, ROWS)),
    Route(path="/overrides", text="Thresholds that this site changed, with the reason",
          answer=_part("overrides"), data=shapes.listed(shapes.TEXT)),
    Route(path="/metrics", text="What is measured, by which source, and how many series live",
          answer=_metrics, data=shapes.listed(shapes.METRIC)),
    Route(path="/version", text="What runs here", answer=_version, data=shapes.VERSION),
    Route(path="/node", text="What the other nodes of a cluster compare with their own",
          answer=_node, data=shapes.NODE),
    Route(path="/openapi.json", text="This description, OpenAPI 3.1", answer=_described,
          data=shapes.ANYTHING),
)  # fmt: skip
"""Every path below /api/v1."""
