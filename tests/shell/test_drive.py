"""The driver: deadlines fire, effects run in order, and nothing leaves that was not made durable.

A real node of a network of one: it claims, and orders its k3s, with nobody to ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import trio
import trio.testing

from ledger import Instant, Moment, NodeId
from meshd.daemon._drive import Driver
from meshd.events import (
    Channel,
    Connected,
    Effect,
    Event,
    Health,
    HealthObserved,
    Persist,
    Send,
    Wakeup,
)
from meshd.metrics import Tally
from tests.shell.driven import (
    FACTS,
    NETWORK,
    SIGNER,
    Bench,
    FailingStore,
    Recorder,
    RecordingCluster,
    RecordingMesh,
    moment,
)


async def test_a_node_alone_decides_by_its_own_deadlines_and_orders_k3s(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(60):
        await bench.driver.run()
    assert bench.driver.node.genesis.state.phase == "started"
    assert len(bench.initialiser_orders()) == 1
    assert len(bench.built) == 1


async def test_every_vote_is_on_the_disk_before_k3s_is_ordered(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(60):
        await bench.driver.run()
    (votes_then,) = bench.initialiser_orders()
    kept = {key for key in votes_then if "started" in key or "intent" in key}
    assert any("started" in key for key in kept), votes_then
    assert any("intent" in key for key in kept), votes_then


async def test_a_full_disk_silences_the_node_and_it_goes_on_from_the_disk(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.store.full = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.driver.run)
        await bench.events.send(Connected(NodeId("12D3KooWpeer"), "direct"))
        with trio.move_on_after(60):
            await trio.sleep_forever()
        assert bench.cluster.orders == []
        assert [item.code for item in bench.driver.node.shell_health] == ["MESH-2006"]
        assert str(bench.view.stalled_reason()).startswith("MESH-2006: ")
        bench.store.full = False
        with trio.move_on_after(60):
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    assert len(bench.built) > 1
    assert bench.driver.node.shell_health == ()
    assert len(bench.initialiser_orders()) == 1
    assert bench.log.events.count("storage_works_again") == 1
    assert bench.view.stalled_reason() is None
    # The rebuilt node was told again who is connected.
    assert bench.driver.node.directory[NodeId("12D3KooWpeer")].connected


async def test_a_restarted_daemon_goes_on_where_the_disk_says(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(60):
        await bench.driver.run()
    again = bench.driver._build(FACTS)
    assert again.genesis.state.phase == "started"
    assert again.genesis.state.plan == bench.driver.node.genesis.state.plan


class Voter:
    """Votes once, and says so in the right order."""

    def __init__(self) -> None:
        self.deadline = Instant(0.0)
        self.told: list[tuple[Health, ...]] = []

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        if isinstance(event, HealthObserved) and event.items:
            self.told.append(event.items)
            return [Send(NodeId("12D3KooWpeer"), Channel.GENESIS, b"told")]
        if not isinstance(event, Wakeup) or self.deadline > now.at:
            return []
        self.deadline = Instant(math.inf)
        return [
            Persist(votes=(("accept/1/claim", b"a vote"),)),
            Send(NodeId("12D3KooWpeer"), Channel.GENESIS, b"accepted"),
        ]


def driver_of(
    make: Callable[[], Voter], store: FailingStore, mesh: RecordingMesh, tally: Tally
) -> Driver[Voter]:
    events, inbox = trio.open_memory_channel[Event](64)
    return Driver(
        build=lambda _: make(),
        facts=FACTS,
        mesh=mesh,
        cluster=RecordingCluster(store),
        store=store,
        log=Recorder(),
        read_moment=moment,
        tally=tally,
        inbox=inbox,
        sealed=events,
    )


async def test_a_vote_is_on_the_disk_before_anyone_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    store = FailingStore.create(tmp_path / "meshd.db", owner=SIGNER.node_id, network=NETWORK)
    assert isinstance(store, FailingStore)
    mesh = RecordingMesh(store)
    tally = Tally(started_at=0.0)
    driver = driver_of(Voter, store, mesh, tally)
    store.full = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(30)
        assert mesh.sent == [], "a vote that was not kept was told"
        store.full = False
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert mesh.sent == [(b"accepted", frozenset({"accept/1/claim"}))]
    assert tally.frames == {(Channel.GENESIS, "out"): 1}
    assert tally.bytes == {(Channel.GENESIS, "out"): 8}
    store.close()


class HangingStore(FailingStore):
    """Takes its time for each commit, as a disk that hangs does."""

    ends: trio.Event

    async def persist(self, change: Persist) -> None:
        await self.ends.wait()
        await super().persist(change)


async def test_a_disk_that_hangs_is_shown_while_it_does_and_nothing_overtakes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    store = HangingStore.create(tmp_path / "meshd.db", owner=SIGNER.node_id, network=NETWORK)
    assert isinstance(store, HangingStore)
    store.ends = trio.Event()
    mesh = RecordingMesh(store)
    voter = Voter()
    driver = driver_of(lambda: voter, store, mesh, Tally(started_at=0.0))
    slow = Health(code="MESH-2030", severity="error", message="slow", fix="look at the disk")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.sleep(30)
        driver.tell_in_between("disk", [slow])
        assert voter.told == [(slow,)]
        await trio.sleep(30)
        assert mesh.sent == [], "a vote that is not on the disk yet was told"
        store.ends.set()
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    # The vote first, and what followed from the news only then.
    assert mesh.sent == [
        (b"accepted", frozenset({"accept/1/claim"})),
        (b"told", frozenset({"accept/1/claim"})),
    ]
    store.close()
