"""Turn `checks/*.toml`, the profile and the site's overrides into the Catalogue. Judges nothing.

Every mistake is found before anything runs, and all of them are reported at once.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from dvfd import catalogue_keys as keys
from dvfd import catalogue_lint as lint
from dvfd import site_catalogue
from dvfd.config import data_dir
from dvfd.errors import ConfigError
from dvfd.model import (
    DRILL,
    NONE_YET,
    RUN,
    Catalogue,
    Check,
    Combine,
    Criterion,
    Gate,
    GateLine,
    Limit,
    Metric,
    Range,
    SignOff,
    SummaryRow,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dvfd.config import Config, Override, Profile

Table = keys.Table

T = TypeVar("T")

METRICS = "metrics.toml"
GATES = "gates.toml"
SIGNOFFS = "signoffs.toml"
PATTERNS = "patterns.toml"
"""Lies beside the criteria and is none of them: the log probe's own."""

PROFILE: Mapping[str, tuple[str, Callable[[Profile], float | None]]] = {
    "nodes": ("nodes", lambda p: p.nodes),
    "processes_per_node": ("processes", lambda p: p.processes_per_node),
    "gpus": ("gpus", lambda p: p.gpus),
    "link_bytes_per_second": ("bytes/second", lambda p: p.link_gbps * 1e9 / 8),
    "expected_throughput": ("samples/second", lambda p: p.expected_throughput),
    "single_process_throughput": ("samples/second", lambda p: p.single_process_throughput),
}
"""What a limit may be a multiple of: its unit, and how the profile gives it."""

FEATURES: Mapping[str, Callable[[Config], str]] = {
    "cpu": lambda c: "" if c.profile.accelerator == "cpu" else 'accelerator = "gpu"',
    "gpu": lambda c: "" if c.profile.accelerator == "gpu" else 'accelerator = "cpu"',
    "gloo": lambda c: "" if c.profile.backend == "gloo" else 'backend = "nccl"',
    "nccl": lambda c: "" if c.profile.backend == "nccl" else 'backend = "gloo"',
    "multi_node": lambda c: "" if c.profile.nodes > 1 else "nodes = 1",
    "temperature_sensors": lambda c: (
        "" if c.profile.temperature_sensors else "temperature_sensors = false"
    ),
    "power_meters": lambda c: "" if c.profile.power_meters else "power_meters = false",
    "openmpi": lambda c: "" if c.profile.openmpi == "required" else 'openmpi = "optional"',
    "declared_job": lambda c: "" if c.jobs.expected else "jobs.expected = []",
}
"""Each feature that the configuration decides: what it says against it, or nothing."""

OVERRIDABLE = ("limit", "window", "max_age", "for", "severity")


@dataclass(frozen=True, slots=True)
class Draft:
    """A criterion as its file states it, before it inherits. `place` leads every complaint."""

    id: str
    place: str
    raw: Mapping[str, object]
    keys: Table
    base: Table
    site: bool = False  # of the site's own, beside the framework's


@dataclass(frozen=True, slots=True)
class Desk:
    """What every step reads from and writes to: settings, what is known, and what is wrong."""

    config: Config
    problems: list[str]
    metrics: dict[str, Metric]
    drafts: dict[str, Draft]
    tables: dict[str, Table]
    quantities: dict[str, str]


def load(config: Config, directory: Path | None = None) -> Catalogue:
    """Read the catalogue in *directory* (by default the one that came with dvfd) for this site.

    Raises ConfigError with one line for each mistake: file, key, reason, nearest known name.
    """
    desk = Desk(config, [], {}, {}, {}, {})
    files = read(directory or data_dir("checks"), desk.problems)

    own = site_catalogue.read(config.site.checks, desk.problems)

    desk.metrics.update(read_metrics(files.get(METRICS, {}), desk.problems))
    desk.metrics.update(_of_site(own, desk))
    desk.quantities.update(quantities(desk.metrics))
    checks = [read_check(file, raw, desk) for file, raw in files.items() if _is_check(file)]
    gates, summary = read_gates(files.get(GATES, {}), desk)
    signoffs = read_signoffs(files.get(SIGNOFFS, {}), desk)
    added = add_lines(own, checks, files, desk)
    overrides = (*site_catalogue.added(own, added), *check_site(desk))

    hash_ = digest(files, readings=config.readings, site=own.tables)
    catalogue = replace(
        assemble(checks, gates, desk, overrides, hash_), summary=summary, signoffs=signoffs
    )
    desk.problems.extend(lint.lint(catalogue, {d.id: d.place for d in desk.drafts.values()}))
    if desk.problems:
        raise ConfigError(list(dict.fromkeys(desk.problems)))
    return replace(catalogue, notices=site_catalogue.unjudged(config, catalogue))


def assemble(
    checks: list[Table | None],
    gates: list[Table],
    desk: Desk,
    overrides: tuple[str, ...],
    hash_: str,
) -> Catalogue:
    """Build every draft, and put checks and gates together from what came of it."""
    criteria = {draft.id: build(draft, desk) for draft in desk.drafts.values()}
    built = {id_: criterion for id_, criterion in criteria.items() if criterion is not None}
    vetoes = {id_ for gate in gates for id_ in gate["no_go"]}
    finished = [finish_check(found, built, desk.config) for found in checks if found]
    changed = [f"{c.id}: {c.overridden}" for c in built.values() if c.overridden]
    return Catalogue(
        metrics=desk.metrics,
        checks={check.id: check for check in finished},
        gates={found["id"]: finish_gate(found, built) for found in gates},
        hash=hash_,
        overrides=(*overrides, *changed),
        criteria={id_: c for id_, c in built.items() if id_ not in vetoes},
    )


def read(directory: Path, problems: list[str]) -> dict[str, Table]:
    """Every TOML file of *directory* by its name; raises ConfigError if there is none."""
    files: dict[str, Table] = {}
    for path in sorted(directory.glob("*.toml")):
        if path.name == PATTERNS:
            continue
        try:
            files[path.name] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            problems.append(f"{path.name}: (whole file): cannot be read: {error}")
    if not files and not problems:
        raise ConfigError([f"{directory}: no catalogue: no *.toml in it"])
    return files


def digest(
    files: Mapping[str, Table], *, readings: bool, site: Mapping[str, Table] | None = None
) -> str:
    """SHA-256 of what the files say, whatever their comments and the order of their keys."""
    content: Table = {"files": files, "readings": readings}
    if site:  # a site without checks of its own has the framework's hash
        content["site"] = site
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def read_metrics(raw: Table, problems: list[str]) -> dict[str, Metric]:
    """The metrics of metrics.toml by name."""
    metrics: dict[str, Metric] = {}
    for name, entry in raw.items():
        place = f"{METRICS}: {name}."
        if not isinstance(entry, dict):
            problems.append(f"{METRICS}: {name}: not a table")
            continue
        found = keys.read_table(entry, keys.METRIC, place, problems)
        if keys.lacking("metric", found, entry, place, problems):
            continue
        possible = keys.plain_range(found.pop("possible", None), f"{place}possible", problems)
        metrics[name] = Metric(name=name, possible=possible, **found)
    return metrics


def _of_site(own: site_catalogue.Files, desk: Desk) -> dict[str, Metric]:
    """The metrics that are there only where the site has such inputs, and those of its own."""
    config = desk.config
    if not config.plugin:
        for name in [name for name, metric in desk.metrics.items() if metric.only]:
            del desk.metrics[name]
    aged = {n: site_catalogue.aged(m, config) for n, m in desk.metrics.items() if m.only}
    return aged | site_catalogue.metrics(own, config, desk.problems)


def add_lines(
    own: site_catalogue.Files, checks: list[Table | None], files: Mapping[str, Table], desk: Desk
) -> int:
    """Put the site's criteria on the desk and into their lists; how many there are."""
    lists = {c["id"]: c for c in checks if c and ("schedule" in c or "watch" in c)}
    theirs = {id_: files[f"{id_}.toml"].get("defaults", {}) for id_ in lists}
    defaults = {id_: keys.read_table(raw, keys.DEFAULTS, "", []) for id_, raw in theirs.items()}
    count = 0
    for line in site_catalogue.lines(own, defaults, desk.problems):
        lists[line.check]["criterion"].append(_site_draft(line, desk))
        count += 1
    return count


def _site_draft(line: site_catalogue.Line, desk: Desk) -> str:
    """Put one criterion of the site on the desk; returns its full id."""
    owner = f"{line.check}.{site_catalogue.OWNER}"
    id_ = _draft(owner, line.raw, line.place, line.base, desk, known=keys.SITE_CRITERION)
    draft = desk.drafts[id_]
    given = dict(line.given)
    plugin = site_catalogue.plugin_named(draft.keys, desk.metrics, desk.config)
    if plugin and "max_age" not in draft.base | draft.keys:
        given["max_age"] = plugin.max_age
    desk.drafts[id_] = replace(draft, keys=draft.keys | given, site=True)
    return id_


def read_check(file: str, raw: Table, desk: Desk) -> Table | None:
    """The keys of one check's file; its criteria become drafts."""
    place = f"{file}: "
    found = keys.read_table(raw, keys.CHECK, place, desk.problems)
    if keys.lacking("check", found, raw, place, desk.problems):
        return None
    if file != f"{found['id']}.toml":
        desk.problems.append(f"{file}: id: {found['id']!r} lives in {found['id']}.toml")
    base = _base(found, place, desk)
    found["criterion"] = [
        _draft(found["id"], entry, f"{place}criterion {n}", base, desk)
        for n, entry in enumerate(found["criterion"], 1)
    ]
    return found


def _base(found: Table, place: str, desk: Desk) -> Table:
    """The keys that every criterion of a table has unless it says otherwise."""
    raw = found.pop("defaults", {})
    defaults = keys.read_table(raw, keys.DEFAULTS, f"{place}defaults.", desk.problems)
    measured = {DRILL: found.get("drill", False), RUN: "every" in found}
    return defaults | {"clause": found["clause"], "measured": measured}


def read_gates(raw: Table, desk: Desk) -> tuple[list[Table], tuple[SummaryRow, ...]]:
    """The gates of gates.toml, whose No-Go lines become drafts, and the rows of the summary."""
    place = f"{GATES}: "
    gates: list[Table] = []
    tables = {"gate": keys.many(keys.table), "row": keys.many(keys.table)}
    listed = keys.read_table(raw, tables, place, desk.problems)
    for n, entry in enumerate(listed.get("gate", ()), 1):
        spot = f"{place}{entry.get('id', f'gate {n}')}."
        found = keys.read_table(entry, keys.GATE, spot, desk.problems)
        if keys.lacking("gate", found, entry, spot, desk.problems):
            continue
        found["go"] = [
            _made(GateLine, "go", line, f"{spot}{line.get('id', 'go')}.", desk)
            for line in found["go"]
        ]
        base = _base(found, spot, desk)
        found["no_go"] = [
            _draft(found["id"], line, f"{spot}no_go {m}", base, desk)
            for m, line in enumerate(found.get("no_go", ()), 1)
        ]
        gates.append(found)
    rows = [
        _made(SummaryRow, "row", entry, f"{GATES}: row {n}.", desk)
        for n, entry in enumerate(listed.get("row", ()), 1)
    ]
    return gates, tuple(row for row in rows if row is not None)


def read_signoffs(raw: Table, desk: Desk) -> tuple[SignOff, ...]:
    """The roles of signoffs.toml."""
    listed = keys.read_table(
        raw, {"signoff": keys.many(keys.table)}, f"{SIGNOFFS}: ", desk.problems
    )
    made = (
        _made(SignOff, "signoff", entry, f"{SIGNOFFS}: signoff {n}.", desk)
        for n, entry in enumerate(listed.get("signoff", ()), 1)
    )
    return tuple(each for each in made if each is not None)


def _made(kind: Callable[..., T], table: str, raw: Table, spot: str, desk: Desk) -> T | None:
    """What the table *raw* says, or None if it lacks something, which is then on the desk."""
    found = keys.read_table(raw, keys.FLAT[table], spot, desk.problems)
    if keys.lacking(table, found, raw, spot, desk.problems):
        return None
    return kind(**found)


def _draft(
    owner: str,
    raw: Table,
    nameless: str,
    base: Table,
    desk: Desk,
    *,
    known: Mapping[str, keys.Read] = keys.CRITERION,
) -> str:
    """Put one criterion on the desk; returns its full id."""
    file = nameless.partition(": ")[0]
    spot = f"{file}: {raw['id']}." if isinstance(raw.get("id"), str) else f"{nameless}."
    found = keys.read_table(raw, known, spot, desk.problems)
    id_ = f"{owner}.{found.get('id', nameless)}"
    if "id" not in raw:
        desk.problems.append(f"{spot}id: missing")
    if id_ in desk.drafts:
        desk.problems.append(f"{spot}id: {id_!r} is there twice")
    if "written" in found:
        found["written"] = keys.read_table(
            found["written"], keys.WRITTEN, f"{spot}written.", desk.problems
        )
    desk.drafts[id_] = Draft(id_, spot, raw, found, base)
    return id_


def check_site(desk: Desk) -> tuple[str, ...]:
    """Complain of settings that fit no criterion; return what the site changed beside criteria."""
    for id_, own in desk.config.override.items():
        place = f"{desk.config.origin}: override.{id_}"
        if id_ not in desk.drafts:
            desk.problems.append(f"{place}: no such criterion{keys.near(id_, desk.drafts)}")
        elif all(getattr(own, field) is None for field in _override_fields()):
            desk.problems.append(f"{place}: changes nothing: give {', '.join(OVERRIDABLE)}")
    changes = (
        [] if desk.config.readings else ["readings: off: the source's own numbers are in force"]
    )
    profile = desk.config.profile
    framework = type(profile).model_fields["link_gbps"].default
    if profile.link_gbps != framework:
        if not profile.link_gbps_reason:
            desk.problems.append(
                f"{desk.config.origin}: profile.link_gbps: {profile.link_gbps:g} in place of "
                f"{framework:g} needs a reason in profile.link_gbps_reason"
            )
        new = f"{profile.link_gbps:g} ({profile.link_gbps_reason})"
        changes.append(f"profile.link_gbps: {framework:g} -> {new}")
    return tuple(changes)


def resolve(draft: Draft, desk: Desk) -> Table:
    """All keys of *draft*: what it states, over the defaults of its file."""
    said = stated(draft, desk)
    found = draft.base | said
    if found.get("reduce", "latest") != "latest":
        return found
    return {k: v for k, v in found.items() if k in draft.keys or k not in lint.WINDOW_KEYS}


def stated(draft: Draft, desk: Desk, above: tuple[str, ...] = ()) -> Table:
    """What *draft* itself says: what it is like, its own keys, the source's numbers, the site's."""
    if draft.id in desk.tables:
        return desk.tables[draft.id]

    found = _liked(draft, desk, above) | draft.keys
    changed = {k: v for k, v in found.get("overridden", {}).items() if k not in draft.keys}
    if not desk.config.readings:
        found |= draft.keys.get("written", {})
    own = desk.config.override.get(draft.id)
    if own is not None:
        new = _override_keys(own)
        old = draft.base | found
        if "window" in new and old.get("reduce", "latest") == "latest":
            place = f"{desk.config.origin}: override.{draft.id}.window"
            desk.problems.append(f"{place}: the latest value has none")
        changed |= {k: (old.get(k), v, own.reason) for k, v in new.items()}
        found |= new
    found["overridden"] = changed
    desk.tables[draft.id] = found
    return found


def _liked(draft: Draft, desk: Desk, above: tuple[str, ...]) -> Table:
    """What the criterion that *draft* is like states, without what is nobody else's."""
    like = draft.keys.get("like")
    if like is None:
        return {}
    if like == draft.id or like in above:
        desk.problems.append(f"{draft.place}like: {like!r} leads back here")
        return {}
    if like not in desk.drafts:
        near = keys.near(like, desk.drafts)
        desk.problems.append(f"{draft.place}like: no criterion {like!r}{near}")
        return {}
    table = stated(desk.drafts[like], desk, (*above, draft.id))
    # What is to be expected goes with a comparison: of another one it says nothing.
    other = ("expected",) if "comparison" in draft.keys else ()
    return {k: v for k, v in table.items() if k not in (*keys.OWN, *other)}


def _override_fields() -> dict[str, str]:
    """The fields of config.Override by which a key of a criterion goes."""
    return {"hold" if key == "for" else key: key for key in OVERRIDABLE}


def _override_keys(own: Override) -> Table:
    given = {key: getattr(own, field) for field, key in _override_fields().items()}
    found = {key: value for key, value in given.items() if value is not None}
    if "limit" in found:
        found["limit"] = Limit(value=found["limit"])
    if "severity" in found:
        found["severity"] = keys.CRITERION["severity"](found["severity"])
    return found


def build(draft: Draft, desk: Desk) -> Criterion | None:
    """The criterion of *draft*, bound to the profile; None when too much of it is wrong."""
    found = dict(resolve(draft, desk))
    if keys.lacking("criterion", found, draft.raw, draft.place, desk.problems):
        return None
    metric = desk.metrics.get(found["metric"])
    if metric is None:
        nearest = keys.near(found["metric"], desk.metrics)
        desk.problems.append(f"{draft.place}metric: no metric {found['metric']!r}{nearest}")
        return None

    wrong = lint.units(found, metric, desk.quantities)
    desk.problems.extend(draft.place + said for said in wrong)
    if draft.site:
        told = site_catalogue.wrong(found, metric, desk.config)
        desk.problems.extend(draft.place + said for said in told)
    for key in ("possible", "expected"):
        found[key] = _range(found.get(key), desk.config.profile, draft.place + key, desk.problems)
    found["possible"] = found["possible"] or metric.possible
    found |= {
        "id": draft.id,
        "limit": bind(found["limit"], desk.config.profile, desk.config.calibrated.refused),
        "limits": tuple(
            (n, bind(limit, desk.config.profile)) for n, limit in found.get("limits", ())
        ),
        "hold": found.pop("for", 0.0),
        "source": _source(metric, found.pop("measured", {})),
        "overridden": _overridden(found.pop("overridden")),
        "inapplicable": inapplicable(found.get("requires", ()), desk.config),
    }
    found.setdefault("max_age", metric.max_age)
    found.setdefault("combine", Combine.WORST)
    return Criterion(**{k: v for k, v in found.items() if k != "written"})


def _source(metric: Metric, measured: Mapping[str, bool]) -> str:
    """What measures a criterion: the figures of a drill or a run are those of its own check."""
    if metric.drilled and measured.get(DRILL):
        return DRILL
    owned = metric.source in {DRILL, RUN}
    return NONE_YET if owned and not measured.get(metric.source) else metric.source


def quantities(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """What a limit may be a multiple of, with its unit: `profile.KEY` and `metric.NAME`."""
    named = {f"profile.{key}": unit for key, (unit, _) in PROFILE.items()}
    return named | {f"metric.{name}": metric.unit for name, metric in metrics.items()}


def bind(limit: Limit, profile: Profile, missing: str = "") -> Limit:
    """*limit* with its value, if it is a multiple of what the profile says; *missing* is why that
    may not say it.
    """
    known = PROFILE.get(limit.of.removeprefix("profile."))
    if not limit.of.startswith("profile.") or known is None:
        return limit
    base = known[1](profile)
    if base is None:
        return replace(limit, missing=missing)
    return replace(limit, value=base * limit.times + limit.plus)


def inapplicable(requires: tuple[str, ...], config: Config) -> str:
    """What the configuration says against what is required, or nothing."""
    against = [FEATURES[feature](config) for feature in requires if feature in FEATURES]
    said = " and ".join(reason for reason in against if reason)
    return f"the configuration says {said}" if said else ""


def _overridden(changed: Mapping[str, tuple[Any, Any, str]]) -> str:
    return "; ".join(
        f"{key} {_say(old)} -> {_say(new)} ({reason})"
        for key, (old, new, reason) in changed.items()
    )


def _say(value: object) -> str:
    if isinstance(value, Limit):
        return lint.say(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "default" if value is None else str(value)


def _range(
    ends: tuple[Limit, Limit] | None, profile: Profile, place: str, problems: list[str]
) -> Range | None:
    """The interval between two limits, or None while the profile leaves one of them open."""
    if ends is None:
        return None
    low, high = (bind(end, profile).value for end in ends)
    if low is None or high is None:
        return None
    if low > high:
        problems.append(f"{place}: empty: {low:g} is above {high:g}")
        return None
    return Range(low, high)


def finish_check(found: Table, built: Mapping[str, Criterion], config: Config) -> Check:
    """The check of a file, with its criteria and its cron line."""
    criteria = tuple(built[id_] for id_ in found["criterion"] if id_ in built)
    schedule = getattr(config.schedule, found["schedule"]) if "schedule" in found else ""
    rest = {k: v for k, v in found.items() if k not in ("criterion", "schedule")}
    return Check(criteria=criteria, schedule=schedule, **rest)


def finish_gate(found: Table, built: Mapping[str, Criterion]) -> Gate:
    """The gate of a table, with its lines and its vetoes."""
    rest = {k: v for k, v in found.items() if k not in ("go", "no_go")}
    return Gate(
        requires=tuple(line for line in found["go"] if line is not None),
        vetoes=tuple(built[id_] for id_ in found["no_go"] if id_ in built),
        **rest,
    )


def _is_check(file: str) -> bool:
    return file not in (METRICS, GATES, SIGNOFFS)
