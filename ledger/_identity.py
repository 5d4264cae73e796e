"""Who wrote something: Ed25519 identities, and the only place where signatures are made or checked.

A node id is the text form of a libp2p peer id (identity multihash of the protobuf-encoded
Ed25519 public key, base58btc; libp2p specs, peer-ids/peer-ids.md), so the mesh, the ledger and the
operator use one name for a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NodeId = NewType("NodeId", str)
"""Text form of a libp2p peer id, such as `12D3KooW…` (52 characters)."""

Instant = NewType("Instant", float)
"""Seconds on this machine's CLOCK_BOOTTIME. Comparable only within one boot."""

REMEMBERED_MAX_BYTES = 512
"""Of signed bytes: an entry's signature covers 54, a vote's about 200. Times 16384 it is 8 MiB."""

_ED25519_PEER_ID_PREFIX = bytes.fromhex("002408011220")


@dataclass(frozen=True, slots=True)
class Moment:
    """The time an event is handled at: `at` decides, `wall_ms` is shown to people.

    Args:
        at: seconds on CLOCK_BOOTTIME; every rule counts on this clock.
        wall_ms: milliseconds since the Unix epoch by a clock that may be wrong by years.
    """

    at: Instant
    wall_ms: int


class Signer:
    """A node's own key. Ed25519 is deterministic (RFC 8032), so signing needs no randomness."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._key = private_key
        self.public_key = private_key.public_key().public_bytes_raw()
        self.node_id = node_id_of(self.public_key)

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of `data`."""
        return self._key.sign(data)


@lru_cache(maxsize=8192)
def node_id_of(public_key: bytes) -> NodeId:
    """Return the node id of a 32-byte Ed25519 public key."""
    assert len(public_key) == 32
    return NodeId(base58.b58encode(_ED25519_PEER_ID_PREFIX + public_key).decode("ascii"))


@lru_cache(maxsize=8192)
def public_key_of(node_id: NodeId) -> bytes:
    """Return the 32-byte public key inside `node_id`.

    Raises:
        ValueError: `node_id` is not the peer id of an Ed25519 key.
    """
    raw = base58.b58decode(node_id)
    if len(raw) != 38 or not raw.startswith(_ED25519_PEER_ID_PREFIX):
        raise ValueError(f"{node_id!r} is not an Ed25519 peer id")
    return raw[6:]


def verify(node_id: NodeId, signature: bytes, data: bytes) -> bool:
    """Whether `signature` is `node_id`'s over `data`. A pure function, so answers are remembered.

    Those about larger `data` than any honest message has are not: they would cost memory only.
    """
    if len(data) > REMEMBERED_MAX_BYTES:
        return _is_signed(node_id, signature, data)
    return _remembered(node_id, signature, data)


def _is_signed(node_id: NodeId, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key_of(node_id)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


_remembered = lru_cache(maxsize=16384)(_is_signed)
