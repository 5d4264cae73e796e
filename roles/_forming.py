"""One generation's forming lease on this node, whatever its part in it: voter, member, initialiser.

Invariant: before DONE, k3s of a leased plan may run here only until `lease_until`, and not at all
once `stop` holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import assert_never

from ledger import Instant, NodeId, Signer
from roles._journal import Memory
from roles._lease import ABANDON_AFTER_S, NO_LEASE, Around, MemberPart, Paper, VoterPart
from roles._messages import (
    Ask,
    BadMessage,
    Down,
    GaveUp,
    Lease,
    LeaseMessage,
    Life,
    Released,
    Renew,
    Renewed,
)
from roles._state import Effect, LeaseState
from roles._tenure import Tenure
from roles._types import ClusterPlan, Limits


class Forming:
    """The lease of a decided, leased plan, as long as its generation is neither formed nor over.

    Args:
        memory: of the generation; its CLAIM is decided.
        claim: the hash of the CLAIM's value.
        limits: what to sign.
        life_began: when this life of the node began.
        is_open: whether nobody knows how many may vote.
        now: when this life of the node learned the plan.
        may_initialise: whether this node may start the cluster, but for the lease.
        brief: the effects that tell a voter what is decided.
    """

    def __init__(
        self,
        signer: Signer,
        memory: Memory,
        *,
        network_id: str,
        limits: Callable[[], Limits],
        claim: bytes,
        rng: Random,
        life_began: Instant,
        is_open: bool,
        now: Instant,
        may_initialise: Callable[[], bool],
        brief: Callable[[NodeId], list[Effect]],
    ) -> None:
        plan = memory.plan
        assert plan is not None
        self._me = signer.node_id
        self._memory = memory
        self._plan: ClusterPlan = plan
        self._paper = Paper(
            signer, network_id=network_id, limits=limits, plan=plan, claim=claim, rng=rng
        )
        self._is_open = is_open
        self._may_initialise = may_initialise
        self._brief = brief
        self._voter = VoterPart(self._paper, now if is_open else life_began)
        self._rival_met_at = Instant(math.inf)
        self._member: MemberPart | None = None
        self._tenure: Tenure | None = None

    # What holds.

    @property
    def is_over(self) -> bool:
        """Whether the lease has nothing left to rule."""
        return self._memory.formed or self._memory.abandonment is not None

    @property
    def lease_until(self) -> Instant | None:
        """Until when k3s may run here; 0 if there is no lease; None if nothing limits it."""
        if self.is_over:
            return None
        if self._tenure is not None:
            return self._tenure.until if self._memory.gave_up is None else NO_LEASE
        return self._member.until if self._member is not None else NO_LEASE

    @property
    def stop(self) -> bool:
        """Whether k3s of the plan must be down here, for good."""
        if self.is_over:
            return False
        over = self._member is not None and self._member.over
        return over or self._memory.said_down or self._memory.gave_up is not None

    @property
    def holds(self) -> bool:
        """Whether this node, the initialiser, has not given up."""
        return self._memory.gave_up is None

    @property
    def released_at(self) -> Instant | None:
        """When its initialiser said that nothing of the plan runs any more."""
        return self._voter.released_at

    def may_abandon(self, *, stopped: bool, now: Instant) -> bool:
        """Whether this node may vote to abandon the started plan (R5, R6, R7)."""
        mine = self._plan.initialiser == self._me
        if mine and (self._memory.gave_up is None or not stopped):
            return False
        return now > self._voter.abandon_from  # X too: its members may hold shares of its answers.

    @property
    def abandon_from(self) -> Instant:
        """From when on `may_abandon` can be true; on x, once its k3s is down besides."""
        return self._voter.abandon_from

    def meet_rival(self, now: Instant) -> None:
        """Take note that a rival plan is known; to learn of it counts as an answer to it (R11)."""
        self._rival_met_at = min(self._rival_met_at, now)

    @property
    def void_from(self) -> Instant:
        """From when on `may_void` can be true; infinite if no rival was met."""
        return Instant(max(self._rival_met_at + ABANDON_AFTER_S, self._voter.abandon_from))

    def may_void(self, *, stopped: bool, now: Instant) -> bool:
        """Whether this node may vote to end its own plan and a rival's (R5 to R7, R9, R11)."""
        own = not self._memory.started or self.may_abandon(stopped=stopped, now=now)
        return own and now > self.void_from

    @property
    def unstarted_from(self) -> Instant:
        """From when on this node may vote to abandon the plan in STARTED's slot.

        Before STARTED no k3s runs; but in an open network others may have decided that (R11).
        """
        waits = self._is_open and self._plan.initialiser != self._me
        return self._voter.abandon_from if waits else Instant(-math.inf)

    def deadline(self, around: Around) -> Instant:
        """When `advance` is due."""
        if self.is_over or not self._memory.started:
            return Instant(math.inf)
        if self._tenure is not None:
            return self._tenure.deadline(around)
        if self._member is not None:
            return self._member.deadline
        return NO_LEASE if self._has_part else Instant(math.inf)

    def state(self, *, mute: bool) -> LeaseState:
        """Return what there is to tell."""
        tenure, until = self._tenure, self.lease_until
        member = self._member is not None
        return LeaseState(
            role="initialiser" if tenure is not None else "member" if member else "voter",
            until=NO_LEASE if until is None else until,
            answered=tuple(sorted(tenure.answers.items())) if tenure is not None else (),
            last_answer=self._voter.last_answer,
            mute=mute,
            gave_up=self._memory.gave_up,
            released=self._voter.released_at is not None,
            down=tuple(sorted(tenure.down)) if tenure is not None else (),
        )

    # What happens.

    def advance(self, around: Around, now: Instant) -> list[Effect]:
        """Do what is due."""
        if self.is_over or not self._memory.started:
            return []
        self._take_part(now)
        if self._tenure is not None:
            return self._tenure.advance(around, now)
        if self._member is not None:
            return self._member.advance(around, now)
        return []

    def receive(self, message: LeaseMessage, around: Around, now: Instant) -> list[Effect]:
        """Take a message of this generation from its sender.

        Raises:
            BadMessage: it is not its sender's to write.
        """
        if not self._paper.concerns(message) or self.is_over:
            return []
        self._check_writer(message)
        match message:
            case Renew():
                return self._voter.renewed(message, around, now)
            case Released():
                self._voter.release(now)
            case Renewed() | Ask() | Down():
                return self._to_initialiser(message, around, now)
            case Lease():
                if self._member is not None:
                    self._member.granted(message, now)
            case GaveUp() | Life():
                raise BadMessage("a note for the initialiser's own journal")
            case _:
                assert_never(message)
        return []

    def _to_initialiser(
        self, message: Renewed | Ask | Down, around: Around, now: Instant
    ) -> list[Effect]:
        tenure = self._tenure
        if tenure is None:
            return []
        match message:
            case Renewed():
                tenure.renewed(message, around, now)
            case Ask():
                return tenure.asked(message, around, now)
            case Down():
                tenure.member_down(message)
            case _:
                assert_never(message)
        return []

    def _check_writer(self, message: LeaseMessage) -> None:
        by_initialiser = message.sender == self._plan.initialiser
        match message:
            case Renew() | Lease() | Released() if not by_initialiser:
                raise BadMessage("speaks for the initialiser and is not it")
            case Ask() | Down() if by_initialiser or self._plan.seat_of(message.sender) is None:
                raise BadMessage("speaks for a member and is none")
            case _:
                pass

    @property
    def _has_part(self) -> bool:
        """Whether k3s of the plan may run, or have run, on this node."""
        if self._plan.initialiser == self._me:
            return self._may_initialise() or self._memory.gave_up is not None
        return self._plan.seat_of(self._me) is not None

    def _take_part(self, now: Instant) -> None:
        """Begin this node's part once STARTED is known here."""
        if self._tenure is not None or self._member is not None or not self._has_part:
            return
        if self._plan.initialiser == self._me:
            self._tenure = Tenure(
                self._me, self._paper, self._memory, self._voter, now=now, brief=self._brief
            )
        else:
            self._member = MemberPart(self._paper, self._memory, now)
