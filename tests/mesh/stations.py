"""Meshes to test with: real ones on loopback, fake ones in memory, and what their cores hear."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import NodeId, node_id_of
from meshd.clock import read_moment
from meshd.config.multiaddress import parse_tcp_address
from meshd.config.schema import Network
from meshd.events import Connected, Disconnected, Event
from meshd.mesh import LibP2PMesh
from meshd.mesh.dialer import open_tcp
from meshd.mesh.fake import FakeMesh, FakeNetwork
from meshd.mesh.host import Connection, MeshHost
from meshd.ports import Mesh

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
SECRET = b"s" * 32
PATIENCE_S = 15.0

EventT = TypeVar("EventT")


def private_key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def network_of(secret: bytes) -> Network:
    return Network(network_id="oak-7f3a9c12", epoch=1, secret=secret, capability="vote", seeds=())


class Ear:
    """Takes a mesh's events, and waits for one."""

    def __init__(self) -> None:
        self.sink, self._source = trio.open_memory_channel[Event](1000)
        self.heard: list[Event] = []

    async def until(
        self, kind: type[EventT], suits: Callable[[EventT], bool] = lambda _: True
    ) -> EventT:
        """Return the next event of that kind that suits; later events stay for the next call."""
        with trio.fail_after(PATIENCE_S):
            while True:
                event = await self._source.receive()
                self.heard.append(event)
                if isinstance(event, kind) and suits(event):
                    return event

    def drain(self) -> list[Event]:
        """Return all events so far."""
        while True:
            try:
                self.heard.append(self._source.receive_nowait())
            except trio.WouldBlock:
                return self.heard


class Station:
    """A running mesh with its ear; `stop` is a clean stop."""

    def __init__(self, mesh: Mesh, node_id: NodeId) -> None:
        self.mesh = mesh
        self.node_id = node_id
        self.ear = Ear()
        self.addresses: tuple[str, ...] = ()
        self.stopped = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                self.addresses = await nursery.start(self.mesh.run, self.ear.sink)
                task_status.started()
        self.stopped.set()

    async def stop(self) -> None:
        self._scope.cancel()
        with trio.fail_after(PATIENCE_S):
            await self.stopped.wait()

    async def meets(self, other: Station) -> None:
        """Wait until both were told that they are connected."""
        await self.ear.until(Connected, lambda event: event.peer == other.node_id)
        await other.ear.until(Connected, lambda event: event.peer == self.node_id)

    async def loses(self, other: Station) -> Disconnected:
        return await self.ear.until(Disconnected, lambda event: event.peer == other.node_id)


@asynccontextmanager
async def bare_host(name: str) -> AsyncIterator[MeshHost]:
    """A libp2p host that holds no token and does only what a test has it do."""
    host = MeshHost(private_key(name).private_bytes_raw())
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        try:
            yield host
        finally:
            host.stop()


async def call(host: MeshHost, station: Station) -> Connection:
    """Connect `host` to a station, as far as Noise."""
    stream = await open_tcp(parse_tcp_address(station.addresses[0]))
    return await host.secure_dialled(stream, station.node_id)


class World(Protocol):
    """Makes stations of one kind."""

    async def start(self, name: str, *, secret: bytes = SECRET) -> Station: ...

    def introduce(self, one: Station, other: Station) -> None: ...


class RealWorld:
    """Real libp2p hosts on loopback."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def start(
        self,
        name: str,
        *,
        secret: bytes = SECRET,
        listen: Sequence[str] = LOOPBACK,
        seeds: Sequence[str] = (),
    ) -> Station:
        mesh = LibP2PMesh(
            private_key=private_key(name),
            network=network_of(secret),
            read_moment=read_moment,
            listen=listen,
            discovery=("seeds",),
            seeds=seeds,
        )
        station = Station(mesh, mesh.node_id)
        await self._nursery.start(station.run)
        return station

    async def start_alone(self, name: str, *, listen: Sequence[str]) -> None:
        """Run a mesh in the caller's own task, for errors that it raises at once."""
        mesh = LibP2PMesh(
            private_key=private_key(name),
            network=network_of(SECRET),
            listen=listen,
            read_moment=read_moment,
        )
        await mesh.run(Ear().sink)

    def introduce(self, one: Station, other: Station) -> None:
        one.mesh.learn(other.node_id, other.addresses)


class FakeWorld:
    """Meshes in memory; those of one secret meet without an introduction."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._network = FakeNetwork()

    async def start(self, name: str, *, secret: bytes = SECRET) -> Station:
        node_id = node_id_of(private_key(name).public_key().public_bytes_raw())
        station = Station(FakeMesh(node_id, self._network, secret=secret), node_id)
        await self._nursery.start(station.run)
        return station

    def introduce(self, one: Station, other: Station) -> None:
        one.mesh.learn(other.node_id, other.addresses)
