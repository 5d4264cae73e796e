"""One proven connection to one peer: two streams, their queues, the heartbeat.

Nothing here knows libp2p; a link runs over any two byte streams. Its events come in this order:
`Connected`, then `Received`, `LinkObserved` and `ClockObserved`, then `Disconnected` exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum

import trio

from ledger import Moment, NodeId
from meshd.events import (
    Channel,
    ClockObserved,
    Connected,
    Disconnected,
    LinkObserved,
    Received,
)
from meshd.mesh.heartbeat import LOST_AFTER_S, LinkWatch
from meshd.mesh.wall_clocks import WallClocks
from meshd.mesh.wire import (
    BadFrame,
    ByteStream,
    FrameQueue,
    FrameReader,
    Heartbeat,
    Kind,
    encode_frame,
)
from meshd.ports import EventSink
from meshd.schema import PathKind

RATE_BYTES_PER_S = 8 * 1024 * 1024
BURST_BYTES = 16 * 1024 * 1024
FAREWELL_TIMEOUT_S = 0.5


class Farewell(IntEnum):
    """What a node says when it ends a link on purpose; one byte."""

    LEAVING = 0  # The whole node stops.
    SURPLUS = 1  # Only this link is not wanted.


class Lane:
    """One stream of a link: what waits to go out, and a bell for its writer."""

    def __init__(self, channel: Channel, stream: ByteStream) -> None:
        self.channel = channel
        self.stream = stream
        self.queue = FrameQueue()
        self.bell = trio.Event()

    async def write_next(self) -> None:
        """Wait until something is queued, then write it in as few and large pieces as possible."""
        while self.queue:
            await self.stream.write(self.queue.take())
        self.bell = trio.Event()
        await self.bell.wait()


class Quota:
    """How fast one peer may send: a bucket of bytes that refills."""

    def __init__(self, now: float) -> None:
        self._left = float(BURST_BYTES)
        self._at = now

    def delay(self, size: int, now: float) -> float:
        """Take `size` bytes; return for how many seconds to stop reading."""
        self._left = min(BURST_BYTES, self._left + (now - self._at) * RATE_BYTES_PER_S) - size
        self._at = now
        return max(0.0, -self._left / RATE_BYTES_PER_S)


class Link:
    """A connection that passed the token handshake, with both its streams open.

    Args:
        peer: who is at the other end.
        dialled: whether this end dialled it.
        streams: one per channel.
        read_moment: the time, for what wall clocks show.
        path: what kind of way it takes.
    """

    def __init__(
        self,
        *,
        peer: NodeId,
        dialled: bool,
        streams: Mapping[Channel, ByteStream],
        read_moment: Callable[[], Moment],
        path: PathKind = "direct",
    ) -> None:
        self.peer = peer
        self.dialled = dialled
        self.path = path
        self.born = trio.current_time()
        self.watch = LinkWatch(self.born, leads=dialled)
        self._wall_clocks = WallClocks()
        self._read_moment = read_moment
        self.heard_farewell: Farewell | None = None
        self.fell_silent = False
        self.finished = trio.Event()  # `Disconnected` was sent, or never will be.
        self.reason = "this node stops"
        self._slow: tuple[float, float] = (0.0, self.born)
        self._lanes = {channel: Lane(channel, stream) for channel, stream in streams.items()}
        self._scope = trio.CancelScope()
        self._quota = Quota(self.born)
        self._voted_at = self.born  # When the channel for votes was last used.
        self._blocked = 0  # Readers that wait for the core to take an event.
        self._farewell: Farewell | None = Farewell.LEAVING

    def send_nowait(self, channel: Channel, frame: bytes) -> None:
        """Queue a frame; the oldest waiting one is dropped if there are too many."""
        self._note_use(channel)
        lane = self._lanes[channel]
        lane.queue.append(encode_frame(Kind.FRAME, frame))
        lane.bell.set()

    def _note_use(self, channel: Channel) -> None:
        if channel is Channel.GENESIS:
            self._voted_at = trio.current_time()

    @property
    def spare_s(self) -> float:
        """For how many seconds it has carried only what any neighbour could have brought."""
        return trio.current_time() - self._voted_at

    def slow_down(self, pause_s: float, for_s: float) -> None:
        """Pause after each frame read, for a while: the peer broke rules."""
        self._slow = (pause_s, trio.current_time() + for_s)

    @property
    def broke(self) -> bool:
        """Whether it ended though neither end wanted it to."""
        return self._farewell is None and self.heard_farewell is None

    def end(self, reason: str, farewell: Farewell | None = None) -> None:
        """Give the link up; `run` then returns. Only the first call counts.

        Args:
            reason: for `Disconnected`.
            farewell: what to tell the peer; nothing if the connection is of no use any more.
        """
        if not self._scope.cancel_called:
            self.reason = reason
            self._farewell = farewell
            self._scope.cancel()

    async def say_farewell(self) -> None:
        """Tell the peer why the link ends, if it does so on purpose and the peer still listens."""
        if self._farewell is None:
            return
        with trio.move_on_after(FAREWELL_TIMEOUT_S):
            try:
                stream = self._lanes[Channel.LEDGER].stream
                await stream.write(encode_frame(Kind.FAREWELL, bytes([self._farewell])))
            except Exception:  # noqa: BLE001, S110  (libp2p's streams raise anything; see _read)
                pass

    async def run(self, events: EventSink) -> None:
        """Serve the link until an end of it closes, falls silent or `end` is called."""
        await events.send(Connected(self.peer, self.path))
        with self._scope:
            async with trio.open_nursery() as nursery:
                for lane in self._lanes.values():
                    nursery.start_soon(self._write, lane)
                    nursery.start_soon(self._read, lane, events)
                nursery.start_soon(self._keep_watch, events)
        await events.send(Disconnected(self.peer, self.reason))

    async def _write(self, lane: Lane) -> None:
        while True:
            try:
                await lane.write_next()
            except Exception as error:  # noqa: BLE001  (as in _read)
                return self.end(_reason_of(error))

    async def _read(self, lane: Lane, events: EventSink) -> None:
        reader = FrameReader(lane.stream)
        while True:
            try:
                kind, body = await reader.next()
            except Exception as error:  # noqa: BLE001
                # A libp2p stream that ends raises one of a dozen classes that have only Exception
                # in common (StreamError, MuxedConnError, noise's and cryptography's own, OSError).
                # Whichever it is, the other end is gone or broken, and that is no fault of ours.
                return self.end(_reason_of(error))
            now = trio.current_time()
            self.watch.heard(now)
            if kind == Kind.FRAME:
                self._note_use(lane.channel)
                await self._hand_over(Received(self.peer, lane.channel, body), events)
            elif kind == Kind.HEARTBEAT and lane.channel is Channel.LEDGER:
                await self._take_heartbeat(body, now, events)
            elif kind == Kind.FAREWELL:
                return self._take_farewell(body)
            pause_s, slow_until = self._slow
            delay = self._quota.delay(len(body), now) + (pause_s if now < slow_until else 0.0)
            if delay > 0:
                await trio.sleep(delay)

    async def _hand_over(self, event: Received, events: EventSink) -> None:
        self._blocked += 1
        try:
            await events.send(event)
        finally:
            self._blocked -= 1

    async def _take_heartbeat(self, body: bytes, now: float, events: EventSink) -> None:
        try:
            heartbeat = Heartbeat.decode(body)
        except BadFrame as error:
            self.end(str(error))
            return
        if self.watch.take(heartbeat, now):
            self._send_heartbeat(now)
        epoch_ms = self._wall_clocks.heard(heartbeat.wall_ms, self._read_moment())
        if epoch_ms is not None:
            await events.send(ClockObserved(self.peer, epoch_ms))
        await self._tell_news(now, events)

    def _take_farewell(self, body: bytes) -> None:
        if body[:1] == bytes([Farewell.LEAVING]):
            self.heard_farewell = Farewell.LEAVING
            self.end("the peer stops")
        else:
            self.heard_farewell = Farewell.SURPLUS
            self.end("the peer needs this link no longer")

    def _send_heartbeat(self, now: float) -> None:
        lane = self._lanes[Channel.LEDGER]
        wall_ms = self._wall_clocks.to_tell(self._read_moment())
        lane.queue.append_first(self.watch.next_heartbeat(now, wall_ms=wall_ms).encode())
        lane.bell.set()

    async def _tell_news(self, now: float, events: EventSink) -> None:
        if (news := self.watch.observe(now)) is not None:
            await events.send(LinkObserved(self.peer, *news))

    async def _keep_watch(self, events: EventSink) -> None:
        while True:
            now = trio.current_time()
            if self.watch.due(now):
                self._send_heartbeat(now)
            if self.watch.silent(now):
                self.fell_silent = True
                return self.end(f"nothing heard for {LOST_AFTER_S:.0f} s")
            await self._tell_news(now, events)
            wake_at = max(self.watch.deadline(), trio.current_time())
            await trio.sleep_until(wake_at)
            # This loop woke late, or the core was slow: then the silence is this node's own.
            late = trio.current_time() - wake_at
            self.watch.excuse(late)
            if self._blocked:
                self.watch.heard(trio.current_time())


def _reason_of(error: Exception) -> str:
    if isinstance(error, BadFrame):
        return str(error)
    return "the connection was closed"
