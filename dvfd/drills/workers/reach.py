"""Who reaches whom, one rank: it listens, calls every other, and both prove who they are.

Each rank tells its key by the rendezvous. Who calls sends a nonce; who answers sends one too, and a
hash of both and of its node's name by its key; then the caller does the same. So neither a reused
address nor another service on the port can pass for the node. The heads of the nodes also call on
ports over the whole range and by each family of addresses that all have, and send each other
datagrams: of TCP a packet filter that works in one direction only leaves nothing in both.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import secrets
import socket
import socketserver
import struct
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvfd.drills.workers.fleet import Crew

NONCE = 32
"""Bytes of a nonce, as many as of a proof."""

PATIENCE = 4.0
"""Seconds for a connection and for each answer: the kernel asks again after 1 and after 3."""

CALLING = 120.0
"""Seconds until every rank has called all others: 16 nodes of which none answers take 80."""

AT_ONCE = 16
"""Calls of a rank at a time."""

DOORS = 5
"""Ports of the range that a node is called on."""

DATAGRAMS = 5

SIOCGIFADDR = 0x8915  # netdevice(7)

UNFIT = 0x01 | 0x20 | 0x40
"""Flags of an IPv6 address that does not last: temporary, deprecated, tentative (if_addr.h)."""

Door = tuple[str, int]
"""An address and the port on it."""


def proof(key: str, *parts: bytes) -> bytes:
    """What only who has *key* can say of *parts*."""
    return hmac.new(bytes.fromhex(key), b"\0".join(parts), hashlib.sha256).digest()


# --- Being called -------------------------------------------------------------------------------


class Listener(socketserver.ThreadingTCPServer):
    """A door: answers who calls, as *name* with *key*, and holds them to the keys of *callers*."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, door: Door, name: str, key: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in door[0] else socket.AF_INET
        self.name, self.key = name, key
        self.callers: Mapping[int, tuple[str, str]] = {}  # name and key by rank, once known
        super().__init__(door, Answering)

    @property
    def door(self) -> Door:
        """Where it listens."""
        return str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the caller tells how its call ended."""


class Answering(socketserver.BaseRequestHandler):
    """One call, seen from who is called."""

    server: Listener

    def handle(self) -> None:
        """Prove who we are, and see the proof of the caller."""
        line = self.request
        line.settimeout(PATIENCE)
        (rank,), theirs = struct.unpack("!I", receive(line, 4)), receive(line, NONCE)
        ours = secrets.token_bytes(NONCE)
        line.sendall(ours + proof(self.server.key, theirs, ours, self.server.name.encode()))
        name, key = self.server.callers[rank]
        right = hmac.compare_digest(receive(line, NONCE), proof(key, ours, theirs, name.encode()))
        line.sendall(b"1" if right else b"0")


def receive(line: socket.socket, count: int) -> bytes:
    """Exactly *count* bytes. Raises OSError, EOFError if the other end closed."""
    found = b""
    while len(found) < count:
        piece = line.recv(count - len(found))
        if not piece:
            raise EOFError(f"closed after {len(found)} bytes of {count}")
        found += piece
    return found


# --- Calling ------------------------------------------------------------------------------------


def call(
    door: Door, *, rank: int, me: tuple[str, str], other: tuple[str, str], source: str = ""
) -> tuple[str, str]:
    """Call *other* at *door* as *rank*, *me*: how it ended, in a word, and what is to say of it.

    *me* and *other* are a node's name and a rank's key. `proven`, `refused`, `silent`,
    `unreachable`, `wrong` (another answers), or `broken`.
    """
    try:
        with socket.create_connection(door, PATIENCE, (source, 0) if source else None) as line:
            return _ask(line, rank, me, other)
    except ConnectionRefusedError:
        return "refused", ""
    except TimeoutError:
        return "silent", ""
    except EOFError as error:
        return "wrong", str(error)
    except OSError as error:
        far = error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}
        return "unreachable" if far else "broken", error.strerror or str(error)


def _ask(
    line: socket.socket, rank: int, me: tuple[str, str], other: tuple[str, str]
) -> tuple[str, str]:
    ours = secrets.token_bytes(NONCE)
    line.sendall(struct.pack("!I", rank) + ours)
    theirs, said = receive(line, NONCE), receive(line, NONCE)
    if not hmac.compare_digest(said, proof(other[1], ours, theirs, other[0].encode())):
        return "wrong", f"its proof is not that of {other[0]}"
    line.sendall(proof(me[1], theirs, ours, me[0].encode()))
    if receive(line, 1) != b"1":
        return "wrong", f"{other[0]} does not take our proof"
    return "proven", ""


# --- Where to listen ----------------------------------------------------------------------------


def addresses(interface: str, configured: str) -> list[str]:
    """Those of this node to be called at: what *configured* resolves to, and of each other family
    the first lasting one of *interface*. Raises OSError.
    """
    found = socket.getaddrinfo(configured, None, type=socket.SOCK_STREAM)
    main = str(found[0][4][0])
    six = ":" in main
    other = _four(interface) if six else _six(interface)
    return [main, *([other] if other else [])]


def _four(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            found = ioctl(asking, SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return ""  # it has none
    return socket.inet_ntoa(found[20:24])


def _six(interface: str, proc: Path = Path("/proc/net/if_inet6")) -> str:
    """The first global one that lasts, or an empty string."""
    for row in proc.read_text(encoding="ascii").splitlines() if proc.exists() else ():
        digits, _, _, scope, flags, name = row.split()
        if name == interface and int(scope, 16) == 0 and not int(flags, 16) & UNFIT:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
    return ""


def spread(ports: Sequence[int], count: int) -> list[int]:
    """*count* of them, the first and the last among them, evenly between."""
    count = min(count, len(ports))
    return [ports[i * (len(ports) - 1) // max(1, count - 1)] for i in range(count)]


def listen(address: str, ports: Iterable[int], name: str, key: str) -> Listener:
    """A door on the first of *ports* that nobody has. Raises OSError."""
    for port in ports:
        try:
            return Listener((address, port), name, key)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"{address}: {error.strerror}") from None
    raise OSError(errno.EADDRINUSE, f"{address}: somebody has every port of the range")


def from_on(ports: Sequence[int], first: int) -> list[int]:
    """*ports*, beginning with *first*."""
    at = ports.index(first)
    return [*ports[at:], *ports[:at]]


# --- A rank ---------------------------------------------------------------------------------------


def run(crew: Crew, _options: Mapping[str, Any]) -> dict[str, Any]:
    """Every call of this rank, and the nodes whose datagrams came."""
    key = secrets.token_hex(NONCE)
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(each) for each in _doors(crew, key)]
        ear = stack.enter_context(_ear(doors[0].door))
        told = crew.gather("doors", {"key": key, "doors": [each.door for each in doors]})
        people = {r: (crew.nodes[_node(crew, r)].name, said["key"]) for r, said in told.items()}
        for each in doors:
            each.callers = people
            _serve(stack, each)
        crew.step("listening")
        if crew.head:
            _send(crew, ear, told, people)
        calls = _calls(crew, told, people, doors)
        crew.step("called", timeout=CALLING)
        return {"calls": calls, "heard": _heard(ear, people, key) if crew.head else []}


def _node(crew: Crew, rank: int) -> int:
    return next(i for i, node in enumerate(crew.nodes) if rank in node.ranks)


def _doors(crew: Crew, key: str) -> list[Listener]:
    ports = list(crew.ports)
    own = addresses(crew.interface, crew.me.address)
    firsts = spread(ports, DOORS) if crew.head else [ports[crew.local * 7 % len(ports)]]
    places = [(where, first) for where in (own if crew.head else own[:1]) for first in firsts]
    return [listen(where, from_on(ports, first), crew.me.name, key) for where, first in places]


def _serve(stack: contextlib.ExitStack, listener: Listener) -> None:
    pool = stack.enter_context(ThreadPoolExecutor(1))
    pool.submit(listener.serve_forever, 0.05)
    stack.callback(listener.shutdown)


def _ear(door: Door) -> socket.socket:
    """Where datagrams come in; the kernel keeps them until all have called."""
    ear = socket.socket(socket.AF_INET6 if ":" in door[0] else socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(door)
    return ear


def _calls(
    crew: Crew,
    told: Mapping[int, Any],
    people: Mapping[int, tuple[str, str]],
    mine: Sequence[Listener],
) -> list[list[Any]]:
    """For each door that this rank calls: whose, where, how it ended, what is to say of it."""
    own = {":" in each.door[0]: each.door[0] for each in reversed(mine)}
    todo = [
        (rank, (str(door[0]), int(door[1])))
        for rank, said in told.items()
        for door in (said["doors"] if crew.head and rank in crew.heads else said["doors"][:1])
        if rank != crew.rank and (":" in door[0]) in own
    ]

    def one(item: tuple[int, Door]) -> list[Any]:
        rank, door = item
        source = own[":" in door[0]]
        how = call(door, rank=crew.rank, me=people[crew.rank], other=people[rank], source=source)
        return [rank, *door, *how]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, todo))


def _send(
    crew: Crew, ear: socket.socket, told: Mapping[int, Any], people: Mapping[int, tuple[str, str]]
) -> None:
    """A few datagrams to each other head, signed with its key."""
    for rank in crew.heads:
        if rank != crew.rank:
            words = struct.pack("!I", crew.rank) + _signed(crew.rank, people, people[rank][1])
            for _ in range(DATAGRAMS):
                with contextlib.suppress(OSError):  # what does not arrive is told by who waits
                    ear.sendto(words, tuple(told[rank]["doors"][0]))


def _signed(rank: int, people: Mapping[int, tuple[str, str]], key: str) -> bytes:
    return proof(key, b"datagram", people[rank][0].encode())


def _heard(ear: socket.socket, people: Mapping[int, tuple[str, str]], key: str) -> list[int]:
    """The ranks whose datagrams came."""
    ear.setblocking(False)
    found = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            said = ear.recv(4 + NONCE)
            rank = int.from_bytes(said[:4], "big")
            if rank in people and hmac.compare_digest(said[4:], _signed(rank, people, key)):
                found.add(rank)
    return sorted(found)
