"""See every node of the cluster: ask each for its /metrics, or one Prometheus for all of them.

Bounded in time, size and threads. A node that does not answer is seen as missing, with the reason.
"""

from __future__ import annotations

import http
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from dvfd import remote
from dvfd.errors import DvfdError
from dvfd.fleet import Seen, seen
from dvfd.scraped import LONGEST, WANTED, Series, answered, exposed
from dvfd.words import printable

if TYPE_CHECKING:
    from dvfd.config import Member

AT_ONCE = 16
"""Nodes that are asked together: 1000 that do not answer then take 3.5 s x 1000 / 16, 4 minutes."""

MOST_OF_A_NODE = 4 << 20
"""Bytes of one /metrics: the fullest node has 100 KB."""

MOST_OF_ALL = 64 << 20
"""Bytes of a Prometheus' answer: a node is about 15 KB of it."""

WAITING = 60.0
"""Seconds for one answer of a Prometheus: of 1000 nodes it took 12 on a busy machine."""

FIRST = 'job="dvfd"'
"""What the rules and dashboards call the scrape job."""

Get = Callable[..., remote.Answer]
"""remote.get, or a fake."""


def by_nodes(members: Sequence[Member], get: Get = remote.get) -> list[Seen]:
    """Each node as its own /metrics tells it."""
    with ThreadPoolExecutor(AT_ONCE, "fleet") as pool:
        return list(pool.map(lambda member: _by_node(member, get), members))


def _by_node(member: Member, get: Get) -> Seen:
    if not member.url:
        return Seen(node=member.name, why="no url in its [[cluster.nodes]]")
    try:
        answer = get(f"{member.url}/metrics", most=MOST_OF_A_NODE)
        if answer.status != http.HTTPStatus.OK:
            return Seen(node=member.name, why=f"{member.url} answers {answer.status}")
        return seen(member.name, exposed(answer.body), at=answer.answered)
    except DvfdError as error:
        return Seen(node=member.name, why=printable(str(error))[:LONGEST])


def by_prometheus(
    url: str, members: Sequence[Member], checks: Iterable[str], get: Get = remote.get
) -> list[Seen]:
    """Each node as the Prometheus at *url* scraped it; of *checks* the criteria too."""
    try:
        return _by_prometheus(url, members, checks, get)
    except DvfdError as error:
        why = f"Prometheus: {printable(str(error))[:LONGEST]}"
        return [Seen(node=member.name, why=why) for member in members]


def _by_prometheus(
    url: str, members: Sequence[Member], checks: Iterable[str], get: Get
) -> list[Seen]:
    where = f"{FIRST},instance=~{_quoted('|'.join(_pattern(m) for m in members))}"
    names = "|".join(sorted(WANTED - {"dvfd_criterion_verdict"}))
    some = f"{where},check=~{_quoted('|'.join(sorted(checks)) or 'none')}"

    def ask(expression: str) -> tuple[list[Series], float]:
        question = f"{url}/api/v1/query?query={quote(expression)}"
        answer = get(question, within=WAITING, most=MOST_OF_ALL)
        return answered(answer.body), answer.answered

    ups, at = ask(f"up{{{where}}}")
    waits, _ = ask(f"time() - timestamp(up{{{where}}})")
    ages = {each.labels.get("instance", ""): each.value for each in waits}
    series, _ = ask(f'{{__name__=~"{names}",{where}}}')
    series += ask(f"dvfd_criterion_verdict{{{some}}}")[0]
    found: dict[str, list[Series]] = {}
    for each in series:
        found.setdefault(each.labels.get("instance", ""), []).append(each)
    up = {each.labels.get("instance", ""): each.value for each in ups}
    return [_scraped(member, up, ages, found, at) for member in members]


def _scraped(
    member: Member,
    up: Mapping[str, float],
    ages: Mapping[str, float],
    found: Mapping[str, list[Series]],
    at: float,
) -> Seen:
    """One node out of what Prometheus has of all."""
    mine = targets(member, up)
    if len(mine) != 1:
        wanted = f"wanted 1 as instance={place(member)}"
        why = f"{len(mine)} targets are its own ({', '.join(mine)}), {wanted}" if mine else (
            f"no target of Prometheus is its own, {wanted}"
        )  # fmt: skip
        return Seen(node=member.name, why=why)
    [instance] = mine
    if up[instance] != 1:
        return Seen(node=member.name, why=f"Prometheus gets no answer of {instance}")
    if instance not in ages:
        return Seen(node=member.name, why=f"Prometheus does not say when it scraped {instance}")
    return seen(member.name, found.get(instance, ()), at=at, age=ages[instance])


def targets(member: Member, instances: Iterable[str]) -> list[str]:
    """Those of *instances* that are *member*: the place of its url, else its name or address."""
    known = list(instances)
    exact = [instance for instance in known if instance == place(member)]
    pattern = re.compile(_pattern(member))
    return exact or [instance for instance in known if pattern.fullmatch(instance)]


def place(member: Member) -> str:
    """host:port of its dvfd, as Prometheus calls a target."""
    return urlsplit(member.url).netloc.rpartition("@")[2] or f"{member.name}:9109"


def _pattern(member: Member) -> str:
    """What a target of *member* may be called, as RE2 and Python's re read it alike."""
    names = dict.fromkeys((place(member), member.name, member.address))
    return "|".join(rf"{_plain(name)}(:[0-9]+)?" for name in names)


def _plain(text: str) -> str:
    return re.sub(r"([^A-Za-z0-9_-])", r"\\\1", text)


def _quoted(pattern: str) -> str:
    """*pattern* as a string of PromQL."""
    escaped = pattern.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
