"""The real mesh on loopback: who gets in, who does not, what is noticed and how fast."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from libp2p.protocol_muxer.exceptions import MultiselectClientError

from ledger import NodeId
from meshd.clock import read_moment
from meshd.config.multiaddress import parse_tcp_address
from meshd.errors import MeshdError
from meshd.events import Channel, Connected, Disconnected, LinkObserved, Received
from meshd.mesh import LibP2PMesh
from meshd.mesh.handshake import REFUSAL, read_exactly
from meshd.mesh.heartbeat import LOST_AFTER_S
from meshd.mesh.links import Links
from meshd.mesh.wire import TOKEN_PROTOCOL
from tests.mesh.stations import Ear, RealWorld, Station, bare_host, call

PEER_PROGRAM = Path(__file__).with_name("peer_program.py")


def mesh_of(station: Station) -> LibP2PMesh:
    assert isinstance(station.mesh, LibP2PMesh)
    return station.mesh


def port_of(station: Station) -> int:
    return parse_tcp_address(station.addresses[0]).port


async def test_a_taken_port_is_an_error_that_names_its_holder(real: RealWorld) -> None:
    one = await real.start("one")
    with pytest.raises(MeshdError) as caught:
        await real.start_alone("other", listen=one.addresses)
    assert caught.value.code == "MESH-3001"
    assert f"port {port_of(one)} is taken" in caught.value.what
    assert caught.value.cause is not None
    assert f"process {os.getpid()} " in caught.value.cause
    assert "p2p.meshd.listen" in caught.value.fix


@pytest.mark.parametrize(
    ("listen", "code"),
    [
        (("/ip4/192.0.2.1/tcp/0",), "MESH-3002"),
        (("/ip4/127.0.0.1/udp/7946",), "MESH-3003"),
        (("/dns/localhost/tcp/7946",), "MESH-3003"),
        ((), "MESH-3003"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_an_error_with_a_fix(
    real: RealWorld, listen: tuple[str, ...], code: str
) -> None:
    with pytest.raises(MeshdError) as caught:
        await real.start_alone("one", listen=listen)
    assert caught.value.code == code


async def test_a_wrong_token_is_refused_and_both_sides_can_say_so(real: RealWorld) -> None:
    one, stranger = await real.start("one"), await real.start("stranger", secret=b"t" * 32)
    real.introduce(stranger, one)
    with trio.fail_after(10):
        while not (mesh_of(one).health() and mesh_of(stranger).health()):
            await trio.testing.wait_all_tasks_blocked(0.01)
    for here, there in ((one, stranger), (stranger, one)):
        (item,) = mesh_of(here).health()
        assert (item.code, item.severity) == ("MESH-3101", "warning")
        assert "127.0.0.1" in item.message
        assert "p2p.network_token" in item.fix
        assert mesh_of(here).refusals.all[0].peer == there.node_id


async def test_before_the_token_is_proven_nothing_else_is_answered(real: RealWorld) -> None:
    one = await real.start("one")
    protocols = ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/meshd/control/1", "/meshd/genesis/1"]
    async with bare_host("stranger") as stranger:
        for protocol in protocols:
            connection = await call(stranger, one)
            with pytest.raises(MultiselectClientError, match="not supported"):
                await connection.open_stream(protocol)
            await connection.aclose()
        connection = await call(stranger, one)
        await connection.open_stream(TOKEN_PROTOCOL)
        with trio.fail_after(6), pytest.raises(MultiselectClientError):
            await connection.open_stream(TOKEN_PROTOCOL)
        await connection.aclose()


async def test_a_wrong_proof_is_told_that_it_is_wrong_and_nothing_else(real: RealWorld) -> None:
    one = await real.start("one")
    async with bare_host("stranger") as stranger:
        connection = await call(stranger, one)
        stream = await connection.open_stream(TOKEN_PROTOCOL)
        await stream.write(bytes(16))
        assert len(await stream.read(16)) == 16
        await stream.write(b"?" * 32)
        assert await read_exactly(stream, 32) == REFUSAL
        with pytest.raises(EOFError):
            await stream.read(1)
        await connection.aclose()


async def test_an_unproven_connection_ends_after_four_seconds(real: RealWorld) -> None:
    one = await real.start("one")
    async with bare_host("stranger") as stranger:
        connection = await call(stranger, one)
        started = trio.current_time()
        with trio.fail_after(6):
            await connection.wait_closed()
        assert 3 < trio.current_time() - started < 5


async def test_a_seed_without_a_name_is_found_out_and_reached(real: RealWorld) -> None:
    one = await real.start("one")
    other = await real.start("other", seeds=one.addresses)
    await one.meets(other)
    assert other.ear.heard[0] == Connected(one.node_id, "direct")


async def test_a_seed_that_is_oneself_does_no_harm(real: RealWorld) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    own = f"/ip4/127.0.0.1/tcp/{port}"
    one = await real.start("one", listen=(own,), seeds=(own,))
    other = await real.start("other", seeds=one.addresses)
    await one.meets(other)
    assert not [event for event in one.ear.drain() if getattr(event, "peer", "") == one.node_id]
    assert own not in mesh_of(one)._book


async def test_one_good_address_among_dead_ones_is_enough(real: RealWorld) -> None:
    one, other = await real.start("one"), await real.start("other")
    dead = ["/ip4/127.0.0.2/tcp/1", "/ip4/127.0.0.3/tcp/1", "/dns/nowhere.invalid/tcp/7946"]
    started = trio.current_time()
    one.mesh.learn(other.node_id, [*dead, *other.addresses])
    await one.meets(other)
    assert trio.current_time() - started < 2


async def test_an_address_where_another_node_answers_is_not_taken_for_the_peer(
    real: RealWorld,
) -> None:
    one, other, third = [await real.start(name) for name in ("one", "other", "third")]
    one.mesh.learn(other.node_id, [*third.addresses, *other.addresses])
    await one.meets(other)
    assert third.ear.drain() == []


async def test_two_that_dial_each_other_at_once_end_with_one_link(real: RealWorld) -> None:
    for attempt in range(3):
        one, other = await real.start(f"one{attempt}"), await real.start(f"other{attempt}")
        real.introduce(one, other)
        real.introduce(other, one)
        await one.meets(other)
        for here, there in ((one, other), (other, one)):
            here.mesh.send_nowait(there.node_id, Channel.LEDGER, b"lost if that link went")
        await trio.testing.wait_all_tasks_blocked(0.1)
        # Whatever happened before, from now on frames arrive, and no link comes or goes.
        for here, there in ((one, other), (other, one)):
            before = here.ear.drain()
            ups = sum(isinstance(event, Connected) for event in before)
            downs = sum(isinstance(event, Disconnected) for event in before)
            assert ups - downs == 1
            there.mesh.send_nowait(here.node_id, Channel.LEDGER, b"through")
            await here.ear.until(Received, lambda event: event.frame == b"through")


async def test_a_frame_for_a_peer_without_a_link_waits_for_the_dial(real: RealWorld) -> None:
    one, other = await real.start("one"), await real.start("other")
    one.mesh.send_nowait(other.node_id, Channel.GENESIS, b"vote")
    real.introduce(one, other)
    assert (await other.ear.until(Received)).frame == b"vote"


async def test_a_peer_that_breaks_rules_again_and_again_is_dropped(real: RealWorld) -> None:
    one, other = await real.start("one"), await real.start("other")
    real.introduce(other, one)
    await one.meets(other)
    for _ in range(8):
        one.mesh.punish(other.node_id)
    assert "broke the protocol" in (await one.loses(other)).reason
    await other.loses(one)
    with trio.fail_after(10):
        while not mesh_of(one).refusals.all:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_garbage_and_scans_and_idlers_keep_nobody_out(real: RealWorld) -> None:
    one = await real.start("one")
    port = port_of(one)
    idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(40)]
    for n in range(60):
        scan = await trio.open_tcp_stream("127.0.0.1", port)
        if n % 3:
            await scan.send_all(os.urandom(64) if n % 2 else b"\x13/multistream/1.0.0\n" * 3)
        await trio.aclose_forcefully(scan)
    other = await real.start("other")
    started = trio.current_time()
    real.introduce(other, one)
    await one.meets(other)
    # Each /24 has four places of four seconds; then the next in line gets its turn.
    assert trio.current_time() - started < 14
    for stream in idle:
        await trio.aclose_forcefully(stream)


async def test_twelve_nodes_that_know_one_another_make_one_graph_of_few_links(
    real: RealWorld,
) -> None:
    stations = [await real.start(f"node{n}") for n in range(12)]
    for here in stations:
        for there in stations:
            here.mesh.learn(there.node_id, there.addresses)
    links: dict[NodeId, set[NodeId]] = {station.node_id: set() for station in stations}
    with trio.fail_after(20):
        while min(map(len, links.values())) < 6:
            await trio.testing.wait_all_tasks_blocked(0.05)
            for station in stations:
                links[station.node_id] = {
                    event.peer for event in station.ear.drain() if isinstance(event, Connected)
                }
    reached, new = set(), {stations[0].node_id}
    while new:
        reached |= new
        new = {peer for node in new for peer in links[node]} - reached
    assert len(reached) == 12
    assert sum(map(len, links.values())) / 12 < 9.5


async def test_a_peer_that_cannot_be_dialled_is_failed_when_it_stays_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    links, ear = Links(NodeId("own"), read_moment), Ear()
    links._lost[NodeId("gone")] = trio.current_time()
    await links.await_return(NodeId("gone"), ear.sink)
    assert ear.drain() == [LinkObserved(NodeId("gone"), "failed", None)]
    assert trio.current_time() >= LOST_AFTER_S


@pytest.mark.timeout(90)
async def test_a_pause_of_two_seconds_is_not_a_failure_and_a_kill_is_seen_at_once(
    real: RealWorld, nursery: trio.Nursery
) -> None:
    one = await real.start("one")
    command = [sys.executable, str(PEER_PROGRAM), one.addresses[0]]
    process = await nursery.start(partial(trio.run_process, command, check=False))
    try:
        met = await one.ear.until(Connected)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            one.mesh.learn(met.peer, [f"/ip4/127.0.0.1/tcp/{closed.getsockname()[1]}"])
        process.send_signal(signal.SIGSTOP)
        await trio.sleep(2)  # The fault itself: the peer is stopped for this long.
        process.send_signal(signal.SIGCONT)
        await trio.sleep(1.5)
        states = [event for event in one.ear.drain() if isinstance(event, LinkObserved)]
        assert [event.state for event in states if event.state != "alive"] == []
        killed_at = time.monotonic()
    finally:
        process.kill()
    lost = await one.ear.until(Disconnected)
    assert time.monotonic() - killed_at < 1
    assert lost.peer == met.peer
    gone = await one.ear.until(LinkObserved, lambda event: event.state == "failed")
    assert time.monotonic() - killed_at < 1
    assert gone.peer == met.peer
