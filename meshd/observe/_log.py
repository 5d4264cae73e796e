"""The daemon's log: structlog in front, stdlib's loggers and warnings led into the same.

Every line passes, in this order: level, redaction, repetition, time stamp, rendering.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from meshd.errors import MeshdError
from meshd.observe._redaction import Redaction
from meshd.observe._render import PRIORITIES, Form, Line, render
from meshd.observe._repetition import Repetition

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_DEBUG_ONLY = "libp2p"
"""Logs an error for each failed dial and each dropped connection: ordinary events here."""


class DaemonLog:
    """What the daemon does with its log beside writing to it."""

    def __init__(self, *, form: Form, stream: TextIO, clock: Callable[[], float]) -> None:
        self._form = form
        self._stream = stream
        self._clock = clock
        self._redaction = Redaction()
        self._repetition = Repetition()
        self._node: str | None = None

    def hide(self, *secrets: str | bytes) -> None:
        """Let no part of these through from now on, in any field of any line."""
        for secret in secrets:
            self._redaction.hide(secret)

    def name_node(self, node: str) -> None:
        """Put this node's id into every line from now on."""
        self._node = node

    def flush(self) -> None:
        """Say what was left out a minute ago and not said since; ask every few seconds.

        Under an event of its own: what is counted may be over.
        """
        for fields, left_out in self._repetition.due(self._clock()):
            self._write(
                {**fields, "event": "left_out", "of": fields["event"], "left_out": left_out}
            )

    def process(self, _: WrappedLogger, level: str, event: EventDict) -> str:
        """Make a line of an event, or leave it out: structlog's one processor."""
        fields = {"level": level, **event}
        if error := fields.pop("exc_info", None):
            fields["exception"] = _trace(error)
        clean = self._redaction.value(fields)
        assert isinstance(clean, dict)
        left_out = self._repetition.take(clean, self._clock())
        if left_out is None:
            raise structlog.DropEvent
        return self._rendered({**clean, "left_out": left_out} if left_out else clean)

    def _write(self, fields: Line) -> None:
        print(self._rendered(fields), file=self._stream, flush=True)

    def _rendered(self, fields: Line) -> str:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        rest = {k: v for k, v in fields.items() if k not in {"level", "event", "code"}}
        code: Line = {"code": fields["code"]} if "code" in fields else {}
        node: Line = {"node": self._node} if self._node is not None else {}
        head: Line = {"ts": stamp, "level": fields["level"], "event": fields["event"]}
        # What is said about another node under the name `node` is not this one's id.
        about = {"about" if key == "node" else key: value for key, value in rest.items()}
        return render({**head, **code, **node, **about}, self._form)


def open_log(
    level: str,
    environment: Mapping[str, str],
    *,
    clock: Callable[[], float],
    stream: TextIO | None = None,
) -> tuple[FilteringBoundLogger, DaemonLog]:
    """Set up all logging of this process and return the daemon's logger.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        environment: NO_COLOR and JOURNAL_STREAM choose the form.
        clock: seconds, never going back.
        stream: where to; None is stderr.
    """
    stream = stream or sys.stderr
    daemon_log = DaemonLog(form=_form(environment, stream), stream=stream, clock=clock)
    structlog.configure(
        processors=[daemon_log.process],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    _lead_in_others(log)

    def crashed(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        log.critical("crashed", text=f"{kind.__name__}: {error}", exc_info=error)

    sys.excepthook = crashed
    return log, daemon_log


def shown_at_the_end(
    error: MeshdError, environment: Mapping[str, str], stream: TextIO | None = None
) -> str:
    """Return the lines for the person who started a daemon that ends with `error`."""
    text = error.render()
    if _form(environment, stream or sys.stderr) != "journal":
        return text
    return "\n".join(f"<{PRIORITIES['error']}>{line}" for line in text.splitlines())


def _form(environment: Mapping[str, str], stream: TextIO) -> Form:
    """Return how to write to `stream`.

    JOURNAL_STREAM is inherited by everything a service starts, so it also has to name this stream
    (systemd.exec(5)): device and inode.
    """
    if stream.isatty():
        plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
        return "plain terminal" if plain else "terminal"
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # No file: a test's.
        return "json"
    is_journal = environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return "journal" if is_journal else "json"


class _Lead(logging.Handler):
    """Leads what libraries log into the daemon's log, under the event `library`."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelno
        if record.name.partition(".")[0] == _DEBUG_ONLY:
            level = logging.DEBUG
        fields: dict[str, object] = {"library": record.name, "text": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        level = min(level // 10 * 10, logging.CRITICAL)  # A library may have levels of its own.
        self._log.log(max(level, logging.DEBUG), "library", **fields)


def _lead_in_others(log: FilteringBoundLogger) -> None:
    """Send stdlib's loggers and warnings the same way, from warnings up."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Lead):
            root.removeHandler(handler)
    root.addHandler(_Lead(log))
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    noisy = logging.getLogger(_DEBUG_ONLY)
    for handler in list(noisy.handlers):
        noisy.removeHandler(handler)
    noisy.propagate = True
    noisy.setLevel(logging.WARNING if log.is_enabled_for(logging.DEBUG) else logging.CRITICAL + 1)


def _trace(error: object) -> str:
    if error is True:  # `log.exception(…)`
        error = sys.exception()
    if isinstance(error, tuple):
        error = error[1]
    return "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
