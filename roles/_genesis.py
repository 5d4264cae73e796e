"""Genesis: one node's part in the decision log that starts exactly one cluster (docs/genesis.md).

The log's slots, CLAIM, STARTED and DONE, are decided in order, each by Paxos among the voters.
Invariant: whatever this node must not forget is in a `Record` before the `SendTo` that reveals it,
so a crash between any two effects loses nothing that anyone relies on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from random import Random
from typing import Literal, assert_never

from ledger import Instant, NodeId, Signer
from roles._acceptor import Acceptor, Answer
from roles._electorate import Electorate, electorate
from roles._journal import read_journal, row_of, row_of_decision, row_of_proof
from roles._messages import (
    Accept,
    Accepted,
    Authentic,
    BadMessage,
    Intent,
    Nack,
    Prepare,
    Promise,
    hash_of,
    limits_of,
    read_frame,
    seal,
)
from roles._messages import Record as DecidedFrame
from roles._nomination import Nomination
from roles._proposer import Proposer
from roles._records import (
    Claim,
    Decision,
    Done,
    Started,
    contradiction,
    decode_value,
    done_voters_min,
    encode_value,
    read_record,
    slots_before,
)
from roles._state import (
    SLOTS,
    Effect,
    GenesisState,
    Publish,
    Record,
    Reject,
    SendTo,
    Slot,
)
from roles._types import Bounds, Candidate, ClusterPlan
from roles._witness import Witness
from roles._wording import View, describe

PUBLISH_AFTER_S = 3.0
"""A decision that the ledger does not show after this time is put there by whoever knows it."""

DONE_TURN_S = 3.0
"""Each further seat leaves DONE this much longer to the seats before it."""

GENERATION = 1
"""Later generations begin with a decided ABANDON."""


class Genesis:
    """Acceptor, proposer and learner of one node; all effects are to be performed in order.

    Args:
        signer: this node's key.
        network_id: of the token; part of every signature.
        bounds: this node's; voters with other bounds are not counted and not answered.
        may_vote: whether this node's token and role let it vote; otherwise it only learns.
        vip: what a plan of this node says about the virtual address.
        rng: for cluster ids and back-off; must be unpredictable outside simulations.
        now: the time.
        network: how plan members reach one another.
        journal: every row ever recorded by this node, the newest for each key.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        network_id: str,
        bounds: Bounds,
        may_vote: bool,
        vip: str | None,
        rng: Random,
        now: Instant,
        network: Literal["lan", "overlay"] = "lan",
        journal: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        self._signer = signer
        self._me = signer.node_id
        self._network_id = network_id
        self._bounds = bounds
        self._may_vote = may_vote
        self._memory = read_journal(
            journal, me=self._me, network_id=network_id, generation=GENERATION
        )
        self._acceptor = Acceptor(signer, self._memory)
        self._proposer = Proposer(
            signer,
            network_id=network_id,
            limits=limits_of(bounds),
            generation=GENERATION,
            acceptor=self._acceptor,
            memory=self._memory,
            own_value=self._own_value,
            rng=rng,
            now=now,
        )
        self._nomination = Nomination(
            self._me, bounds=bounds, vip=vip, network=network, rng=rng, generation=GENERATION
        )
        self._electorate = Electorate(voters=(), excluded=(), halt=None)
        self._candidates: tuple[Candidate, ...] = ()
        self._present: frozenset[NodeId] = frozenset()
        self._witness = Witness()
        self._publish_at = {slot: Instant(now + PUBLISH_AFTER_S) for slot in self._memory.decided}
        self._evidence: Done | None = None
        self._evidence_at = Instant(math.inf)
        self._joined: tuple[str, ...] = ()
        self._conflicts: dict[Slot, Decision] = {}

    # Inputs.

    def update(
        self, candidates: Sequence[Candidate], present: Collection[NodeId], now: Instant
    ) -> list[Effect]:
        """Take the candidates known (this node too) and the peers connected now."""
        self._candidates = tuple(sorted(candidates, key=lambda c: c.node))
        before = [candidate.node for candidate in self._nomination.here]
        self._recount(present, now)
        if [candidate.node for candidate in self._nomination.here] != before:
            self._proposer.hasten(now)
        return self._advance(now)

    def receive(self, sender: NodeId, frame: bytes, now: Instant) -> list[Effect]:
        """Take one frame of the genesis channel; a broken one is answered with `Reject`."""
        try:
            found = read_frame(frame)
            if isinstance(found, DecidedFrame):
                decision = self._read_record(frame)
                effects = self._learn(decision, now, publish_after_s=PUBLISH_AFTER_S)
            else:
                effects = self._hear(sender, found, now)
        except BadMessage as error:
            return [Reject(sender, str(error))]
        return effects + self._advance(now)

    def learn(self, record: bytes, now: Instant) -> list[Effect]:
        """Take a record of the ledger's `genesis/<generation>/<slot>`; a bad one is ignored."""
        try:
            decision = self._read_record(record)
        except BadMessage:
            return []  # The ledger's policy refuses it, and attributes it to whoever sent it.
        effects = self._learn(decision, now, publish_after_s=math.inf)
        if decision.slot in self._publish_at and decision.slot not in self._conflicts:
            self._publish_at[decision.slot] = Instant(math.inf)
        return effects + self._advance(now)

    def observe(
        self, voters: Sequence[str], kube_system_uid: str | None, now: Instant
    ) -> list[Effect]:
        """Take what k3s on this node says: node names of etcd's voters, uid of kube-system."""
        plan = self._plan
        seats = plan.seats if plan is not None else ()
        self._joined = tuple(s.node_name for s in seats if s.node_name in voters)
        mine = [place for place, seat in enumerate(seats) if seat.node == self._me]
        # The initialiser, or a joined member that sees itself and the initialiser vote.
        witnesses = {seats[0].node_name, seats[mine[0]].node_name} if mine else set[str]()
        enough = bool(mine) and len(self._joined) >= done_voters_min(len(seats))
        if plan is None or not kube_system_uid or not enough or witnesses - set(self._joined):
            self._evidence, self._evidence_at = None, Instant(math.inf)
            return self._advance(now)
        if self._evidence is None:
            self._evidence_at = Instant(now + mine[0] * DONE_TURN_S)
        self._evidence = Done(plan.initialiser, kube_system_uid, tuple(sorted(self._joined)))
        return self._advance(now)

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due."""
        return self._advance(now)

    # Outputs.

    @property
    def deadline(self) -> Instant:
        """When `tick` is due; infinite if nothing is waited for."""
        attempt = self._proposer.attempt
        turn = self._turn() if attempt is None else attempt.resend_at
        times = [*self._publish_at.values(), turn if turn is not None else math.inf]
        return Instant(min(times))

    @property
    def state(self) -> GenesisState:
        """Genesis as this node knows it, with what it waits for."""
        return describe(
            View(
                me=self._me,
                bounds=self._bounds,
                generation=GENERATION,
                may_vote=self._may_vote,
                memory=self._memory,
                attempt=self._proposer.attempt,
                electorate=self._electorate,
                candidates=self._candidates,
                nomination=self._nomination,
                joined=self._joined,
                conflicts=tuple(self._conflicts.values()),
                may_initialise=self._may_initialise,
            )
        )

    # Who votes.

    def _recount(self, present: Collection[NodeId], now: Instant) -> None:
        """Find out anew who votes, this node included."""
        memory = self._memory
        self._electorate = electorate(
            self._candidates,
            me=self._me,
            bounds=self._bounds,
            has_voted=memory.has_voted,
            present=present,
            proven_faulty=frozenset(memory.proofs),
            settings_matter="claim" not in memory.decided,
        )
        self._present = frozenset(present)
        self._proposer.voters = self._electorate.voters
        self._nomination.update(self._candidates, self._electorate.voters, present, now)

    @property
    def _votes(self) -> bool:
        """Whether this node takes part at all."""
        memory = self._memory
        sound = memory.damage is None and memory.limits <= {limits_of(self._bounds)}
        counted = self._electorate.halt is None and self._me in self._electorate.voters
        return self._may_vote and sound and counted

    # Acceptor, and routing.

    def _hear(self, sender: NodeId, sealed: Authentic, now: Instant) -> list[Effect]:
        """Handle one authentic message.

        Raises:
            BadMessage: it is not the sender's, or not of this network.
        """
        message = sealed.message
        if message.sender != sender:
            raise BadMessage(f"a message of {message.sender[-8:]}, not the sender's own")
        if message.network_id != self._network_id:
            raise BadMessage(f"a message of network {message.network_id}")
        if message.limits != limits_of(self._bounds) or message.generation != GENERATION:
            return []  # Nodes with other bounds are named by the electorate; they do no wrong.
        self._proposer.saw(message.ballot)
        if message.slot in self._memory.decided:
            asks = isinstance(message, Prepare | Accept)
            return self._tell(sender, message.slot) if asks else []
        match message:
            case Prepare() | Accept():
                return self._answer(message, sealed, now) if self._votes else []
            case Promise():
                return self._count_promise(message, sealed, now)
            case Accepted():
                effects = self._watch(sealed, now)
                self._proposer.voted(sealed)
                return effects
            case Nack():
                return self._refused(sender, message, now)
            case Intent():
                raise BadMessage("an intent is nobody else's business")
            case _:
                assert_never(message)

    def _answer(self, ask: Prepare | Accept, sealed: Authentic, now: Instant) -> list[Effect]:
        """Give this node's promise, vote or refusal, durable before it is sent."""
        if ask.ballot.node != ask.sender:
            raise BadMessage("a ballot of another proposer")
        missing = [slot for slot in slots_before(ask.slot) if slot not in self._memory.decided]
        if missing:
            answer = self._acceptor.refuse(ask, promised=None, open_slot=missing[0])
            return [SendTo(ask.sender, answer.reply.frame)]
        effects: list[Effect] = []
        if isinstance(ask, Prepare):
            answer = self._acceptor.prepare(ask)
        else:
            self._check_value(sealed.value, ask.slot)
            effects = self._watch(sealed, now)
            if effects or self._contradicts(ask):
                return [*effects, Reject(ask.sender, "two values for one ballot")]
            answer = self._acceptor.accept(ask, sealed.value)
        if not answer.refused:
            self._proposer.give_way(ask.ballot, now)
        return [*effects, *_durable(answer), SendTo(ask.sender, answer.reply.frame)]

    def _count_promise(self, promise: Promise, sealed: Authentic, now: Instant) -> list[Effect]:
        """Pass a promise to the proposer, if it is one that it waits for."""
        attempt = self._proposer.attempt
        if attempt is None or (attempt.slot, attempt.ballot) != (promise.slot, promise.ballot):
            return []
        if promise.accepted is not None:
            self._check_value(sealed.value, promise.slot)
        return self._proposer.promised(sealed, now)

    def _contradicts(self, ask: Accept) -> bool:
        """Whether this ballot was accepted here with another value."""
        vote = self._memory.accepted.get(ask.slot)
        if vote is None or vote.message.ballot != ask.ballot:
            return False
        return hash_of(vote.value) != ask.value_hash

    def _check_value(self, raw: bytes, slot: Slot) -> None:
        """Refuse a value that cannot stand in this slot of this log.

        Raises:
            BadMessage: why it cannot.
        """
        value = decode_value(raw, slot, GENERATION)
        if isinstance(value, Claim) and len(value.plan.seats) != self._bounds.control_plane:
            raise BadMessage(f"a plan with {len(value.plan.seats)} seats")
        flaw = contradiction(value, self._plan)
        if flaw is not None:
            raise BadMessage(flaw)

    def _refused(self, sender: NodeId, nack: Nack, now: Instant) -> list[Effect]:
        """Bring a voter that lags behind up to date, or yield to a higher ballot."""
        if nack.open_slot == nack.slot:
            self._proposer.refused(nack, now)
            return []
        lagging = [
            s for s in slots_before(nack.slot) if SLOTS.index(s) >= SLOTS.index(nack.open_slot)
        ]
        effects = [effect for slot in lagging for effect in self._tell(sender, slot)]
        attempt = self._proposer.attempt
        if attempt is not None and attempt.slot == nack.slot:
            effects.append(SendTo(sender, attempt.ask.frame))
        return effects

    # Learner.

    def _read_record(self, record: bytes) -> Decision:
        decision = read_record(record, network_id=self._network_id, quorum=self._bounds.quorum)
        if decision.generation != GENERATION:
            raise BadMessage(f"a decision of generation {decision.generation}")
        return decision

    def _learn(self, decision: Decision, now: Instant, *, publish_after_s: float) -> list[Effect]:
        """Remember a verified decision, durably; notice one that contradicts another."""
        effects = [e for vote in decision.votes for e in self._watch(vote, now)]
        self._look_for_forgotten_vote(decision)
        known = self._memory.decided.get(decision.slot)
        if known is not None:
            if known.raw_value != decision.raw_value:
                self._conflicts.setdefault(decision.slot, decision)
            return effects
        self._memory.decided[decision.slot] = decision
        self._publish_at[decision.slot] = Instant(now + publish_after_s)
        attempt = self._proposer.attempt
        if attempt is not None and attempt.slot == decision.slot:
            self._proposer.stop()
        self._proposer.not_before = now
        self._recount(self._present, now)
        return [*effects, Record((row_of_decision(decision),))]

    def _look_for_forgotten_vote(self, decision: Decision) -> None:
        """A vote of this node that its journal does not know means the journal is an old copy."""
        if self._me not in decision.signers:
            return
        floor = self._memory.floor(decision.slot)
        if floor is None or floor < decision.ballot:
            self._memory.damage = (
                f"this node voted for slot {decision.slot} and its journal does not know it: "
                "an old copy of the disk was put back"
            )

    def _watch(self, vote: Authentic, now: Instant) -> list[Effect]:
        """Keep the proof if this vote contradicts an earlier one of the same signer."""
        proof = self._witness.see(vote)
        if proof is None or proof.culprit in self._memory.proofs:
            return []
        self._memory.proofs[proof.culprit] = proof
        self._recount(self._present, now)
        return [Record((row_of_proof(proof),))]

    def _tell(self, node: NodeId, slot: Slot) -> list[Effect]:
        decision = self._memory.decided.get(slot)
        return [SendTo(node, decision.record)] if decision is not None else []

    @property
    def _plan(self) -> ClusterPlan | None:
        decision = self._memory.decided.get("claim")
        if decision is None:
            return None
        assert isinstance(decision.value, Claim)
        return decision.value.plan

    # Proposer.

    @property
    def _open_slot(self) -> Slot | None:
        return next((slot for slot in SLOTS if slot not in self._memory.decided), None)

    def _turn(self) -> Instant | None:
        """Return when this node is to open a ballot, or None if it has nothing to propose."""
        if not self._votes or self._proposer.attempt is not None:
            return None
        due: Instant | None
        match self._open_slot:
            case "claim":
                due = self._nomination.turn()
            case "started":
                plan = self._plan
                due = Instant(0.0) if plan and plan.initialiser == self._me else None
            case "done":
                due = self._evidence_at if self._evidence is not None else None
            case None:
                due = None
        return None if due is None else Instant(max(due, self._proposer.not_before))

    def _own_value(self, slot: Slot) -> bytes | None:
        """Return what this node proposes if the quorum leaves it the choice."""
        match slot:
            case "claim":
                plan = self._nomination.draw()
                return encode_value(Claim(plan)) if plan is not None else None
            case "started":
                plan = self._plan
                mine = plan is not None and plan.initialiser == self._me
                return encode_value(Started(self._me)) if mine else None
            case "done":
                return encode_value(self._evidence) if self._evidence is not None else None

    def _advance(self, now: Instant) -> list[Effect]:
        """Do everything that is due; afterwards `deadline` lies in the future."""
        if not self._votes:
            self._proposer.stop()
        effects = self._decide(now)
        while (due := self._turn()) is not None and due <= now:
            slot = self._open_slot
            assert slot is not None
            effects += self._intend(slot)
            effects += self._proposer.begin(slot, now)
            effects += self._proposer.proceed(now)  # A quorum of one is complete already.
            effects += self._decide(now)
        effects += self._proposer.resend(now)
        return effects + self._publish(now)

    def _intend(self, slot: Slot) -> list[Effect]:
        """Before STARTED is proposed, keep on disk that this node means to start this claim."""
        claim = self._memory.decided.get("claim")
        if slot != "started" or claim is None:
            return []
        claim_hash = hash_of(claim.raw_value)
        if self._memory.intent == claim_hash:
            return []
        intent = seal(
            Intent(
                network_id=self._network_id,
                limits=limits_of(self._bounds),
                generation=GENERATION,
                slot="started",
                ballot=claim.ballot,
                sender=self._me,
                value_hash=claim_hash,
            ),
            self._signer,
        )
        self._memory.intent = claim_hash
        return [Record((row_of(intent),))]

    def _decide(self, now: Instant) -> list[Effect]:
        """If a quorum voted for this node's proposal, it is decided: keep it, tell the voters."""
        record = self._proposer.take_record()
        if record is None:
            return []
        decision = self._read_record(record)
        effects = self._learn(decision, now, publish_after_s=0.0)
        others = [voter for voter in self._electorate.voters if voter != self._me]
        return [*effects, *(SendTo(voter, record) for voter in others)]

    def _publish(self, now: Instant) -> list[Effect]:
        """Put decisions into the ledger that it was not seen to hold."""
        due = [slot for slot in SLOTS if self._publish_at.get(slot, math.inf) <= now]
        for slot in due:
            self._publish_at[slot] = Instant(math.inf)
        decided = self._memory.decided
        return [Publish(decided[slot].key, decided[slot].record) for slot in due]

    @property
    def _may_initialise(self) -> bool:
        """Whether this node may run `cluster-init`: STARTED is decided for it, DONE is not."""
        decided = self._memory.decided
        if "claim" not in decided or "started" not in decided or "done" in decided:
            return False
        intended = self._memory.intent == hash_of(decided["claim"].raw_value)
        return intended and decided["started"].value == Started(self._me)


def _durable(answer: Answer) -> list[Effect]:
    return [Record(answer.rows)] if answer.rows else []
