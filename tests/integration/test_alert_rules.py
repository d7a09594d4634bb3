"""promtool on alert_rules/: the rules are valid, and each alert does what its tests say."""

from pathlib import Path

import pytest
import testbed

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "alert_rules"
RULES = sorted(str(path) for path in PLACE.glob("*.rules.yml"))
TESTS = sorted(PLACE.glob("tests/*.test.yml"))
WEEKS = {
    "dvfd-trends.test.yml": [pytest.mark.long, pytest.mark.slow],  # two minutes
    "dvfd-uptime.test.yml": [pytest.mark.slow],
    "dvfd-fleet.test.yml": [pytest.mark.slow],
}
"""Those of weeks of samples, and what they are marked for it."""


def test_the_rules_are_valid_and_none_is_there_twice():
    checked = testbed.promtool("check", "rules", *RULES)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert b"duplicate" not in checked.stdout


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=WEEKS.get(p.name, ())) for p in TESTS],
    ids=lambda p: p.name,
)
def test_alerts_wait_fire_recover_and_stay_quiet_just_below(path):
    ran = testbed.promtool("test", "rules", str(path), timeout=280)

    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()


def test_a_test_of_an_alert_can_fail(tmp_path):
    """A rule that lost its `for` is found out by its test."""
    (tmp_path / "tests").mkdir()
    rule = (PLACE / "dvfd-node.rules.yml").read_text()
    assert "for: 2m" in rule
    (tmp_path / "dvfd-node.rules.yml").write_text(rule.replace("for: 2m", "for: 0m", 1))
    test = tmp_path / "tests" / "dvfd-node.test.yml"
    test.write_text((PLACE / "tests" / "dvfd-node.test.yml").read_text())

    ran = testbed.promtool("test", "rules", str(test))

    assert ran.returncode == 1
    assert b"DvfdNodeSilent" in ran.stdout + ran.stderr
