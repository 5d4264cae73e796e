"""The decision log as one node knows it: what is decided, what may follow, who contradicts himself.

Invariant: a decision enters only with its proof, and is durable before anyone is told.
"""

from __future__ import annotations

import math

from ledger import Instant, NodeId
from roles._journal import Memory, row_of_decision, row_of_doubt, row_of_proof
from roles._messages import Authentic, BadMessage, hash_of
from roles._records import (
    Claim,
    Decision,
    Started,
    contradiction,
    decode_value,
    read_record,
)
from roles._state import SLOTS, Effect, Publish, Record, SendTo, Slot
from roles._types import Bounds, ClusterPlan
from roles._witness import Witness

PUBLISH_AFTER_S = 3.0
"""A decision that the ledger does not show after this time is put there by whoever knows it."""

GENERATION = 1
"""Later generations begin with a decided ABANDON."""


class DecisionLog:
    """Decisions, and when they are due for the ledger."""

    def __init__(
        self, me: NodeId, memory: Memory, *, network_id: str, bounds: Bounds, now: Instant
    ) -> None:
        self._me = me
        self._memory = memory
        self._network_id = network_id
        self._bounds = bounds
        self._witness = Witness()
        self._publish_at = {slot: Instant(now + PUBLISH_AFTER_S) for slot in memory.decided}
        self.conflicts: dict[Slot, Decision] = {}

    @property
    def plan(self) -> ClusterPlan | None:
        """The plan that CLAIM decided."""
        decision = self._memory.decided.get("claim")
        if decision is None:
            return None
        assert isinstance(decision.value, Claim)
        return decision.value.plan

    @property
    def open_slot(self) -> Slot | None:
        """The slot to be decided next, or None if the log is closed."""
        return next((slot for slot in SLOTS if slot not in self._memory.decided), None)

    @property
    def may_initialise(self) -> bool:
        """Whether this node may run `cluster-init`: STARTED is decided for it, DONE is not."""
        decided = self._memory.decided
        if "claim" not in decided or "started" not in decided or "done" in decided:
            return False
        intended = self._memory.intent == hash_of(decided["claim"].raw_value)
        return intended and decided["started"].value == Started(self._me)

    @property
    def publish_due(self) -> Instant:
        """When `publish` has something to do; infinite if never."""
        return min(self._publish_at.values(), default=Instant(math.inf))

    def read(self, record: bytes) -> Decision:
        """Verify a record of this log.

        Raises:
            BadMessage: what is wrong with it.
        """
        decision = read_record(record, network_id=self._network_id, quorum=self._bounds.quorum)
        if decision.generation != GENERATION:
            raise BadMessage(f"a decision of generation {decision.generation}")
        return decision

    def learn(self, decision: Decision, publish_at: Instant) -> list[Effect]:
        """Keep a verified decision; notice one that contradicts another, or a vote forgotten."""
        effects = [effect for vote in decision.votes for effect in self.watch(vote)]
        effects += self._look_for_forgotten_vote(decision)
        known = self._memory.decided.get(decision.slot)
        if known is not None:
            if known.raw_value != decision.raw_value:
                self.conflicts.setdefault(decision.slot, decision)
            return effects
        self._memory.decided[decision.slot] = decision
        self._publish_at[decision.slot] = publish_at
        return [*effects, Record((row_of_decision(decision),))]

    def watch(self, vote: Authentic) -> list[Effect]:
        """Keep the proof if this message contradicts an earlier one of the same signer."""
        proof = self._witness.see(vote)
        if proof is None or proof.culprit in self._memory.proofs:
            return []
        self._memory.proofs[proof.culprit] = proof
        return [Record((row_of_proof(proof),))]

    def doubt(self, reason: str) -> list[Effect]:
        """Stop voting, in later lives too: something this node did is not in its journal."""
        if self._memory.doubt is not None:
            return []
        self._memory.doubt = reason
        return [Record((row_of_doubt(reason),))]

    def check_value(self, raw: bytes, slot: Slot) -> None:
        """Refuse a value that cannot stand in this slot of this log.

        Raises:
            BadMessage: why it cannot.
        """
        value = decode_value(raw, slot, GENERATION)
        if isinstance(value, Claim) and len(value.plan.seats) != self._bounds.control_plane:
            raise BadMessage(f"a plan with {len(value.plan.seats)} seats")
        flaw = contradiction(value, self.plan)
        if flaw is not None:
            raise BadMessage(flaw)

    def tell(self, node: NodeId, slot: Slot) -> list[Effect]:
        """Send what is decided in `slot`, if it is known."""
        decision = self._memory.decided.get(slot)
        return [SendTo(node, decision.record)] if decision is not None else []

    def publish(self, now: Instant) -> list[Effect]:
        """Put decisions into the ledger that it was not seen to hold in time."""
        due = [slot for slot in SLOTS if self._publish_at.get(slot, math.inf) <= now]
        for slot in due:
            self._publish_at[slot] = Instant(math.inf)
        decided = self._memory.decided
        return [Publish(decided[slot].key, decided[slot].record) for slot in due]

    def is_published(self, decision: Decision) -> None:
        """Take note that the ledger holds this decision."""
        known = self._memory.decided[decision.slot]
        if known.raw_value == decision.raw_value:
            self._publish_at[decision.slot] = Instant(math.inf)

    def _look_for_forgotten_vote(self, decision: Decision) -> list[Effect]:
        """Stop voting if a decision holds a vote of this node that its journal does not know.

        A promise of that ballot is no trace of the vote: it may be all that an old copy holds.
        """
        vote = self._memory.accepted.get(decision.slot)
        known = vote is not None and vote.message.ballot >= decision.ballot
        if known or self._me not in decision.signers:
            return []
        return self.doubt(
            f"this node voted for slot {decision.slot}, and its journal does not know it: "
            "an old copy of the disk was put back"
        )
