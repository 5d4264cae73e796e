"""The initialiser's side of the forming lease: renewing it, sharing it, giving it up (R2, R3).

Invariant: once `gave_up` is on the disk, nothing is renewed, granted or started in this generation
by any later life of this node either.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ledger import Instant, NodeId
from roles._evidence import DOUBLINGS_MAX, exits_max
from roles._journal import Memory, row_of
from roles._lease import (
    LEASE_S,
    NO_LEASE,
    RENEW_EVERY_S,
    RETRY_EVERY_S,
    Around,
    Asked,
    Paper,
    VoterPart,
)
from roles._messages import Ask, Down, GaveUp, Lease, Life, Released, Renew, Renewed
from roles._records import done_voters_min
from roles._state import Effect, Record, SendTo

NO_LEASE_S = 60.0
MEMBER_SILENT_S = 80.0
SEAT_SILENT_S = 180.0
"""A seat that DONE needs and that never came: so long may a machine take to start again."""

WIPED_SILENT_S = 20.0
"""A machine that is here under another identity may share a card with a member that blinked."""

FORMING_S = 180.0
"""Doubled with each generation, so that slow machines get there (with k3s taking 5 to 200 s a fixed
180 s left about 20 % of simulated runs without DONE), up to 96 minutes."""

LIVES_MAX = 5
"""So often this node may begin to renew in one generation: each life counts its times anew, and a
machine that k3s brings down again and again must not be waited for."""

MEMBERS_DOWN_S = 85.0
"""After the last share of the lease that was given: 66.7 s are its longest life by any clock,
77.3 s the shortest that this may last (85 / 1.1); 10 s are for the fuse."""

GRANT_MIN_S = 1.0


class Tenure:
    """One generation of which this node is the initialiser, from STARTED on.

    Args:
        now: when this node learned STARTED, or began its present life, whichever was later.
        brief: the effects that tell a voter what is decided; for those that do not answer.
    """

    def __init__(
        self,
        me: NodeId,
        paper: Paper,
        memory: Memory,
        voter: VoterPart,
        *,
        now: Instant,
        brief: Callable[[NodeId], list[Effect]],
    ) -> None:
        self._me = me
        self._paper = paper
        self._memory = memory
        self._voter = voter
        self._brief = brief
        self._began = now
        self._noted = False  # That this life began.
        self._asked = Asked()
        self._renew_at = now
        self._renewed_at = Instant(-math.inf)
        self._granted: dict[NodeId, Instant] = {}
        self._quorum = 0
        self._had_until = now  # Until when there was a lease before the answers were counted anew.
        self._held = NO_LEASE  # What the answers of a smaller quorum gave, in an open network.
        self._say_at = now
        self.answers: dict[NodeId, Instant] = {}  # Who let it run on, and when that was asked.
        self.down: set[NodeId] = set()
        self.released = False

    # What holds.

    @property
    def until(self) -> Instant:
        """When k3s must be down: counted from when the renewal that the q-th answered was sent."""
        return max(self._held, self._by_answers)

    @property
    def _by_answers(self) -> Instant:
        sent = sorted(self.answers.values(), reverse=True)
        if not self._quorum or len(sent) < self._quorum:
            return NO_LEASE
        return Instant(sent[self._quorum - 1] + LEASE_S)

    def deadline(self, around: Around) -> Instant:
        """When `advance` has something to do."""
        if self._memory.gave_up is None:
            return min(self._renew_at, self._give_up_at(around)[0])
        if self.released:
            return self._say_at
        return self._release_from if around.stopped else Instant(math.inf)

    # What happens.

    def advance(self, around: Around, now: Instant) -> list[Effect]:
        """Renew, give up, or say that nothing runs any more, as it is time."""
        self._count_only(around, now)
        if self._memory.gave_up is None:
            due, reason = self._give_up_at(around)
            if due <= now:
                return self._give_up(reason)
            if self._renew_at > now:
                return []
            return [*self._note_life(), *self._renew(around, now)]
        if not self.released and around.stopped and self._release_from <= now:
            self.released = True
            self._voter.release(now)
            self._say_at = now
        if not self.released or self._say_at > now:
            return []
        self._say_at = Instant(now + RENEW_EVERY_S)
        frame = self._paper.write(Released, self._paper.draw_nonce()).frame
        return [SendTo(voter, frame) for voter in around.voters if voter != self._me]

    def renewed(self, answer: Renewed, around: Around, now: Instant) -> None:
        """Count a voter's answer, from when its question was sent."""
        sent_at = self._asked.sent_at(answer.nonce)
        if sent_at is None or answer.sender not in around.voters:
            return
        self._count_only(around, now)  # First: this answer may be why more have to.
        self.answers[answer.sender] = max(self.answers.get(answer.sender, sent_at), sent_at)
        if self._by_answers >= self._renewed_at + LEASE_S:  # The last round has its quorum.
            self._renew_at = Instant(max(now, self._renewed_at + RENEW_EVERY_S))

    def asked(self, ask: Ask, around: Around, now: Instant) -> list[Effect]:
        """Give a member what is left of the lease, or word that it is over."""
        self._count_only(around, now)
        left = self.until - now
        if self._memory.gave_up is not None:
            left = 0.0
        elif left <= GRANT_MIN_S:
            return []
        else:
            self._granted[ask.sender] = now
        answer = self._paper.write(Lease, ask.nonce, remaining_ms=math.floor(left * 1000))
        return [SendTo(ask.sender, answer.frame)]

    def member_down(self, message: Down) -> None:
        """Take note that a member's k3s is down for good."""
        if self._memory.gave_up is not None:
            self.down.add(message.sender)

    # How.

    def _count_only(self, around: Around, now: Instant) -> None:
        before = self.until
        if around.quorum > self._quorum > 0:
            # What was given stays given (R11); from now on more voters have to answer.
            self._held = before
            self._had_until = self._renew_at = now
        self._quorum = around.quorum
        for node in [node for node in self.answers if node not in around.voters]:
            del self.answers[node]
            self._held = NO_LEASE
            self._had_until = max(self._had_until, min(before, now))

    def _note_life(self) -> list[Effect]:
        if self._noted:
            return []
        self._noted = True
        self._memory.lives += 1
        note = self._paper.write(Life, self._paper.draw_nonce(), lives=self._memory.lives)
        return [Record((row_of(note),))]

    def _renew(self, around: Around, now: Instant) -> list[Effect]:
        nonce = self._paper.draw_nonce()
        self._asked.note(nonce, now)
        before, self._renewed_at = self._renewed_at, now
        self._renew_at = Instant(now + RETRY_EVERY_S)
        if around.votes and not around.mute:
            self.answers[self._me] = self._voter.last_answer = now  # It is one of the quorum.
            if around.quorum == 1:
                self._renew_at = Instant(now + RENEW_EVERY_S)
        frame = self._paper.write(Renew, nonce).frame
        effects: list[Effect] = []
        for voter in around.voters:
            if voter == self._me:
                continue
            answered = self.answers.get(voter)
            if before >= self._began and (answered is None or answered < before):
                effects += self._brief(voter)
            effects.append(SendTo(voter, frame))
        return effects

    def _give_up_at(self, around: Around) -> tuple[Instant, str]:
        """Return when this node is to give up if nothing changes, and why."""
        doubled = 2 ** min(self._memory.generation - 1, DOUBLINGS_MAX)
        reasons = [
            (max(self._had_until, self.until) + NO_LEASE_S, "it had no lease for 60 s"),
            (
                self._began + FORMING_S * doubled,
                f"the control plane was not complete after {FORMING_S * doubled:.0f} s",
            ),
        ]
        if not self._noted and self._memory.lives >= LIVES_MAX:
            why = f"meshd there was stopped {LIVES_MAX} times before the cluster was formed"
            reasons.append((-math.inf, why))
        if around.exits >= exits_max(self._memory.generation):
            reasons.append((-math.inf, f"k3s ended by itself {around.exits} times"))
        if not around.done_possible:
            reasons += self._silent_members(around)
            reasons += self._wiped_members(around)
        due, reason = min(reasons)
        return Instant(due), reason

    def _silent_members(self, around: Around) -> list[tuple[float, str]]:
        hearing, seats = around.hearing, self._paper.plan.seats
        others = [hearing.silent_since(s.node) for s in seats if s.node != self._me]
        silent = [since for since in others if since is not None]
        found: list[tuple[float, str]] = []
        if others and len(silent) == len(others):
            due = max(self._began, *silent) + MEMBER_SILENT_S
            found.append((due, "no other member was heard for 80 s"))
        spare = len(seats) - done_voters_min(len(seats))
        if len(silent) > spare:
            due = max(self._began, sorted(silent)[spare]) + SEAT_SILENT_S
            found.append((due, "too few members were heard for 180 s"))
        for node in around.members:
            since = None if node == self._me else hearing.silent_since(node)
            if since is not None:
                due = max(self._began, since) + MEMBER_SILENT_S
                found.append((due, "etcd has a member that was not heard for 80 s"))
        return found

    def _wiped_members(self, around: Around) -> list[tuple[float, str]]:
        """An identity that went with its disk never comes back: no time is lost on waiting."""
        seats = self._paper.plan.seats
        wiped = [seat for seat in seats if seat.node in around.wiped]
        silent = [
            since for s in wiped if (since := around.hearing.silent_since(s.node)) is not None
        ]
        if not silent or len(seats) - len(silent) >= done_voters_min(len(seats)):
            return []
        names = " and ".join(seat.node_name for seat in wiped)
        return [(max(silent) + WIPED_SILENT_S, f"{names} came back without the disk")]

    def _give_up(self, reason: str) -> list[Effect]:
        self._memory.gave_up = reason
        note = self._paper.write(GaveUp, self._paper.draw_nonce(), reason=reason)
        return [Record((row_of(note),))]

    @property
    def _release_from(self) -> Instant:
        """When every other member's k3s is down: as it said, or as its lease's end proves."""
        waits = [
            max(self._granted.get(seat.node, self._began), self._began) + MEMBERS_DOWN_S
            for seat in self._paper.plan.seats
            if seat.node != self._me and seat.node not in self.down
        ]
        return Instant(max(waits, default=-math.inf))
