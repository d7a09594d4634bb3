"""What the service's own sandbox hides is named so, and never called absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvfd.sandbox import hidden

MOUNTS = """\
90 1 254:0 / / ro,relatime shared:1 - ext4 /dev/vda ro
91 90 0:21 / /proc rw - proc proc rw
92 90 254:0 /tmp/systemd-private-0b6c-dvfd.service-jT2x0E/tmp /tmp rw - ext4 /dev/vda rw
93 90 0:40 / /home ro - ext4 /dev/vdb ro
94 90 0:22 /systemd/inaccessible/dir /root ro,nosuid - tmpfs tmpfs ro
95 90 0:50 / /run/user ro - tmpfs tmpfs ro
96 90 0:60 / /data/with\\040blank rw - ext4 /dev/vdc rw
97 93 0:22 /systemd/inaccessible/dir /home/secret ro - tmpfs tmpfs ro
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    return tmp_path / "mountinfo"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/tmp/job.log", "PrivateTmp"),
        ("/tmp/../tmp/a/b", "PrivateTmp"),
        ("/root/checkpoints", "ProtectHome"),
        ("/run/user/1000/x", "ProtectHome"),
        ("/home/secret/x", "InaccessiblePaths"),
    ],
)
def test_a_hidden_path_is_named_with_the_directive(path: str, says: str, mountinfo: Path) -> None:
    assert says in hidden(path, mountinfo=mountinfo)


@pytest.mark.parametrize("path", ["/var/log/x", "/home/a/x", "/tmpfoo", "/data/with blank/x", "/"])
def test_what_is_in_view_is_not_called_hidden(path: str, mountinfo: Path) -> None:
    assert hidden(path, mountinfo=mountinfo) == ""


def test_without_mountinfo_nothing_is_claimed(tmp_path: Path) -> None:
    assert hidden("/tmp/x", mountinfo=tmp_path / "absent") == ""
