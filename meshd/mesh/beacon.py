"""What a LAN beacon says, sealed: only nodes that hold the token can read or write one.

No I/O here. To an outsider a beacon is a magic number and noise; two networks on one LAN do not
meet. A replayed beacon costs its readers one failed dial.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ledger import NodeId, public_key_of
from meshd.config.multiaddress import TcpAddress, parse_tcp_address
from meshd.mesh.keys import NetworkKeys

MAGIC = b"msh\x01"
NONCE_SIZE = 12
DATAGRAM_MAX_BYTES = 1200  # Below every link's MTU, so never fragmented.
ADDRESSES_MAX = 12


class Beacon(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One node says where it is. Fields are only ever added, at the end."""

    node: str
    port: int  # TCP; for addresses that the reader sees for itself.
    addresses: tuple[str, ...]  # Multiaddrs without /p2p.
    answer: bool = False  # Whether it answers another beacon; answers are not answered.
    seeking: bool = False  # Whether it is linked to nobody yet, so that everyone should answer.


_decoder = msgspec.msgpack.Decoder(Beacon)


def seal(beacon: Beacon, keys: NetworkKeys) -> bytes:
    """Return the datagram: magic, nonce, ciphertext (ChaCha20-Poly1305, RFC 8439)."""
    nonce = secrets.token_bytes(NONCE_SIZE)
    text = msgspec.msgpack.encode(beacon)
    while len(text) > DATAGRAM_MAX_BYTES - 32:
        beacon = msgspec.structs.replace(beacon, addresses=beacon.addresses[:-1])
        text = msgspec.msgpack.encode(beacon)
    return MAGIC + nonce + ChaCha20Poly1305(keys.beacon).encrypt(nonce, text, MAGIC)


def unseal(datagram: bytes, epochs: Sequence[NetworkKeys]) -> Beacon | None:
    """Return what a datagram says, or None if it is not of this network."""
    if not datagram.startswith(MAGIC):
        return None
    nonce, sealed = datagram[4 : 4 + NONCE_SIZE], datagram[4 + NONCE_SIZE :]
    for keys in epochs:
        try:
            text = ChaCha20Poly1305(keys.beacon).decrypt(nonce, sealed, MAGIC)
            beacon = _decoder.decode(text)
            public_key_of(NodeId(beacon.node))
        except (InvalidTag, ValueError, msgspec.DecodeError):
            continue
        return beacon
    return None


def places_in(beacon: Beacon, source: str) -> list[TcpAddress]:
    """Return where to dial the node of `beacon`, which came from IP address `source`.

    The source comes last: on a LAN it is usually among those named, but where all addresses are
    link-local it is the only one that works.
    """
    kind = "ip6" if ":" in source else "ip4"
    places = {}
    for text in (*beacon.addresses[:ADDRESSES_MAX], f"/{kind}/{source}/tcp/{beacon.port}"):
        try:
            address = parse_tcp_address(text)
        except ValueError:
            continue  # Of a kind that this version does not know.
        places[(address.kind, address.host, address.port)] = address
    return list(places.values())
