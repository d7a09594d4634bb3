"""Does the monitoring work: what Prometheus says of this node's daemon and of dvfd's rules.

Changes nothing. The test alert is dvfd.drills.round_trip, what went unseen dvfd.drills.unobserved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from dvfd import remote
from dvfd.answers import daemon
from dvfd.catalogue import load as load_catalogue
from dvfd.drills.all_nodes import leads, lists, look, well
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.prometheus import Prometheus, duration, moment
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Sample, labels
from dvfd.places import data_dir
from dvfd.reduce import seconds
from dvfd.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dvfd.config import Config
    from dvfd.drills.drill import Task
    from dvfd.drills.prometheus import Get
    from dvfd.fleet import Seen

    Found = Sample | Remark | Trouble

WORKING = "monitoring_working"

TAKEN = "dvfd_config_last_reload_success_timestamp_seconds"
"""The series by which a daemon is known: no two of them began in the same microsecond."""

INTERVALS = 3
"""Intervals after which a scrape or an evaluation is overdue: one may be lost, as in the rules."""

NAMED = 5
"""Things of one kind that a remark names: a person mends the first and asks again."""

Ask = Callable[..., Any]
"""dvfd.answers.daemon, or a fake: the daemon's answer, None where none lives."""


Look = Callable[..., "list[Seen]"]
"""dvfd.drills.all_nodes.look, or a fake."""


class Scrape:
    """This daemon lives, is scraped, and what it says is kept for as long as lists look back; at
    the lead every node is seen.
    """

    name = "scrape"
    metrics = (WORKING,)

    def __init__(self, *, ask: Ask = daemon, get: Get = remote.get, look: Look = look) -> None:
        self._ask = ask
        self._get = get
        self._look = look

    def run(self, task: Task) -> Iterator[Found | Fact]:
        """A sample for each of daemon, target, retention and, at the lead, nodes, or why there is
        none.
        """
        part = partial(found, task, "scrape")
        status = self._ask("status")
        yield from part("daemon", lambda: [alive(status)])
        yield from part("target", lambda: self._target(task, status))
        yield from part("retention", lambda: self._retention(task))
        if leads(task.config):
            catalogue = load_catalogue(task.config)
            nodes = self._look(task.config, catalogue, task.clock.now())
            yield from part("nodes", lambda: [well(nodes, catalogue.hash)])
            yield from lists(nodes, catalogue, task.config.cluster.lead)

    def _target(self, task: Task, status: Mapping[str, Any] | None) -> Iterator[str]:
        if status is None:
            raise ProbeError("without a daemon there is nothing that could be scraped")
        server = Prometheus.of(task.config, self._get)
        taken = self._ask("taken_at")
        now = server.now()
        targets = server.data("targets?state=active")["activeTargets"]
        ours = [where for value, where in server.values(TAKEN) if value == taken]
        if not ours:
            yield _unscraped(server, targets, age=task.clock.now() - taken)
            return
        mine = [t for t in targets if any(_is_of(t, where) for where in ours)]
        if not mine:
            raise ProbeError(f"{server.name} has this daemon's series, and no target of its own")
        whys = [_overdue(server, target, now) for target in mine]
        yield "" if "" in whys else whys[0]  # two jobs may scrape it: one is enough

    def _retention(self, task: Task) -> Iterator[str]:
        server = Prometheus.of(task.config, self._get)
        kept = str(server.data("status/runtimeinfo")["storageRetention"])
        wanted, check = longest(task.config)
        lengths = [duration(each) for each in kept.split(" or ")]
        times = [length for length in lengths if length is not None]
        if not times or (times[0] >= wanted and None in lengths):  # a size may end it sooner
            raise ProbeError(f"{server.name} keeps {kept}, wanted a time alone: how long a size "
                             "lasts is not known; --storage.tsdb.retention.time sets one, without "
                             "--storage.tsdb.retention.size")  # fmt: skip
        back = f"{seconds(wanted)}, as far as the {check} list looks back"
        why = f"{server.name} keeps {kept}, wanted {back}: --storage.tsdb.retention.time=35d"
        yield "" if times[0] >= wanted else why


class Rules:
    """dvfd's rules are all loaded, were evaluated just now, and have somebody to tell."""

    name = "rules"
    metrics = (WORKING,)

    def __init__(self, *, get: Get = remote.get) -> None:
        self._get = get

    def run(self, task: Task) -> Iterator[Found]:
        """A sample for each of loaded, evaluated and alertmanager, or why there is none."""
        part = partial(found, task, "rules")
        yield from part("loaded", lambda: self._loaded(task))
        yield from part("evaluated", lambda: self._evaluated(task))
        yield from part("alertmanager", lambda: self._told(task))

    def _loaded(self, task: Task) -> Iterator[str]:
        server, wanted = Prometheus.of(task.config, self._get), shipped()
        there = {str(rule["name"]) for _, rule in _rules(server)}
        missing = sorted(wanted - there)
        yield (
            ""
            if not missing
            else (
                f"{server.name} has {len(wanted) - len(missing)} of dvfd's {len(wanted)} rules, "
                f"wanted all; not {_some(missing)}: `dvfd assets export DIR`, then rule_files"
            )
        )

    def _evaluated(self, task: Task) -> Iterator[str]:
        server, wanted = Prometheus.of(task.config, self._get), shipped()
        now = server.now()
        ours = [(group, rule) for group, rule in _rules(server) if rule["name"] in wanted]
        if not ours:
            raise ProbeError(f"{server.name} has none of dvfd's rules to evaluate")
        broken = [why for group, rule in ours if (why := _unsound(group, rule, now))]
        fresh = [rule["name"] for _, rule in ours if rule["health"] == "unknown"]
        if fresh and not broken:
            slowest = max(float(group["interval"]) for group, _ in ours)
            raise ProbeError(
                f"{len(fresh)} rules were not evaluated yet ({_some(fresh)}): Prometheus began or "
                f"reloaded just now, and the slowest come every {seconds(slowest)}: ask then"
            )
        yield f"{len(broken)} of {len(ours)} rules: {_some(broken)}" if broken else ""

    def _told(self, task: Task) -> Iterator[str]:
        server = Prometheus.of(task.config, self._get)
        active = server.data("alertmanagers")["activeAlertmanagers"]
        yield (
            ""
            if active
            else (
                f"{server.name} sends alerts to nobody, wanted an Alertmanager: alerting: "
                "alertmanagers: in prometheus.yml"
            )
        )


def found(
    task: Task, part: str, what: str, look: Callable[[], Iterable[str]]
) -> Iterator[Sample | Remark | Trouble]:
    """What *look* found: an empty string is a 1, words are a 0 and why. A DvfdError, or an answer
    that is not like Prometheus', leaves no sample.
    """
    where = labels(part=part, what=what)
    try:
        said = list(look())
    except DvfdError as error:
        yield Trouble(WORKING, printable(str(error)), where)
        return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield Trouble(WORKING, f"what Prometheus answers is not understood: {error!r:.120}", where)
        return
    for words in said:
        yield Sample(WORKING, float(not words), task.clock.now(), where)
        if words:
            yield Remark(WORKING, printable(words), where)


def alive(status: Mapping[str, Any] | None) -> str:
    """Why the daemon of *status* is not well, or nothing."""
    if status is None:
        return "no daemon answers here, wanted one: systemctl start dvfd"
    late = sorted(name for name, loop in status["loops"].items() if loop["late"])
    return f"the daemon's {', '.join(late)} shows no progress: `dvfd status`" if late else ""


def longest(config: Config) -> tuple[float, str]:
    """How far back a list of the calendar looks at most, in seconds, and which one that is."""
    reach = [
        (max(criterion.window, duration(dict(criterion.where).get("period", "")) or 0.0), check.id)
        for check in load_catalogue(config).checks.values()
        if check.schedule
        for criterion in check.criteria
    ]
    return max(reach)


def shipped() -> frozenset[str]:
    """The names of all alerts and records that come with dvfd."""
    files = sorted(data_dir("alert_rules").glob("*.rules.yml"))
    named = re.compile(r"^ *- (?:alert|record): (\S+)", re.MULTILINE)
    return frozenset(name for file in files for name in named.findall(file.read_text("utf-8")))


def _rules(server: Prometheus) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every rule with its group."""
    groups = server.data("rules")["groups"]
    return [(group, rule) for group in groups for rule in group["rules"]]


def _unsound(group: Mapping[str, Any], rule: Mapping[str, Any], now: float) -> str:
    """Why *rule* is not evaluated as it should be, or nothing."""
    if rule["health"] == "err":
        return f"{rule['name']}: {rule.get('lastError') or 'cannot be evaluated'}"
    every = float(group["interval"])
    age = now - moment(rule["lastEvaluation"])
    if rule["health"] == "ok" and age > INTERVALS * every:
        wanted = f"wanted every {seconds(every)}"
        return f"{rule['name']}: last evaluated {seconds(age)} ago, {wanted}"
    return ""


def _unscraped(server: Prometheus, targets: list[Mapping[str, Any]], *, age: float) -> str:
    """Why this daemon is not known there. Raises ProbeError where it is only too young."""
    every = max((duration(t["scrapeInterval"]) or 0.0 for t in targets), default=0.0)
    if age <= INTERVALS * every:
        raise ProbeError(
            f"{server.name} did not come by since this daemon took its configuration "
            f"{seconds(age)} ago, and comes every {seconds(every)}: ask again then"
        )
    dead = [f"{t['scrapeUrl']}: {t['lastError'] or 'down'}" for t in targets if t["health"] != "up"]
    also = f"; down are {_some(dead)}" if dead else ""
    return (
        f"{server.name} has {TAKEN} of no daemon that is this one, wanted it from one of its "
        f"{len(targets)} targets{also}: scrape_configs in prometheus.yml, and [http] here"
    )


def _is_of(target: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    """Whether a series with labels *where* came from *target*."""
    return all(where.get(name) == target["labels"][name] for name in ("job", "instance"))


def _overdue(server: Prometheus, target: Mapping[str, Any], now: float) -> str:
    """Why *target* is not scraped as it should be, or nothing."""
    where, every = target["scrapeUrl"], duration(target["scrapeInterval"]) or 0.0
    if target["health"] != "up":
        return f"{server.name} gets no answer of {where}: {target['lastError']}"
    age = now - moment(target["lastScrape"])
    if age > INTERVALS * every:
        wanted = f"wanted every {seconds(every)}"
        return f"{server.name} scraped {where} last {seconds(age)} ago, {wanted}"
    return ""


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {more} more" if more > 0 else "")
