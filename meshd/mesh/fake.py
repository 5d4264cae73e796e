"""An in-memory mesh that passes the same contract tests as the real one.

Nodes of one `FakeNetwork` find each other at once, unless they were `cut` apart or their secrets
differ. Frames arrive in order, without loss while the link lasts.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ledger import NodeId
from meshd.events import Channel, Connected, Disconnected, Event, LinkObserved, Received
from meshd.mesh.wire import FRAME_SIZE_MAX_BYTES
from meshd.ports import EventSink

FAKE_RTT_MS = 1.0


class FakeNetwork:
    """The air between fake meshes."""

    def __init__(self) -> None:
        self._running: dict[NodeId, FakeMesh] = {}
        self._cut: set[frozenset[NodeId]] = set()

    def join(self, mesh: FakeMesh) -> None:
        """Put a mesh on the air and connect it to all that it can reach."""
        self._running[mesh.node_id] = mesh
        for other in list(self._running.values()):
            self._connect(mesh, other)

    def leave(self, mesh: FakeMesh) -> None:
        """Take a mesh off the air."""
        del self._running[mesh.node_id]
        for peer in sorted(mesh.linked):
            self._disconnect(mesh, self._running[peer], "left")

    def cut(self, one: NodeId, other: NodeId) -> None:
        """Separate two nodes."""
        self._cut.add(frozenset({one, other}))
        if one in self._running and other in self._running[one].linked:
            self._disconnect(self._running[one], self._running[other], "failed")

    def heal(self, one: NodeId, other: NodeId) -> None:
        """Undo `cut`."""
        self._cut.discard(frozenset({one, other}))
        if one in self._running and other in self._running:
            self._connect(self._running[one], self._running[other])

    def carry(self, sender: FakeMesh, peer: NodeId, channel: Channel, frame: bytes) -> None:
        """Deliver a frame if the two are linked."""
        if peer in sender.linked:
            self._running[peer].emit(Received(sender.node_id, channel, frame))

    def _connect(self, one: FakeMesh, other: FakeMesh) -> None:
        apart = frozenset({one.node_id, other.node_id}) in self._cut
        if one is other or apart or one.secret != other.secret or other.node_id in one.linked:
            return
        for here, there in ((one, other), (other, one)):
            here.linked.add(there.node_id)
            here.emit(Connected(there.node_id, "direct"))
            here.emit(LinkObserved(there.node_id, "alive", FAKE_RTT_MS))

    def _disconnect(self, one: FakeMesh, other: FakeMesh, state: str) -> None:
        for here, there in ((one, other), (other, one)):
            here.linked.discard(there.node_id)
            here.emit(Disconnected(there.node_id, state))
            here.emit(LinkObserved(there.node_id, "left" if state == "left" else "failed", None))


class FakeMesh:
    """`meshd.ports.Mesh` without a network.

    Args:
        node_id: whose.
        network: the nodes it can meet.
        secret: only nodes with the same one are met.
        addresses: what `run` reports.
    """

    def __init__(
        self,
        node_id: NodeId,
        network: FakeNetwork,
        *,
        secret: bytes = b"",
        addresses: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/7946",),
    ) -> None:
        self.node_id = node_id
        self.secret = secret
        self.linked: set[NodeId] = set()
        self.punished: list[NodeId] = []
        self.learned: dict[NodeId, tuple[str, ...]] = {}
        self._network = network
        self._addresses = addresses
        self._moved = trio.Event()
        self._put, self._take = trio.open_memory_channel[Event](float("inf"))

    async def run(
        self,
        events: EventSink,
        *,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `meshd.ports.Mesh.run`."""
        self._network.join(self)
        task_status.started(self._addresses)
        try:
            async for event in self._take:
                await events.send(event)
        finally:
            self._network.leave(self)

    def emit(self, event: Event) -> None:
        """Queue an event for this node."""
        self._put.send_nowait(event)

    def send_nowait(self, peer: NodeId, channel: Channel, frame: bytes) -> None:
        """See `meshd.ports.Mesh.send_nowait`."""
        assert len(frame) <= FRAME_SIZE_MAX_BYTES
        self._network.carry(self, peer, channel, frame)

    def learn(self, peer: NodeId, addresses: Sequence[str]) -> None:
        """See `meshd.ports.Mesh.learn`."""
        self.learned[peer] = tuple(addresses)

    def punish(self, peer: NodeId) -> None:
        """See `meshd.ports.Mesh.punish`."""
        self.punished.append(peer)

    def move(self, addresses: tuple[str, ...]) -> None:
        """Change this node's addresses."""
        self._addresses = addresses
        self._moved.set()

    async def addresses_changed(self) -> tuple[str, ...]:
        """See `meshd.ports.Mesh.addresses_changed`."""
        await self._moved.wait()
        self._moved = trio.Event()
        return self._addresses
