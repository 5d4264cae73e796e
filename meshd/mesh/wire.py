"""Frames on a stream: a kind and a length, then at most 256 KiB. No I/O and no libp2p here.

A heartbeat is 12 bytes, seldom 20, and fits into any packet; whatever else waits is written with
it, so an idle link costs one packet each way and second.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from meshd.events import Channel

FRAME_SIZE_MAX_BYTES = 256 * 1024
_HEADER = struct.Struct(">I")  # Kind in the first byte, length in the other three.
_HEARTBEAT = struct.Struct(">HHI")
_WALL = struct.Struct(">Q")

TOKEN_PROTOCOL = "/meshd/token/1"  # noqa: S105  (a protocol name, not a secret)
CONTROL_PROTOCOL = "/meshd/control/1"
GENESIS_PROTOCOL = "/meshd/genesis/1"


class Kind(IntEnum):
    """What a frame carries. A kind that a version does not know is skipped."""

    HEARTBEAT = 0
    FRAME = 1
    FAREWELL = 2


CHANNEL_OF_PROTOCOL = {CONTROL_PROTOCOL: Channel.LEDGER, GENESIS_PROTOCOL: Channel.GENESIS}


class ByteStream(Protocol):
    """A reliable, ordered, two-way flow of bytes; libp2p's NetStream is one."""

    async def read(self, n: int | None = None) -> bytes:
        """Return 1 to `n` bytes."""

    async def write(self, data: bytes) -> None:
        """Return when all of `data` is on its way."""


class BadFrame(Exception):
    """The peer sent something that is no frame; the connection is of no further use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A sign of life that also measures: it says which one of the peer's it answers, and how late.

    The scheme is that of RTCP's LSR and DLSR fields (RFC 3550, section 6.4.1): the round trip is
    the time from sending number n to the arrival of its echo, less the time the peer held it.
    """

    number: int  # Modulo 2^16, from 1; 0 is never sent.
    echo: int  # The number of the peer's newest heartbeat; 0 if none arrived yet.
    held_us: int  # How long ago that one arrived.
    wall_ms: int | None = None  # The sender's wall clock, in those that tell it.

    def encode(self) -> bytes:
        """Return the frame."""
        body = _HEARTBEAT.pack(self.number, self.echo, min(self.held_us, 2**32 - 1))
        wall = b"" if self.wall_ms is None else _WALL.pack(max(0, self.wall_ms))
        return encode_frame(Kind.HEARTBEAT, body + wall)

    @classmethod
    def decode(cls, body: bytes) -> Heartbeat:
        """Return what a frame's body says; longer ones of later versions are understood.

        Raises:
            BadFrame: it is too short.
        """
        if len(body) < _HEARTBEAT.size:
            raise BadFrame("heartbeat too short")
        number, echo, held_us = _HEARTBEAT.unpack_from(body)
        told = len(body) >= _HEARTBEAT.size + _WALL.size
        wall_ms = _WALL.unpack_from(body, _HEARTBEAT.size)[0] if told else None
        return cls(number=number, echo=echo, held_us=held_us, wall_ms=wall_ms)


def encode_frame(kind: Kind, body: bytes) -> bytes:
    """Return `body` with its kind and length in front."""
    assert len(body) <= FRAME_SIZE_MAX_BYTES
    return _HEADER.pack(kind << 24 | len(body)) + body


class FrameReader:
    """Cuts a stream into frames."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._held = bytearray()

    async def next(self) -> tuple[int, bytes]:
        """Return the next frame's kind (a number, perhaps unknown) and body.

        Raises:
            BadFrame: it announces more than 256 KiB, or the stream ended inside it.
            EOFError: the stream ended before it.
        """
        await self._fill(_HEADER.size)
        (word,) = _HEADER.unpack_from(self._held)
        kind, length = word >> 24, word & 0xFFFFFF
        if length > FRAME_SIZE_MAX_BYTES:
            raise BadFrame(f"a frame of {length} bytes")
        await self._fill(_HEADER.size + length)
        body = bytes(self._held[_HEADER.size : _HEADER.size + length])
        del self._held[: _HEADER.size + length]
        return kind, body

    async def _fill(self, size: int) -> None:
        while len(self._held) < size:
            more = await self._stream.read(65536)
            if not more:
                if self._held:
                    raise BadFrame("the stream ended inside a frame")
                raise EOFError
            self._held += more


class FrameQueue:
    """What waits to be written to a stream; bounded, and the oldest frame makes room.

    Args:
        size_max_bytes: how much may wait.
    """

    def __init__(self, size_max_bytes: int = 4 * 1024 * 1024) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._size_max = size_max_bytes
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, frame: bytes) -> None:
        """Queue an encoded frame behind the others."""
        self._waiting.append(frame)
        self._size += len(frame)
        while self._size > self._size_max and len(self._waiting) > 1:
            self._size -= len(self._waiting.popleft())
            self.dropped += 1

    def append_first(self, frame: bytes) -> None:
        """Queue an encoded frame before the others: heartbeats do not wait behind bulk."""
        self._waiting.appendleft(frame)
        self._size += len(frame)

    def take(self, size_bytes: int = 64 * 1024) -> bytes:
        """Return as many whole frames as fit into `size_bytes`, and one in any case."""
        taken = [self._waiting.popleft()]
        size = len(taken[0])
        while self._waiting and size + len(self._waiting[0]) <= size_bytes:
            taken.append(self._waiting.popleft())
            size += len(taken[-1])
        self._size -= size
        return b"".join(taken)
