"""What knowledge of the token lets a node prove, and what it lets it read.

Every key is derived from the token's secret by HKDF-SHA256 (RFC 5869) with a label of its own, so
none says anything about another. Several epochs can be held at once while a token is rotated: the
first is used, the others are accepted.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger import NodeId
from meshd.config.schema import Network

NONCE_SIZE = 16
PROOF_SIZE = 32

Side = Literal["dialer", "listener"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkKeys:
    """The keys of one epoch of a token; never shown."""

    proof: bytes  # 32 bytes; who holds it belongs to the network.
    beacon: bytes  # 32 bytes; reads and writes LAN beacons.

    def __repr__(self) -> str:
        return "NetworkKeys(hidden)"


def derive_keys(network: Network) -> NetworkKeys:
    """Return the keys that the token of `network` stands for."""
    return NetworkKeys(
        proof=_derive(network.secret, "meshd net v1"),
        beacon=_derive(network.secret, "meshd beacon v1"),
    )


def _derive(secret: bytes, label: str) -> bytes:
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=label.encode())
    return key.derive(secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """One connection, as both of its ends know it: what a proof is bound to.

    The peer ids are those that Noise authenticated, so a proof made for one connection is worthless
    on any other, and cannot be relayed.
    """

    dialer: NodeId
    listener: NodeId
    dialer_nonce: bytes
    listener_nonce: bytes

    def proof(self, keys: NetworkKeys, side: Side) -> bytes:
        """Return the 32 bytes by which `side` shows that it holds `keys`."""
        fields = (
            b"meshd token proof v1",
            side.encode(),
            self.dialer.encode(),
            self.listener.encode(),
            self.dialer_nonce,
            self.listener_nonce,
        )
        text = b"".join(len(field).to_bytes(2, "big") + field for field in fields)
        return hmac.digest(keys.proof, text, "sha256")

    def proven_by(
        self, epochs: Sequence[NetworkKeys], side: Side, proof: bytes
    ) -> NetworkKeys | None:
        """Return which of `epochs` `side` proved to hold, or None."""
        for keys in epochs:
            if hmac.compare_digest(self.proof(keys, side), proof):
                return keys
        return None
