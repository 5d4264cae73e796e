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
from roles._acceptor import Acceptor
from roles._electorate import Electorate, electorate
from roles._evidence import Evidence
from roles._journal import read_journal
from roles._log import GENERATION, PUBLISH_AFTER_S, DecisionLog
from roles._messages import (
    Accept,
    Accepted,
    Authentic,
    BadMessage,
    Intent,
    Message,
    Nack,
    Prepare,
    Promise,
    hash_of,
    read_frame,
)
from roles._messages import Record as DecidedFrame
from roles._nomination import Nomination
from roles._proposer import Proposer
from roles._records import Claim, Decision, Started, encode_value, slots_before
from roles._state import SLOTS, Effect, GenesisState, Reject, SendTo, Slot
from roles._types import Bounds, Candidate
from roles._wording import View, describe


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
        self._log = DecisionLog(
            self._me, self._memory, network_id=network_id, bounds=bounds, now=now
        )
        self._acceptor = Acceptor(signer, self._memory)
        self._proposer = Proposer(
            signer,
            network_id=network_id,
            limits=bounds.limits,
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
        self._evidence = Evidence(self._me)
        self._state: GenesisState | None = None

    # Inputs.

    def update(
        self, candidates: Sequence[Candidate], present: Collection[NodeId], now: Instant
    ) -> list[Effect]:
        """Take the candidates known (this node too) and the peers connected now."""
        view = tuple(sorted(candidates, key=lambda c: c.node)), frozenset(present)
        if view == (self._candidates, self._present):
            return self._advance(now)
        self._candidates, self._present = view
        before = [candidate.node for candidate in self._nomination.here]
        self._recount(now)
        if [candidate.node for candidate in self._nomination.here] != before:
            self._proposer.hasten(now)
        return self._advance(now)

    def receive(self, sender: NodeId, frame: bytes, now: Instant) -> list[Effect]:
        """Take one frame of the genesis channel; a broken one is answered with `Reject`."""
        try:
            found = read_frame(frame)
            if isinstance(found, DecidedFrame):
                effects = self._learn(self._log.read(frame), now + PUBLISH_AFTER_S, now)
            else:
                effects = self._hear(sender, found, now)
        except BadMessage as error:
            return [Reject(sender, str(error))]
        return effects + self._advance(now)

    def learn(self, record: bytes, now: Instant) -> list[Effect]:
        """Take a record of the ledger's `genesis/<generation>/<slot>`; a bad one is ignored."""
        try:
            decision = self._log.read(record)
        except BadMessage:
            return []  # The ledger's policy refuses it, and attributes it to whoever sent it.
        effects = self._learn(decision, math.inf, now)
        self._log.is_published(decision)
        return effects + self._advance(now)

    def observe(
        self, voters: Sequence[str], kube_system_uid: str | None, now: Instant
    ) -> list[Effect]:
        """Take what k3s on this node says: node names of etcd's voters, uid of kube-system."""
        self._evidence.observe(self._log.plan, voters, kube_system_uid, now)
        return self._advance(now)

    def contradicted(self, what: str, now: Instant) -> list[Effect]:
        """Take note that others hold `what`, a ledger key, of this node and its disk did not.

        Such a node may have voted and not know it, so until DONE it never votes again.
        """
        if "done" in self._memory.decided:
            return []
        reason = (
            f"others hold {what} of this node, and its disk does not: the disk was lost or is an "
            "old copy, or this node's key is in use on two machines"
        )
        effects = self._log.doubt(reason)
        return effects + self._advance(now) if effects else []

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due."""
        return self._advance(now)

    # Outputs.

    @property
    def deadline(self) -> Instant:
        """When `tick` is due; infinite if nothing is waited for."""
        attempt = self._proposer.attempt
        turn = self._turn() if attempt is None else attempt.resend_at
        return min(self._log.publish_due, turn if turn is not None else Instant(math.inf))

    @property
    def state(self) -> GenesisState:
        """Genesis as this node knows it, with what it waits for."""
        if self._state is None:
            self._state = self._describe()
        return self._state

    def _describe(self) -> GenesisState:
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
                joined=self._evidence.joined,
                conflicts=tuple(self._log.conflicts.values()),
                may_initialise=self._log.may_initialise,
            )
        )

    # Who votes.

    def _recount(self, now: Instant) -> None:
        """Find out anew who votes, this node included."""
        memory = self._memory
        self._electorate = electorate(
            self._candidates,
            me=self._me,
            bounds=self._bounds,
            has_voted=memory.has_voted,
            present=self._present,
            proven_faulty=frozenset(memory.proofs),
            settings_matter="claim" not in memory.decided,
        )
        self._proposer.count_only(self._electorate.voters)
        self._nomination.update(self._candidates, self._electorate.voters, self._present, now)

    @property
    def _votes(self) -> bool:
        """Whether this node takes part at all."""
        memory = self._memory
        sound = memory.gap is None and memory.limits <= {self._bounds.limits}
        counted = self._electorate.halt is None and self._me in self._electorate.voters
        return self._may_vote and sound and counted

    # Acceptor, and routing.

    def _hear(self, sender: NodeId, sealed: Authentic, now: Instant) -> list[Effect]:
        """Handle one authentic message.

        Raises:
            BadMessage: it is not the sender's, or not of this network.
        """
        message = sealed.message
        if not self._concerns(sender, message):
            return []
        self._proposer.saw(message.ballot)
        if message.slot in self._memory.decided:
            asks = isinstance(message, Prepare | Accept)
            return self._log.tell(sender, message.slot) if asks else []
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

    def _concerns(self, sender: NodeId, message: Message) -> bool:
        """Whether the message is one to act on.

        Raises:
            BadMessage: it is not the sender's, or not of this network.
        """
        if message.sender != sender:
            raise BadMessage(f"a message of {message.sender[-8:]}, not the sender's own")
        if message.network_id != self._network_id:
            raise BadMessage(f"a message of network {message.network_id}")
        # Nodes with other bounds, or of a later generation, do no wrong; they are named elsewhere.
        same = message.limits == self._bounds.limits and message.generation == GENERATION
        return same and sender not in self._memory.proofs

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
            self._log.check_value(sealed.value, ask.slot)
            effects = self._watch(sealed, now)
            if effects or self._acceptor.contradicts(ask):
                return [*effects, Reject(ask.sender, "two values for one ballot")]
            answer = self._acceptor.accept(ask, sealed.value)
        if not answer.refused:
            self._proposer.give_way(ask.ballot, now)
        return [*effects, *answer.durable, SendTo(ask.sender, answer.reply.frame)]

    def _count_promise(self, promise: Promise, sealed: Authentic, now: Instant) -> list[Effect]:
        """Pass a promise to the proposer, if it is one that it waits for."""
        attempt = self._proposer.attempt
        if attempt is None or (attempt.slot, attempt.ballot) != (promise.slot, promise.ballot):
            return []
        if promise.accepted is not None:
            self._log.check_value(sealed.value, promise.slot)
        return self._proposer.promised(sealed, now)

    def _refused(self, sender: NodeId, nack: Nack, now: Instant) -> list[Effect]:
        """Bring a voter that lags behind up to date, or yield to a higher ballot."""
        if nack.open_slot == nack.slot:
            self._proposer.refused(nack, now)
            return []
        lagging = [
            s for s in slots_before(nack.slot) if SLOTS.index(s) >= SLOTS.index(nack.open_slot)
        ]
        effects = [effect for slot in lagging for effect in self._log.tell(sender, slot)]
        attempt = self._proposer.attempt
        if attempt is not None and attempt.slot == nack.slot:
            effects.append(SendTo(sender, attempt.ask.frame))
        return effects

    # Learner.

    def _learn(self, decision: Decision, publish_at: float, now: Instant) -> list[Effect]:
        """Keep a decision; its slot is no longer open to any attempt."""
        effects = self._log.learn(decision, Instant(publish_at))
        if effects:
            self._recount(now)
            self._evidence.weigh(self._log.plan, now)
        attempt = self._proposer.attempt
        if attempt is not None and attempt.slot == decision.slot:
            self._proposer.stop()
            self._proposer.not_before = now
        return effects

    def _watch(self, vote: Authentic, now: Instant) -> list[Effect]:
        """Exclude whoever contradicts himself with this message."""
        effects = self._log.watch(vote)
        if effects:
            self._recount(now)
        return effects

    # Proposer.

    def _turn(self) -> Instant | None:
        """Return when this node is to open a ballot, or None if it has nothing to propose."""
        if not self._votes or self._proposer.attempt is not None:
            return None
        due: Instant | None
        match self._log.open_slot:
            case "claim":
                due = self._nomination.turn()
            case "started":
                plan = self._log.plan
                due = Instant(0.0) if plan and plan.initialiser == self._me else None
            case "done":
                due = self._evidence.due if self._evidence.done is not None else None
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
                plan = self._log.plan
                mine = plan is not None and plan.initialiser == self._me
                return encode_value(Started(self._me)) if mine else None
            case "done":
                done = self._evidence.done
                return encode_value(done) if done is not None else None

    def _advance(self, now: Instant) -> list[Effect]:
        """Do everything that is due; afterwards `deadline` lies in the future."""
        self._state = None
        if not self._votes:
            self._proposer.stop()
        effects = self._decide(now)
        while (due := self._turn()) is not None and due <= now:
            slot = self._log.open_slot
            assert slot is not None
            effects += self._intend(slot)
            effects += self._proposer.begin(slot, now)
            effects += self._proposer.proceed(now)  # A quorum of one is complete already.
            effects += self._decide(now)
        effects += self._proposer.resend(now)
        return effects + self._log.publish(now)

    def _intend(self, slot: Slot) -> list[Effect]:
        """Before STARTED is proposed, keep on disk that this node means to start this claim."""
        claim = self._memory.decided.get("claim")
        if slot != "started" or claim is None:
            return []
        return self._proposer.intend(claim.ballot, hash_of(claim.raw_value))

    def _decide(self, now: Instant) -> list[Effect]:
        """If a quorum voted for this node's proposal, it is decided: keep it, tell the voters."""
        record = self._proposer.take_record()
        if record is None:
            return []
        effects = self._learn(self._log.read(record), now, now)
        others = [voter for voter in self._electorate.voters if voter != self._me]
        return [*effects, *(SendTo(voter, record) for voter in others)]
