"""Say before a test between nodes, node by node, what would stop it. Changes nothing.

It sees what one node can: names, what answers, what a peer's dvfd tells of itself. It knocks on
ports and opens none: a closed one that says so is reachable, silence is a firewall. What was not
looked at is UNKNOWN, never ok.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from dvfd import cluster as clusters
from dvfd.doctor import Finding, Mark
from dvfd.errors import DvfdError
from dvfd.reduce import TOLERANCE
from dvfd.words import printable

if TYPE_CHECKING:
    from dvfd.config import Cluster, Member
    from dvfd.drills.interface import Interface

SCHEMA = 1
"""Raised when a key of the document changes its meaning or goes."""

WORDS = 500
"""Characters of one text: a peer may tell any number of jobs."""

AT_ONCE = 16
"""Peers that are looked at together: threads of one command."""

SAMPLED = 5
"""Ports of the range that are knocked on: rules are written for ranges, and 200 knocks a scan."""

SUBJECTS = (
    "name", "reach", "ports", "dvfd", "version", "catalogue", "profile", "cluster", "torch",
    "interface", "clock", "idle",
)  # fmt: skip
"""What is looked at of each node, in the order in which a person would mend it."""

ASKING = ("version", "catalogue", "profile", "cluster", "torch", "interface", "clock", "idle")
"""What only a node's own dvfd can say."""


class Knock(Enum):
    """How a port answers."""

    CLOSED = "closed"  # a reset: the way there is free, and nobody listens
    OPEN = "open"
    SILENT = "silent"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a dvfd tells of itself; its clock is ahead of ours by `ahead` seconds, give or take."""

    document: Mapping[str, Any]
    ahead: float
    give: float


@dataclass(frozen=True, slots=True)
class Own:
    """What this node would bring to a test."""

    version: str
    catalogue: str
    profile: str
    torch: str | None
    torch_missing: str
    training: str | None  # in words; empty if none runs here, None if nobody could say
    listening: Mapping[int, str]  # the ports of this host that are taken, and by whom


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the looks look at; tests bring their own."""

    cluster: Cluster
    me: Member
    own: Own
    there: Mapping[str, Interface]
    resolve: Callable[[str], list[str]]
    knock: Callable[[str, Sequence[int], Sequence[str]], Mapping[int, Knock]]  # from our addresses
    ask: Callable[[str], Heard]  # of a url; raises DvfdError


def examine(world: World) -> list[Finding]:
    """Every node by every subject, peers side by side."""
    with ThreadPoolExecutor(AT_ONCE, "preflight") as pool:
        found = pool.map(lambda member: _whole(world, member), world.cluster.nodes)
        return [finding for findings in found for finding in findings]


def document(world: World, findings: Iterable[Finding]) -> dict[str, Any]:
    """The findings as plain JSON values, by node."""
    rows: dict[str, list[dict[str, Any]]] = {node.name: [] for node in world.cluster.nodes}
    for finding in findings:
        text = printable(finding.text)[:WORDS]  # a peer's words may be anything
        rows[finding.section].append(
            {"subject": finding.subject, "mark": str(finding.mark), "text": text, "do": finding.do}
        )
    nodes = [{"node": name, "findings": found} for name, found in rows.items()]
    return {"schema": SCHEMA, "node": world.me.name, "lead": world.cluster.lead, "nodes": nodes}


def _whole(world: World, member: Member) -> list[Finding]:
    """What was found of *member*, and UNKNOWN for what no look said anything of."""
    look = _here if member == world.me else _peer
    found = list(look(world, member))
    said = {finding.subject for finding in found}
    missing = [subject for subject in SUBJECTS if subject not in said]
    found += [Finding(member.name, s, Mark.UNKNOWN, "not looked at") for s in missing]
    return sorted(found, key=lambda finding: SUBJECTS.index(finding.subject))


# --- This node ------------------------------------------------------------------------------------


def _here(world: World, me: Member) -> Iterator[Finding]:
    addresses, named = _named(world, me)
    yield named
    if addresses:
        yield _carried(world, me, addresses)
        yield _over(world, me, addresses)
    yield free(world.cluster, me, world.own.listening)
    yield _torch_here(world, me)
    yield _idle_here(world, me)
    own = {"torch", "interface", "idle"}  # looked at in this process
    yield from (finding for finding in _told(world, me) if finding.subject not in own)


def _carried(world: World, me: Member, addresses: Sequence[str]) -> Finding:
    """Whether this host is the one that the configuration says it is."""
    carried = {address for each in world.there.values() for address in each.addresses}
    if carried & set(addresses):
        return Finding(me.name, "reach", Mark.OK, "this node")
    text = f"no interface here carries {', '.join(addresses)}"
    do = "node.name, or the address of this node in [[cluster.nodes]]"
    return Finding(me.name, "reach", Mark.BROKEN, text, do)


def _over(world: World, me: Member, addresses: Sequence[str]) -> Finding:
    over = clusters.interface(world.cluster, addresses, world.there)
    if wrong := clusters.unfit(over, me, addresses, world.there):
        return Finding(me.name, "interface", Mark.BROKEN, "; ".join(wrong), "[cluster] interface")
    return Finding(me.name, "interface", Mark.OK, f"{over} is up and carries its address")


def free(cluster: Cluster, me: Member, listening: Mapping[int, str]) -> Finding:
    """Whether the ports that a test would open on this node are free."""
    first, last = cluster.ports
    taken = {port: who for port, who in listening.items() if first <= port <= last}
    if me.name == cluster.lead and cluster.port in listening:
        text = f"port {cluster.port} of the rendezvous is taken by {listening[cluster.port]}"
        return Finding(me.name, "ports", Mark.BROKEN, text, "end that, or another [cluster] port")
    if taken:
        told = ", ".join(f"{port} by {who}" for port, who in sorted(taken.items())[:4])
        text = f"{len(taken)} of {last - first + 1} ports are taken: {told}"
        return Finding(me.name, "ports", Mark.IMPROVE, text, "end that, or other [cluster] ports")
    return Finding(me.name, "ports", Mark.OK, f"{first} to {last} are free here")


def _torch_here(world: World, me: Member) -> Finding:
    own = world.own
    if own.torch is None:
        return Finding(me.name, "torch", Mark.BROKEN, own.torch_missing, "[drills] python")
    return Finding(me.name, "torch", Mark.OK, f"torch {own.torch}, and it loads")


def _idle_here(world: World, me: Member) -> Finding:
    if world.own.training is None:
        text = "the daemon here does not say which jobs report to it"
        return Finding(me.name, "idle", Mark.UNKNOWN, text, "dvfd doctor")
    if world.own.training:
        text = f"trains: {world.own.training}"
        return Finding(me.name, "idle", Mark.BROKEN, text, "wait for it, or --force")
    return Finding(me.name, "idle", Mark.OK, "no training was found here")


# --- A peer ---------------------------------------------------------------------------------------


def _peer(world: World, peer: Member) -> Iterator[Finding]:
    addresses, named = _named(world, peer)
    yield named
    if addresses:
        yield from _reached(world, peer, addresses[0])
    yield from _told(world, peer)


def _named(world: World, member: Member) -> tuple[list[str], Finding]:
    try:
        addresses = world.resolve(member.address)
    except DvfdError as error:
        do = "the address in [[cluster.nodes]], or /etc/hosts on every node"
        return [], Finding(member.name, "name", Mark.BROKEN, str(error), do)
    text = "" if addresses == [member.address] else f"{member.address} is "
    return addresses, Finding(member.name, "name", Mark.OK, f"{text}{', '.join(addresses)}")


def _reached(world: World, peer: Member, address: str) -> Iterator[Finding]:
    leads = peer.name == world.cluster.lead
    wanted = [*sampled(world.cluster.ports), *([world.cluster.port] if leads else [])]
    try:
        sources = world.resolve(world.me.address)
        knocked = world.knock(address, wanted, sources)
    except (DvfdError, OSError) as error:
        why = f"no knock could be sent from {world.me.address}: {error}"
        yield Finding(peer.name, "reach", Mark.UNKNOWN, why, "see this node's interface")
        return
    yield reach(peer, address, knocked)
    yield ports(peer, knocked, world.cluster.port if leads else None)


def sampled(ports: tuple[int, int], count: int = SAMPLED) -> list[int]:
    """The ends of the range and some between, evenly."""
    first, last = ports
    return [first + (last - first) * i // (count - 1) for i in range(count)]


def reach(peer: Member, address: str, knocked: Mapping[int, Knock]) -> Finding:
    """Whether anything at all comes back from *address*."""
    answers = [port for port, how in knocked.items() if how in {Knock.CLOSED, Knock.OPEN}]
    if answers:
        return Finding(peer.name, "reach", Mark.OK, f"{address} answers")
    do = f"ping {address}; ip route get {address}"
    if Knock.UNREACHABLE in knocked.values():
        return Finding(peer.name, "reach", Mark.BROKEN, f"{address} is unreachable", do)
    text = (
        f"{address} is silent on all of {len(knocked)} ports: down, cut off, or behind a firewall"
    )
    return Finding(peer.name, "reach", Mark.BROKEN, text, do)


def ports(peer: Member, knocked: Mapping[int, Knock], rendezvous: int | None) -> Finding:
    """Whether a firewall lets the ports of tests through, by those that were knocked on."""
    of = {how: [p for p, seen in knocked.items() if seen is how] for how in Knock}
    shut = sorted(of[Knock.SILENT] + of[Knock.UNREACHABLE])
    if not of[Knock.CLOSED] and not of[Knock.OPEN]:
        return Finding(peer.name, "ports", Mark.UNKNOWN, "nothing of it answers: see reach")
    if shut:
        text = (
            f"no answer on {_listed(shut)}, while {_listed(of[Knock.CLOSED] + of[Knock.OPEN])} do"
        )
        do = f"a firewall on {peer.name} or between: let [cluster] port and ports through"
        return Finding(peer.name, "ports", Mark.BROKEN, text, do)
    if rendezvous in of[Knock.OPEN]:
        text = f"somebody listens on {rendezvous}, the port of the rendezvous"
        do = f"there: ss -ltnp sport = :{rendezvous}; wait for that test, or another [cluster] port"
        return Finding(peer.name, "ports", Mark.BROKEN, text, do)
    if of[Knock.OPEN]:
        text = f"somebody listens on {_listed(of[Knock.OPEN])}"
        return Finding(peer.name, "ports", Mark.IMPROVE, text, f"on {peer.name}: ss -ltnp")
    text = f"closed and reachable: {_listed(of[Knock.CLOSED])}; one that rejects looks the same"
    return Finding(peer.name, "ports", Mark.OK, text)


def _listed(ports: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ports)))


# --- What a dvfd tells of itself ------------------------------------------------------------------


def _told(world: World, member: Member) -> Iterator[Finding]:
    if not member.url:
        do = f'url = "http://{member.address}:9109" in its [[cluster.nodes]]'
        yield Finding(member.name, "dvfd", Mark.UNKNOWN, "no url is configured", do)
        return
    try:
        heard = world.ask(member.url)
    except DvfdError as error:
        do = f"on {member.name}: dvfd run, and [http] host that others reach"
        yield Finding(member.name, "dvfd", Mark.BROKEN, str(error), do)
        return
    said = heard.document
    if said.get("node") != member.name:
        text = f"{member.url} is the dvfd of {said.get('node')!r}, wanted {member.name!r}"
        yield Finding(member.name, "dvfd", Mark.BROKEN, text, "the url in [[cluster.nodes]]")
        return
    yield Finding(member.name, "dvfd", Mark.OK, "answers")
    for subject in ASKING:
        yield compared(subject, world, member, heard)


def compared(subject: str, world: World, member: Member, heard: Heard) -> Finding:
    """One subject of what *member* told, held against ours; UNKNOWN if it did not tell it."""
    try:
        mark, text, do = LOOKS[subject](world, heard)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"its dvfd does not tell: {type(error).__name__} {error}"
        return Finding(member.name, subject, Mark.UNKNOWN, text, "the same version everywhere")
    return Finding(member.name, subject, mark, text, do)


Look = tuple[Mark, str, str]


def _version(world: World, heard: Heard) -> Look:
    theirs, ours = str(heard.document["version"]), world.own.version
    if theirs == ours:
        return Mark.OK, theirs, ""
    return Mark.BROKEN, f"{theirs}, wanted {ours} as here", "the same version on every node"


def _catalogue(world: World, heard: Heard) -> Look:
    theirs, ours = str(heard.document["catalogue"]), world.own.catalogue
    if theirs == ours:
        return Mark.OK, theirs[:12], ""
    return Mark.BROKEN, f"{theirs[:12]}, wanted {ours[:12]} as here", "the same checks everywhere"


def _profile(world: World, heard: Heard) -> Look:
    theirs, ours = str(heard.document["profile"]), world.own.profile
    if theirs == ours:
        return Mark.OK, theirs[:12], ""
    text = f"{theirs[:12]}, here {ours[:12]}: [profile] or overrides differ, limits may too"
    return Mark.IMPROVE, text, "the same [profile] and [override] on every node"


def _cluster(world: World, heard: Heard) -> Look:
    here = world.cluster
    ours = {
        "lead": here.lead,
        "nodes": [node.name for node in here.nodes],
        "port": here.port,
        "ports": list(here.ports),
    }
    theirs = dict(heard.document["cluster"])
    odd = [f"{k} is {theirs.get(k)}, here {v}" for k, v in ours.items() if theirs.get(k) != v]
    if odd:
        return Mark.BROKEN, "; ".join(odd), "the same [cluster] on every node"
    return Mark.OK, f"the same nodes, lead {here.lead}, port {here.port}", ""


def _torch(world: World, heard: Heard) -> Look:
    theirs, ours = heard.document["torch"], world.own.torch
    python = heard.document["python"]
    if not theirs:
        mark = Mark.UNKNOWN if theirs is None else Mark.BROKEN
        return mark, str(heard.document["torch_missing"]), "[drills] python, there"
    if ours is None:
        return Mark.UNKNOWN, f"torch {theirs}, and here none to compare it with", ""
    if theirs != ours:
        return Mark.BROKEN, f"torch {theirs} in {python}, wanted {ours} as here", "[drills] python"
    return Mark.OK, f"torch {theirs} is installed in {python}", ""


def _interface(_world: World, heard: Heard) -> Look:
    told = heard.document["interface"]
    do = "[cluster] interface, there"
    if told is None:
        return Mark.BROKEN, "none there carries its address", do
    name = str(told["name"])
    if not told["up"]:
        return Mark.BROKEN, f"{name} is down", f"there: ip link set {name} up"
    if not told["carries"]:
        return Mark.BROKEN, f"{name} does not carry its address", do
    if told["loopback"]:
        return Mark.BROKEN, f"{name} never leaves the node", do
    return Mark.OK, f"{name} is up and carries its address", ""


def _idle(_world: World, heard: Heard) -> Look:
    jobs = [str(job) for job in heard.document["jobs"]]
    if jobs:
        return Mark.BROKEN, f"trains: job {', '.join(jobs)}", "wait for it, or --force"
    return Mark.OK, "no job reports there", ""


def clock(_world: World, heard: Heard) -> Look:
    """How far apart the clocks are, by an exchange: known to half its round trip."""
    least, most = abs(heard.ahead) - heard.give, abs(heard.ahead) + heard.give
    text = f"{heard.ahead:+.3f} s against ours, known to {heard.give:.3f} s"
    if least > TOLERANCE:
        do = "chronyc tracking, or timedatectl, on both"
        return Mark.BROKEN, f"{text}, wanted at most {TOLERANCE:g} s", do
    if not most <= TOLERANCE:  # nor if it is no number
        return Mark.UNKNOWN, f"{text}: too slow an answer to tell {TOLERANCE:g} s", "ask again"
    return Mark.OK, text, ""


LOOKS: Mapping[str, Callable[[World, Heard], Look]] = {
    "version": _version,
    "catalogue": _catalogue,
    "profile": _profile,
    "cluster": _cluster,
    "torch": _torch,
    "interface": _interface,
    "clock": clock,
    "idle": _idle,
}
