"""The forming lease, on voters and on members: until DONE k3s runs only while a quorum lets it.

The rules R1 to R11 and the arithmetic behind the figures are in docs/genesis.md. All instants are
CLOCK_BOOTTIME of one machine; no instant of one machine is ever compared with another's.
Invariant: a voter that votes to abandon has not answered the initialiser for `ABANDON_AFTER_S`, and
never answers it afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from ledger import Instant, NodeId, Signer
from roles._hearing import Hearing
from roles._journal import Memory, row_of
from roles._messages import (
    Ask,
    Authentic,
    Down,
    Lease,
    LeaseMessage,
    Renew,
    Renewed,
    seal,
)
from roles._state import Effect, Record, SendTo
from roles._types import ClusterPlan, Limits

RENEW_EVERY_S = 10.0

RETRY_EVERY_S = 3.0
"""Between renewals that too few answered. A guess: some round trips of a path with loss."""

LEASE_S = 60.0
"""From the moment a renewal was *sent*, by the initialiser's clock (R3)."""

ABANDON_AFTER_S = 90.0
"""From a voter's own last answer, by its clock: with clock rates within 10 % the lease that rests
on that answer is over 15 s before (60 / 0.9 = 66.7 s, 90 / 1.1 = 81.8 s)."""

NO_LEASE: Instant = Instant(0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the lease depends on besides its own messages.

    Args:
        votes: whether this node votes now.
        mute: whether it has voted to abandon in this generation.
        quorum: how many answers make a lease.
        voters: whose answers count.
        stopped: whether k3s of the plan is down on this node and stays so, as the shell says.
        exits: how often k3s of the plan ended by itself here.
        members: nodes of the plan that etcd has as members, as k3s here last said.
        done_possible: whether this node would propose DONE.
        wiped: nodes whose machines are here under other identities, and not they.
    """

    votes: bool
    mute: bool
    quorum: int
    voters: tuple[NodeId, ...]
    stopped: bool
    exits: int
    members: tuple[NodeId, ...]
    done_possible: bool
    wiped: tuple[NodeId, ...]
    hearing: Hearing


class Paper:
    """Writes the messages of one claim's lease, signed."""

    def __init__(
        self,
        signer: Signer,
        *,
        network_id: str,
        limits: Callable[[], Limits],
        plan: ClusterPlan,
        claim: bytes,
        rng: Random,
    ) -> None:
        self._signer = signer
        self._network_id = network_id
        self._limits = limits
        self._rng = rng
        self.plan = plan
        self.claim = claim

    def draw_nonce(self) -> bytes:
        """Return 16 bytes that were never used."""
        return self._rng.getrandbits(128).to_bytes(16, "big")

    def write(
        self,
        kind: type[LeaseMessage],
        nonce: bytes,
        **more: Any,
    ) -> Authentic:
        """Return a message of that kind, signed."""
        message = kind(
            network_id=self._network_id,
            limits=self._limits(),
            generation=self.plan.generation,
            initialiser=self.plan.initialiser,
            claim=self.claim,
            sender=self._signer.node_id,
            nonce=nonce,
            **more,
        )
        return seal(message, self._signer)

    def concerns(self, message: LeaseMessage) -> bool:
        """Whether a message is about this claim's lease."""
        return message.claim == self.claim and message.initialiser == self.plan.initialiser


class Asked:
    """When each of the questions still of use was sent, by nonce."""

    def __init__(self) -> None:
        self._sent_at: dict[bytes, Instant] = {}

    def note(self, nonce: bytes, now: Instant) -> None:
        """Remember a question; forget those whose answers would be of no use."""
        old = [n for n, at in self._sent_at.items() if now - at > LEASE_S]
        for one in old:
            del self._sent_at[one]
        self._sent_at[nonce] = now

    def sent_at(self, nonce: bytes) -> Instant | None:
        """Return when the question with that nonce was sent; None if never, or too long ago."""
        return self._sent_at.get(nonce)


class VoterPart:
    """What every voter remembers of an initialiser.

    Args:
        from_: what counts as an answer: when this life began, for who knows what was answered
            before the restart (R5); in an open network, when it learned the plan (R11).
    """

    def __init__(self, paper: Paper, from_: Instant) -> None:
        self._paper = paper
        self.last_answer = from_
        self.released_at: Instant | None = None

    def renewed(self, ask: Renew, around: Around, now: Instant) -> list[Effect]:
        """Answer the initialiser, unless this node votes to abandon it (R6)."""
        if not around.votes or around.mute:
            return []
        self.last_answer = now
        return [SendTo(ask.sender, self._paper.write(Renewed, ask.nonce).frame)]

    @property
    def abandon_from(self) -> Instant:
        """From when on this node may vote to abandon another initialiser."""
        released = self.released_at is not None
        return Instant(-math.inf) if released else Instant(self.last_answer + ABANDON_AFTER_S)

    def release(self, now: Instant) -> None:
        """Take note that nothing of the plan runs any more, as its initialiser says."""
        self.released_at = self.released_at if self.released_at is not None else now


class MemberPart:
    """A plan member's share of the lease (R1): asked for, and counted from when it was asked.

    Once it said `Down` it keeps k3s down in every later life too: the initialiser counts on that.
    """

    def __init__(self, paper: Paper, memory: Memory, now: Instant) -> None:
        self._paper = paper
        self._memory = memory
        self._asked = Asked()
        self._next_at = now
        self.until = NO_LEASE
        self.over = memory.said_down  # The initialiser gave up: k3s is to be stopped, for good.

    @property
    def deadline(self) -> Instant:
        """When to ask, or to say that k3s is down, next."""
        return self._next_at

    def advance(self, around: Around, now: Instant) -> list[Effect]:
        """Ask, or say that k3s is down, if it is time."""
        if self.over and around.stopped and not self._memory.said_down:
            self._next_at = now
        if now < self._next_at:
            return []
        if self.over:
            return self._say_down(around, now)
        self._next_at = Instant(now + RETRY_EVERY_S)
        nonce = self._paper.draw_nonce()
        self._asked.note(nonce, now)
        return [SendTo(self._paper.plan.initialiser, self._paper.write(Ask, nonce).frame)]

    def _say_down(self, around: Around, now: Instant) -> list[Effect]:
        if not around.stopped:
            self._next_at = Instant(now + RETRY_EVERY_S)
            return []
        self._next_at = Instant(now + RENEW_EVERY_S)
        down = self._paper.write(Down, self._paper.draw_nonce())
        durable: list[Effect] = [] if self._memory.said_down else [Record((row_of(down),))]
        self._memory.said_down = True
        return [*durable, SendTo(self._paper.plan.initialiser, down.frame)]

    def granted(self, answer: Lease, now: Instant) -> None:
        """Take the initialiser's answer to a question of this life."""
        sent_at = self._asked.sent_at(answer.nonce)
        if sent_at is None or self.over:
            return
        if answer.remaining_ms == 0:
            self.over = True
            self._next_at = now
            return
        self.until = Instant(max(self.until, sent_at + answer.remaining_ms / 1000))
        self._next_at = Instant(max(now, sent_at + RENEW_EVERY_S))
