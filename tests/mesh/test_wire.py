"""Frames: what is written is read, whatever the pieces; what is no frame is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.mesh.wire import (
    FRAME_SIZE_MAX_BYTES,
    BadFrame,
    FrameQueue,
    FrameReader,
    Heartbeat,
    Kind,
    encode_frame,
)


class Pieces:
    """A stream that arrives in given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self, n: int | None = None) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        size = len(piece) if n is None else n
        if piece[size:]:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    async def write(self, data: bytes) -> None:
        raise AssertionError(data)


async def test_frames_come_whole_out_of_any_pieces() -> None:
    bodies = [b"", b"a", bytes(range(256)) * 300]
    data = b"".join(encode_frame(Kind.FRAME, body) for body in bodies)
    for size in (1, 3, 4, 5, 70_000, len(data)):
        reader = FrameReader(Pieces(*[data[n : n + size] for n in range(0, len(data), size)]))
        assert [await reader.next() for _ in bodies] == [(Kind.FRAME, body) for body in bodies]
        with pytest.raises(EOFError):
            await reader.next()


async def test_a_frame_above_256_kib_is_refused_before_it_is_read() -> None:
    header = (FRAME_SIZE_MAX_BYTES + 1).to_bytes(4, "big")
    with pytest.raises(BadFrame, match="262145 bytes"):
        await FrameReader(Pieces(header)).next()


async def test_a_stream_that_ends_inside_a_frame_is_broken() -> None:
    with pytest.raises(BadFrame, match="inside"):
        await FrameReader(Pieces(encode_frame(Kind.FRAME, b"abc")[:-1])).next()


@given(st.integers(1, 65535), st.integers(0, 65535), st.integers(0, 2**32 - 1))
def test_a_heartbeat_survives_the_wire_in_twelve_bytes(number: int, echo: int, held: int) -> None:
    heartbeat = Heartbeat(number=number, echo=echo, held_us=held)
    frame = heartbeat.encode()
    assert len(frame) == 12
    assert Heartbeat.decode(frame[4:]) == heartbeat
    telling = replace(heartbeat, wall_ms=held)
    assert Heartbeat.decode(telling.encode()[4:] + b"of a later version") == telling


def test_a_short_heartbeat_is_refused() -> None:
    with pytest.raises(BadFrame):
        Heartbeat.decode(b"1234567")


def test_a_full_queue_drops_the_oldest_and_keeps_the_newest() -> None:
    queue = FrameQueue(size_max_bytes=10)
    for frame in (b"aaaa", b"bbbb", b"cccc"):
        queue.append(frame)
    assert queue.dropped == 1
    assert queue.take() == b"bbbbcccc"


def test_a_frame_larger_than_the_queue_still_goes_out() -> None:
    queue = FrameQueue(size_max_bytes=10)
    queue.append(b"x" * 20)
    assert queue.take() == b"x" * 20


def test_heartbeats_do_not_wait_behind_bulk_and_share_its_packet() -> None:
    queue = FrameQueue()
    queue.append(b"bulk" * 4)
    queue.append(b"more")
    queue.append_first(b"beat")
    assert queue.take(size_bytes=20) == b"beat" + b"bulk" * 4
    assert queue.take(size_bytes=20) == b"more"
