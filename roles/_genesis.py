"""Genesis: one node's part in the decision log that starts exactly one cluster (docs/genesis.md).

In each generation the slots CLAIM, STARTED and DONE are decided in order, each by Paxos among the
voters; STARTED or DONE may be decided ABANDON instead, and then the next generation begins.
Invariant: whatever this node must not forget is in a `Record` before the `SendTo` that reveals it,
so a crash between any two effects loses nothing that anyone relies on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from random import Random
from typing import Literal, assert_never

from ledger import Instant, NodeId, Signer
from roles._evidence import K3sReading
from roles._log import PUBLISH_AFTER_S
from roles._messages import (
    Accept,
    Accepted,
    Ask,
    Authentic,
    BadMessage,
    Contradiction,
    Intent,
    LeaseMessage,
    LogMessage,
    Message,
    Nack,
    Prepare,
    Promise,
    Proof,
    Renew,
    read_frame,
)
from roles._messages import Record as DecidedFrame
from roles._records import Decision, slots_before
from roles._state import Effect, GenesisState, Reject, SendTo, Slot
from roles._term import Term, open_frame
from roles._types import Bounds, Candidate, ClusterPlan, quorum_of
from roles._view import View
from roles._witness import prove
from roles._wording import describe


class Genesis:
    """Acceptor, proposer and learner of one node; all effects are to be performed in order.

    Args:
        signer: this node's key.
        network_id: of the token; part of every signature.
        bounds: this node's; voters with other bounds are not counted and not answered.
        may_vote: whether this node's token and role let it vote; otherwise it only learns.
        vip: what a plan of this node says about the virtual address.
        rng: for cluster ids, nonces and back-off; must be unpredictable outside simulations.
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
        self._me = signer.node_id
        self._network_id = network_id
        self._bounds = bounds
        self._frame = open_frame(
            signer,
            network_id=network_id,
            bounds=bounds,
            may_vote=may_vote,
            vip=vip,
            network=network,
            rng=rng,
            rows=journal,
            now=now,
        )
        self._journal, self._log = self._frame.journal, self._frame.log
        self._stand = self._frame.stand
        self._term = Term(self._frame, now)
        self._state: GenesisState | None = None  # As of the last advance, like the deadline.
        self._deadline: Instant | None = None
        self._now = now

    # Inputs.

    def update(
        self, candidates: Sequence[Candidate], present: Collection[NodeId], now: Instant
    ) -> list[Effect]:
        """Take the candidates known (this node too) and the peers connected now."""
        if not self._stand.look(candidates, frozenset(present), now):
            return self._advance(now)
        nomination = self._term.nomination
        before = [candidate.node for candidate in nomination.here]
        self._stand.recount(self._term, now)
        if [candidate.node for candidate in nomination.here] != before:
            self._term.proposer.hasten(now)
        return self._advance(now)

    def receive(self, sender: NodeId, frame: bytes, now: Instant) -> list[Effect]:
        """Take one frame of the genesis channel; a broken one is answered with `Reject`."""
        try:
            found = read_frame(frame)
            if isinstance(found, DecidedFrame):
                effects = self._learn(self._log.read(frame), now + PUBLISH_AFTER_S, now)
            elif isinstance(found, Proof):
                proof = prove(found.first, found.second, network_id=self._network_id)
                effects = self._excluded(self._log.convict(proof), now)
            else:
                effects = self._hear(sender, found, now)
        except BadMessage as error:
            lawful = self._bounds.is_open and isinstance(error, Contradiction)  # Of two claims.
            return self._stand.keep_quorum() + ([] if lawful else [Reject(sender, str(error))])
        return self._stand.keep_quorum() + effects + self._advance(now)

    def learn(self, record: bytes, now: Instant) -> list[Effect]:
        """Take a record of the ledger's `genesis/<generation>/<slot>`; a bad one is ignored."""
        try:
            decision = self._log.read(record)
        except BadMessage:
            return []  # The ledger's policy refuses it, and attributes it to whoever sent it.
        effects = self._learn(decision, math.inf, now)
        self._log.is_published(decision)
        return effects + self._advance(now)

    def observe(self, reading: K3sReading, now: Instant) -> list[Effect]:
        """Take what k3s on this node says."""
        self._stand.reading = reading
        self._term.evidence.observe(self._log.plan, reading, now)
        return self._advance(now)

    def contradicted(self, what: str, now: Instant) -> list[Effect]:
        """Take note that others hold `what`, a ledger key, of this node and its disk did not.

        Such a node may have voted and not know it, so until DONE it never votes again.
        """
        if self._log.memory.formed:
            return []
        effects = self._log.doubt(
            f"others hold {what} of this node, and its disk does not: the disk was lost or is an "
            "old copy, or this node's key is in use on two machines"
        )
        return effects + self._advance(now) if effects else []

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due."""
        return self._advance(now)

    # Outputs.

    @property
    def deadline(self) -> Instant:
        """When `tick` is due; infinite if nothing is waited for."""
        if self._deadline is None:
            attempt = self._term.proposer.attempt
            turn = self._turn(self._now) if attempt is None else attempt.resend_at
            dues = (self._log.publish_due, self._lease_due, turn)
            self._deadline = min(due for due in dues if due is not None)
        return self._deadline

    @property
    def state(self) -> GenesisState:
        """Genesis as this node knows it, with what it waits for."""
        if self._state is None:
            self._state = describe(View(self._frame, self._term))
        return self._state

    @property
    def plans(self) -> tuple[ClusterPlan, ...]:
        """The plans of all generations that are known, the oldest first."""
        return self._log.plans

    # Acceptor, and routing.

    def _hear(self, sender: NodeId, sealed: Authentic, now: Instant) -> list[Effect]:
        """Handle one authentic message.

        Raises:
            BadMessage: it is not the sender's, or not of this network.
        """
        message = sealed.message
        self._frame.hearing.heard(sender, now)
        if not self._concerns(sender, message):
            return []
        self._stand.heard_of(quorum_of(message.limits), sender, self._term, now)
        if message.generation != self._log.generation:
            return self._elsewhere(sender, message)
        if isinstance(message, LeaseMessage):
            return self._about_lease(sender, message, now)
        return self._about_slot(sender, message, sealed, now)

    def _about_slot(
        self, sender: NodeId, message: LogMessage, sealed: Authentic, now: Instant
    ) -> list[Effect]:
        self._term.proposer.saw(message.ballot)
        memory = self._log.memory
        if message.slot in memory.decided or memory.formed:
            asks = isinstance(message, Prepare | Accept)
            return self._log.tell_since(sender, (memory.generation, message.slot)) if asks else []
        match message:
            case Prepare() | Accept():
                return self._answer(message, sealed, now) if self._stand.votes else []
            case Promise():
                return self._count_promise(message, sealed, now)
            case Accepted():
                effects = self._watch(sealed, now)
                self._term.proposer.voted(message, sealed)
                return effects
            case Nack():
                return self._refused(sender, message, now)
            case Intent():
                raise BadMessage("an intent is nobody else's business")
            case _:
                assert_never(message)

    def _about_lease(self, sender: NodeId, message: LeaseMessage, now: Instant) -> list[Effect]:
        memory, forming = self._log.memory, self._term.forming
        if memory.formed:
            asks = isinstance(message, Renew | Ask)
            return self._log.tell(sender, memory.generation, "done") if asks else []
        if forming is None:
            return []
        return forming.receive(message, self._stand.around(self._term), now)

    def _concerns(self, sender: NodeId, message: Message) -> bool:
        """Whether the message is one to act on.

        Raises:
            BadMessage: it is not the sender's, or not of this network.
        """
        if message.sender != sender:
            raise BadMessage(f"a message of {message.sender[-8:]}, not the sender's own")
        if message.network_id != self._network_id:
            raise BadMessage(f"a message of network {message.network_id}")
        # Nodes with other bounds do no wrong; they are named elsewhere.
        return self._bounds.admits(message.limits) and sender not in self._journal.proofs

    def _elsewhere(self, sender: NodeId, message: Message) -> list[Effect]:
        """Answer a question of another generation: one of the two has something to learn."""
        if not isinstance(message, Prepare | Accept | Renew | Ask):
            return []
        memory = self._log.memory
        if message.generation < memory.generation:
            slot = message.slot if isinstance(message, Prepare | Accept) else "started"
            return self._log.tell_since(sender, (message.generation, slot))
        if memory.formed:
            return self._log.tell_since(sender, (memory.generation, "claim"))
        if not self._stand.votes or memory.open_slot is None or isinstance(message, Renew | Ask):
            return []
        nack = self._term.acceptor.refuse(
            message, promised=None, open_slot=memory.open_slot, open_generation=memory.generation
        )
        return [SendTo(sender, nack.reply.frame)]

    def _answer(self, ask: Prepare | Accept, sealed: Authentic, now: Instant) -> list[Effect]:
        """Give this node's promise, vote or refusal, durable before it is sent."""
        if ask.ballot.node != ask.sender:
            raise BadMessage("a ballot of another proposer")
        acceptor, memory = self._term.acceptor, self._log.memory
        missing = [slot for slot in slots_before(ask.slot) if slot not in memory.decided]
        if missing and not self._stand.may_skip(ask, sealed.value):
            answer = acceptor.refuse(ask, promised=None, open_slot=missing[0])
            return [SendTo(ask.sender, answer.reply.frame)]
        effects: list[Effect] = []
        if quorum_of(ask.limits) < self._stand.electorate.quorum:  # In an open network.
            return [SendTo(ask.sender, acceptor.ask_more(ask, self._stand.limits).reply.frame)]
        if isinstance(ask, Prepare):
            answer = acceptor.prepare(ask)
        else:
            self._log.check_value(sealed.value, ask.slot)
            effects = self._watch(sealed, now)
            if effects or acceptor.contradicts(ask):
                return [*effects, Reject(ask.sender, "two values for one ballot")]
            if not self._stand.permits(self._term, ask.slot, sealed.value, now):
                return effects  # Silence, like a lost message: the proposer asks again.
            answer = acceptor.accept(ask, sealed.value)
        if not answer.refused:
            self._term.proposer.give_way(ask.ballot, now)
        return [*effects, *answer.durable, SendTo(ask.sender, answer.reply.frame)]

    def _count_promise(self, promise: Promise, sealed: Authentic, now: Instant) -> list[Effect]:
        """Pass a promise to the proposer, if it is one that it waits for."""
        attempt = self._term.proposer.attempt
        if attempt is None or (attempt.slot, attempt.ballot) != (promise.slot, promise.ballot):
            return []
        if promise.accepted is not None:
            self._log.check_value(sealed.value, promise.slot)
        return self._term.proposer.promised(promise, sealed, now)

    def _refused(self, sender: NodeId, nack: Nack, now: Instant) -> list[Effect]:
        """Bring a voter that lags behind up to date, or yield to a higher ballot."""
        open_at = (nack.open_generation or nack.generation, nack.open_slot)
        if open_at == (nack.generation, nack.slot):
            self._term.proposer.refused(nack, now)
            return []
        effects = self._log.tell_since(sender, open_at)
        attempt = self._term.proposer.attempt
        if attempt is not None and attempt.slot == nack.slot and not self._bounds.is_open:
            effects.append(SendTo(sender, attempt.ask.frame))
        return effects

    # Learner.

    def _learn(self, decision: Decision, publish_at: float, now: Instant) -> list[Effect]:
        """Keep a decision; its slot is no longer open to any attempt."""
        effects = self._log.learn(decision, Instant(publish_at))
        self._term.meet_rival(now)
        if self._log.memory is not self._term.memory:
            self._term = Term(self._frame, now)
            self._stand.recount(self._term, now)
            return effects
        if effects:
            self._term.follow(now)
            self._stand.recount(self._term, now)
        proposer = self._term.proposer
        ours = decision.generation == self._log.generation and self._log.decides(decision.slot)
        if proposer.attempt is not None and ours and proposer.attempt.slot == decision.slot:
            proposer.stop()
            proposer.not_before = now
        return effects

    def _watch(self, vote: Authentic, now: Instant) -> list[Effect]:
        """Exclude whoever contradicts himself with this message."""
        return self._excluded(self._log.watch(vote), now)

    def _excluded(self, effects: list[Effect], now: Instant) -> list[Effect]:
        if effects:
            self._stand.recount(self._term, now)
        return effects

    # Proposer.

    def _turn(self, now: Instant) -> Instant | None:
        """Return when this node is to open a ballot, or None if it has nothing to propose."""
        proposer = self._term.proposer
        if not self._stand.votes or proposer.attempt is not None:
            return None
        self._term.turns.stopped = self._stand.stopped
        due = self._term.turns.due(now)
        return None if due is None else Instant(max(due, proposer.not_before))

    def _advance(self, now: Instant) -> list[Effect]:
        """Do everything that is due; afterwards `deadline` lies in the future."""
        self._state = self._deadline = None
        self._now = now
        effects = self._stand.keep_quorum() + self._follow_lease(now)
        if not self._stand.votes:
            self._term.proposer.stop()
        effects += self._decide(now)
        while (due := self._turn(now)) is not None and due <= now:
            slot = self._term.turns.slot(now)
            proposer = self._term.proposer
            effects += self._intend(slot)
            effects += proposer.begin(slot, now)
            effects += proposer.proceed(now)  # A quorum of one is complete already.
            effects += self._decide(now)
        effects += self._term.proposer.resend(now)
        if self._lease_due <= now:  # STARTED was decided just now.
            effects += self._follow_lease(now)
        return effects + self._log.publish(now)

    @property
    def _lease_due(self) -> Instant:
        forming = self._term.forming
        if forming is None:
            return Instant(math.inf)
        return forming.deadline(self._stand.around(self._term))

    def _follow_lease(self, now: Instant) -> list[Effect]:
        forming = self._term.forming
        return forming.advance(self._stand.around(self._term), now) if forming is not None else []

    def _intend(self, slot: Slot) -> list[Effect]:
        """Before STARTED is proposed, keep on disk that this node means to start this claim."""
        memory, claim_hash = self._log.memory, self._log.claim_hash
        claim, plan = memory.decided.get("claim"), self._log.plan
        mine = plan is not None and plan.initialiser == self._me
        if slot != "started" or not mine or claim is None or claim_hash is None:
            return []
        return self._term.proposer.intend(claim.ballot, claim_hash)

    def _decide(self, now: Instant) -> list[Effect]:
        """If a quorum voted for this node's proposal, it is decided: keep it, tell the voters."""
        record = self._term.proposer.take_record()
        if record is None:
            return []
        effects = self._learn(self._log.read(record), now, now)
        voters = self._stand.electorate.voters
        return [*effects, *(SendTo(voter, record) for voter in voters if voter != self._me)]
