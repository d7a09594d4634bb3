"""The dashboards are current, follow grafana/dashboard-linter's rules, and are never green blind.

The linter is a Go program; its rules are written again here, by its names for them.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import testbed
from fakes import FakeClock
from fakes_sinks import whole

from dvfd.sinks.prometheus import Exposition

pytest.importorskip("grafana_foundation_sdk")
from boards import boards, colours, text

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dashboards").glob("*.json"))
BOARDS: list[dict[str, Any]] = [json.loads(path.read_text(encoding="utf-8")) for path in FILES]
PANELS = [(b["uid"], p) for b in BOARDS for p in b["panels"] if p["type"] != "row"]
TARGETS = [(uid, p["title"], t["expr"]) for uid, p in PANELS for t in p["targets"]]
QUERIES = [v for b in BOARDS for v in b["templating"]["list"] if v["type"] == "query"]

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda b: b["uid"])
each_panel = pytest.mark.parametrize(
    "panel", [p for _, p in PANELS], ids=[f"{uid}: {p['title']}" for uid, p in PANELS]
)
each_target = pytest.mark.parametrize(
    "expr", [e for *_, e in TARGETS], ids=[f"{uid}: {title}" for uid, title, _ in TARGETS]
)

UNITS = {
    *("none", "short", "percentunit", "bytes", "Bps", "pps", "s", "celsius", "watt", "kwatth"),
    *("joule", "cps", "reqps"),
}
"""Those of the linter's list that we use."""

SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}(\[[^\]]+\])?")


def variable(board: dict[str, Any], name: str) -> dict[str, Any]:
    return next(v for v in board["templating"]["list"] if v["name"] == name)


def test_the_files_are_what_the_code_makes() -> None:
    assert {p.name for p in FILES} == {f"{made.uid}.json" for made in boards()}
    for made in boards():
        path = ROOT / "dashboards" / f"{made.uid}.json"
        assert path.read_text(encoding="utf-8") == text(made), "run python -m boards"


@each_board
def test_template_datasource_rule(board: dict[str, Any]) -> None:
    found = [v for v in board["templating"]["list"] if v["type"] == "datasource"]
    assert [(v["name"], v["label"], v["query"]) for v in found] == [
        ("datasource", "Data source", "prometheus")
    ]


@each_board
@pytest.mark.parametrize(("name", "label"), [("job", "Job"), ("instance", "Instance")])
def test_template_job_and_instance_rules(board: dict[str, Any], name: str, label: str) -> None:
    found = variable(board, name)
    assert (found["type"], found["label"]) == ("query", label)
    assert found["datasource"]["uid"] == "${datasource}"
    assert found["multi"]
    assert found["allValue"] == ".+"


@pytest.mark.parametrize("found", QUERIES, ids=lambda v: v["name"])
def test_template_label_promql_and_on_time_change_reload_rules(found: dict[str, Any]) -> None:
    assert re.fullmatch(r"label_values\([a-z_:0-9]+(\{.*\})?, [a-z_]+\)", found["query"]["query"])
    assert found["refresh"] == 2


@each_panel
def test_panel_datasource_title_description_and_targets_rules(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["title"]
    assert panel["targets"]
    shows, _, blank = panel["description"].partition("\n\n**Blank:** ")
    assert shows.strip()
    assert blank.strip()


@each_panel
def test_panel_units_rule(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    words = [m for m in defaults.get("mappings", []) if m["type"] == "value"]
    assert words or defaults["unit"] in UNITS


def test_target_promql_rule(tmp_path: Path) -> None:
    rules = [{"record": f"n{n}:x:y", "expr": plain(e)} for n, (*_, e) in enumerate(TARGETS)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}), encoding="utf-8")
    found = testbed.promtool("check", "rules", "--lint=none", str(path))
    assert found.returncode == 0, found.stdout + found.stderr


def plain(expr: str) -> str:
    """With Grafana's own variables filled in."""
    for name, value in {"$__rate_interval": "1m", "$__range": "6h", "$__interval_ms": "60000",
                        "$__interval": "1m"}.items():  # fmt: skip
        expr = expr.replace(name, value)
    return expr


@each_target
def test_target_job_and_instance_rules(expr: str) -> None:
    for metric, matchers, _ in SELECTOR.findall(expr):
        level, recorded, _ = metric.partition(":")
        if recorded and "instance" not in level:  # of all nodes: it has neither label
            assert "instance=" not in matchers
            continue
        assert 'job=~"$job"' in matchers, metric
        assert 'instance=~"$instance"' in matchers, metric
    named = set(re.findall(r"\b(?:dvfd_[a-z0-9_]+|[a-z_]+:[a-z0-9_]+:[a-z0-9]+)\b", expr))
    assert named == {metric for metric, *_ in SELECTOR.findall(expr) if metric != "up"} - {
        "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"
    }  # fmt: skip


@each_target
def test_target_rate_interval_and_counter_agg_rules(expr: str) -> None:
    for metric, _, window in SELECTOR.findall(expr):
        for function in re.findall(rf"(\w+)\({metric}\{{", expr):
            if function in {"rate", "irate"}:
                assert window == "[$__rate_interval]", metric
        if metric.endswith("_total"):
            assert re.search(rf"\b(rate|increase)\({metric}\{{[^}}]*\}}\[", expr), metric


@each_board
def test_uneditable_dashboard(board: dict[str, Any]) -> None:
    assert board["editable"] is False


# --- What the linter does not know ----------------------------------------------------------------


@each_panel
def test_no_data_is_unknown_and_never_the_colour_of_well(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["noValue"].startswith("UNKNOWN")
    assert defaults["thresholds"]["steps"][0]["color"] != colours.PASS
    nulls = [m for m in defaults["mappings"] if m["type"] == "special"] if (
        "mappings" in defaults
    ) else []  # fmt: skip
    for mapping in nulls:
        assert mapping["options"]["match"] == "null+nan"
        assert mapping["options"]["result"]["color"] == colours.UNKNOWN
    assert nulls or panel["type"] == "timeseries"


@each_panel
def test_a_figure_asks_for_now_and_never_shows_the_last_there_was(panel: dict[str, Any]) -> None:
    if panel["type"] in {"stat", "bargauge", "table"}:
        assert all(t["instant"] and not t.get("range") for t in panel["targets"])


@each_panel
def test_a_gap_is_never_bridged(panel: dict[str, Any]) -> None:
    if panel["type"] == "timeseries":
        assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


@each_board
def test_panels_lie_side_by_side(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = set(
            itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
        )
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
    ids = [p["id"] for p in board["panels"]]
    assert len(ids) == len(set(ids))


def test_dashboards_name_only_series_that_are_exported_or_recorded() -> None:
    shown = Exposition(whole(FakeClock()).snapshot).text().decode()
    known = {line.split()[2] for line in shown.splitlines() if line.startswith("# TYPE")}
    known |= {"dvfd_profile_cost_per_hour", "dvfd_profile_expected_throughput_samples_per_second",
              "dvfd_profile_single_process_throughput_samples_per_second"}  # fmt: skip
    for rules in (ROOT / "alert_rules").glob("dvfd-recording*.rules.yml"):
        known |= set(re.findall(r"record: (\S+)", rules.read_text("utf-8")))
    asked = {metric for *_, expr in TARGETS for metric, *_ in SELECTOR.findall(expr)}
    scrape = {"up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"}
    assert asked - scrape <= known


# --- Colours --------------------------------------------------------------------------------------

VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
                   (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
                     (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602),
                   (0.004733, 0.691367, 0.303900)),
}  # fmt: skip
"""What remains of linear RGB: Machado, Oliveira, Fernandes 2009, severity 1."""

APART = 20.0
"""Distance in CIELAB that two patches beside each other need; about 2 is just noticeable."""


@pytest.mark.parametrize("vision", VISION)
def test_verdicts_are_told_apart_by_everybody(vision: str) -> None:
    seen = {name: lab(colour, VISION[vision]) for name, colour in colours.VERDICTS.items()}
    for (one, a), (two, b) in itertools.combinations(seen.items(), 2):
        assert sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5 >= APART, (one, two)


def lab(colour: str, matrix: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    linear = [((int(colour[i : i + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for i in (1, 3, 5)]
    r, g, b = (
        min(1.0, max(0.0, sum(m * c for m, c in zip(row, linear, strict=True)))) for row in matrix
    )
    x, y, z = (
        (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116)
        for v in (
            (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
            0.2126 * r + 0.7152 * g + 0.0722 * b,
            (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
        )
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)
