"""The doctor: what it says of a machine, what it advises, and that it never guesses."""

import json
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from dvfd import __version__
from dvfd.cli.doctor import text
from dvfd.config import parse
from dvfd.doctor import LOOKS, Mark, World, document, examine, exit_code
from dvfd.errors import HistoryError, ToolError
from dvfd.history.look import NEEDED, Looked

STATUS = {
    "version": __version__,
    "at": 1000.0,
    "scraped_at": 990.0,
    "troubles": [],
    "notices": [],
    "store": {"ok": True, "path": "/"},
    "probes": [
        {
            "probe": "cpu",
            "up": True,
            "overdue": False,
            "not_applicable": False,
            "error": "",
            "last_run": 999.0,
        },
    ],
    "jobs": [{"job": "gpt", "state": "running"}],
    "delivery": {"peers": []},
}

WELL = """
[node]
phase = "phase1"
[profile]
link_gbps = 100
link_gbps_reason = "100 Gbps ports"
expected_throughput = 270
temperature_sensors = false
power_meters = false
[alerting]
urls = ["http://someone:hidden@alert:9093"]
[[logs]]
name = "training"
path = "/var/log/train.log"
"""

PEER = {"url": "http://***@alert:9093", "last_success": 900.0, "error": ""}


@pytest.fixture
def well(tmp_path):
    """A world in which nothing is to be said."""
    log = tmp_path / "var/log/train.log"
    log.parent.mkdir(parents=True)
    log.touch()
    (tmp_path / "ingest.sock").touch()
    processors = tmp_path / "sys/devices/system/cpu/online"
    processors.parent.mkdir(parents=True)
    processors.write_text("0-15")

    def world(settings: str = WELL, **keys) -> World:
        told = {
            "config": parse(settings),
            "status": STATUS | {"delivery": {"peers": [PEER]}},
            "root": tmp_path,
            "socket": tmp_path / "ingest.sock",
            "which": lambda tool: f"/usr/bin/{tool}",
            "reach": lambda host, port: "",
            "run": lambda argv: "True",
            "free": lambda path: 2**40,
        }
        return World(**(told | keys))

    return world


@pytest.mark.parametrize(("name", "do"), [("plugin.ntp", "sudo -u dvfd"), ("scrape.node", "curl")])
def test_a_sites_input_that_is_down_has_a_line_to_type(well, name, do):
    told = found(well(status=probe(name, up=False, error="silent")), name)

    assert (told.mark, told.do.startswith(do) or do in told.do) == (Mark.BROKEN, True)


def found(world: World, subject: str):
    return next(f for f in examine(world) if f.subject == subject)


def probe(name, **keys):
    row = {"probe": name, "up": True, "overdue": False, "not_applicable": False, "error": "",
           "last_run": 999.0}  # fmt: skip
    return STATUS | {"probes": [row | keys]}


def test_a_machine_that_is_well_needs_nothing(well):
    findings = examine(well())

    assert {f.mark for f in findings} == {Mark.OK}
    assert exit_code(findings) == 0


def test_everything_that_is_not_well_has_a_line_to_type(well):
    bare = well("", status=None, which=lambda tool: None, reach=lambda host, port: "refused")
    told_why = {"store", "checklists"}

    assert not [
        f.subject for f in examine(bare) if f.mark is not Mark.OK and not f.do
        and f.subject not in told_why
    ]  # fmt: skip


def test_without_a_daemon_nothing_that_it_does_is_ok(well):
    findings = examine(well(status=None))

    assert found(well(status=None), "daemon").mark is Mark.BROKEN
    assert {f.mark for f in findings if f.section in {"sources", "schedule"}} == {Mark.UNKNOWN}
    assert exit_code(findings) == 2


def test_a_daemon_that_does_not_answer_is_broken_not_absent(well):
    finding = found(well(status=None, silence="listens and does not answer"), "daemon")

    assert (finding.mark, finding.text) == (Mark.BROKEN, "listens and does not answer")


def test_every_mistake_of_the_configuration_is_told(well):
    findings = examine(well(config=None, problems=("first", "second")))

    assert [f.text for f in findings if f.subject == "configuration"] == ["first", "second"]


def test_a_daemon_of_another_version_is_named(well):
    old = STATUS | {"version": "0.0.1"}

    assert "0.0.1" in found(well(status=old), "daemon").text


def test_a_store_that_cannot_be_looked_at_is_unknown(well):
    def gone(path):
        raise OSError(5, "Input/output error")

    assert found(well(free=gone), "store").mark is Mark.UNKNOWN


def test_a_full_disk_is_told(well):
    assert found(well(free=lambda path: 1), "store").mark is Mark.IMPROVE


@pytest.mark.parametrize(
    ("keys", "mark"),
    [
        ({"up": False, "error": "denied"}, Mark.BROKEN),
        ({"overdue": True}, Mark.BROKEN),
        ({"error": "one of two"}, Mark.IMPROVE),
        ({"last_run": None, "up": False}, Mark.UNKNOWN),
    ],
)
def test_a_source_that_is_not_read_whole_is_not_ok(well, keys, mark):
    assert found(well(status=probe("network", **keys)), "network").mark is mark


def test_no_source_at_all_is_unknown(well):
    findings = examine(well(status=STATUS | {"probes": []}))

    assert [f.mark for f in findings if f.section == "sources"] == [Mark.UNKNOWN]
    assert exit_code(findings) == 3


def test_what_the_profile_says_is_not_here_was_not_read(well):
    world = well(status=probe("gpu", up=False, not_applicable=True))

    assert "read" not in [f.subject for f in examine(world)]
    assert found(world, "not here, says the profile").text == "gpu"


def test_rapl_that_is_hidden_and_rapl_that_is_absent_are_mended_differently(well, tmp_path):
    down = well(status=probe("power", up=False, error="denied"))
    assert "power_meters = false" in found(down, "power").do

    (tmp_path / "sys/class/powercap/intel-rapl:0").mkdir(parents=True)
    assert "--with rapl" in found(down, "power").do


def test_what_the_profile_promises_and_is_not_here_is_broken(well):
    settings = WELL.replace("[profile]", '[profile]\naccelerator = "gpu"')

    assert found(well(settings), "gpu").mark is Mark.BROKEN


PROMISED = WELL.replace("temperature_sensors = false\n", "")


def test_what_the_profile_promises_and_is_not_here_is_told_without_a_daemon(well):
    assert found(well(PROMISED, status=None), "sensors").mark is Mark.BROKEN


def test_what_a_probe_misses_is_told_once(well):
    missed = well(PROMISED, status=probe("temperature", up=False, error="no sensor"))

    assert [f.subject for f in examine(missed) if f.mark is Mark.BROKEN] == ["temperature"]


def test_without_an_alertmanager_a_site_that_means_it_can_be_improved_another_is_broken(well):
    address = 'urls = ["http://someone:hidden@alert:9093"]'

    assert found(well(WELL.replace(address, "urls = []")), "alertmanager").mark is Mark.IMPROVE
    assert found(well(WELL.replace(address, "")), "alertmanager").mark is Mark.BROKEN


@pytest.mark.parametrize(
    ("name", "keys", "do"),
    [
        ("logs", {"config": parse("")}, "[[logs]] name and path"),
        ("logs", {}, "setfacl"),
        ("cpu", {"jobs": []}, "Watch your own job"),
        ("cpu", {"jobs": [{"job": "gpt", "state": "not responding", "present": 0}]}, "one import"),
        ("cpu", {}, "hidepid"),
        ("network", {}, "dvfd waive live.network"),
        ("storage", {}, "what dvfd run says | grep storage"),
    ],
)
def test_a_source_that_lacks_something_has_the_line_that_mends_it(well, name, keys, do):
    status = probe(name, error="lacking") | {k: v for k, v in keys.items() if k == "jobs"}
    config = {k: v for k, v in keys.items() if k == "config"}

    assert do in found(well(status=status, **config), name).do


def test_what_is_here_and_the_profile_denies_is_to_be_improved(well, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()

    assert found(well(), "gpu").mark is Mark.IMPROVE


def test_a_machine_that_cannot_be_compared_with_the_profile_is_unknown(well, tmp_path):
    (tmp_path / "sys/devices/system/cpu/online").unlink()

    assert found(well(), "profile").mark is Mark.UNKNOWN


def test_a_log_of_the_kernel_is_no_log_of_a_training(well):
    settings = WELL.replace('path = "/var/log/train.log"', 'path = "/k"\npatterns = "kernel"')

    assert found(well(settings), "logs").mark is Mark.IMPROVE


def test_a_log_that_is_not_there_is_told(well):
    settings = WELL.replace("train.log", "other.log")

    assert found(well(settings), "/var/log/other.log").mark is Mark.IMPROVE


def test_a_log_under_tmp_is_hidden_from_an_installed_daemon(well, tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/train.log").touch()
    unit = tmp_path / "usr/local/lib/systemd/system/dvfd.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    finding = found(well(WELL.replace("/var/log", "/tmp")), "/tmp/train.log")

    assert (finding.mark, "--with tmp" in finding.do) == (Mark.BROKEN, True)


def test_a_socket_that_is_not_there_is_broken(well):
    assert found(well(socket=Path("/nowhere/ingest.sock")), "socket").mark is Mark.BROKEN


def test_an_ended_job_does_not_report(well):
    ended = STATUS | {"jobs": [{"job": "gpt", "state": "ended"}]}

    assert found(well(status=ended), "reporting").mark is Mark.IMPROVE


def test_an_interpreter_that_fails_is_broken_one_without_torch_could_be_better(well):
    def fails(argv):
        raise ToolError("no such python")

    assert found(well(run=fails), "torch").mark is Mark.BROKEN
    assert found(well(run=lambda argv: "False"), "torch").mark is Mark.IMPROVE


def test_no_password_is_shown(well):
    broken = well(reach=lambda host, port: f"{host} refuses")

    assert "hidden" not in json.dumps(document([*examine(well()), *examine(broken)]))


def test_an_alertmanager_that_only_listens_was_not_tried(well):
    assert found(well(status=STATUS), "http://alert:9093").mark is Mark.UNKNOWN


def test_nobody_who_scrapes_is_told(well):
    silent = STATUS | {"scraped_at": None}

    assert found(well(status=silent), "scrape").mark is Mark.IMPROVE


def test_a_listener_in_plain_text_is_told(well):
    assert found(well(f'{WELL}[http]\nhost = "0.0.0.0"\n'), "listener").mark is Mark.IMPROVE


@pytest.mark.parametrize(
    ("marks", "code"),
    [("ok", 0), ("ok improve", 1), ("improve unknown", 3), ("unknown broken", 2)],
)
def test_the_worst_decides_the_exit_code(well, marks, code):
    one = examine(well())[0]
    findings = [type(one)(one.section, one.subject, Mark(m), one.text) for m in marks.split()]

    assert exit_code(findings) == code


def test_a_port_that_nobody_listens_on_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        from dvfd.doctor import reach

        assert reach("127.0.0.1", port) == ""
    assert f"port {port} does not answer" in reach("127.0.0.1", port)


def test_the_text_has_each_finding_and_what_to_do(well):
    shown = text(document(examine(well(status=None))))

    assert "broken   daemon: none runs here" in shown
    assert "do: dvfd run" in shown


def test_the_command_judges_this_very_machine(tmp_path, monkeypatch):
    from dvfd.cli.doctor import doctor

    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("dvfd.places.NODES_RUNTIME", tmp_path / "nobody")
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("DVFD_CONFIG", str(tmp_path / "dvfd.toml"))
    (tmp_path / "dvfd.toml").touch()
    answer = CliRunner().invoke(doctor, ["-o", "json"])

    assert answer.exit_code == 2
    assert json.loads(answer.stdout)["schema"] == 1
    assert not [*tmp_path.glob("*.db")]


def test_another_user_is_told_of_the_nodes_own_socket(tmp_path, monkeypatch):
    from dvfd.cli.doctor import _world

    (tmp_path / "control.sock").touch()
    monkeypatch.delenv("DVFD_SOCKET", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "own"))
    monkeypatch.setattr("dvfd.places.NODES_RUNTIME", tmp_path)

    assert _world(None).socket == tmp_path / "ingest.sock"


def test_every_look_is_listed_once():
    assert len(set(LOOKS)) == len(LOOKS)


# --- History on an engine -----------------------------------------------------------------------

ENGINE = WELL + '[history]\nurl = "http://prom:9090"\n'


def looked(**keys):
    now = time.time()
    told = {
        "words": "http://prom:9090",
        "ahead": 0.2,
        "called": 'instance=~"n1"',
        "targets": ("n1:9109",),
        "since": now - 31.5 * 86400,
        "newest": now - 10,
        "series": dict.fromkeys(NEEDED, 1),
    }
    return lambda _config: Looked(**(told | keys))


def of_engine(well, **keys):
    findings = examine(well(ENGINE, engine=looked(**keys)))
    return {f.subject: f for f in findings if f.section == "history"}


def test_an_engine_that_has_all_is_well(well):
    assert {f.mark for f in of_engine(well).values()} == {Mark.OK}
    assert "it reaches 31.5 days back" in of_engine(well)["reach"].text


def test_without_history_no_engine_is_looked_at(well):
    assert not [f for f in examine(well()) if f.section == "history"]


@pytest.mark.parametrize(
    ("keys", "subject", "words"),
    [
        ({"targets": ()}, "engine", "there are none, wanted one target"),
        ({"targets": ("n1:1", "n1:2")}, "engine", "there are n1:1, n1:2, wanted one target"),
        ({"ahead": -90.0}, "clock", "-90 s against this node's, wanted within 30"),
        ({"since": None}, "reach", "it reaches 0.0 days back, wanted 30"),
        ({"newest": None}, "newest", "newest sample: never"),
        ({"newest": 1000.0}, "newest", "newest sample: "),
        ({"series": {}}, "series", "gradient sync, trend and efficiency, uptime stay UNKNOWN"),
    ],
)
def test_what_an_engine_lacks_is_told_with_what_to_do(well, keys, subject, words):
    finding = of_engine(well, **keys)[subject]
    assert finding.mark is not Mark.OK
    assert words in finding.text
    assert finding.do


def test_an_engine_that_is_down_is_broken_in_its_own_words(well):
    def down(_config):
        raise HistoryError("http://prom:9090: Connection refused")

    finding = found(well(ENGINE, engine=down), "engine")
    assert finding.mark is Mark.BROKEN
    assert "Connection refused" in finding.text
