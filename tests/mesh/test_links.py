"""Links over streams in memory: which end, and when."""

from __future__ import annotations

from functools import partial

import trio
import trio.testing

from ledger import NodeId
from meshd.clock import read_moment
from meshd.events import Channel, Disconnected
from meshd.mesh.links import SPARE_FOR_S, Links
from tests.mesh.stations import Ear


class Pipe:
    """One end of a stream in memory."""

    def __init__(
        self,
        ends: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream],
    ) -> None:
        self.write = ends.send_all
        self._receive = ends.receive_some

    async def read(self, n: int | None = None) -> bytes:
        return bytes(await self._receive(n))


async def test_a_spare_link_ends_at_the_end_that_dialled_it_once_it_carries_no_votes(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    near, far, ear = NodeId("near"), NodeId("far"), Ear()
    dialler, listener = Links(near, read_moment), Links(far, read_moment)
    pipes = [trio.testing.memory_stream_pair() for _ in Channel]
    for links, peer, end in ((dialler, far, 0), (listener, near, 1)):
        streams = {channel: Pipe(pair[end]) for channel, pair in zip(Channel, pipes, strict=True)}
        serve = partial(
            links.serve, dialled=end == 0, events=ear.sink, close=trio.lowlevel.checkpoint
        )
        nursery.start_soon(serve, peer, streams)
    await trio.sleep(SPARE_FOR_S - 1)
    dialler.prune(set())  # Too young.
    dialler.send_nowait(far, Channel.GENESIS, b"vote")
    await trio.sleep(SPARE_FOR_S - 1)
    dialler.prune(set())  # A vote went over it lately.
    await trio.sleep(1)
    listener.prune(set())  # Not its to end.
    dialler.prune({NodeId("missing")})  # Not before all that are wanted are there.
    dialler.prune({far})
    assert far in dialler
    assert not any(isinstance(event, Disconnected) for event in ear.drain())
    dialler.prune(set())
    ended = {(await ear.until(Disconnected)).reason for _ in range(2)}
    assert ended == {"there are enough others", "the peer needs this link no longer"}
    assert not dialler.lost
    assert not listener.lost
