"""Proof that a node signed two values for one ballot: two messages, checkable by anyone.

An honest node never does: an acceptor's vote and a proposer's value are fixed per ballot. So it is
a faulty one, or one whose key is in use on two machines.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from ledger import NodeId
from roles._messages import (
    Accept,
    Accepted,
    Authentic,
    BadMessage,
    Ballot,
    read_frame,
    without_value,
)
from roles._messages import Proof as ProofFrame
from roles._state import Slot

REMEMBERED_MAX = 1024
"""Votes kept for comparison; a whole genesis of 7 voters has some dozens."""

_Subject = tuple[str, int, Slot, Ballot, NodeId]


@dataclass(frozen=True, slots=True)
class Proof:
    """Two messages of one node that contradict each other."""

    culprit: NodeId
    first: bytes  # Frames.
    second: bytes

    @property
    def frame(self) -> bytes:
        """What others are told; `prove` checks it."""
        return msgspec.msgpack.encode(ProofFrame(self.first, self.second))

    def encode(self) -> bytes:
        """Return the bytes `read_proof` takes."""
        return msgspec.msgpack.encode((self.first, self.second))


class Witness:
    """Remembers who signed what, to notice the second value."""

    def __init__(self) -> None:
        self._seen: OrderedDict[_Subject, Authentic] = OrderedDict()

    def see(self, vote: Authentic) -> Proof | None:
        """Compare a vote with those seen before; return the proof if its signer contradicts one."""
        subject = _subject_of(vote)
        earlier = self._seen.setdefault(subject, vote)
        if len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)
        return _proof_of(earlier, vote)


def read_proof(data: bytes, *, network_id: str) -> Proof:
    """Decode and check a proof.

    Raises:
        BadMessage: it proves nothing, or not in this network.
    """
    try:
        frames = msgspec.msgpack.decode(data, type=tuple[bytes, bytes])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadMessage("not a proof") from error
    return prove(*frames, network_id=network_id)


def prove(one: bytes, other: bytes, *, network_id: str) -> Proof:
    """Check that two frames prove that their signer contradicts itself.

    Raises:
        BadMessage: they do not, or not in this network.
    """
    first, second = read_frame(one), read_frame(other)
    if not isinstance(first, Authentic) or not isinstance(second, Authentic):
        raise BadMessage("not a proof")
    if _subject_of(first) != _subject_of(second) or first.message.network_id != network_id:
        raise BadMessage("a proof about two different things")
    proof = _proof_of(first, second)
    if proof is None:
        raise BadMessage("a proof that proves nothing")
    return proof


def _subject_of(vote: Authentic) -> _Subject:
    message = vote.message
    if not isinstance(message, Accept | Accepted):
        raise BadMessage("a message that fixes no value")
    return (
        type(message).__name__,
        message.generation,
        message.slot,
        message.ballot,
        message.sender,
    )


def _proof_of(first: Authentic, second: Authentic) -> Proof | None:
    one, two = first.message, second.message
    if not isinstance(one, Accept | Accepted) or not isinstance(two, Accept | Accepted):
        return None
    if one.value_hash == two.value_hash:
        return None
    return Proof(one.sender, without_value(first).frame, without_value(second).frame)
