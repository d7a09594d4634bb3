"""docs/hardening.md speaks of every directive and drop-in of the unit, and invents none."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/hardening.md").read_text(encoding="utf-8")
UNIT = (ROOT / "systemd/dvfd.service").read_text(encoding="utf-8")

ORDINARY = {
    "Description", "Documentation", "Wants", "Requires", "After", "Type", "NotifyAccess",
    "ExecStart", "ExecReload", "RestartSec", "TimeoutStartSec", "TimeoutStopSec",
    "TimeoutAbortSec", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory",
    "RuntimeDirectoryPreserve", "ConfigurationDirectory", "Environment", "WantedBy",
    "StartLimitIntervalSec", "StandardOutput", "SyslogIdentifier",
}  # fmt: skip
"""What starts a service rather than confines it."""

DIRECTIVES = sorted(set(re.findall(r"^#?([A-Z]\w+)=", UNIT, re.MULTILINE)) - ORDINARY)
NAMED = sorted(set(re.findall(r"`([A-Z]\w+)=", TEXT)))
DROP_INS = sorted(path.stem for path in (ROOT / "systemd/drop-ins").glob("*.conf"))


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_each_directive_is_explained(directive):
    assert f"`{directive}=" in TEXT


@pytest.mark.parametrize("directive", NAMED)
def test_each_directive_that_is_explained_is_in_force_or_named_as_left_out(directive):
    left_out = {"ProtectClock", "PrivateNetwork", "IPAddressDeny", "IPAddressAllow",
                "ReadWritePaths"}  # fmt: skip

    assert (directive in left_out) != bool(re.search(rf"^#?{directive}=", UNIT, re.MULTILINE))


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_each_drop_in_has_its_line(drop_in):
    assert f"| `{drop_in}` |" in TEXT
