"""Bytes from a peer that means harm, or that is a later version."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger import Reject, Store, Transmit, encode_entry
from ledger._limits import FRAME_MAX_BYTES, RECEIVED_BURST_BYTES
from ledger._messages import Bulk, Digests, More, Pull, Push, Root, decode_frame, encode_frame
from tests.ledger.world import entry_of, lone_world, moment, push, signer_of


@given(st.binary(max_size=300))
def test_random_bytes_never_raise(noise: bytes) -> None:
    world, replica, peer = lone_world()
    for frame in (noise, b"\x01" + noise, push(entry_of(2)) + noise):
        for effect in replica.receive(peer, frame, world.now):
            assert isinstance(effect, Reject | Transmit | Store)


frames = st.one_of(
    st.builds(Root, st.binary(min_size=32, max_size=32)),
    st.builds(
        Digests,
        st.binary(min_size=8, max_size=8),
        st.booleans(),
        st.integers(0, 4).flatmap(lambda n: st.binary(min_size=12 * n, max_size=12 * n)),
    ),
    st.builds(
        Pull,
        st.binary(min_size=8, max_size=8),
        st.lists(
            st.tuples(
                st.sampled_from([signer_of(1).public_key, signer_of(2).public_key[:4], b"none"]),
                st.lists(
                    st.tuples(st.text(max_size=5), st.integers(0, 2**64 - 1), st.binary()),
                    max_size=3,
                ).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(
        Bulk,
        st.lists(
            st.one_of(st.binary(max_size=60), st.builds(encode_entry, st.just(entry_of(2)))),
            max_size=3,
        ).map(tuple),
        st.booleans(),
    ),
    st.builds(More),
)


@given(st.lists(st.tuples(frames, st.integers(0, 20)), max_size=12))
def test_no_conversation_of_wellformed_frames_raises(talk: list[tuple[Root | More, int]]) -> None:
    world, replica, peer = lone_world()
    world.write(0, "facts", b"v")
    at = world.at
    for message, wait in talk:
        at += wait
        replica.receive(peer, encode_frame(message), moment(at))
        replica.tick(moment(at))
        assert replica.deadline > at


def test_a_frame_too_large_or_of_another_version_is_the_senders_fault() -> None:
    world, replica, peer = lone_world()
    root = encode_frame(Root(bytes(32)))
    for frame in (b"\x01" * (FRAME_MAX_BYTES + 1), b"\x02" + root[1:], b"", root[:-1]):
        (effect,) = replica.receive(peer, frame, world.now)
        assert isinstance(effect, Reject)
    assert replica.rejected == {peer: 4}


def test_a_later_version_may_append_fields() -> None:
    world, replica, peer = lone_world()
    root = encode_frame(Root(bytes(32)))
    assert root[1:3] == b"\x92\x01"  # An array of two; the first names the message.
    longer = b"\x01\x93" + root[2:] + b"\xc3"
    assert decode_frame(longer) == Root(bytes(32))
    (effect,) = replica.receive(peer, longer, world.now)
    assert isinstance(effect, Transmit)


def test_a_flooding_peer_is_rejected_until_it_slows_down() -> None:
    world, replica, peer = lone_world()
    frame = encode_frame(Push((bytes(200 * 1024),)))
    frames_max = int(RECEIVED_BURST_BYTES // len(frame))
    reasons = []
    for _ in range(frames_max + 1):
        (effect,) = replica.receive(peer, frame, world.now)
        assert isinstance(effect, Reject)
        reasons.append(effect.reason)
    assert ["per second" in reason for reason in reasons] == [False] * frames_max + [True]
    later = moment(world.at + 1.0)
    (effect,) = replica.receive(peer, frame, later)
    assert isinstance(effect, Reject)
    assert "per second" not in effect.reason
