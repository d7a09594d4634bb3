"""Ask another node's daemon over its read-only HTTP, within bounds: of time, of size, of trust."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from dvfd.config import credential
from dvfd.errors import DvfdError
from dvfd.masking import masked

if TYPE_CHECKING:
    from collections.abc import Callable

    from dvfd.config import Cluster

TIMEOUT = (2.0, 5.0)
"""Seconds to connect, and of silence while it answers."""

WHOLE = 10.0
"""Seconds for a whole answer: one that trickles holds nobody up."""

MOST = 16 * 2**20
"""Bytes of an answer: of a page of rows half a megabyte is usual."""

PIECE = 65_536


class Absent(DvfdError):
    """That node answers, and does not know what it was asked for."""


def fetcher(cluster: Cluster) -> Callable[[str], Any]:
    """Who gets the `data` of an address below /api/v1. For one thread.

    What it gives raises Absent for a 404, DvfdError with the cause for all else.
    """
    import requests  # noqa: PLC0415  # 6 MiB that a daemon without peers does not need
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    session = requests.Session()
    session.trust_env = False  # no proxies: nodes are beside each other
    session.headers["Connection"] = "close"  # dvfd closes anyway

    def get(url: str) -> Any:
        until = time.monotonic() + WHOLE
        try:
            with session.get(
                url, auth=_auth(cluster), verify=str(cluster.ca_file) if cluster.ca_file else True,
                timeout=TIMEOUT, allow_redirects=False, stream=True,
            ) as answer:  # fmt: skip
                return _data(answer.status_code, _body(answer, until))
        except (OSError, HTTPError) as error:  # requests.RequestException is an OSError
            raise DvfdError(_plain(error)) from None

    return get


def _body(answer: Any, until: float) -> bytes:
    """All of it, unpacked. Raises DvfdError where that is too much, or too slow."""
    found = bytearray()
    # iter_content waits until a piece is full: one byte a second would hold it for a day.
    read = getattr(answer.raw, "read1", answer.raw.read)
    while piece := read(PIECE, decode_content=True):
        found += piece
        if len(found) > MOST:
            raise DvfdError(f"its answer is longer than {MOST >> 20} MiB")
        if time.monotonic() > until:
            raise DvfdError(f"its answer takes longer than {WHOLE:g} s")
    return bytes(found)


def _data(status: int, body: bytes) -> Any:
    try:
        found = json.loads(body)
        known = isinstance(found, dict) and found.get("schema") == 1
        said = found.get("error", {}).get("message", "") if known else ""
    except (ValueError, AttributeError):
        known, said = False, ""
    if status == 404 and said:
        raise Absent(str(said)[:300])
    if status != 200 or not known or "data" not in found:
        what = said or body[:80].decode("utf-8", "replace").strip()
        raise DvfdError(f"HTTP {status}, and no answer of a dvfd: {what!r:.120}")
    return found["data"]


def _auth(cluster: Cluster) -> tuple[str, str] | None:
    """Read again each time: passwords change. Raises OSError."""
    name = cluster.password_credential
    path = credential(name) if name else cluster.password_file
    if not cluster.username or path is None:
        return None
    return cluster.username, path.read_text(encoding="utf-8").rstrip("\n")


def _plain(error: Exception) -> str:
    """The innermost reason: requests wraps a refused connection four times."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return masked(f"{cause}" or type(cause).__name__)[:300]
