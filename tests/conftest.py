"""Settings of all tests."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# A busy machine takes long over an example that is well: time limits are pytest's alone.
settings.register_profile("dvfd", deadline=None)
settings.load_profile("dvfd")

# A crash that a test provokes is logged with every local variable of every frame, drawn in boxes:
# seconds each.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

os.environ.pop("COLUMNS", None)  # of whoever runs the tests: text is cut to it

# A shell starts what runs in the background with SIGINT ignored, nohup with SIGHUP, and children
# inherit that: what a test starts must hear them all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_sessionfinish() -> None:
    """A worker may be killed before it ends by itself: what it ran is written down before."""
    if measuring := sys.modules.get("coverage"):
        for running in filter(None, [measuring.Coverage.current()]):
            running.save()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that is called in this process sets logging up for good: not for the next test."""
    before = structlog.get_config()
    yield
    if structlog.get_config() != before:
        structlog.configure(**before)
        for name, module in tuple(sys.modules.items()):
            if name.startswith("dvfd.") and (log := getattr(module, "log", None)) is not None:
                getattr(log, "__dict__", {}).pop("bind", None)  # as it was first used
