"""A log whose time a test sets, for the tests of the log."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

from structlog.typing import FilteringBoundLogger

from meshd.config import encode_token, new_token, parse_token
from meshd.observe import DaemonLog, open_log

NODE = "12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE"
SERVER_TOKEN = hashlib.sha256(b"no period, as no real token has one").hexdigest()


def made_token(fill: int) -> str:
    """A token whose secret is not like any other test's."""
    return encode_token(
        new_token(
            control_plane=3,
            nodes_max=5,
            seeds=(),
            random_bytes=lambda size: bytes((fill * n + n * n) % 251 for n in range(size)),
        )
    )


TOKEN = made_token(7)
SECRET = parse_token(TOKEN).network.secret


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass
class Bench:
    """A log that knows the secrets above, and what it has written."""

    log: FilteringBoundLogger
    daemon_log: DaemonLog
    stream: io.StringIO
    clock: list[float]

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


def bench(
    level: str = "info",
    environment: dict[str, str] | None = None,
    stream: io.StringIO | None = None,
) -> Bench:
    """Set up this process' logging; the fixture `undisturbed_logging` takes it back."""
    stream, clock = stream or io.StringIO(), [1000.0]
    log, daemon_log = open_log(level, environment or {}, clock=lambda: clock[0], stream=stream)
    daemon_log.hide(TOKEN, SECRET, SERVER_TOKEN)
    return Bench(log, daemon_log, stream, clock)
