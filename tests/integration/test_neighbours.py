"""The settings that docs/neighbours shows, tried on real exporters and plugins if there are any."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes_probes import measure
from fakes_site import FakeExporter, metric
from testbed import need, port_of

from dvfd import perfdata
from dvfd.catalogue import load
from dvfd.config import Config, Plugin, parse
from dvfd.model import Catalogue
from dvfd.probes.exec_plugin import ExecPlugin
from dvfd.probes.inputs import Allowance
from dvfd.probes.scrape import Scrape

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/neighbours"
EXPOSITIONS = ROOT / "tests/fixtures/exposition"
WRAPPER = ROOT / "examples/site_checks/check_nhc"
PLUGINS = Path("/usr/lib/nagios/plugins")


def shown(page: str, directory: Path) -> tuple[Config, Catalogue]:
    """The configuration that a page shows, with its criteria, and what it comes to."""
    blocks = re.findall(r"(?ms)^```toml\n(.*?)^```", (PAGES / page).read_text())
    settings = "\n".join(b for b in blocks if "checks.d/" not in b.splitlines()[0])
    settings = re.sub(r"(?m)^\[site\]\nchecks = .*\n(series = .*\n)?", "", settings)
    for block in blocks:
        first = block.splitlines()[0]
        if "checks.d/" in first:
            (directory / Path(first.split()[-1]).name).write_text(block)
    config = parse(f'site = {{ checks = "{directory}" }}\n' + settings)
    return config, load(config)


def scraped(page: str, directory: Path, body: str) -> tuple[dict[str, dict[str, float]], Scrape]:
    """What the page's scrape makes of an exposition: values by metric, and by their labels."""
    config, catalogue = shown(page, directory)
    own = [m for m in catalogue.metrics.values() if m.origin]
    probe = Scrape(config.scrape[0], own, Allowance(config.site.series), get=FakeExporter(body))
    samples, error = measure(probe, at=100.0)
    assert error == ""
    found: dict[str, dict[str, float]] = {metric.name: {} for metric in own}
    for sample in samples:
        found[sample.metric][",".join(value for _, value in sample.labels)] = sample.value
    return found, probe


@pytest.mark.parametrize("page", sorted(p.name for p in PAGES.glob("*.md")))
def test_what_a_page_shows_is_taken(page, tmp_path):
    config, catalogue = shown(page, tmp_path)
    own = [name for name in catalogue.criteria if ".site." in name]

    assert config.plugin or config.scrape or config.textfile
    assert own or page == "nhc.md"


def test_dcgm_exporters_series_are_taken_in_base_units(tmp_path):
    body = (EXPOSITIONS / "dcgm_exporter.prom").read_text()
    found, probe = scraped("dcgm-exporter.md", tmp_path, body)

    assert probe.gaps == {}
    assert found["site_gpu_pcie_replays_total"] == {"0": 3}
    assert found["site_gpu_energy_joules_total"] == {"0": pytest.approx(15347724.978)}


def test_a_blank_of_dcgm_lies_outside_what_is_possible(tmp_path):
    body = (EXPOSITIONS / "dcgm_exporter.prom").read_text()
    _, catalogue = shown("dcgm-exporter.md", tmp_path)
    found, _ = scraped("dcgm-exporter.md", tmp_path, body)
    possible = catalogue.metrics["site_gpu_memory_celsius"].possible

    assert possible
    assert found["site_gpu_memory_celsius"]["0"] not in possible


def test_slices_of_a_gpu_need_their_own_label(tmp_path):
    body = (EXPOSITIONS / "dcgm_exporter.prom").read_text()
    page = PAGES / "dcgm-exporter.md"
    assert 'labels = ["gpu", "GPU_I_ID"]' in page.read_text()
    (_, catalogue) = shown(page.name, tmp_path)
    base = catalogue.metrics["site_gpu_memory_celsius"]
    assert base.origin

    def take(*labels: str, **where: str) -> str:
        of = replace(base.origin, series="DCGM_FI_DEV_GPU_TEMP", where=tuple(where.items()))
        asked = replace(base, labels=labels, origin=of)
        config = parse('[[scrape]]\nname = "dcgm"\nurl = "http://127.0.0.1:1/"\n').scrape[0]
        samples, error = measure(Scrape(config, [asked], Allowance(9), get=FakeExporter(body)))
        return error or " ".join(str(dict(s.labels)) for s in samples)

    assert "which is true?" in take("gpu")
    assert take("gpu", "GPU_I_ID", gpu="1").count("GPU_I_ID") == 2


def test_gpuds_series_are_taken(tmp_path):
    body = (EXPOSITIONS / "gpud.prom").read_text()
    found, probe = scraped("gpud.md", tmp_path, body)

    assert probe.gaps == {}
    (hbm,) = found["site_hbm_celsius"].values()
    assert hbm == 44


@contextlib.contextmanager
def exporting(*options: str, scheme: str = "http") -> Iterator[str]:
    """A real node_exporter; where it answers."""
    process = subprocess.Popen(
        [need("prometheus-node-exporter"), "--web.listen-address=127.0.0.1:0", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"{scheme}://127.0.0.1:{port_of(process)}/metrics"
    finally:
        process.kill()
        process.wait()


def test_node_exporters_series_are_taken_from_a_real_one(tmp_path):
    config, catalogue = shown("node_exporter.md", tmp_path)
    own = [m for m in catalogue.metrics.values() if m.origin]
    with exporting() as url:
        settings = config.scrape[0].model_copy(update={"url": url})
        probe = Scrape(settings, own, Allowance(config.site.series))
        samples, error = measure(probe, at=100.0)
    values = {(s.metric, s.labels): s.value for s in samples}

    assert (error, probe.gaps) == ("", {})
    assert 0 < values["site_open_files", ()] < values["site_open_files_most", ()]
    assert values["site_collector_success", (("collector", "filefd"),)] == 1


def test_a_certificate_that_nobody_knows_is_taken_only_where_that_is_said(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [need("openssl"), "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", key,
         "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    web = tmp_path / "web.yml"
    web.write_text(f"tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\n")
    load1 = metric("site_load", labels=(), series="node_load1", unit="load")

    def error(url: str, more: str) -> str:
        settings = parse(f'[[scrape]]\nname = "a"\nurl = "{url}"\n{more}\n').scrape[0]
        return measure(Scrape(settings, [load1], Allowance(9)))[1]

    with exporting(f"--web.config.file={web}", scheme="https") as url:
        assert error(url, "self_signed = true") == ""
        assert error(url, f'ca_file = "{certificate}"') == ""
        assert "certificate" in error(url, "").lower()


# --- Plugins ------------------------------------------------------------------------------------


def plugin(name: str, *arguments: str) -> tuple[dict[str, float], str, ExecPlugin]:
    """What a real plugin's run brings, by metric and label."""
    path = PLUGINS / name
    if not path.exists():
        pytest.skip(f"{path} is not there: Debian has it in monitoring-plugins-basic")
    settings = Plugin(name="real", command=(str(path), *arguments), timeout=60)
    probe = ExecPlugin(settings, Allowance(99))
    samples, error = measure(probe)
    values = {
        " ".join(filter(None, (s.metric, dict(s.labels).get("label")))): s.value for s in samples
    }
    return values, error, probe


@pytest.mark.parametrize(("code", "status"), [("0", 0), ("1", 1), ("2", 2)])
def test_a_real_plugins_exit_code_is_its_verdict(code, status):
    assert plugin("check_dummy", code, "said so")[0] == {"plugin_status": status}


def test_a_real_plugin_that_does_not_know_is_unknown_in_its_own_words():
    values, error, _ = plugin("check_dummy", "3", "no idea")

    assert (values, error) == ({}, "ended with 3 (UNKNOWN): UNKNOWN: no idea")


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("check_disk", ("-w", "0%", "-c", "0%", "-p", "/"), "plugin_bytes /"),
        ("check_load", ("-w", "9999", "-c", "9999"), "plugin_value load15"),
        ("check_procs", ("-w", "99999"), "plugin_value procs"),
        ("check_users", ("-w", "999", "-c", "999"), "plugin_value users"),
    ],
)
def test_a_real_plugins_performance_data_is_read_whole(name, arguments, wanted):
    values, error, probe = plugin(name, *arguments)

    assert (error, probe.gaps) == ("", {})
    assert values["plugin_status"] == 0
    assert wanted in values


def test_a_real_disk_is_as_large_as_the_kernel_says():
    values, _, _ = plugin("check_disk", "-w", "0%", "-c", "0%", "-p", "/")
    of = os.statvfs("/")
    used = (of.f_blocks - of.f_bfree) * of.f_frsize

    assert values["plugin_bytes /"] == pytest.approx(used, rel=0.05)


# --- NHC ----------------------------------------------------------------------------------------

STAND_IN = """#!/bin/sh
# What NHC said when it was tried: docs/neighbours/nhc.md.
for word in "$@"; do [ "$word" = MARK_OFFLINE=0 ] && asked=1; done
[ "${asked:-}" = 1 ] || { echo 'this would drain the node'; exit 99; }
. "$3"
"""

OK = "echo 'Running check:  \"check_fs_mount_rw -f /\"'; exit 0\n"
FAILED = (
    "echo 'Running check:  \"check_hw_cpuinfo 1 99 99\"'\n"
    "echo 'ERROR:  nhc:  Health check failed:  check_hw_cpuinfo:  Actual CPU core count (2)"
    " does not match expected (99).' >&2\nexit {code}\n"
)
HUNG = (
    "echo 'ERROR:  nhc:  Health check failed:  Script timed out while executing \"sleep 60\".'\n"
    "exit 142\n"
)


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (OK, 0, "OK: 1 checks pass | checks=1"),
        ("exit 0\n", 3, "UNKNOWN: no check of"),
        (FAILED.format(code=1), 2, "CRITICAL: check_hw_cpuinfo:  Actual CPU core count (2)"),
        (FAILED.format(code=3), 2, "CRITICAL: check_hw_cpuinfo:  Actual CPU core count (2)"),
        ("exit 127\n", 3, "UNKNOWN: NHC ended with 127"),
        (HUNG, 3, "UNKNOWN: NHC ended with 142: Script timed out"),
        (None, 3, "UNKNOWN:"),
    ],
)
def test_nhc_is_green_only_where_it_checked_something(tmp_path, said, code, words):
    nhc, configuration = tmp_path / "nhc", tmp_path / "nhc.conf"
    nhc.write_text(STAND_IN)
    nhc.chmod(0o755)
    if said is not None:
        configuration.write_text(said)
    done = subprocess.run(
        [WRAPPER, configuration], env={**os.environ, "NHC": str(nhc)}, timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout.startswith(words)) == (code, True), done.stdout
    assert perfdata.read(done.stdout).wrong == ()
