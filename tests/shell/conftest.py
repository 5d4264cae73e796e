"""Fixtures of the shell's tests."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from tests.shell.driven import Bench, driven


@pytest.fixture
def undisturbed_logging() -> Iterator[None]:
    """Give the process back its own logging and hooks."""
    root, libp2p = logging.getLogger(), logging.getLogger("libp2p")
    kept = root.handlers[:], root.level, libp2p.handlers[:], libp2p.level, libp2p.propagate
    hook, show = sys.excepthook, warnings.showwarning
    yield
    logging.captureWarnings(capture=False)
    sys.excepthook, warnings.showwarning = hook, show
    root.handlers[:], root.level, libp2p.handlers[:], libp2p.level, libp2p.propagate = kept
    structlog.reset_defaults()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A driver of a network of one; asynchronous, for it lives on the test's clock."""
    with driven(tmp_path) as made:
        yield made
