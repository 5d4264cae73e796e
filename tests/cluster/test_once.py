"""What the supervisor is to run once, such as a reset of etcd's membership."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from meshd.holder.supervisor import Supervisor
from tests.cluster.supervised import Bench, until


@pytest.mark.parametrize(
    ("once", "exits", "starts"), [(True, 0, True), (True, 1, False), (False, 1, True)]
)
def test_what_ended_is_not_started_again_if_it_is_ordered_once(
    tmp_path: Path, *, once: bool, exits: int, starts: bool
) -> None:
    supervisor = Supervisor(tmp_path, wake=-1)
    supervisor.order = {"incarnation": "c1/reset-1-1", "needs": [], "keeps": [], "once": once}
    supervisor.report |= {"incarnation": "c1/reset-1-1", "exits": exits}
    assert supervisor._may_start() == starts


async def test_another_order_than_once_goes_on(bench: Bench) -> None:
    bench.behaves("exit0")
    for name in ("c1", "c2"):
        await bench.host.ensure(replace(bench.launch("server", name=name), once=True))
        await until(lambda: bench.host.look().exits == 1)
    await bench.host.ensure(bench.launch("server", name="c2"))
    await until(lambda: bench.host.look().exits >= 3)
    assert len(bench.started) >= 4
