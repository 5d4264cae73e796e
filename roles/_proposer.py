"""The proposer of the decision log: phases 1 and 2 of one ballot at a time (Lamport 2001, 2.2).

Invariants: a ballot number is durable before it is used and never used twice; a value that any
promiser accepted is kept; this node votes for its own proposal, durably, before it asks others.
Lost messages are repaired by asking those again who did not answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from random import Random

from ledger import Instant, NodeId, Signer
from roles._acceptor import Acceptor
from roles._attempt import Attempt
from roles._journal import Memory, row_of
from roles._messages import (
    ROUND_MAX,
    Accept,
    Accepted,
    Authentic,
    Ballot,
    Intent,
    LogMessage,
    Nack,
    Prepare,
    Promise,
    hash_of,
    seal,
    write_record,
)
from roles._state import Effect, Record, SendTo, Slot
from roles._types import Bounds, Limits

RESEND_AFTER_S = 1.0
"""Guess: several round trips of any path that can carry etcd; doubled up to the next figure."""

RESEND_AFTER_MAX_S = 5.0

YIELD_S = 2.0
"""How long another's ballot is left alone: two resends of a proposer that is alive."""

BACK_OFF_MAX_S = 8.0


class Proposer:
    """At most one ballot at a time, for the slot it was told to propose in."""

    def __init__(
        self,
        signer: Signer,
        *,
        network_id: str,
        bounds: Bounds,
        generation: int,
        acceptor: Acceptor,
        memory: Memory,
        own_value: Callable[[Slot, Instant], bytes | None],
        permits: Callable[[Slot, bytes, Instant], bool],
        rng: Random,
        now: Instant,
    ) -> None:
        self._signer = signer
        self._network_id = network_id
        self._bounds = bounds
        self._generation = generation
        self._acceptor = acceptor
        self._memory = memory
        self._own_value = own_value
        self._permits = permits
        self._rng = rng
        self._failures = 0
        self._round_seen = memory.own_round
        self.quorum = bounds.quorum
        self.attempt: Attempt | None = None
        self.not_before = now
        self.voters: tuple[NodeId, ...] = ()

    def count_only(self, voters: tuple[NodeId, ...], quorum: int) -> None:
        """Take a new electorate; answers of those who no longer count are forgotten.

        A ballot under way has the quorum that it signed, so one that is too small ends with it.
        """
        self.voters = voters
        if quorum != self.quorum:
            self.quorum = quorum
            self.attempt = None
        if self.attempt is not None:
            for answers in (self.attempt.promises, self.attempt.votes):
                for node in [node for node in answers if node not in voters]:
                    del answers[node]

    def begin(self, slot: Slot, now: Instant) -> list[Effect]:
        """Open a new ballot, higher than any seen, and promise it to itself first."""
        floor = self._memory.floor(slot)
        seen = max(self._round_seen, self._memory.own_round, floor.round if floor else 0)
        if seen >= ROUND_MAX:
            self.not_before = Instant(math.inf)  # Only a malicious member's ballots lead here.
            return []
        ballot = Ballot(seen + 1, self._signer.node_id)
        ask = self._seal(self._prepare(slot, ballot))
        self._memory.own_round = ballot.round
        assert isinstance(ask.message, Prepare)
        answer = self._acceptor.prepare(ask.message)
        assert not answer.refused
        self.attempt = Attempt(
            slot=slot,
            ballot=ballot,
            ask=ask,
            resend_at=Instant(now + RESEND_AFTER_S),
            resend_after_s=RESEND_AFTER_S,
        )
        self.attempt.promises[self._signer.node_id] = answer.reply
        return [Record((row_of(ask), *answer.rows)), *self._to_others(ask.frame)]

    def intend(self, claim: Ballot, claim_hash: bytes) -> list[Effect]:
        """Keep on disk that this node means to start the claim, before it proposes STARTED."""
        if self._memory.intent == claim_hash:
            return []
        self._memory.intent = claim_hash
        intent = Intent(
            network_id=self._network_id,
            limits=self._limits,
            generation=self._generation,
            slot="started",
            ballot=claim,
            sender=self._signer.node_id,
            value_hash=claim_hash,
        )
        return [Record((row_of(self._seal(intent)),))]

    def promised(self, promise: Promise, sealed: Authentic, now: Instant) -> list[Effect]:
        """Count a promise; with a quorum of them, go on to phase 2."""
        attempt = self._matching(promise)
        if attempt is None or not attempt.preparing or promise.sender not in self.voters:
            return []
        attempt.promises[promise.sender] = sealed
        return self.proceed(now)

    def proceed(self, now: Instant) -> list[Effect]:
        """Enter phase 2 if a quorum promised: adopt what may be chosen, else take the own value.

        A ballot that would have to keep a value that this node may not vote for stays open.
        """
        attempt = self.attempt
        if attempt is None or not attempt.preparing or len(attempt.promises) < self.quorum:
            return []
        kept = attempt.value_to_adopt()
        if kept is not None and not self._permits(attempt.slot, kept, now):
            # Not to be voted for, or not yet. P2c asks for q promises of this ballot, whichever: if
            # q hold nothing of the kind, it was never chosen; until then more may come.
            attempt_left = attempt.without(lambda v: not self._permits(attempt.slot, v, now))
            if len(attempt_left.promises) < self.quorum:
                return []
            kept = attempt_left.value_to_adopt()
        value = kept or self._own_value(attempt.slot, now)
        if value is None or not self._permits(attempt.slot, value, now):
            self.attempt = None  # Nothing to propose any more, or nothing to vote for itself yet.
            self.not_before = Instant(now + RESEND_AFTER_S)
            return []
        ask = self._seal(self._accept(attempt.slot, attempt.ballot, value), value)
        assert isinstance(ask.message, Accept)
        answer = self._acceptor.accept(ask.message, value)
        if answer.refused:
            self.give_way(attempt.ballot, now)
            return []
        attempt.ask = ask
        attempt.resend_after_s = RESEND_AFTER_S
        attempt.resend_at = Instant(now + RESEND_AFTER_S)
        attempt.votes[self._signer.node_id] = answer.reply
        return [Record(answer.rows), *self._to_others(ask.frame)]

    def voted(self, vote: Accepted, sealed: Authentic) -> None:
        """Count a vote for this ballot's value."""
        attempt = self._matching(vote)
        if attempt is None or attempt.preparing or vote.sender not in self.voters:
            return
        asked = attempt.ask.message
        assert isinstance(asked, Accept)
        if vote.value_hash == asked.value_hash:
            attempt.votes[vote.sender] = sealed

    def refused(self, nack: Nack, now: Instant) -> None:
        """Give the ballot up if a higher one stands in its way; try again a random time later."""
        attempt = self._matching(nack)
        if attempt is None or nack.promised is None or nack.promised <= attempt.ballot:
            return
        self.saw(nack.promised)
        self._failures += 1
        self.attempt = None
        pause = min(self._rng.uniform(0.2, 1.0) * 2**self._failures, BACK_OFF_MAX_S)
        self.not_before = Instant(max(self.not_before, now + pause))

    def give_way(self, ballot: Ballot, now: Instant) -> None:
        """Leave the slot to the proposer of `ballot` for a while; it was heard just now."""
        self.saw(ballot)
        attempt = self.attempt
        if attempt is not None and ballot < attempt.ballot:
            return
        self.attempt = None
        self.not_before = Instant(now + YIELD_S + self._rng.random())

    def saw(self, ballot: Ballot) -> None:
        """Remember the round, so that the next own ballot is above it."""
        self._round_seen = max(self._round_seen, ballot.round)

    def take_record(self) -> bytes | None:
        """Return the record of the decision if a quorum voted, and end the attempt."""
        attempt = self.attempt
        if attempt is None or attempt.preparing or len(attempt.votes) < self.quorum:
            return None
        self.stop()
        return write_record(attempt.ask.value, attempt.votes.values())

    def stop(self) -> None:
        """Drop the attempt: its slot is decided, or this node must not vote."""
        self.attempt = None
        self._failures = 0

    def resend(self, now: Instant) -> list[Effect]:
        """Ask those again who did not answer, if it is time, or go on if it is allowed by now."""
        attempt = self.attempt
        if attempt is None or now < attempt.resend_at:
            return []
        if attempt.preparing:
            effects = self.proceed(now)
            if self.attempt is None or not attempt.preparing:
                return effects
        attempt.resend_after_s = min(attempt.resend_after_s * 2, RESEND_AFTER_MAX_S)
        attempt.resend_at = Instant(now + attempt.resend_after_s)
        return self._to_others(attempt.ask.frame, but=attempt.answered)

    def hasten(self, now: Instant) -> None:
        """Ask again at once: someone new is here."""
        if self.attempt is not None:
            self.attempt.resend_at = now
            self.attempt.resend_after_s = RESEND_AFTER_S / 2

    def _matching(self, message: LogMessage) -> Attempt | None:
        attempt = self.attempt
        if attempt is None or (attempt.slot, attempt.ballot) != (message.slot, message.ballot):
            return None
        # Only a refusal may name another quorum than the ballot's own.
        alike = isinstance(message, Nack) or message.limits == attempt.ask.message.limits
        return attempt if alike else None

    @property
    def _limits(self) -> Limits:
        return self._bounds.signed_with(self.quorum)

    def _to_others(self, frame: bytes, but: Iterable[NodeId] = ()) -> list[Effect]:
        spared = {self._signer.node_id, *but}
        return [SendTo(voter, frame) for voter in self.voters if voter not in spared]

    def _seal(self, message: LogMessage, value: bytes = b"") -> Authentic:
        return seal(message, self._signer, value)

    def _prepare(self, slot: Slot, ballot: Ballot) -> Prepare:
        return Prepare(
            network_id=self._network_id,
            limits=self._limits,
            generation=self._generation,
            slot=slot,
            ballot=ballot,
            sender=self._signer.node_id,
        )

    def _accept(self, slot: Slot, ballot: Ballot, value: bytes) -> Accept:
        return Accept(
            network_id=self._network_id,
            limits=self._limits,
            generation=self._generation,
            slot=slot,
            ballot=ballot,
            sender=self._signer.node_id,
            value_hash=hash_of(value),
        )
