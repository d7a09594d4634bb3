"""Secrets planted wherever one can be, errors provoked with each: none is said anywhere again."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from node import Node, running
from testbed import eventually, free_port

from dvfd.sinks.api import ROOT, ROUTES

pytestmark = pytest.mark.slow

PLACES = (
    "alertmanager_url", "engine_url", "scrape_url", "password_file", "cluster_password",
    "credential", "plugin_argument", "plugin_words", "environment", "log_line", "log_token",
    "exception", "guessed_password", "query",
)  # fmt: skip
"""Where a secret is planted."""

CONFIG = """
log_level = "debug"
[site]
checks = "{place}/checks.d"
[node]
name = "n1"
[http]
port = 0
[alerting]
urls = ["http://teller:{alertmanager_url}@127.0.0.1:{port}", "http://127.0.0.1:{port}"]
username = "teller"
password_file = "{place}/password"
[history]
url = "http://reader:{engine_url}@127.0.0.1:{port}/prometheus"
[cluster]
lead = "n1"
username = "asker"
password_file = "{place}/cluster"
[[cluster.nodes]]
name = "n1"
address = "127.0.0.1"
[[cluster.nodes]]
name = "n2"
address = "127.0.0.2"
url = "http://127.0.0.1:{port}"
[[scrape]]
name = "exporter"
url = "http://scraper:{scrape_url}@127.0.0.1:{port}/metrics"
interval = 1
timeout = 1
[[plugin]]
name = "disk"
command = ["/bin/sh", "-c", "echo \\"CRITICAL: cannot log in: password={plugin_words}\\"; exit 2",
           "--password", "{plugin_argument}"]
interval = 5
timeout = 5
[[logs]]
name = "training"
path = "{place}/job.log"
[jobs]
expected = ["gpt"]
"""

CHECKS = """
clause = "Storage runbook"
[[criterion]]
id = "disk"
text = "The disk has room"
metric = "plugin_status"
where = { plugin = "disk" }
unit = "status"
comparison = "<"
limit = 2
"""

JOB = """
import sys
from dvfd.telemetry.reporter import Reporter
one = dict(rank=0, world_size=1, local_rank=0, local_world_size=1)
with Reporter(job="gpt", run="r", interval=0.0, **one) as reporter:
    reporter.step(1, loss=1.0)
    reporter.checkpoint_failed(f"s3://u:{sys.argv[1]}@h/c", 1, f"PUT s3://u:{sys.argv[1]}@h: 403")
    raise ValueError(f"cannot reach http://u:{sys.argv[1]}@h/x: api_key={sys.argv[1]}")
"""


@dataclass(frozen=True)
class Said:
    """What was planted, and all that the daemon and its commands said, by where."""

    planted: Mapping[str, str]
    texts: Mapping[str, str]


def _planted() -> dict[str, str]:
    found = {place: f"geheim{secrets.token_hex(8)}" for place in PLACES}
    return found | {"log_token": f"ghp_{secrets.token_hex(18)}"}


def _fetched(node: Node, path: str, login: str = "") -> str:
    request = urllib.request.Request(f"http://{node.address}{path}")
    if login:
        packed = base64.b64encode(login.encode()).decode()
        request.add_header("Authorization", f"Basic {packed}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.read().decode()


def _command(node: Node, words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *words.split()], env=node.environment, check=False,
        capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout + done.stderr


COMMANDS = (
    "config show", "config check", "doctor -o json", "status", "status -o json", "alerts test",
    "fleet -o json", "history job_loss --engine",
    "waive live.site.disk --name Ann --role CTO --days 1 --reason due", "evidence list -o json",
)  # fmt: skip


def _provoked(node: Node, planted: Mapping[str, str], place: Path) -> dict[str, str]:
    """Everything said, once each secret was used and went wrong."""
    job = [sys.executable, "-c", JOB, planted["exception"]]
    done = subprocess.run(job, env=node.environment, check=False, capture_output=True, timeout=120)
    assert planted["exception"].encode() in done.stderr
    eventually(lambda: node.ask("status")["delivery"]["peers"][0]["error"], 120, every=0.5)
    for words in ("cannot log in", "cannot reach http"):  # the plugin's, and the job's
        eventually(lambda words=words: words in json.dumps(node.ask("status")), 120, every=0.5)

    def logged() -> object:  # what was there before the daemon's first look is old: again
        with (place / "job.log").open("a") as file:
            file.write(f"ERROR: login failed: api_key={planted['log_line']} for user x\n")
            file.write(f"ERROR: push refused for {planted['log_token']}\n")
        return len(node.ask("status")["log_lines"]) > 1

    eventually(logged, 120, every=1)
    query = planted["query"]
    paths = ["/", "/gates", "/metrics", "/healthz", f"/nothing?token={query}",
             f"{ROOT}/nothing?password={query}",
             *(ROOT + route.path.split("{")[0] for route in ROUTES)]  # fmt: skip
    texts = {path: _fetched(node, path, f"who:{planted['guessed_password']}") for path in paths}
    texts |= {f"dvfd {words}": _command(node, words) for words in COMMANDS}
    texts |= {op: json.dumps(node.ask(op)) for op in ("status", "ready", "names", "waivers")}
    texts["dvfd evidence export"] = _command(node, f"evidence export {place}/evidence.tar")
    assert (place / "evidence.tar").exists(), texts
    return texts


def _files(place: Path) -> dict[str, str]:
    """What the daemon wrote to the disk: its log, its store, its evidence."""
    kept = [place / "daemon.log", *(place / "state").rglob("*"), *place.glob("*.tar")]
    return {
        str(file.relative_to(place)): file.read_bytes().decode("latin-1")
        for file in kept
        if file.is_file()
    }


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    place = tmp_path_factory.mktemp("node")
    planted = _planted()
    node = Node(place, [])
    for name in ("password", "cluster", "credentials/secret"):
        (place / name).parent.mkdir(exist_ok=True)
        key = {"password": "password_file", "cluster": "cluster_password"}.get(name, "credential")
        (place / name).write_text(planted[key])
        (place / name).chmod(0o600)
    (place / "checks.d").mkdir()
    (place / "checks.d/live.toml").write_text(CHECKS)
    (place / "dvfd.toml").write_text(CONFIG.format(place=place, port=free_port(), **planted))
    node.environment |= {
        "WANDB_API_KEY": planted["environment"], "HTTP_TOKEN": planted["environment"],
        "CREDENTIALS_DIRECTORY": str(place / "credentials"),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(node))
        texts = _provoked(node, planted, place)
    return Said(planted, texts | _files(place))


def test_something_was_said_of_each_trouble(said: Said) -> None:
    """Or that nothing was found below would prove nothing."""
    log, status, shown = (said.texts[x] for x in ("daemon.log", "status", "dvfd config show"))
    assert len(said.texts) > 30
    assert log.count("***@127.0.0.1") >= 2, "the Alertmanager's and the exporter's"
    assert "Traceback" not in log
    for words in ("login failed: api_key=***", "push refused for ***", "password=***",
                  "http://***@h/x: api_key=***"):  # fmt: skip
        assert words in status
    assert all(words in shown for words in ("***@127.0.0.1", "password=***", '"***"'))


@pytest.mark.parametrize("place", PLACES)
def test_the_secret_of_this_place_is_said_nowhere(place: str, said: Said) -> None:
    found = [where for where, text in said.texts.items() if said.planted[place] in text]
    shown = {
        where: text[max(0, text.index(said.planted[place]) - 120) :][:160]
        for where, text in said.texts.items()
        if where in found
    }
    assert shown == {}, os.linesep.join(map(str, shown.items()))
