"""The shell's parts as the daemon sees them; real and fake forms pass the same tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from ledger import NodeId
from meshd.events import Channel, ClusterOrder, Event, Persist, Seal, SecretSealed
from meshd.schema import Facts

EventSink = trio.MemorySendChannel[Event]
"""Where shell parts put what they see; bounded, so a slow node slows its sources."""


class Mesh(Protocol):
    """Authenticated connections to the other members of the network."""

    async def run(
        self,
        events: EventSink,
        *,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen, discover, dial and heartbeat until cancelled.

        Reports the multiaddrs listened on through `task_status`. Puts `Connected`,
        `Disconnected`, `Received` and `LinkObserved` into `events`, and `FactsObserved` never:
        address changes are reported through `addresses_changed`.

        Raises:
            MeshdError: the port is taken, or no address can be listened on.
        """

    def send_nowait(self, peer: NodeId, channel: Channel, frame: bytes) -> None:
        """Queue a frame (at most 256 KiB); the oldest queued one is dropped if the peer is slow."""

    def learn(self, peer: NodeId, addresses: Sequence[str]) -> None:
        """Remember addresses to dial; multiaddrs without /p2p. Wrong ones cost a failed dial."""

    def punish(self, peer: NodeId) -> None:
        """Count a broken rule against the peer; slow it down, then drop it."""

    async def addresses_changed(self) -> tuple[str, ...]:
        """Wait until this node's own listen addresses differ from the last answer; return them."""


class Cluster(Protocol):
    """k3s and kube-vip on this node."""

    async def run(self, events: EventSink) -> None:
        """Bring k3s to the newest order until cancelled; report `K3sObserved` when it changes."""

    def apply(self, order: ClusterOrder) -> None:
        """Replace the order; never blocks."""

    async def seal(self, request: Seal) -> SecretSealed:
        """Seal this node's secret of that name to the recipient.

        Raises:
            MeshdError: this node does not hold the secret.
        """


class Store(Protocol):
    """What survives a power cut."""

    async def persist(self, change: Persist) -> None:
        """Commit with `synchronous=FULL`, or change nothing.

        Raises:
            MeshdError: disk full, read-only or damaged; the fix says what to do.
        """

    async def probe(self) -> None:
        """Return if commits work: write something of a vote's size and take it back.

        Raises:
            MeshdError: as `persist`.
        """

    async def remember_peer(self, peer: NodeId, addresses: Sequence[str]) -> None:
        """Keep addresses for the next start; losing them costs time only."""

    async def append_history(self, wall_ms: int, kind: str, text: str) -> None:
        """Keep a line of what happened; the oldest beyond 10 000 are dropped."""


class FactsSource(Protocol):
    """What this machine is: name, addresses, memory, cores, keys' public halves."""

    def read(self, addresses: Sequence[str]) -> Facts: ...
