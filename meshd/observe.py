"""Logs: one line per thing that happened, on stderr, for a person or for journald.

Under systemd each line starts with its priority (`<4>`, sd-daemon(3)); on a terminal
it has colours.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def open_log(level: str, environment: Mapping[str, str]) -> FilteringBoundLogger:
    """Return the daemon's logger; `level` is `debug`, `info`, `warning` or `error`."""
    # What libraries log below warnings is for their own developers.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="library: %(message)s")
    renderer: structlog.typing.Processor
    if sys.stderr.isatty() and "NO_COLOR" not in environment:
        renderer = structlog.dev.ConsoleRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True
        )
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        renderer,
    ]
    if "JOURNAL_STREAM" in environment:
        # journald has its own time stamps.
        processors = [structlog.processors.add_log_level, _with_priority(renderer)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    log: FilteringBoundLogger = structlog.get_logger().bind(pid=os.getpid())
    return log


def _with_priority(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        return f"<{_PRIORITIES.get(method, 6)}>{renderer(logger, method, event)!s}"

    return render
