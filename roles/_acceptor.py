"""The acceptor of the decision log: Lamport's rules P1a and P2a's guard, one voter's whole duty.

Invariant: an answer is returned together with the rows that must be durable before it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ledger import Signer
from roles._journal import Memory, Row, ballot_of, row_of
from roles._messages import (
    Accept,
    Accepted,
    Authentic,
    Ballot,
    Nack,
    Prepare,
    Promise,
    hash_of,
    seal,
    without_value,
)
from roles._state import Effect, Record, Slot
from roles._types import Limits


@dataclass(frozen=True, slots=True)
class Answer:
    """What to write, then what to say."""

    rows: tuple[Row, ...]
    reply: Authentic

    @property
    def durable(self) -> list[Effect]:
        """What is to be performed before the reply is sent."""
        return [Record(self.rows)] if self.rows else []

    @property
    def refused(self) -> bool:
        """Whether the reply is a Nack."""
        return isinstance(self.reply.message, Nack)


class Acceptor:
    """Answers for one node, from its memory only. The caller decides whether it may vote at all."""

    def __init__(self, signer: Signer, memory: Memory) -> None:
        self._signer = signer
        self._memory = memory

    def prepare(self, ask: Prepare) -> Answer:
        """Promise to accept nothing below the ballot, unless a higher one is promised already."""
        memory = self._memory
        floor = memory.floor(ask.slot)
        if floor is not None and ask.ballot < floor:
            return self.refuse(ask, promised=floor, open_slot=ask.slot)
        vote = memory.accepted.get(ask.slot)
        accepted: tuple[Ballot, bytes] | None = None
        if vote is not None:
            accepted = (ballot_of(vote), hash_of(vote.value))
        promise = seal(
            Promise(
                network_id=ask.network_id,
                limits=ask.limits,
                generation=ask.generation,
                slot=ask.slot,
                ballot=ask.ballot,
                sender=self._signer.node_id,
                accepted=accepted,
            ),
            self._signer,
            vote.value if vote is not None else b"",
        )
        is_new = memory.promised.get(ask.slot) != ask.ballot
        memory.promised[ask.slot] = ask.ballot
        return Answer((row_of(promise),) if is_new else (), promise)

    def accept(self, ask: Accept, value: bytes) -> Answer:
        """Vote for the value, unless a higher ballot is promised.

        The caller has seen to it that the ask does not contradict an earlier one.
        """
        memory = self._memory
        floor = memory.floor(ask.slot)
        if floor is not None and ask.ballot < floor:
            return self.refuse(ask, promised=floor, open_slot=ask.slot)
        earlier = memory.accepted.get(ask.slot)
        if earlier is not None and ballot_of(earlier) == ask.ballot:
            assert earlier.value == value
            return Answer((), without_value(earlier))
        vote = seal(
            Accepted(
                network_id=ask.network_id,
                limits=ask.limits,
                generation=ask.generation,
                slot=ask.slot,
                ballot=ask.ballot,
                sender=self._signer.node_id,
                value_hash=ask.value_hash,
            ),
            self._signer,
            value,
        )
        memory.accepted[ask.slot] = vote
        return Answer((row_of(vote),), without_value(vote))

    def contradicts(self, ask: Accept) -> bool:
        """Whether this ballot was accepted here with another value."""
        vote = self._memory.accepted.get(ask.slot)
        if vote is None or ballot_of(vote) != ask.ballot:
            return False
        return hash_of(vote.value) != ask.value_hash

    def refuse(
        self,
        ask: Prepare | Accept,
        *,
        promised: Ballot | None,
        open_slot: Slot,
        open_generation: int = 0,
    ) -> Answer:
        """Say no, and why: a higher promise, or an earlier slot that is still open here."""
        nack = Nack(
            network_id=ask.network_id,
            limits=ask.limits,
            generation=ask.generation,
            slot=ask.slot,
            ballot=ask.ballot,
            sender=self._signer.node_id,
            promised=promised,
            open_slot=open_slot,
            open_generation=open_generation,
        )
        return Answer((), seal(nack, self._signer))

    def ask_more(self, ask: Prepare | Accept, limits: Limits) -> Answer:
        """Say no: `limits` name the quorum that the voters known here ask for."""
        other = msgspec.structs.replace(ask, limits=limits)
        return self.refuse(other, promised=None, open_slot=ask.slot)
