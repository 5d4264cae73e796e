"""What the supervisor is to run once, such as a reset of etcd's membership."""

from __future__ import annotations

from dataclasses import replace

from tests.cluster.supervised import Bench, until


async def test_what_is_ordered_once_is_not_started_again(bench: Bench) -> None:
    bench.behaves("exit0")
    await bench.host.ensure(replace(bench.launch("server"), once=True))
    await until(lambda: bench.host.look().exits == 1)
    await bench.host.ensure(bench.launch("server", "--again"))  # The same, but not once.
    await until(lambda: bench.host.look().exits >= 3)
    await bench.host.ensure(replace(bench.launch("server", name="c2"), once=True))
    await until(lambda: bench.host.look().exits == 1)
    before = len(bench.started)
    await bench.host.ensure(replace(bench.launch("server", name="c3"), once=True))
    await until(lambda: bench.host.look().exits == 1)
    assert len(bench.started) == before + 1, "c2 did not run a second time meanwhile"
