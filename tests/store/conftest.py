"""Fixtures: a process that forks daemons, and what a first start leaves."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.boundary import unsupported_reason
from tests.store.life import write_config
from tests.store.lives import Lives
from tests.store.zygote import Zygote


@pytest.fixture(scope="session")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    reason = unsupported_reason()
    if reason is not None:
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("lives")
    write_config(base)
    zygote = Zygote.start()
    yield Lives(base, zygote)
    zygote.end()


@pytest.fixture(scope="session")
def opened_once(lives: Lives) -> Path:
    """What a first start leaves that was then ended in an orderly way."""
    folder = lives.folder()
    assert lives.live(folder, start_only=True) == 0
    (folder / "record").unlink()
    return folder


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder for what is written thousands of times, in memory if the machine has it so."""
    shm = Path("/dev/shm")  # noqa: S108  # Made with a name of its own below.
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as folder:
        yield Path(folder)
