"""A driver around a real node of a network of one, with fakes around it that remember."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

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
    Event,
    Persist,
    Seal,
    SecretSealed,
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


@contextmanager
def driven(tmp_path: Path, own: Facts = FACTS) -> Iterator[Bench]:
    """Make a driver of a network of one; call it inside Trio."""
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
        facts=own,
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
