"""What voters sign, and its wire form: one array per message, decoded strictly, signature first.

A signature covers domain, network, bounds, generation, slot, ballot, type and the value's hash, so
it means one thing only: no vote can be replayed in another network, among nodes with other bounds,
or for another value. The names are Lamport's (Paxos Made Simple, 2001, section 2.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from ledger import NodeId, Signer, verify
from roles._state import Slot
from roles._types import Limits

FRAME_MAX_BYTES = 60 * 1024
"""A decision takes 265 bytes for each vote; it must fit into a ledger entry (64 KiB)."""

VOTES_MAX = 200
"""The largest quorum whose decision fits into a frame: a network of 399 voters."""

NETWORK_ID_MAX = 64  # A word and eight digits; the limit keeps signed bodies small.

_DOMAIN = b"meshd/genesis/v1\x00"

ROUND_MAX = 2**48

Round = Annotated[int, msgspec.Meta(ge=1, le=ROUND_MAX)]
Generation = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Node = Annotated[NodeId, msgspec.Meta(max_length=64)]  # Decoding base58 is quadratic.
Nonce = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
SignedLimits = Annotated[Limits, msgspec.Meta(min_length=3, max_length=4)]
"""nodes_max, quorum, control plane; in an open network then how many votes decide: this ballot, or,
in what is said of a lease, in the sender's view."""


class BadMessage(ValueError):
    """Bytes that are not an authentic message of this network; always their sender's fault."""


class Contradiction(BadMessage):
    """A value that belongs to another CLAIM than the one decided here."""


class Ballot(msgspec.Struct, frozen=True, array_like=True, order=True, forbid_unknown_fields=True):
    """A ballot number. Its proposer is part of it, so two nodes never share one."""

    round: Round
    node: Node


class _Signed(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True
):
    """What every signed message says."""

    network_id: Annotated[str, msgspec.Meta(max_length=NETWORK_ID_MAX)]
    limits: SignedLimits
    generation: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    slot: Slot
    ballot: Ballot
    sender: Node


class Prepare(_Signed, frozen=True, kw_only=True, tag="prepare"):
    """Phase 1a: the sender asks to lead `ballot`."""


class Promise(_Signed, frozen=True, kw_only=True, tag="promise"):
    """Phase 1b: nothing below `ballot` will be accepted, and `accepted` is the highest so far."""

    accepted: tuple[Ballot, Hash] | None


class Accept(_Signed, frozen=True, kw_only=True, tag="accept"):
    """Phase 2a: the proposer of `ballot` asks for this value."""

    value_hash: Hash


class Accepted(_Signed, frozen=True, kw_only=True, tag="accepted"):
    """Phase 2b, the vote itself: q of these decide a slot."""

    value_hash: Hash


class Nack(_Signed, frozen=True, kw_only=True, tag="nack"):
    """`ballot` is refused: a higher one is promised, or an earlier slot is still open here."""

    promised: Ballot | None
    open_slot: Slot
    open_generation: Generation = 0  # Of `open_slot`; 0: the same as that of the ballot.


class Intent(_Signed, frozen=True, kw_only=True, tag="intent"):
    """In the initialiser's own journal only: it is about to propose STARTED of this claim."""

    value_hash: Hash  # Of the CLAIM's value.


class _OfLease(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True
):
    """What every message about the forming lease of one claim's initialiser says."""

    network_id: Annotated[str, msgspec.Meta(max_length=NETWORK_ID_MAX)]
    limits: SignedLimits
    generation: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    initialiser: Node
    claim: Hash  # Of the CLAIM's value.
    sender: Node
    nonce: Nonce


class Renew(_OfLease, frozen=True, kw_only=True, tag="renew"):
    """The initialiser asks a voter to let its k3s run on."""


class Renewed(_OfLease, frozen=True, kw_only=True, tag="renewed"):
    """The voter does: it neither accepted ABANDON nor will for a while. `nonce` is the asker's."""


class Ask(_OfLease, frozen=True, kw_only=True, tag="ask"):
    """A plan member asks its initialiser for its share of the lease."""


class Lease(_OfLease, frozen=True, kw_only=True, tag="lease"):
    """What is left of the initialiser's own lease; 0: it gave up, and k3s is to be stopped."""

    remaining_ms: Annotated[int, msgspec.Meta(ge=0, le=120_000)]


class Down(_OfLease, frozen=True, kw_only=True, tag="down"):
    """A member's k3s is down, and it will not start it again in this generation."""


class Released(_OfLease, frozen=True, kw_only=True, tag="released"):
    """The initialiser gave up, and no k3s of the plan runs any more: ABANDON need not wait."""


class GaveUp(_OfLease, frozen=True, kw_only=True, tag="gave-up"):
    """In the initialiser's own journal only: it never starts or renews in this generation again."""

    reason: Annotated[str, msgspec.Meta(max_length=512)]


class Life(_OfLease, frozen=True, kw_only=True, tag="life"):
    """In the initialiser's own journal only: how often it began to renew in this generation."""

    lives: Annotated[int, msgspec.Meta(ge=1)]


LogMessage = Prepare | Promise | Accept | Accepted | Nack | Intent
LeaseMessage = Renew | Renewed | Ask | Lease | Down | Released | GaveUp | Life
Message = LogMessage | LeaseMessage


class Envelope(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="message"
):
    """A signed message, and the value whose hash it signs, if it needs one."""

    body: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    value: bytes = b""


class Record(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="decided"
):
    """DECIDED: a slot's value with the signed votes that decided it. Needs no signature itself."""

    value: bytes
    votes: Annotated[tuple[Envelope, ...], msgspec.Meta(min_length=1, max_length=VOTES_MAX)]


class Proof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="proof"):
    """Two frames of one signer that contradict each other. Needs no signature itself."""

    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class Authentic:
    """A message whose signature was checked, with the value it vouches for."""

    message: Message
    value: bytes
    frame: bytes


_bodies: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_frames: msgspec.msgpack.Decoder[Envelope | Record | Proof] = msgspec.msgpack.Decoder(
    Envelope | Record | Proof
)


def hash_of(value: bytes) -> bytes:
    """Return the SHA-256 that signatures carry in the value's stead."""
    return hashlib.sha256(value).digest()


def seal(message: Message, signer: Signer, value: bytes = b"") -> Authentic:
    """Sign a message and return it with its frame.

    Args:
        message: names the signer as its sender.
        signer: this node's key.
        value: what the message's value hash stands for.
    """
    assert message.sender == signer.node_id
    body = msgspec.msgpack.encode(message)
    envelope = Envelope(body, signer.sign(_DOMAIN + body), value)
    return Authentic(message, value, msgspec.msgpack.encode(envelope))


def read_frame(frame: bytes) -> Authentic | Record | Proof:
    """Decode a frame; a message is checked with its value, a record or a proof not yet.

    Raises:
        BadMessage: not a frame of this protocol, or not authentic.
    """
    if len(frame) > FRAME_MAX_BYTES:
        raise BadMessage(f"{len(frame)} bytes, at most {FRAME_MAX_BYTES}")
    try:
        found = _frames.decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadMessage("not a genesis frame") from error
    return open_envelope(found, frame) if isinstance(found, Envelope) else found


def open_envelope(envelope: Envelope, frame: bytes) -> Authentic:
    """Check the signature of an envelope, and that its value is the one signed.

    Raises:
        BadMessage: as `read_frame`.
    """
    try:
        message = _bodies.decode(envelope.body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadMessage("not a genesis message") from error
    if not verify(message.sender, envelope.signature, _DOMAIN + envelope.body):
        raise BadMessage(f"not signed by {message.sender[-8:]}")
    if envelope.value and hash_of(envelope.value) != _vouched(message):
        raise BadMessage("the value is not the one that was signed")
    return Authentic(message, envelope.value, frame)


def without_value(sealed: Authentic) -> Authentic:
    """Return the same signed message, smaller, for those who know the value."""
    envelope = msgspec.msgpack.decode(sealed.frame, type=Envelope)
    bare = Envelope(envelope.body, envelope.signature)
    return Authentic(sealed.message, b"", msgspec.msgpack.encode(bare))


def write_record(value: bytes, votes: Iterable[Authentic]) -> bytes:
    """Return the frame of a decision: the value and its votes, sorted by voter."""
    ordered = sorted(votes, key=lambda vote: vote.message.sender)
    envelopes = tuple(
        msgspec.msgpack.decode(without_value(vote).frame, type=Envelope) for vote in ordered
    )
    return msgspec.msgpack.encode(Record(value, envelopes))


def _vouched(message: Message) -> bytes | None:
    """Return the hash that the message signs, or None."""
    match message:
        case Accept() | Accepted() | Intent():
            return message.value_hash
        case Promise():
            return message.accepted[1] if message.accepted is not None else None
        case _:
            return None
