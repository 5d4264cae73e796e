"""The decision log as one node knows it: what is decided, what may follow, who contradicts himself.

Invariant: a decision enters only with its proof, and is durable before anyone is told. A formed
generation is never left for another: what says otherwise is kept as a conflict, and shown.
"""

from __future__ import annotations

import math

from ledger import Instant, NodeId
from roles._journal import (
    Journal,
    Memory,
    ballot_of,
    row_of_decision,
    row_of_doubt,
    row_of_proof,
)
from roles._messages import Authentic, BadMessage, Contradiction, hash_of
from roles._records import (
    Claim,
    Decision,
    Done,
    Place,
    Started,
    Void,
    contradiction,
    decode_value,
    read_record,
)
from roles._state import SLOTS, Effect, Publish, Record, SendTo, Slot
from roles._types import Bounds, ClusterPlan
from roles._witness import Proof, Witness

PUBLISH_AFTER_S = 3.0
"""A decision that the ledger does not show after this time is put there by whoever knows it."""


class DecisionLog:
    """Decisions of all generations, and when they are due for the ledger."""

    def __init__(
        self, me: NodeId, journal: Journal, *, network_id: str, bounds: Bounds, now: Instant
    ) -> None:
        self._me = me
        self._journal = journal
        self._network_id = network_id
        self._bounds = bounds
        self._witness = Witness()
        self._publish_at: dict[Place, Instant] = {
            decision.place: Instant(now + PUBLISH_AFTER_S)
            for memory in journal.memories.values()
            for decision in memory.decided.values()
        }
        self.memory: Memory = journal.current
        self.conflicts: dict[Place, Decision] = {}
        self.voters: tuple[NodeId, ...] = ()  # Who is shown proofs of equivocation.

    @property
    def generation(self) -> int:
        """The generation that is under way, or that formed."""
        return self.memory.generation

    @property
    def plan(self) -> ClusterPlan | None:
        """The plan that CLAIM decided in the current generation."""
        return self.memory.plan

    @property
    def plans(self) -> tuple[ClusterPlan, ...]:
        """The plans of all generations that are known, the oldest first."""
        memories = self._journal.memories
        found = (memories[generation].plan for generation in sorted(memories))
        return tuple(plan for plan in found if plan is not None)

    @property
    def spent(self) -> frozenset[str]:
        """The CA hashes of abandoned plans: others may hold the secrets that belong to them.

        Those of the current plan are not among them, whatever the plans before it had.
        """
        spent = {plan.ca_hash for plan in self.plans if plan.generation < self.generation}
        return frozenset(spent - {self.plan.ca_hash} if self.plan is not None else spent)

    @property
    def open_slot(self) -> Slot | None:
        """The slot to be decided next, or None if the log is closed."""
        return self.memory.open_slot

    def decides(self, slot: Slot) -> bool:
        """Whether the slot is decided in the current generation; what contradicts it is not."""
        return slot in self.memory.decided

    @property
    def claim_hash(self) -> bytes | None:
        """The hash of the current CLAIM's value."""
        claim = self.memory.decided.get("claim")
        return hash_of(claim.raw_value) if claim is not None else None

    @property
    def may_initialise(self) -> bool:
        """Whether STARTED is decided for this node, which meant it and did not give up since."""
        memory = self.memory
        if not memory.started or memory.formed or memory.gave_up is not None or memory.voided:
            return False
        named = memory.decided["started"].value == Started(self._me)
        return named and memory.intent is not None and memory.intent == self.claim_hash

    @property
    def void(self) -> Void | None:
        """What would end this node's plan together with a rival plan of the current generation.

        Only in an open network, where neither is known to have formed, and both have a lease:
        nothing would end the k3s of one without.
        """
        found = self.conflicts.get((self.generation, "claim"))
        if not self._bounds.is_open or found is None or (self.generation, "done") in self.conflicts:
            return None
        assert isinstance(found.value, Claim)
        plan, other = self.plan, found.value.plan
        leased = plan is not None and plan.leased and other.leased and not self.memory.formed
        if plan is None or not leased:
            return None
        return Void(tuple(sorted((plan.cluster_id, other.cluster_id))))

    @property
    def publish_due(self) -> Instant:
        """When `publish` has something to do; infinite if never."""
        return min(self._publish_at.values(), default=Instant(math.inf))

    def read(self, record: bytes) -> Decision:
        """Verify a record of this log.

        Raises:
            BadMessage: what is wrong with it.
        """
        return read_record(record, network_id=self._network_id, quorum=self._bounds.quorum)

    def learn(self, decision: Decision, publish_at: Instant) -> list[Effect]:
        """Keep a verified decision; notice one that contradicts another, or a vote forgotten.

        A decision of a later generation proves that all before it were abandoned, and is followed.
        """
        effects = [effect for vote in decision.votes for effect in self.watch(vote)]
        effects += self._look_for_forgotten_vote(decision)
        if not self._is_of_this_log(decision):
            return effects
        known = self._journal.of(decision.generation).decided.get(decision.slot)
        if known is not None:
            if known.raw_value != decision.raw_value:
                self._conflicting(decision)
            return effects
        if self._cannot_be(decision):
            self._conflicting(decision)
            return effects
        self._journal.of(decision.generation).decided[decision.slot] = decision
        self._journal.quorum = max(self._journal.quorum, decision.quorum)
        self._publish_at[decision.place] = publish_at
        if isinstance(decision.value, Void):
            self._settle_conflicts(decision.generation)
        self.memory = self._journal.current
        return [*effects, Record((row_of_decision(decision),))]

    def _conflicting(self, decision: Decision) -> None:
        """Keep what contradicts the log; where all plans were ended together only DONE does."""
        over = self._journal.of(decision.generation).abandonment
        settled = over is not None and isinstance(over.value, Void)
        if not settled or isinstance(decision.value, Done):
            self.conflicts.setdefault(decision.place, decision)

    def _settle_conflicts(self, generation: int) -> None:
        before, self.conflicts = self.conflicts, {}
        for place in sorted(before):
            if place[0] == generation:
                self._conflicting(before[place])
            else:
                self.conflicts[place] = before[place]

    def _is_of_this_log(self, decision: Decision) -> bool:
        """Whether those who decided it have the bounds of this log.

        Nodes with other bounds have a log of their own under the same token. Its rules of voting
        are not these, so who voted in one never follows the other; who did not follows the first
        that it hears of, and votes in none but its own.
        """
        journal = self._journal
        ours = journal.followed or journal.limits
        if not ours and journal.has_voted:
            ours = {self._bounds.limits}
        return not ours or decision.limits in ours

    def _cannot_be(self, decision: Decision) -> bool:
        """Whether this and what is known cannot both come of one log."""
        forms = isinstance(decision.value, Done)
        if decision.generation > self.generation:
            return self.memory.formed
        if decision.generation < self.generation:
            return forms
        return (decision.abandons and self.memory.formed) or self._is_of_another_claim(decision)

    def _is_of_another_claim(self, decision: Decision) -> bool:
        """Whether CLAIM and what follows it, one of which this is, belong to two clusters."""
        memory = self._journal.of(decision.generation)
        value = decision.value
        plan = value.plan if isinstance(value, Claim) else memory.plan
        both = [*memory.decided.values(), decision]
        later = [one for one in both if not isinstance(one.value, Claim)]
        return plan is not None and any(contradiction(d.value, plan, d.slot) for d in later)

    def watch(self, vote: Authentic) -> list[Effect]:
        """Keep the proof if this message contradicts an earlier one of the same signer."""
        proof = self._witness.see(vote)
        return self.convict(proof) if proof is not None else []

    def convict(self, proof: Proof) -> list[Effect]:
        """Keep a proof of equivocation that is new, and show it to all voters."""
        if proof.culprit in self._journal.proofs:
            return []
        self._journal.proofs[proof.culprit] = proof
        others = [voter for voter in self.voters if voter != self._me]
        shown: list[Effect] = [SendTo(voter, proof.frame) for voter in others]
        return [Record((row_of_proof(proof),)), *shown]

    def doubt(self, reason: str) -> list[Effect]:
        """Stop voting, in later lives too: something this node did is not in its journal."""
        if self._journal.doubt is not None:
            return []
        self._journal.doubt = reason
        return [Record((row_of_doubt(reason),))]

    def check_value(self, raw: bytes, slot: Slot) -> None:
        """Refuse a value that cannot stand in this slot of the current generation.

        Raises:
            BadMessage: why it cannot.
        """
        value = decode_value(raw, slot, self.generation)
        if isinstance(value, Claim) and len(value.plan.seats) != self._bounds.control_plane:
            raise BadMessage(f"a plan with {len(value.plan.seats)} seats")
        flaw = contradiction(value, self.plan, slot)
        if flaw is not None:
            raise Contradiction(flaw)

    def tell(self, node: NodeId, generation: int, slot: Slot) -> list[Effect]:
        """Send what was decided in that slot, if it is known."""
        decision = self._journal.of(generation).decided.get(slot)
        return [SendTo(node, decision.record)] if decision is not None else []

    def tell_since(self, node: NodeId, place: Place) -> list[Effect]:
        """Send all that is known from this place of the log on."""
        order = sorted(
            (decision.generation, SLOTS.index(decision.slot), decision.record)
            for generation, memory in self._journal.memories.items()
            if generation >= place[0]
            for decision in memory.decided.values()
        )
        since = (place[0], SLOTS.index(place[1]))
        return [SendTo(node, record) for *at, record in order if tuple(at) >= since]

    def publish(self, now: Instant) -> list[Effect]:
        """Put decisions into the ledger that it was not seen to hold in time."""
        due = sorted(
            (place for place, at in self._publish_at.items() if at <= now),
            key=lambda place: (place[0], SLOTS.index(place[1])),
        )
        effects: list[Effect] = []
        for generation, slot in due:
            self._publish_at[generation, slot] = Instant(math.inf)
            decision = self._journal.of(generation).decided[slot]
            effects.append(Publish(decision.key, decision.record))
        return effects

    def is_published(self, decision: Decision) -> None:
        """Take note that the ledger holds this decision."""
        known = self._journal.of(decision.generation).decided.get(decision.slot)
        if known is not None and known.raw_value == decision.raw_value:
            self._publish_at[decision.place] = Instant(math.inf)

    def _look_for_forgotten_vote(self, decision: Decision) -> list[Effect]:
        """Stop voting if a decision holds a vote of this node that its journal does not know.

        A promise of that ballot is no trace of the vote: it may be all that an old copy holds.
        """
        vote = self._journal.of(decision.generation).accepted.get(decision.slot)
        known = vote is not None and ballot_of(vote) >= decision.ballot
        if known or self._me not in decision.signers:
            return []
        return self.doubt(
            f"this node voted for slot {decision.slot}, and its journal does not know it: "
            "an old copy of the disk was put back"
        )
