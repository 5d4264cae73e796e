"""The driver: deadlines fire, effects run in order, and nothing leaves that was not made durable.

A real node of a network of one: it claims, and orders its k3s, with nobody to ask.
"""

from __future__ import annotations

import base64
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import Instant, Moment, NodeId, Signer, decode_entry
from meshd.daemon._drive import Driver
from meshd.daemon._view import View
from meshd.errors import MeshdError
from meshd.events import (
    Channel,
    ClusterOrder,
    Connected,
    Effect,
    Event,
    Health,
    HealthObserved,
    Persist,
    Received,
    Seal,
    SecretSealed,
    Send,
    Wakeup,
)
from meshd.explain import Given
from meshd.metrics import Tally
from meshd.node import Node
from meshd.ports import EventSink
from meshd.schema import Facts
from meshd.storage import SqliteStore
from roles import Bounds

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
NETWORK = "oak-00000001"
ALONE = Bounds.bounded(control_plane=1, nodes_max=1)
FACTS = Facts(
    name="n1",
    node_name="n1-00000000",
    node_ip="10.0.0.11",
    addresses=("/ip4/10.0.0.11/tcp/7946",),
    sealing_key=b"\x02" * 32,
    memory_mib=4096,
    cpus=2,
    role_wish="auto",
    may_vote=True,
    bound="bounded",
    nodes_max=1,
    quorum=1,
    control_plane=1,
    settings_hash="00",
    ca_hash="aa" * 32,
    token_commitment="bb" * 32,
    fingerprint=("cc",),
)


@dataclass
class RecordingMesh:
    """Sends nothing anywhere; keeps each frame with what the disk held at that moment."""

    store: SqliteStore
    sent: list[tuple[bytes, frozenset[str]]] = field(default_factory=list)

    async def run(
        self,
        events: EventSink,
        *,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        task_status.started(())
        await trio.sleep_forever()

    def send_nowait(self, peer: NodeId, channel: Channel, frame: bytes) -> None:
        self.sent.append((frame, frozenset(key for key, _ in self.store.load().votes)))

    def learn(self, peer: NodeId, addresses: Sequence[str]) -> None: ...
    def punish(self, peer: NodeId) -> None: ...
    async def addresses_changed(self) -> tuple[str, ...]:
        await trio.sleep_forever()
        raise AssertionError


@dataclass
class RecordingCluster:
    """Keeps the orders it was given, with what the disk held at that moment."""

    store: SqliteStore
    orders: list[tuple[ClusterOrder, frozenset[str]]] = field(default_factory=list)

    async def run(self, events: EventSink) -> None:
        await trio.sleep_forever()

    def apply(self, order: ClusterOrder) -> None:
        self.orders.append((order, frozenset(key for key, _ in self.store.load().votes)))

    async def seal(self, request: Seal) -> SecretSealed:
        return SecretSealed(request.recipient, request.name, b"sealed")


class FailingStore(SqliteStore):
    """Refuses commits with content while `full`, as a full disk does."""

    full = False

    async def persist(self, change: Persist) -> None:
        self._refuse()
        await super().persist(change)

    async def probe(self) -> None:
        self._refuse()
        await super().probe()

    async def _transact(self, work: list[tuple[str, list[tuple[object, ...]]]]) -> None:
        # In this thread: simulated time would run away while another one works.
        await trio.lowlevel.checkpoint()
        self._transact_sync(work)

    def _refuse(self) -> None:
        if self.full:
            raise MeshdError("MESH-2006", "the disk is full", fix="free some space")


class Recorder:
    """A log that keeps the events' names."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append(event)

    warning = info


@dataclass
class Bench:
    """A driver and the fakes around it."""

    driver: Driver[Node]
    store: FailingStore
    events: EventSink
    cluster: RecordingCluster
    log: Recorder
    built: list[Node]
    view: View
    tally: Tally

    def initialiser_orders(self) -> list[frozenset[str]]:
        return [votes for order, votes in self.cluster.orders if order.seat == "initialiser"]


def moment() -> Moment:
    return Moment(at=Instant(trio.current_time()), wall_ms=0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    opened = FailingStore.create(tmp_path / "meshd.db", owner=SIGNER.node_id, network=NETWORK)
    assert isinstance(opened, FailingStore)
    events, inbox = trio.open_memory_channel[Event](64)
    built: list[Node] = []

    def build(facts: Facts) -> Node:
        saved = opened.load()
        node = Node(
            network_id=NETWORK,
            signer=SIGNER,
            bounds=ALONE,
            facts=facts,
            vip=None,
            rng=Random(0),
            now=moment(),
            entries=[decode_entry(entry, NETWORK) for entry in saved.entries],
            votes=saved.votes,
        )
        built.append(node)
        return node

    cluster, log, tally = RecordingCluster(opened), Recorder(), Tally(started_at=moment().at)
    driver = Driver(
        build=build,
        facts=FACTS,
        mesh=RecordingMesh(opened),
        cluster=cluster,
        store=opened,
        log=log,
        read_moment=moment,
        tally=tally,
        inbox=inbox,
        sealed=events,
    )
    yield Bench(
        driver=driver,
        store=opened,
        events=events,
        cluster=cluster,
        log=log,
        built=built,
        view=View(
            driver,
            opened,
            read_moment=moment,
            tally=tally,
            read_given=Given,
            admin_kubeconfig=tmp_path / "k3s.yaml",
        ),
        tally=tally,
    )
    opened.close()


async def test_a_node_alone_decides_by_its_own_deadlines_and_orders_k3s(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(60):
        await bench.driver.run()
    assert bench.driver.node.genesis.state.phase == "started"
    assert len(bench.initialiser_orders()) == 1
    assert len(bench.built) == 1


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
