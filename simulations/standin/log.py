"""Lines on stderr: k3s' own in logrus' text format, and the stand-in's under its name."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def log(level: str, message: str) -> None:
    """Write one line as k3s does; `level` is debug, info, warning, error or fatal."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _line(f'time="{stamp}" level={level} msg={json.dumps(message)}')


def note(message: str) -> None:
    """Write what only the stand-in says."""
    _line(f"stand-in: {message}")


def _line(text: str) -> None:
    # One write per line: several processes may share the log file.
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Exit(Exception):
    """The program ends: with `code`, after a line of `level`."""

    def __init__(self, code: int, level: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.level = level
        self.message = message


def fatal(message: str) -> Exit:
    """Return the end that k3s calls fatal: exit code 1."""
    return Exit(1, "fatal", message)


def shutdown(reason: str) -> Exit:
    """Return k3s' other end, for some failures too: an error in the log and exit code 0."""
    return Exit(0, "error", f"Shutdown request received: {reason}")
