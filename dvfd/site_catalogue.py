"""A site's own metrics and criteria, out of its own directory, beside the framework's.

They only add: a line of a list is called `daily.site.NAME`, a metric `site_NAME`, and neither can
stand for one of the framework's. Same keys, same lint.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dvfd import catalogue_keys as keys
from dvfd.model import ATTESTATION, DRILL, NONE_YET, RUN, Metric, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dvfd.config import Config, Plugin
    from dvfd.model import Catalogue

METRICS = "metrics.toml"

LARGEST = 1 << 20
"""Bytes of one file: a hundred criteria have 30 KB."""

QUIET = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A FIFO that took the file's place opens at once, and ends at once."""

PREFIX = "site_"
"""How the name of a site's own metric begins."""

OWNER = "site"
"""What stands between the list and the name of a site's own criterion."""

ITEM = "beyond the source"

MOST = 100
"""Criteria that a site may add: each costs a series, and a judgement every few seconds."""

PLUGIN = "plugin"
"""The source, the label and the key of `only` of what plugins say."""

ENDED = frozenset({"job", "rank", "path"})
"""Labels whose series the framework ends, when a job or a watched file system is over: another's
series of that label would end with them, and be missed by nobody."""

ELSEWHERE = frozenset({DRILL, RUN, ATTESTATION, NONE_YET})
"""Sources whose figures belong to the framework's own tests: no list looks at them every day."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a site's directory says, by the name of the file, and where it lies."""

    directory: str
    tables: Mapping[str, keys.Table]


def read(directory: Path | None, problems: list[str]) -> Files:
    """Every TOML file of *directory*; one that was named and is not there is a mistake."""
    if directory is None:
        return Files("", {})
    tables: dict[str, keys.Table] = {}
    for name in _names(directory, problems):
        try:
            tables[name] = tomllib.loads(_text(directory / name))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            problems.append(f"{directory / name}: (whole file): cannot be read: {error}")
    return Files(str(directory), tables)


def _names(directory: Path, problems: list[str]) -> list[str]:
    """The TOML files; one that may not be listed would else look like one without any."""
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(".toml"))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        problems.append(
            f"site.checks: {directory} is no directory; wanted metrics.toml and lists there"
        )
    except OSError as error:
        problems.append(f"site.checks: {directory} cannot be read: {error.strerror}")
    return []


def _text(path: Path) -> str:
    """A regular file's text: a FIFO would keep the daemon waiting for ever. Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("is no regular file")
    with os.fdopen(os.open(path, QUIET), "rb") as file:
        body = file.read(LARGEST + 1)
    if len(body) > LARGEST:
        raise OSError(f"has more than {LARGEST} bytes, wanted fewer")
    return body.decode()


def metrics(files: Files, config: Config, problems: list[str]) -> dict[str, Metric]:
    """The site's metrics by name, each bound to the input that it comes from."""
    found: dict[str, Metric] = {}
    for name, raw in files.tables.get(METRICS, {}).items():
        place = f"{files.directory}/{METRICS}: {name}"
        if not name.startswith(PREFIX) or not keys.NAME.fullmatch(name):
            problems.append(f"{place}: a site's metric is called {PREFIX}NAME, in lower case")
        elif not isinstance(raw, dict):
            problems.append(f"{place}: not a table")
        elif made := _metric(name, raw, f"{place}.", config, problems):
            found[name] = made
    return found


def _metric(
    name: str, raw: keys.Table, place: str, config: Config, problems: list[str]
) -> Metric | None:
    found = keys.read_table(raw, keys.SITE_METRIC, place, problems)
    if keys.lacking("site metric", found, raw, place, problems):
        return None
    origin: Origin = found.pop("from")
    inputs = {each.name: each for each in getattr(config, origin.source)}
    if taken := ENDED & set(found.get("labels", ())):
        problems.append(f"{place}labels: {min(taken)!r} is the framework's own: choose by where")
        return None
    if origin.input not in inputs:
        near = keys.near(origin.input, inputs)
        problems.append(f"{place}from: no [[{origin.source}]] is named {origin.input!r}{near}")
        return None
    found.setdefault("max_age", inputs[origin.input].max_age)
    possible = keys.plain_range(found.pop("possible", None), f"{place}possible", problems)
    return Metric(name=name, source=origin.source, origin=origin, possible=possible, **found)


def aged(metric: Metric, config: Config) -> Metric:
    """A metric of all plugins, as old as the slowest of them may make it."""
    return replace(metric, max_age=max(plugin.max_age for plugin in config.plugin))


@dataclass(frozen=True, slots=True)
class Line:
    """One criterion of a site before it is read: its list, its table, where it stands, and what it
    has unless it says otherwise.
    """

    check: str
    raw: keys.Table
    place: str
    base: keys.Table
    given: keys.Table


def lines(files: Files, lists: Mapping[str, keys.Table], problems: list[str]) -> Iterator[Line]:
    """The site's criteria. *lists* are the checks that may have some, with their own defaults."""
    count = 0
    for file, raw in files.tables.items():
        if file == METRICS:
            continue
        place = f"{files.directory}/{file}: "
        check = file.removesuffix(".toml")
        if check not in lists:
            near, known = keys.near(check, lists), ", ".join(sorted(lists))
            problems.append(f"{place}no list is called so{near}; known: {known}")
            continue
        for line in _of_list(check, raw, place, lists[check], problems):
            count += 1
            yield line
    if count > MOST:
        problems.append(f"{files.directory}: {count} criteria, wanted at most {MOST}")


def _of_list(
    check: str, raw: keys.Table, place: str, theirs: keys.Table, problems: list[str]
) -> Iterator[Line]:
    found = keys.read_table(raw, keys.SITE_CHECK, place, problems)
    if found.get("id", check) != check:
        problems.append(f"{place}id: {found['id']!r} lives in {found['id']}.toml")
    ours = keys.read_table(found.get("defaults", {}), keys.DEFAULTS, f"{place}defaults.", problems)
    base = {**theirs, **ours, "measured": {}}
    given = {"item": ITEM, "clause": found.get("clause", "This site's own checks")}
    for number, each in enumerate(found.get("criterion", ()), 1):
        yield Line(check, each, f"{place}criterion {number}", base, given)


def plugin_named(found: keys.Table, metrics: Mapping[str, Metric], config: Config) -> Plugin | None:
    """The plugin that a criterion is about, if it is about one that is configured."""
    metric = metrics.get(found.get("metric", ""))
    if metric is None or metric.source != PLUGIN:
        return None
    name = dict(found.get("where", ())).get(PLUGIN)
    return next((plugin for plugin in config.plugin if plugin.name == name), None)


def wrong(found: keys.Table, metric: Metric, config: Config) -> Iterator[str]:
    """What cannot be meant by a site's criterion, beside what the lint finds in any."""
    if metric.source in ELSEWHERE:
        yield f"metric: {metric.name} belongs to the framework's tests: wanted a probe's"
    if metric.source != PLUGIN:
        return
    names = [plugin.name for plugin in config.plugin]
    named = dict(found.get("where", ())).get(PLUGIN)
    if named is None:
        yield "where: say which plugin: one that never ran would not be missed"
    elif named not in names:
        yield f"where: no [[plugin]] is named {named!r}{keys.near(named, names)}"


def unjudged(config: Config, catalogue: Catalogue) -> tuple[str, ...]:
    """What is read and judged by nothing: whoever set it up may think that it is watched."""
    judged = {c.metric for c in catalogue.criteria.values()}
    judged |= {c.limit.metric for c in catalogue.criteria.values()}
    plugins = {dict(c.where).get(PLUGIN) for c in catalogue.criteria.values() if c.source == PLUGIN}
    idle = [f"[[plugin]] {p.name}" for p in config.plugin if p.name not in plugins]
    own = [m for m in catalogue.metrics.values() if m.origin]
    idle += [f"metric {m.name}" for m in own if m.name not in judged]
    inputs = {(m.origin.source, m.origin.input) for m in own if m.origin}
    idle += [
        f"[[textfile]] {t.name}" for t in config.textfile if ("textfile", t.name) not in inputs
    ]
    idle += [f"[[scrape]] {s.name}" for s in config.scrape if ("scrape", s.name) not in inputs]
    return tuple(f"{each}: read, and no criterion of [site] checks judges it" for each in idle)


def added(files: Files, criteria: int) -> tuple[str, ...]:
    """What reports say of it, beside overrides."""
    if not files.directory:
        return ()
    return (f"{criteria} criteria added by this site, from {files.directory}",)
