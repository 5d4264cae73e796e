"""Proofs of the token are good for one connection, one side and one token."""

from __future__ import annotations

from dataclasses import replace

from ledger import NodeId
from meshd.mesh.keys import Meeting, derive_keys
from tests.mesh.stations import network_of

KEYS = derive_keys(network_of(b"a" * 32))
OTHERS = derive_keys(network_of(b"b" * 32))
MEETING = Meeting(
    dialer=NodeId("12D3KooWdialer"),
    listener=NodeId("12D3KooWlistener"),
    dialer_nonce=b"1" * 16,
    listener_nonce=b"2" * 16,
)


def test_a_proof_convinces_who_holds_the_key_now_or_during_rotation() -> None:
    proof = MEETING.proof(KEYS, "dialer")
    assert MEETING.proven_by([KEYS], "dialer", proof) is KEYS
    assert MEETING.proven_by([OTHERS, KEYS], "dialer", proof) is KEYS
    assert MEETING.proven_by([OTHERS], "dialer", proof) is None


def test_a_proof_is_worthless_for_the_other_side_and_on_any_other_connection() -> None:
    proof = MEETING.proof(KEYS, "dialer")
    assert MEETING.proven_by([KEYS], "listener", proof) is None
    for other in (
        replace(MEETING, dialer=NodeId("12D3KooWmallory")),
        replace(MEETING, listener=NodeId("12D3KooWmallory")),
        replace(MEETING, dialer_nonce=b"3" * 16),
        replace(MEETING, listener_nonce=b"3" * 16),
        replace(MEETING, dialer=MEETING.listener, listener=MEETING.dialer),
    ):
        assert other.proven_by([KEYS], "dialer", proof) is None


def test_keys_for_proofs_and_beacons_differ_and_are_never_shown() -> None:
    assert len({KEYS.proof, KEYS.beacon, OTHERS.proof, OTHERS.beacon}) == 4
    assert KEYS.proof.hex() not in repr(KEYS)
    assert repr(KEYS) == "NetworkKeys(hidden)"
