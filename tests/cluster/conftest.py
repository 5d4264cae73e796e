"""A fake k3s with its supervisor's folder for a test, ended afterwards whatever happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.cluster.supervised import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "bench")
    yield bench
    with trio.CancelScope(shield=True):
        await bench.clear_away()
    bench.check_never_two()
