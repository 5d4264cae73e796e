"""What surrounds the real node: peers' disks in memory, a mesh and k3s that obey at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from ledger import NodeId, encode_entry
from meshd.events import (
    LEASE_START_MIN_S,
    Channel,
    ClusterOrder,
    K3sObserved,
    Persist,
    Seal,
    SecretSealed,
)
from meshd.mesh.fake import FakeMesh
from meshd.ports import EventSink
from tests.store.record import Kept, Ordered, Record, Shown, Told


@dataclass(slots=True)
class MemoryStore:
    """A peer's disk, which never fails."""

    author: int
    record: Record
    entries: dict[tuple[str, str], bytes] = field(default_factory=dict)
    votes: dict[str, bytes] = field(default_factory=dict)

    async def persist(self, change: Persist) -> None:
        await trio.lowlevel.checkpoint()
        entries = tuple((e.author, e.key, encode_entry(e)) for e in change.entries)
        self.record.write(Kept(self.author, entries, change.votes))
        self.take(entries, change.votes)

    def take(
        self, entries: Sequence[tuple[str, str, bytes]], votes: Sequence[tuple[str, bytes]]
    ) -> None:
        """Keep it."""
        self.entries |= {(author, key): encoded for author, key, encoded in entries}
        self.votes |= dict(votes)

    async def probe(self) -> None:
        await trio.lowlevel.checkpoint()

    async def remember_peer(self, peer: NodeId, addresses: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()

    async def append_history(self, wall_ms: int, kind: str, text: str) -> None:
        await trio.lowlevel.checkpoint()


class WrittenMesh(FakeMesh):
    """Writes down what it is about to send."""

    author: int
    record: Record

    def send_nowait(self, peer: NodeId, channel: Channel, frame: bytes) -> None:
        self.record.write(Shown(self.author, channel, frame))
        super().send_nowait(peer, channel, frame)


@dataclass(slots=True)
class Site:
    """The clusters that k3s made: an order to begin is obeyed at once."""

    record: Record
    members: dict[str, set[str]] = field(default_factory=dict)  # By cluster id: node names.
    services: list[Service] = field(default_factory=list)

    def changed(self, cluster_id: str) -> None:
        """Let every member say who votes in etcd."""
        for service in self.services:
            if service.name in self.members[cluster_id]:
                service.tell(cluster_id)


@dataclass(slots=True)
class Service:
    """`meshd.ports.Cluster`: k3s on one node."""

    author: int
    name: str
    address: str
    site: Site
    events: EventSink
    stopped: set[str] = field(default_factory=set)

    async def run(self, events: EventSink) -> None:
        await trio.sleep_forever()

    def apply(self, order: ClusterOrder) -> None:
        plan = order.plan
        self.site.record.write(
            Ordered(
                self.author,
                order.seat,
                plan.cluster_id if plan is not None else None,
                plan.generation if plan is not None else None,
                order.formed,
            )
        )
        stopped = {
            *order.abandoned,
            *([plan.cluster_id] if plan is not None and order.stop else []),
        }
        if stopped - self.stopped:
            self.stopped |= stopped
            self.tell(None)
        if plan is None or order.seat in ("none", "worker") or order.stop:
            return
        lease = order.lease_until
        if lease is not None and lease < trio.current_time() + LEASE_START_MIN_S:
            return
        members = self.site.members
        if order.seat == "initialiser":
            members.setdefault(plan.cluster_id, set())
        if self.name not in members.get(plan.cluster_id, {self.name}):
            members[plan.cluster_id].add(self.name)
            self.site.changed(plan.cluster_id)

    def tell(self, cluster_id: str | None) -> None:
        """Tell this node's daemon how k3s is, in that cluster or without one."""
        voters = tuple(sorted(self.site.members[cluster_id])) if cluster_id is not None else ()
        observed = K3sObserved(
            state="ready" if cluster_id is not None else "absent",
            endpoint=f"https://{self.address}:6443" if cluster_id is not None else None,
            cluster_id=cluster_id or "",
            voters=voters,
            members=voters,
            kube_system_uid=f"uid of {cluster_id}" if cluster_id is not None else None,
            stopped=tuple(sorted(self.stopped)),
        )
        self.events.send_nowait(observed)

    async def seal(self, request: Seal) -> SecretSealed:
        await trio.lowlevel.checkpoint()
        return SecretSealed(request.recipient, request.name, b"sealed", request.cluster_id)


@dataclass(slots=True)
class WrittenLog:
    """A logger that keeps what the daemon says about its disk."""

    record: Record

    def info(self, event: str, **fields: object) -> None:
        if event == "storage_works_again":
            self.record.write(Told(event))

    def warning(self, event: str, **fields: object) -> None:
        if event in ("storage_failed", "peer_rejected", "damaged_entry_dropped"):
            code = fields.get("code")
            self.record.write(Told(event, code if isinstance(code, str) else None))
