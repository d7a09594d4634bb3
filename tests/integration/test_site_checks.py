"""The example of a site's own checks on a real daemon: seen, told, and UNKNOWN once it is mute."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually, fetch, need, port_of

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples/site_checks"
EXPORTER = "prometheus-node-exporter"

WHOLE = """\
md1 : active raid1 sdb2[1] sda2[0]
      976630464 blocks super 1.2 [2/2] [UU]
md0 : active raid5 sde1[3] sdd1[1] sdc1[0]
      1953260544 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/3] [UUU]
"""

INTERVALS = {"scratch_space": 5.0, "raid": 5.0, "open_files": 2.0}
"""Seconds from one sample to the next: of the plugin, of the file (stale after as many), of the
scrape."""


@dataclass
class Place:
    """A node with the example beside it, and a hand on each of its three inputs."""

    node: Node
    directory: Path
    exporter: subprocess.Popen[bytes]
    command: list[str]

    def cron(self) -> None:
        """What cron does every five minutes."""
        script = self.directory / "write_raid"
        subprocess.run(
            [script, self.directory / "raid.prom", self.directory / "mdstat"], check=True
        )

    def plugin(self, text: str) -> None:
        """Put another script in the plugin's place."""
        new = self.directory / "new"
        new.write_text(f"#!/bin/sh\n{text}\n")
        new.chmod(0o755)
        new.rename(self.directory / "check_space")

    def result(self, name: str, check: str = "live") -> dict[str, Any]:
        return self.node.results()[f"{check}.site.{name}"]


def settings(directory: Path, port: int) -> str:
    """The example's configuration, with this place in place of a node's."""
    text = (EXAMPLE / "dvfd.toml").read_text()
    for theirs, ours in (
        ("/etc/dvfd/checks.d", str(directory / "checks.d")),
        ("/usr/local/lib/dvfd/check_space", str(directory / "check_space")),
        ("/scratch", str(directory)),
        ("/var/lib/prometheus/node-exporter", str(directory)),
        (":9100", f":{port}"),
        ("interval = 60\ntimeout = 10", "interval = 5\ntimeout = 1"),
        ("max_age = 900", "interval = 1\nmax_age = 5"),
        ("interval = 15", "interval = 2\ntimeout = 1"),
    ):
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, directory / "example")
    shutil.copytree(directory / "example", directory, dirs_exist_ok=True)
    (directory / "mdstat").write_text(WHOLE)

    def exporting(port: int) -> list[str]:
        return [
            need(EXPORTER), f"--web.listen-address=127.0.0.1:{port}",
            "--collector.disable-defaults", "--collector.filefd",
        ]  # fmt: skip

    exporter = subprocess.Popen(exporting(0), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    port = port_of(exporter)
    command = exporting(port)  # for when it comes back where it was
    node = Node(directory / "node", [], settings(directory, port))
    found = Place(node, directory, exporter, command)
    found.cron()
    try:
        with running(node):
            yield found
    finally:
        found.exporter.kill()
        found.exporter.wait()


def keep(place: Place, until: Callable[[], bool], within: float = 60.0) -> None:
    """Let cron run until something is so."""

    def look() -> bool:
        place.cron()
        return until()

    eventually(look, within, every=0.5)


def test_a_sites_lines_pass_beside_the_frameworks(place):
    for name in ("scratch_space", "scratch_filling", "raid", "open_files"):
        keep(place, lambda name=name: place.result(name)["verdict"] == "PASS")

    raid = place.result("raid")
    assert "all 2 series pass" in raid["reason"]
    assert raid["clause"] == "Storage runbook"


def test_they_stand_on_the_page_on_metrics_and_in_the_status(place):
    keep(place, lambda: place.result("raid")["verdict"] == "PASS")
    page = fetch(f"http://{place.node.address}/").decode()
    series = fetch(f"http://{place.node.address}/metrics").decode()

    assert "live.site.raid" in page
    assert 'criterion="live.site.raid",verdict="PASS"' in series
    assert 'dvfd_site_raid_disks_missing{array="md0"} 0.0' in series
    assert 'dvfd_plugin_status{plugin="scratch_space"} 0.0' in series
    assert any("8 criteria added by this site" in o for o in place.node.ask("status")["overrides"])


def test_they_join_the_daily_list(place):
    keep(place, lambda: place.result("raid")["verdict"] == "PASS")
    argv = [sys.executable, "-m", "dvfd", "check", "daily"]
    done = subprocess.run(
        argv, env=place.node.environment, capture_output=True, text=True, timeout=120, check=False
    )

    assert "daily.site.raid" in done.stdout
    assert place.result("raid", "daily")["verdict"] == "PASS"
    # Of a day only seconds were observed.
    free = place.result("scratch_free", "daily")
    assert (free["verdict"], "observed" in free["reason"]) == ("UNKNOWN", True)


def test_a_breach_of_each_is_told(place):
    place.plugin("echo 'CRITICAL: none is free | free=1%'; exit 2")
    (place.directory / "mdstat").write_text(WHOLE.replace("[UUU]", "[_UU]"))
    keep(place, lambda: place.result("raid")["verdict"] == "FAIL")
    keep(place, lambda: place.result("scratch_space")["verdict"] == "FAIL")

    raised = {alert["key"] for alert in place.node.ask("status")["alerts"]}
    assert {"live.site.raid", "live.site.scratch_space", "live.site.scratch_filling"} <= raised
    assert "array=md0" in place.result("raid")["reason"]
    assert "it says: CRITICAL: none is free" in place.result("scratch_space")["reason"]


def test_a_file_that_nobody_could_ever_read_is_no_pass_of_those_beside_it(place):
    (place.directory / "mdstat").write_text(WHOLE)
    keep(place, lambda: place.result("raid")["verdict"] == "PASS")
    other = place.directory / "other.prom"
    other.write_text("raid_disks_missing{array=\n")
    keep(place, lambda: place.result("raid")["verdict"] == "UNKNOWN")
    assert "other.prom: line 1" in place.result("raid")["reason"]

    other.unlink()
    keep(place, lambda: place.result("raid")["verdict"] == "PASS")


def test_a_source_that_is_muted_is_unknown_within_three_intervals(place):
    place.plugin("echo 'OK | free=50%'")
    (place.directory / "mdstat").write_text(WHOLE)
    for name in INTERVALS:
        keep(place, lambda name=name: place.result(name)["verdict"] == "PASS")

    place.plugin("sleep 600")
    place.exporter.kill()
    place.exporter.wait()
    for name, interval in INTERVALS.items():
        eventually(lambda name=name: place.result(name)["verdict"] == "UNKNOWN", 60, every=0.2)
        silence = re.search(r"silent for .*?, wanted a sample every (\S+) s", _reason(place, name))
        assert silence
        assert float(silence[1]) <= 3 * interval
    assert "still running after 1 s" in eventually(
        lambda: place.result("scratch_space")["reason"], 60
    )
    assert "raid.prom: written" in place.result("raid")["reason"]
    assert "refused" in place.result("open_files")["reason"]


def test_a_source_that_speaks_again_counts_again_and_nothing_of_its_hanging_is_left(place):
    place.plugin("echo 'OK | free=50%'")
    place.exporter = subprocess.Popen(
        place.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for name in INTERVALS:
        keep(place, lambda name=name: place.result(name)["verdict"] == "PASS")

    def left() -> list[Path]:
        return [e for e in Path("/proc").iterdir() if e.name.isdigit() and _runs(e, place)]

    assert eventually(lambda: not left(), 60)


def test_what_was_taken_away_is_unknown_until_somebody_says_so(place):
    keep(place, lambda: place.result("raid")["verdict"] == "PASS")
    (place.directory / "mdstat").write_text(WHOLE.partition("md0")[0])
    keep(place, lambda: place.result("raid")["verdict"] == "UNKNOWN")
    assert "array=md0" in place.result("raid")["reason"]

    def forget(*words: str) -> str:
        argv = [sys.executable, "-m", "dvfd", "site", "forget", *words]
        done = subprocess.run(
            argv,
            env=place.node.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    raid = "site_raid_disks_missing"
    assert "no series with array=md7; known: array=md" in forget(raid, "array=md7")
    assert "'job_loss' is no metric of this site's own" in forget("job_loss")
    assert "would forget 1 series" in forget(raid, "array=md0", "--dry-run")
    assert "1 series are not expected any more: array=md0" in forget(raid, "array=md0")
    keep(place, lambda: place.result("raid")["verdict"] == "PASS")


def _reason(place: Place, name: str) -> str:
    return str(place.result(name)["reason"])


def _runs(entry: Path, place: Place) -> bool:
    try:
        return os.fsencode(place.directory / "check_space") in (entry / "cmdline").read_bytes()
    except OSError:
        return False
