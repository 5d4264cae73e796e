"""What every frame goes through, made short: the socket, yamux' frames, and a stream's two ends.

py-libp2p takes a lock at each of its layers and reads a frame in three pieces; a heartbeat that
came and one that went cost 18 task switches (B16). The classes here take the places of its own
and speak the same on the wire. Noise stays libp2p's. A frame that breaks yamux' rules ends the
connection: https://github.com/hashicorp/yamux/blob/master/spec.md
"""

from __future__ import annotations

import struct

import trio

from meshd.mesh._libp2p import (
    DEFAULT_WINDOW_SIZE,
    LOGGER,
    ConnectionClosedError,
    RawConnection,
    TrioTCPStream,
    Yamux,
    YamuxStream,
)

READ_BYTES = 64 * 1024
PAYLOAD_MAX_BYTES = 60 * 1024  # With both headers it fits into one Noise message of 65 519 bytes.
CREDIT_TIMEOUT_S = 5.0

_HEADER = struct.Struct("!BBHII")  # Version, type, flags, stream, length.
_DATA, _WINDOW_UPDATE, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8


class BrokenRule(Exception):
    """The other end sent what yamux does not allow; the connection is of no further use."""


class SocketConnection(RawConnection):
    """A TCP connection that is read in large pieces and handed on in small ones.

    It has one reader and one writer at a time, so no locks.
    """

    def __init__(self, stream: trio.SocketStream, *, initiator: bool) -> None:
        super().__init__(TrioTCPStream(stream), initiator=initiator)
        self._socket = stream
        self._held = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        """Return 1 to `n` bytes.

        Raises:
            ConnectionClosedError: there are no more.
        """
        held = self._held
        if not held:
            try:
                held += await self._socket.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionClosedError(str(error), transport="tcp") from error
        if not held:
            raise ConnectionClosedError("the other end closed the connection", transport="tcp")
        if n is None or n >= len(held):
            self._held = bytearray()
            return bytes(held)
        taken = bytes(held[:n])
        del held[:n]
        return taken

    async def write(self, data: bytes) -> None:
        """Return when all of `data` is on its way.

        Raises:
            ConnectionClosedError: the connection is closed.
        """
        try:
            await self._socket.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(str(error), transport="tcp") from error


class QuietYamux(Yamux):
    """Yamux without pings of its own (heartbeats measure round trips), and with its hot path short.

    Opening, closing and keeping of streams is libp2p's. Its `streams_lock` is not taken here:
    whoever holds it changes the streams between two waits, as is done here.
    """

    _credit: trio.lowlevel.ParkingLot | None = None

    @property
    def credit(self) -> trio.lowlevel.ParkingLot:
        """Where writers wait for the other end to take more."""
        if self._credit is None:
            self._credit = trio.lowlevel.ParkingLot()
        return self._credit

    async def _measure_rtt_loop(self) -> None:
        return

    async def _write_frame(self, data: bytes) -> None:
        """Write a whole frame, one after the other."""
        try:
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            await self.secured_conn.write(data)
        finally:
            self._write_lock.release()

    async def handle_incoming(self) -> None:
        """Take frames until the connection ends."""
        held = bytearray()
        try:
            while not self.event_shutting_down.is_set():
                held += await self.secured_conn.read()
                await self._take_frames(held)
        except Exception as error:  # noqa: BLE001
            # libp2p's, noise's and cryptography's own classes; all mean that it is over.
            LOGGER.debug("connection to %s ended: %r", self.peer_id, error)
        await self._cleanup_on_error()
        self.credit.unpark_all()

    async def _take_frames(self, held: bytearray) -> None:
        while len(held) >= _HEADER.size:
            version, kind, flags, number, length = _HEADER.unpack_from(held)
            if version != 0 or kind > _GO_AWAY:
                raise BrokenRule(f"frame of version {version} and type {kind}")
            end = _HEADER.size
            if kind == _DATA:
                stream = self.streams.get(number)
                window = DEFAULT_WINDOW_SIZE if stream is None else stream.recv_window
                if length > window:
                    raise BrokenRule(f"{length} bytes for a window of {window}")
                end += length
            if len(held) < end:
                return
            body = bytes(held[_HEADER.size : end])
            del held[:end]
            if kind == _GO_AWAY:
                raise BrokenRule("it goes away")
            if kind == _PING:
                if flags & _SYN:
                    await self._write_frame(_HEADER.pack(0, _PING, _ACK, 0, length))
            else:
                await self._take_stream_frame(flags, number, body, 0 if kind == _DATA else length)

    async def _take_stream_frame(self, flags: int, number: int, body: bytes, credit: int) -> None:
        is_new = bool(flags & _SYN)
        if is_new and number in self.streams:
            await self._write_frame(_HEADER.pack(0, _WINDOW_UPDATE, _RST, number, 0))
            return
        if is_new:
            self.streams[number] = YamuxStream(number, self, is_initiator=False)
            self.stream_buffers[number] = bytearray()
            self.stream_events[number] = trio.Event()
        stream = self.streams.get(number)
        if stream is None:
            return  # It was closed here, which the other end does not know yet.
        self._apply(stream, flags, body, credit)
        if is_new:
            if not flags & _RST:
                await self._write_frame(_HEADER.pack(0, _WINDOW_UPDATE, _ACK, number, 0))
            await self.new_stream_send_channel.send(stream)

    def _apply(self, stream: YamuxStream, flags: int, body: bytes, credit: int) -> None:
        """Change a stream as a frame says, and wake whom that concerns."""
        ends = flags & (_FIN | _RST)
        if body:
            self.stream_buffers[stream.stream_id] += body
            stream.recv_window -= len(body)
        stream.send_window += credit
        if flags & _FIN:
            stream.recv_closed = True
            stream.closed = stream.send_closed
        if flags & _RST:
            stream.closed = stream.reset_received = True
        if body or ends:
            self.stream_events[stream.stream_id].set()
        if credit or ends:
            self.credit.unpark_all()
        if stream.closed:
            self._finalize_stream_locked(stream, fully_closed=True)


async def give_credit(stream: YamuxStream, *, bytes_read: int = 0) -> None:
    """Give credit back once half a window was read, as yamux's specification has it."""
    stream._pending_recv_release += bytes_read  # noqa: SLF001
    pending = stream._pending_recv_release  # noqa: SLF001
    if pending >= DEFAULT_WINDOW_SIZE // 2:
        stream._pending_recv_release = 0  # noqa: SLF001
        stream.recv_window += pending
        await stream.send_window_update(pending)


class SwiftStream:
    """A stream of a `QuietYamux`; `wire.ByteStream` with one reader and one writer at a time."""

    def __init__(self, stream: YamuxStream) -> None:
        assert isinstance(stream.conn, QuietYamux)
        self._stream = stream
        self._conn = stream.conn

    async def read(self, n: int | None = None) -> bytes:
        """Return 1 to `n` bytes, or none at the end.

        Raises:
            EOFError: the stream was reset, or the connection ended.
        """
        stream, number = self._stream, self._stream.stream_id
        while not (buffer := self._conn.stream_buffers.get(number)):
            if buffer is None or stream.closed:
                raise EOFError
            if stream.recv_closed:
                return b""
            if self._conn.stream_events[number].is_set():
                self._conn.stream_events[number] = trio.Event()
            await self._conn.stream_events[number].wait()
        data = bytes(buffer[:n])
        del buffer[:n]
        await give_credit(stream, bytes_read=len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Return when all of `data` is on its way.

        Raises:
            EOFError: the stream or the connection is closed.
            TooSlowError: the other end took nothing for 5 s.
        """
        stream = self._stream
        while data:
            if stream.closed or stream.send_closed:
                raise EOFError
            size = min(len(data), stream.send_window, PAYLOAD_MAX_BYTES)
            if size == 0:
                with trio.fail_after(CREDIT_TIMEOUT_S):
                    await self._conn.credit.park()
                continue
            stream.send_window -= size
            header = _HEADER.pack(0, _DATA, 0, stream.stream_id, size)
            await self._conn._write_frame(header + data[:size])  # noqa: SLF001
            data = data[size:]
