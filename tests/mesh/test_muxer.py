"""The short way through yamux: the same on the wire as libp2p's, fewer turns, and strict."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from meshd.mesh._libp2p import ID, TrioTCPStream, Yamux
from meshd.mesh.muxer import QuietYamux, SocketConnection, SwiftStream
from tests.mesh.stations import private_key

PEER = ID.from_base58("12D3KooWDx8FpMjXtVViGpnRwRCCajfxTPMCmg9XT8DGAfebV9rk")
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class Plain:
    """A "secured" connection without a cipher, so that a test can read and write the frames."""

    def __init__(self, stream: trio.SocketStream, *, initiator: bool) -> None:
        self.is_initiator = initiator
        self._connection = SocketConnection(stream, initiator=initiator)
        self.read = self._connection.read
        self.write = self._connection.write
        self.close = stream.aclose


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.testing.open_stream_to_socket_listener(listener)
        return near, await listener.accept()


@asynccontextmanager
async def running(*muxers: Yamux) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for muxer in muxers:
            nursery.start_soon(muxer.start)
        for muxer in muxers:
            await muxer.event_started.wait()
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def pair(dialer: type[Yamux], listener: type[Yamux]) -> AsyncIterator[tuple[Yamux, Yamux]]:
    near, far = await tcp_pair()
    one = dialer(Plain(near, initiator=True), PEER, is_initiator=True)
    other = listener(Plain(far, initiator=False), PEER, is_initiator=False)
    async with near, far, running(one, other):
        yield one, other


def frame(kind: int, flags: int, stream: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack("!BBHII", 0, kind, flags, stream, length) + body


@asynccontextmanager
async def against_raw_peer() -> AsyncIterator[tuple[QuietYamux, trio.SocketStream]]:
    """A muxer whose other end is the test itself."""
    near, far = await tcp_pair()
    muxer = QuietYamux(Plain(far, initiator=False), PEER, is_initiator=False)
    async with near, far, running(muxer):
        yield muxer, near


async def read_frame(stream: trio.SocketStream) -> tuple[int, int, int, int]:
    held = b""
    with trio.fail_after(5):
        while len(held) < 12:
            held += await stream.receive_some(12 - len(held))
    _, kind, flags, number, length = struct.unpack("!BBHII", held)
    return kind, flags, number, length


@pytest.mark.parametrize("listener", [Yamux, QuietYamux])
@pytest.mark.parametrize("dialer", [Yamux, QuietYamux])
async def test_it_speaks_with_libp2ps_own_and_carries_more_than_a_window(
    dialer: type[Yamux], listener: type[Yamux]
) -> None:
    sent = private_key("x").private_bytes_raw() * 32768  # 1 MiB: four windows.
    async with pair(dialer, listener) as (one, other):
        near = await one.open_stream()
        far = await other.accept_stream()
        got = bytearray()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                write = near.write if dialer is Yamux else SwiftStream(near).write
                read = far.read if listener is Yamux else SwiftStream(far).read
                nursery.start_soon(write, sent)
                while len(got) < len(sent):
                    got += await read(65536)
            assert bytes(got) == sent
            await far.write(b"back")
            assert await near.read(4) == b"back"
            await near.close()
            if listener is QuietYamux:
                assert await SwiftStream(far).read(1) == b""


async def test_a_message_each_way_takes_few_turns_of_the_scheduler() -> None:
    """Libp2p's own takes 20 or more (B16)."""

    class Turns(trio.abc.Instrument):
        taken = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            Turns.taken += task is not None

    taken = {}
    for kind in (Yamux, QuietYamux):
        async with pair(kind, kind) as (one, other):
            near, far = await one.open_stream(), await other.accept_stream()
            if kind is QuietYamux:
                near, far = SwiftStream(near), SwiftStream(far)
            await trio.testing.wait_all_tasks_blocked()
            turns = Turns()
            Turns.taken = 0
            trio.lowlevel.add_instrument(turns)
            for _ in range(50):
                await near.write(b"there")
                assert await far.read(5) == b"there"
                await far.write(b"back")
                assert await near.read(4) == b"back"
            trio.lowlevel.remove_instrument(turns)
            taken[kind] = Turns.taken / 50
    assert taken[QuietYamux] <= taken[Yamux] / 2


async def test_a_ping_is_answered_and_none_is_sent() -> None:
    async with against_raw_peer() as (_, peer):
        await peer.send_all(frame(PING, SYN, 0, 4711))
        assert await read_frame(peer) == (PING, ACK, 0, 4711)


async def test_a_stream_is_opened_acknowledged_and_reset() -> None:
    async with against_raw_peer() as (muxer, peer):
        await peer.send_all(frame(DATA, SYN, 1, 2, b"hi"))
        assert await read_frame(peer) == (WINDOW_UPDATE, ACK, 1, 0)
        stream = SwiftStream(await muxer.accept_stream())
        assert await stream.read(9) == b"hi"
        await peer.send_all(frame(WINDOW_UPDATE, SYN, 1, 0))
        assert await read_frame(peer) == (WINDOW_UPDATE, RST, 1, 0)
        await peer.send_all(frame(WINDOW_UPDATE, RST, 1, 0))
        with trio.fail_after(5), pytest.raises(EOFError):
            await stream.read(1)
        with pytest.raises(EOFError):
            await stream.write(b"x")
        await peer.send_all(frame(DATA, 0, 1, 3, b"old") + frame(PING, SYN, 0, 1))
        assert await read_frame(peer) == (PING, ACK, 0, 1)  # What was for a dead stream is skipped.


@pytest.mark.parametrize(
    "broken",
    [
        frame(DATA, SYN, 1, 256 * 1024 + 1),
        frame(DATA, SYN, 1, 1, b"x") + frame(DATA, 0, 1, 256 * 1024),
        b"\x01" + frame(PING, SYN, 0, 1)[1:],
        frame(9, 0, 0, 0),
        frame(GO_AWAY, 0, 0, 0),
    ],
    ids=["more than a window at once", "more than is left of it", "version", "type", "go away"],
)
async def test_whoever_breaks_the_rules_loses_the_connection(broken: bytes) -> None:
    async with against_raw_peer() as (muxer, peer):
        await peer.send_all(broken)
        with trio.fail_after(5):
            await muxer.event_closed.wait()
            while await peer.receive_some(4096):
                pass
        assert not muxer.is_established


async def test_a_writer_without_credit_waits_for_it_and_ends_with_the_connection() -> None:
    async with against_raw_peer() as (muxer, peer), trio.open_nursery() as nursery:
        await peer.send_all(frame(WINDOW_UPDATE, SYN, 1, 0))
        stream = SwiftStream(await muxer.accept_stream())
        done = trio.Event()

        async def write() -> None:
            await stream.write(bytes(256 * 1024 + 5))
            done.set()
            with pytest.raises(EOFError):
                await stream.write(bytes(256 * 1024))

        nursery.start_soon(write)
        got = 0
        while got < 12 + 256 * 1024 + 5 * 12:  # The acknowledgement; the window in five frames.
            got += len(await peer.receive_some(65536))
        assert not done.is_set()
        await peer.send_all(frame(WINDOW_UPDATE, 0, 1, 10))
        with trio.fail_after(5):
            await done.wait()
        await peer.aclose()


async def test_a_closed_socket_ends_the_reading_at_once() -> None:
    near, far = await tcp_pair()
    connection = SocketConnection(near, initiator=True)
    assert isinstance(connection.stream, TrioTCPStream)
    await far.send_all(b"abcdef")
    assert await connection.read(2) == b"ab"
    assert await connection.read(None) == b"cdef"
    await far.aclose()
    with pytest.raises(Exception, match="closed"):
        await connection.read(2)
    await near.aclose()
    with pytest.raises(Exception, match="closed"):
        await connection.write(b"x")
