"""The links of this node: one a peer, chosen, served, and what becomes of a lost one.

Emits everything the core learns about links. A connection that breaks without a goodbye makes its
peer suspect at once; the next failed dial makes it failed, a successful one clears it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet

import trio

from ledger import Moment, NodeId
from meshd.events import Channel, LinkObserved
from meshd.mesh.choice import supersedes
from meshd.mesh.heartbeat import LOST_AFTER_S
from meshd.mesh.link import Farewell, Link
from meshd.mesh.wire import ByteStream
from meshd.ports import EventSink

PENDING_MAX = 64
PENDING_FOR_S = 10.0
PUNISHMENTS_MAX = 8
PUNISHMENT_FADES_S = 10.0
BAN_S = 60.0
SPARE_FOR_S = 10.0
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 2.0


class Links:
    """All links, and frames that wait for one.

    Args:
        own: this node.
        read_moment: the time, for what wall clocks show.
    """

    def __init__(self, own: NodeId, read_moment: Callable[[], Moment]) -> None:
        self._own = own
        self._read_moment = read_moment
        self._links: dict[NodeId, Link] = {}
        self._pending: dict[NodeId, list[tuple[float, Channel, bytes]]] = {}
        self._lost: dict[NodeId, float] = {}
        self._faults: dict[NodeId, tuple[int, float]] = {}
        self._banned: dict[NodeId, float] = {}

    def __contains__(self, peer: object) -> bool:
        return peer in self._links

    def __len__(self) -> int:
        return len(self._links)

    @property
    def peers(self) -> set[NodeId]:
        """Who is linked."""
        return set(self._links)

    def dialled(self, peer: NodeId) -> bool | None:
        """Whether this node opened the connection to `peer`; None if there is none."""
        link = self._links.get(peer)
        return link.dialled if link is not None else None

    @property
    def lost(self) -> list[NodeId]:
        """Whose connection broke without a goodbye, sorted; they are dialled to find out."""
        return sorted(self._lost)

    def send_nowait(self, peer: NodeId, channel: Channel, frame: bytes) -> bool:
        """Queue a frame; False if there is no link: the frame then waits 10 s for one."""
        link = self._links.get(peer)
        if link is not None:
            link.send_nowait(channel, frame)
            return True
        pending = self._pending.setdefault(peer, [])
        pending.append((trio.current_time(), channel, frame))
        del pending[:-PENDING_MAX]
        return False

    def prune(self, wanted: AbstractSet[NodeId]) -> None:
        """End the links that this node made and no longer wants, once it has all that it wants.

        The other end made none, so if it wants this one it makes it anew, and keeps it: the two
        never undo what the other does.
        """
        if not wanted <= self._links.keys():
            return
        for peer, link in sorted(self._links.items()):
            if peer not in wanted and link.dialled and link.spare_s >= SPARE_FOR_S:
                link.end("there are enough others", Farewell.SURPLUS)

    def awaited(self) -> list[NodeId]:
        """Return to whom frames wait to be sent, sorted."""
        self._drop_stale()
        return sorted(self._pending)

    def _drop_stale(self) -> None:
        oldest = trio.current_time() - PENDING_FOR_S
        for peer, frames in list(self._pending.items()):
            self._pending[peer] = [frame for frame in frames if frame[0] >= oldest]
            if not self._pending[peer]:
                del self._pending[peer]

    def banned(self, peer: NodeId) -> bool:
        """Whether `peer` was dropped for breaking rules less than a minute ago."""
        until = self._banned.get(peer)
        if until is not None and trio.current_time() >= until:
            del self._banned[peer]
            return False
        return until is not None

    def punish(self, peer: NodeId) -> None:
        """Read more slowly from a peer that breaks rules; if it goes on, drop it for a minute."""
        now = trio.current_time()
        count, at = self._faults.get(peer, (0, now))
        count = max(0, count - int((now - at) / PUNISHMENT_FADES_S)) + 1
        self._faults[peer] = (count, now)
        link = self._links.get(peer)
        if count >= PUNISHMENTS_MAX:
            self._banned[peer] = now + BAN_S
            del self._faults[peer]
            if link is not None:
                link.end("it broke the protocol too often", Farewell.SURPLUS)
        elif link is not None:
            pause = min(PAUSE_FIRST_S * 2.0**count, PAUSE_MAX_S)
            link.slow_down(pause, PUNISHMENT_FADES_S * count)

    async def serve(
        self,
        peer: NodeId,
        streams: Mapping[Channel, ByteStream],
        *,
        dialled: bool,
        events: EventSink,
        close: Callable[[], Awaitable[None]],
    ) -> bool:
        """Make a link of a proven connection and serve it to its end, unless an older one stays.

        Returns:
            Whether the peer was lost, and not left, stopped or replaced.
        """
        link = Link(peer=peer, dialled=dialled, streams=streams, read_moment=self._read_moment)
        old = self._links.get(peer)
        if old is not None and not self._replaces(link, old):
            link.end("an older connection stays", Farewell.SURPLUS)
            await link.say_farewell()
            await close()
            return False
        self._links[peer] = link
        try:
            if old is not None:
                old.end("replaced by a newer connection", Farewell.SURPLUS)
                await old.finished.wait()
            self._lost.pop(peer, None)
            self._drop_stale()
            for _, channel, frame in self._pending.pop(peer, []):
                link.send_nowait(channel, frame)
            await link.run(events)
        finally:
            link.finished.set()
            current = self._links.get(peer) is link
            if current:
                del self._links[peer]
            with trio.CancelScope(shield=True):
                await link.say_farewell()
                await close()
        if current:
            await self._report_end(link, events)
        return current and (link.broke or link.fell_silent)

    def _replaces(self, new: Link, old: Link) -> bool:
        return supersedes(
            own=self._own,
            peer=new.peer,
            old_dialled=old.dialled,
            new_dialled=new.dialled,
            old_age_s=new.born - old.born,
        )

    async def _report_end(self, link: Link, events: EventSink) -> None:
        if link.heard_farewell is Farewell.LEAVING:
            await events.send(LinkObserved(link.peer, "left", None))
        elif link.fell_silent:
            await events.send(LinkObserved(link.peer, "failed", None))
        elif link.broke:
            self._lost[link.peer] = trio.current_time()
            await events.send(LinkObserved(link.peer, "suspect", None))

    async def await_return(self, peer: NodeId, events: EventSink) -> None:
        """Give a lost peer as long as a silent one to come back, then take it for failed.

        A failed dial says so sooner, but not every peer can be dialled.
        """
        lost_at = self._lost.get(peer)
        if lost_at is not None:
            await trio.sleep_until(lost_at + LOST_AFTER_S)
            if self._lost.get(peer) == lost_at:
                await self.dial_failed(peer, events)

    async def dial_failed(self, peer: NodeId, events: EventSink) -> None:
        """Conclude from a failed dial that a lost peer is gone."""
        if peer in self._lost and peer not in self._links:
            del self._lost[peer]
            await events.send(LinkObserved(peer, "failed", None))
