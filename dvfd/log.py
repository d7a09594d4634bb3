"""structlog, set up once: JSON lines under systemd, readable lines on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

from dvfd.masking import masked


def setup(level: str = "info") -> None:
    """Configure logging to stderr. Tracebacks never show local variables: they hold secrets."""
    plain = sys.stderr.isatty() and "INVOCATION_ID" not in os.environ
    rendered: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
                exception_formatter=structlog.dev.plain_traceback,
            ),
            _masked,
        ]
        if plain
        else [
            structlog.processors.format_exc_info,
            _masked,
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendered,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # APScheduler and requests speak through the standard library: only their trouble is news.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


def _masked(_logger: object, _method: str, said: Any) -> Any:
    """What is said, as a dict or already as a text, without the passwords of addresses in it."""
    return masked(said)
