"""Fixtures: a fake daemon, and the command line run in this process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from meshd.cli import main
from tests.cli.fake_daemon import FakeDaemon, running


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


class Meshd(Protocol):
    """Runs `meshd` with these arguments."""

    def __call__(self, *arguments: str) -> Ran: ...


@pytest.fixture
def meshd(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Meshd:
    """Run the command line; the run directory is `tmp_path`."""
    monkeypatch.setenv("MESHD_RUN_DIR", str(tmp_path))
    monkeypatch.delenv("MESHD_TOKEN_FILE", raising=False)

    def run(*arguments: str) -> Ran:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """Run a fake daemon on `tmp_path`/meshd.sock."""
    with running(tmp_path) as fake:
        yield fake
