"""A user without rights at the control socket of a real daemon: reads, changes nothing, breaks
nothing whatever the arguments are.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node, running

from bench.fuzzed import VALUES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else"),
]

READS = {"address", "attestations", "evidence", "evidence_record", "evidence_verify", "gates",
         "goodput", "history", "incident", "incidents", "job_report", "names", "ping", "ready",
         "scaling", "signoffs", "site_series", "stability_accepted", "stability_list",
         "stability_status", "status", "taken_at", "waivers"}  # fmt: skip
"""What anybody on the node may ask."""

KEYS = [
    "at", "argv", "cause", "check", "checks", "cluster", "code", "content", "criterion", "delay",
    "duration", "end", "expires", "file", "findings", "force", "gate", "head", "hours", "id",
    "item", "job", "kind", "launched", "left_out", "limit", "metric", "name", "number",
    "on_failure", "over", "path", "point", "reason", "request", "run", "seconds", "since",
    "subject", "targets", "trial", "until", "value", "where",
]  # fmt: skip
"""Every argument that some operation takes."""

ASK = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for line in sys.stdin:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(120)
        channel.connect(sys.argv[1])
        try:
            channel.sendall(line.encode())
            channel.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: channel.recv(65536), b""))
        except ConnectionError:  # more than a request may have: the line is closed
            answer = b'{"error": "closed"}' if len(line) > 65536 else b""
    print(answer.decode().strip() or "{}", flush=True)
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Not below pytest's own directory: each session of it closes that to others again."""
    with tempfile.TemporaryDirectory(prefix="dvfd-stranger-") as place:
        Path(place).chmod(0o755)
        with running(Node(Path(place), [], "\n[jobs]\nexpected = ['gpt']\n")) as started:
            yield started


def ask_as_stranger(node: Node, lines: list[str]) -> list[dict[str, object]]:
    """What somebody without rights is answered to each request."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(node.directory / "control.sock")],
        input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def operations(node: Node) -> set[str]:
    """All that this daemon can be asked for, as it says itself."""
    [answer] = ask_as_stranger(node, ['{"op": "?"}'])
    found = re.search(r"op one of (.*)", str(answer["error"]))
    assert found
    return set(found[1].split(", "))


def test_whatever_changes_something_is_refused_and_all_else_is_known_to_read(node: Node) -> None:
    changing = sorted(operations(node) - READS)
    assert {"sign", "waive", "forget", "signoff", "stability_stop", "attest"} <= set(changing)
    arguments = dict.fromkeys(KEYS, "gpt")
    answers = ask_as_stranger(node, [json.dumps({**arguments, "op": op}) for op in changing])

    for op, answer in zip(changing, answers, strict=True):
        assert "may not change this daemon's state" in str(answer.get("error")), op
    assert node.verdict("live.job_present") == "FAIL", "the job is expected still"


def test_odd_arguments_are_answered_in_words_and_leave_no_traceback(node: Node) -> None:
    reads = sorted(READS - {"ping", "address", "job_report", "evidence_verify"})
    odd = [value for value in VALUES if value != "\ud800"]
    asked = [(op, value) for op in reads for value in odd]
    lines = [json.dumps({**dict.fromkeys(KEYS, value), "op": op}) for op, value in asked]
    answers = ask_as_stranger(node, lines)

    silent = [each for each, answer in zip(asked, answers, strict=True) if not answer]
    assert silent == []
    assert "Traceback" not in node.said()
    assert node.ask("ping") == "pong"


def test_requests_that_are_none_are_refused_in_words(node: Node) -> None:
    lines = [
        "", "null", "[]", '"status"', "{", "[" * 60_000, '{"op": []}', '{"op": "status\\u0000"}',
        "\x00\x01", '{"op": 1e999}', '{"op": "ping", "op": "forget", "job": "gpt"}',
    ]  # fmt: skip
    answers = ask_as_stranger(node, lines)

    assert all("error" in answer for answer in answers), answers
    assert "Traceback" not in node.said()


def test_neither_the_store_nor_the_evidence_can_be_read_or_replaced(node: Node) -> None:
    state = node.directory / "state"
    code = (
        "import os, sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "bad = []\n"
        "for root, folders, files in os.walk(sys.argv[1]):\n"
        "    bad += [f'writes {root}'] if os.access(root, os.W_OK) else []\n"
        "    bad += [f'writes {f}' for f in files if os.access(os.path.join(root, f), os.W_OK)]\n"
        "for name in ('control.sock', 'ingest.sock'):\n"
        "    try: os.unlink(os.path.join(os.path.dirname(sys.argv[1]), name)); bad.append(name)\n"
        "    except PermissionError: pass\n"
        "print(bad)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(state)], capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert done.stdout == "[]\n"
    assert node.ask("ping") == "pong"
    assert Path(node.directory / "ingest.sock").exists()
