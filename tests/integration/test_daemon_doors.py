"""The daemon's doors: whoever is answered by it finds all of them open."""

import socket
from pathlib import Path

import pytest

from dvfd.config import parse
from dvfd.daemon import Daemon
from dvfd.errors import ConfigError


def test_no_command_is_answered_before_ranks_and_scrapers_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = Daemon(parse(f"[http]\nport = {port}\n[alerting]\nurls = []"))
        with pytest.raises(ConfigError, match="cannot listen"):
            daemon.start()
        answers = (tmp_path / "control.sock").exists()
        daemon.stop()

    assert not answers
