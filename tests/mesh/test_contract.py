"""What every implementation of `meshd.ports.Mesh` promises; the real one and the fake alike."""

from __future__ import annotations

import trio.testing

from meshd.events import Channel, Connected, Disconnected, LinkObserved, Received
from meshd.mesh.wire import FRAME_SIZE_MAX_BYTES
from tests.mesh.stations import World


async def test_two_nodes_of_one_token_are_told_once_that_they_are_connected(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    world.introduce(one, other)
    await one.meets(other)
    one.mesh.send_nowait(other.node_id, Channel.LEDGER, b"barrier")
    await other.ear.until(Received)
    assert [event for event in other.ear.drain() if isinstance(event, Connected)] == [
        Connected(one.node_id, "direct")
    ]


async def test_frames_arrive_whole_and_in_order_on_both_channels_both_ways(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    world.introduce(one, other)
    await one.meets(other)
    frames = [b"", b"x", b"y" * FRAME_SIZE_MAX_BYTES, *[str(n).encode() for n in range(200)]]
    for channel in Channel:
        for here, there in ((one, other), (other, one)):
            for frame in frames:
                here.mesh.send_nowait(there.node_id, channel, frame)
            arrived = [await there.ear.until(Received) for _ in frames]
            assert arrived == [Received(here.node_id, channel, frame) for frame in frames]


async def test_no_frame_comes_before_its_sender_is_connected(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    world.introduce(one, other)
    await one.ear.until(Connected)
    one.mesh.send_nowait(other.node_id, Channel.GENESIS, b"early")
    await other.ear.until(Received)
    kinds = [type(event) for event in other.ear.heard]
    assert kinds.index(Connected) < kinds.index(Received)


async def test_nodes_with_different_tokens_never_meet(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    stranger = await world.start("stranger", secret=b"t" * 32)
    world.introduce(stranger, one)
    world.introduce(one, stranger)
    world.introduce(one, other)
    await one.meets(other)
    assert stranger.ear.drain() == []
    met = {event.peer for event in one.ear.drain() if isinstance(event, Connected)}
    assert met == {other.node_id}


async def test_a_node_that_stops_is_disconnected_once_and_has_left(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    world.introduce(one, other)
    await one.meets(other)
    await other.stop()
    await one.loses(other)
    left = await one.ear.until(LinkObserved, lambda event: event.state != "alive")
    assert left == LinkObserved(other.node_id, "left", None)
    assert len([event for event in one.ear.drain() if isinstance(event, Disconnected)]) == 1


async def test_a_node_that_comes_back_is_connected_again(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    world.introduce(one, other)
    await one.meets(other)
    await other.stop()
    await one.loses(other)
    again = await world.start("other")
    world.introduce(again, one)
    await again.meets(one)
    one.mesh.send_nowait(again.node_id, Channel.LEDGER, b"welcome back")
    assert (await again.ear.until(Received)).frame == b"welcome back"


async def test_a_heartbeat_tells_how_far_a_peer_is(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    world.introduce(one, other)
    seen = await one.ear.until(LinkObserved)
    assert seen.peer == other.node_id
    assert seen.state == "alive"
    assert seen.rtt_ms is not None
    assert 0 < seen.rtt_ms < 1000


async def test_a_frame_to_nobody_is_dropped_in_silence(world: World) -> None:
    one, other = await world.start("one"), await world.start("other")
    world.introduce(one, other)
    await one.meets(other)
    await other.stop()
    await one.loses(other)
    one.mesh.send_nowait(other.node_id, Channel.LEDGER, b"anyone?")
    await trio.testing.wait_all_tasks_blocked()
    assert not [event for event in one.ear.drain() if isinstance(event, Received)]
