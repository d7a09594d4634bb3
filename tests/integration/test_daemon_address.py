"""Where the page is: commands may ask the daemon before it has opened that door."""

import re
from pathlib import Path

import pytest

from dvfd.asking import ask
from dvfd.config import parse
from dvfd.daemon import Daemon


def test_no_address_is_told_before_its_port_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    daemon = Daemon(parse("[http]\nport = 0\n[alerting]\nurls = []"))
    daemon._control.start()
    try:
        early = ask(tmp_path / "control.sock", "address")
        daemon._server.start()
        address = ask(tmp_path / "control.sock", "address")
    finally:
        daemon._server.stop()
        daemon._control.stop()

    assert early is None
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/", address)
