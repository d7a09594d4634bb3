"""See every node of the cluster: ask each for its /metrics. dvfd.sighted asks an engine for all.

Bounded in time, size and threads. A node that does not answer is seen as missing, with the reason.
"""

from __future__ import annotations

import http
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dvfd import remote
from dvfd.errors import DvfdError
from dvfd.fleet import Seen, seen
from dvfd.scraped import LONGEST, exposed
from dvfd.words import printable

if TYPE_CHECKING:
    from dvfd.config import Member

AT_ONCE = 16
"""Nodes that are asked together: 1000 that do not answer then take 3.5 s x 1000 / 16, 4 minutes."""

MOST_OF_A_NODE = 4 << 20
"""Bytes of one /metrics: the fullest node has 100 KB."""

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
