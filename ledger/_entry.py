"""The signed statement that replicas exchange, merge and keep.

An `Entry` in memory is always authentic: only `sign_entry`, which makes the signature, and
`decode_entry`, which checks it, ever make one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from ledger._identity import NodeId, Signer, node_id_of, public_key_of, verify

VALUE_MAX_BYTES = 64 * 1024
KEY_MAX_BYTES = 128
ENTRY_MAX_BYTES = VALUE_MAX_BYTES + 1024  # The fields beside the value take under 400 bytes.

_DOMAIN = b"meshd ledger entry v1\x00"  # A signature made here is valid nowhere else.
_INTEGER_MAX = 2**63 - 1

_Body = tuple[str, bytes, str, int, int, bytes | None]
_Fields = tuple[str, bytes, str, int, int, bytes | None, bytes]
_decoder = msgspec.msgpack.Decoder(_Fields)
_encoder = msgspec.msgpack.Encoder()


class BadEntry(ValueError):
    """The bytes are not an authentic entry of this network; whoever sent them is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What `author` last said under `key`: one state of a register that has a single writer.

    Args:
        network: id of the network that the entry belongs to.
        author: the only node that can write this register.
        key: 1 to 128 printable ASCII characters, such as `node/<id>/facts`.
        seq: from 1 up; orders a register's entries.
        stamp_ms: the author's wall clock, for people; nothing decides by it.
        value: at most 64 KiB; None is a tombstone.
        signature: the author's Ed25519 signature, 64 bytes.
        digest: SHA-256 of everything but the signature, in its encoded form.
    """

    network: str
    author: NodeId
    key: str
    seq: int
    stamp_ms: int
    value: bytes | None
    signature: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def supersedes(self, other: Entry | None) -> bool:
        """Whether a replica that holds `other` in this register should hold this one instead.

        The greatest (seq, digest) wins, a join as in Shapiro et al. 2011 (INRIA RR-7506, §3.2):
        replicas agree even about an author that signed two values with one `seq`.
        """
        if other is None:
            return True
        assert (self.author, self.key) == (other.author, other.key)
        return (self.seq, self.digest) > (other.seq, other.digest)

    def contradicts(self, other: Entry | None) -> bool:
        """Whether the two prove that their author signed different things with one `seq`."""
        return other is not None and self.seq == other.seq and self.digest != other.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """Well-formed bytes that claim to be an entry; the signature was not looked at yet."""

    network: str
    author: NodeId
    key: str
    seq: int
    stamp_ms: int
    value: bytes | None
    signature: bytes
    digest: bytes

    def authenticate(self) -> Entry:
        """Check the signature.

        Raises:
            BadEntry: the author did not sign this.
        """
        if not verify(self.author, self.signature, _DOMAIN + self.digest):
            raise BadEntry(f"{self.key}: the signature is not the author's")
        return Entry(
            network=self.network,
            author=self.author,
            key=self.key,
            seq=self.seq,
            stamp_ms=self.stamp_ms,
            value=self.value,
            signature=self.signature,
            digest=self.digest,
        )


def sign_entry(
    signer: Signer, *, network: str, key: str, seq: int, stamp_ms: int, value: bytes | None
) -> Entry:
    """Make an entry by `signer`; a clock before 1970 is written as 1970.

    Raises:
        ValueError: the key or the value is outside its limits.
    """
    assert 1 <= seq <= _INTEGER_MAX
    _check_key(key)
    if value is not None and len(value) > VALUE_MAX_BYTES:
        raise ValueError(f"{key}: a value of {len(value)} bytes, the limit is {VALUE_MAX_BYTES}")
    stamp_ms = min(max(stamp_ms, 0), _INTEGER_MAX)
    digest = _digest_of((network, signer.public_key, key, seq, stamp_ms, value))
    return Entry(
        network=network,
        author=signer.node_id,
        key=key,
        seq=seq,
        stamp_ms=stamp_ms,
        value=value,
        signature=signer.sign(_DOMAIN + digest),
        digest=digest,
    )


def encode_entry(entry: Entry) -> bytes:
    """Return the form for wire and disk, a msgpack array; `decode_entry` is its inverse."""
    fields: _Fields = (
        entry.network,
        public_key_of(entry.author),
        entry.key,
        entry.seq,
        entry.stamp_ms,
        entry.value,
        entry.signature,
    )
    return _encoder.encode(fields)


def decode_entry(data: bytes, network: str) -> Entry:
    """Return the authentic entry that `data` encodes.

    Raises:
        BadEntry: too large, malformed, not canonical, of another network, or not signed by its
            author.
    """
    return parse_entry(data, network).authenticate()


def parse_entry(data: bytes, network: str) -> Unverified:
    """Return what `data` claims to be; everything is checked except the signature.

    Raises:
        BadEntry: too large, malformed, not canonical, or of another network.
    """
    if len(data) > ENTRY_MAX_BYTES:
        raise BadEntry(f"{len(data)} bytes, the limit is {ENTRY_MAX_BYTES}")
    try:
        fields = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadEntry(f"malformed: {error}") from error
    theirs, author, key, seq, stamp_ms, value, signature = fields
    if theirs != network:
        raise BadEntry(f"of network {theirs[:40]!r}")
    if len(author) != 32 or len(signature) != 64:
        raise BadEntry("key or signature of the wrong length")
    if not (1 <= seq <= _INTEGER_MAX and 0 <= stamp_ms <= _INTEGER_MAX):
        raise BadEntry("number out of range")
    if value is not None and len(value) > VALUE_MAX_BYTES:
        raise BadEntry(f"a value of {len(value)} bytes, the limit is {VALUE_MAX_BYTES}")
    try:
        _check_key(key)
    except ValueError as error:
        raise BadEntry(str(error)) from error
    if _encoder.encode(fields) != data:
        raise BadEntry("not in canonical form")
    return Unverified(
        network=network,
        author=node_id_of(author),
        key=key,
        seq=seq,
        stamp_ms=stamp_ms,
        value=value,
        signature=signature,
        digest=_digest_of((theirs, author, key, seq, stamp_ms, value)),
    )


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= KEY_MAX_BYTES:
        raise ValueError(f"a key of {len(key)} characters, allowed are 1 to {KEY_MAX_BYTES}")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"a key with other than printable ASCII characters: {key!r}")


def _digest_of(body: _Body) -> bytes:
    return sha256(_encoder.encode(body)).digest()
