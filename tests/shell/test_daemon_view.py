"""What the daemon lets its users read of a node that is driven: probes, counts, sources."""

from __future__ import annotations

import base64

import trio
import trio.testing

from ledger import NodeId
from meshd.events import (
    Channel,
    Received,
    SecretSealed,
)
from roles import Bounds
from tests.shell.driven import (
    Bench,
    moment,
)


async def test_a_network_of_one_is_ready_once_its_role_is_known_and_stages_are_timed(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    waiting = bench.view.unready_reason()
    assert waiting
    assert "role" not in bench.tally.stages
    with trio.move_on_after(60):
        await bench.driver.run()
    assert bench.view.unready_reason() is None
    assert set(bench.tally.stages) == {"claimed", "started"}
    assert 0 <= bench.tally.stages["claimed"] <= bench.tally.stages["started"] < 60
    assert bench.tally.notes["role_decided"] == 1
    for bounds in (Bounds.bounded(control_plane=1, nodes_max=3), Bounds.unbounded(control_plane=1)):
        bench.driver.node.bounds = bounds
        assert bench.view.unready_reason() == "no other node of this network is connected"


async def test_a_server_names_k3s_file_and_any_node_the_sealed_copies(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    assert bench.view.kubeconfig_sources([""]) == {"file": None, "sealed": []}
    with trio.move_on_after(60):
        await bench.driver.run()
    copy = SecretSealed(NodeId("age1ada"), "kubeconfig", b"d" * 16 + b"ciphertext")
    bench.driver.node.handle(copy, moment())
    sources = bench.view.kubeconfig_sources(["age1bob", "age1ada"])
    assert str(sources["file"]).endswith("/k3s.yaml")
    assert sources["sealed"] == [
        {
            "recipient": "age1ada",
            "author": "n1",
            "stamp_ms": 0,
            "value": base64.b64encode(b"ciphertext").decode(),
        }
    ]


async def test_frames_are_counted_as_they_come(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    peer = NodeId("12D3KooWpeer")
    await bench.events.send(Received(peer, Channel.LEDGER, b"no frame at all"))
    with trio.move_on_after(1):
        await bench.driver.run()
    assert bench.tally.frames[Channel.LEDGER, "in"] == 1
    assert bench.tally.bytes[Channel.LEDGER, "in"] == 15
    assert b'meshd_gossip_bytes_total{channel="ledger",dir="in"} 15.0' in bench.view.metrics()
    assert b"meshd_ledger_rejected_total 1.0" in bench.view.metrics()
