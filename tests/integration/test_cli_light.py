"""Commands that only ask the daemon start at once: they load nothing that the daemon needs."""

import json
import os
import subprocess
import sys

import pytest
from fakes_sinks import check as a_check
from fakes_sinks import criterion, state

from dvfd.control import ControlServer, Operation
from dvfd.status import document

pytestmark = pytest.mark.skipif(
    "coverage" in sys.modules, reason="what counts the lines that run is loaded as well"
)

HEAVY = (
    "pydantic", "structlog", "requests", "jinja2", "sqlite3", "prometheus_client", "apscheduler",
    "psutil", "rich", "asyncio",
)  # fmt: skip

LOADED = """
import sys
from dvfd.cli import main
sys.argv[1:] = {arguments}
try:
    main()
finally:
    found = (name for name in sys.modules if "." not in name or "dvfd" in name)
    print(*sorted(found), file=sys.stderr)
"""


@pytest.fixture
def environment(tmp_path):
    """Of a node on which something answers like a daemon."""
    made = document(state(a_check("live", criterion(), watch=True)).snapshot(), running=True)
    may = {
        "check": "ready", "verdict": "PASS", "asked": ["live"], "troubles": [], "left_out": [],
        "results": [{"verdict": "PASS", "severity": "critical"}] * 2,
    }  # fmt: skip
    history = {"name": "job_loss", "rows": [{"at": 1.0, "value": 2.0, "labels": {}}]}
    answers = {
        "status": made, "ready": may, "history": history, "forget": "forgotten",
        "acknowledge": "read", "alerts_test": [{"url": "http://a", "accepted": True, "detail": ""}],
    }  # fmt: skip
    operations = {
        op: Operation(lambda request, peer, answer=answer: answer) for op, answer in answers.items()
    }
    server = ControlServer(tmp_path / "control.sock", operations)
    server.start()
    yield {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)}
    server.stop()


def loaded(arguments: list[str], environment: dict[str, str]) -> tuple[str, set[str]]:
    """What a command printed, and the modules that it had loaded when it ended."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments=arguments)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout, set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("--help", "Look after:"),
        ("version", "dvfd "),
        ("status", "node4: UNKNOWN"),
        ("status -o json", '"running": true'),
        ("status -o nagios", "DVFD UNKNOWN"),
        ("ready", "PASS: of 2 criteria"),
        ("history job_loss", "2 "),
        ("job forget gpt", "forgotten"),
        ("alerts test", "accepted"),
        ("store acknowledge", "read"),
    ],
)
def test_a_command_that_only_asks_loads_nothing_heavy(command, says, environment):
    told, modules = loaded(command.split(), environment)

    assert says in told
    assert "click" in modules
    assert not modules & set(HEAVY)


def test_the_list_of_commands_loads_none_of_them(environment):
    told, modules = loaded(["--help"], environment)

    assert "Run and judge checks" in told
    assert {m for m in modules if m.startswith("dvfd")} == {
        "dvfd", "dvfd.cli", "dvfd.cli.streams", "dvfd.errors",
    }  # fmt: skip


def test_what_judges_by_itself_does_load_the_framework(tmp_path):
    """The test above can fail: without a daemon the catalogue is read."""
    alone = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path), "DVFD_STATE_DIR": str(tmp_path)}
    told, modules = loaded(["status", "-o", "json"], alone)

    assert json.loads(told)["running"] is False
    assert {"pydantic", "structlog"} <= modules
