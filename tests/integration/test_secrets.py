"""A password in an address reaches the Alertmanager that it is for, and nobody else."""

import base64
import json
import subprocess
import sys
import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from node import Node, running
from testbed import eventually, fetch

SECRET = "geheim-4711"
USER = "who-asks"


class Receiver(BaseHTTPRequestHandler):
    """An Alertmanager behind a proxy that refuses, and repeats the address that it was asked."""

    seen: list[str]
    address: str

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(self.headers["Authorization"])
        self.send_response(502)
        self.end_headers()
        self.wfile.write(f"no way to {self.address}/api".encode())

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def receiver():
    handler = type("Handler", (Receiver,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.address = f"http://{USER}:{SECRET}@127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def node(tmp_path_factory, receiver):
    """A node whose daemon was refused an alert, and said so."""
    built = Node(tmp_path_factory.mktemp("node"), [receiver.address])
    with running(built):
        dvfd(built, "alerts", "test")
        yield built


def dvfd(node, *command):
    """What a command printed, wherever."""
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *command],
        env=node.environment, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return done.stdout + done.stderr


def body(node, path):
    """What the listener answers, whatever the status."""
    try:
        return fetch(f"http://{node.address}{path}").decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.read().decode()


def test_the_request_itself_carries_user_and_password(node, receiver):
    assert receiver.seen
    wanted = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    assert set(receiver.seen) == {f"Basic {wanted}"}


@pytest.mark.parametrize(
    "command",
    ["config show", "config check", "doctor", "doctor -o json", "status", "status -o json",
     "alerts test", "alerts test -o json"],
)  # fmt: skip
def test_no_command_prints_it(command, node):
    said = dvfd(node, *command.split())

    assert said
    assert SECRET not in said
    assert USER not in said
    assert "alerts" not in command or "***@127.0.0.1" in said


def test_config_show_still_says_where_alerts_go(node):
    shown = json.loads(dvfd(node, "config", "show"))

    assert shown["alerting"]["urls"][0].startswith("http://***@127.0.0.1:")


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/healthz", "/nothing-here", "/api/v1/status", "/api/v1/alerts"]
)
def test_no_answer_of_the_listener_holds_it(path, node):
    said = body(node, path)

    assert said
    assert SECRET not in said


def test_the_control_socket_and_the_log_do_not_hold_it(node):
    eventually(lambda: node.ask("status")["at"] > 0, 5)

    assert SECRET not in json.dumps(node.ask("status"))
    assert "watching" in node.said()
    assert SECRET not in node.said()
