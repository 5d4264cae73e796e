"""When this node opens a ballot for the open slot, and which value it proposes if it may choose.

Turns only avoid duels, and times only decide when it is worth asking: what may be decided is the
business of the acceptors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ledger import Instant, NodeId
from roles._evidence import Evidence
from roles._forming import Forming
from roles._hearing import Hearing
from roles._lease import ABANDON_AFTER_S
from roles._log import DecisionLog
from roles._nomination import Nomination
from roles._records import Abandon, Claim, Started, Value, encode_value
from roles._state import Slot
from roles._types import ClusterPlan

CLAIM_PATIENCE_S = 30.0
"""From CLAIM until an initialiser that is not heard may be abandoned before STARTED."""

UNSEEN_S = 20.0

STARTED_PATIENCE_S = 90.0
"""The same for one that is heard, and still does not start: nothing runs yet, so no lease waits."""

TURN_S = 2.0
"""How much longer each voter waits than the one before it, and all of them for the initialiser."""


class Turns:
    """Looks at one generation."""

    def __init__(
        self,
        me: NodeId,
        log: DecisionLog,
        *,
        nomination: Nomination,
        evidence: Evidence,
        hearing: Hearing,
        now: Instant,
    ) -> None:
        self._me = me
        self._log = log
        self._nomination = nomination
        self._evidence = evidence
        self._hearing = hearing
        self._open_slot = log.open_slot
        self._opened_at = now
        self.forming: Forming | None = None
        self.stopped = False
        self.voters: Sequence[NodeId] = ()

    def note_open_slot(self, now: Instant) -> None:
        """Remember when the slot that is open now began to be it, in this life."""
        if self._log.open_slot != self._open_slot:
            self._open_slot, self._opened_at = self._log.open_slot, now

    def slot(self, now: Instant) -> Slot:
        """Return where the ballot that is due is: in the open slot, or to end all plans at once."""
        void, slot = self._void_from, self._log.open_slot
        assert slot is not None
        return slot if void is None or void > now else "done"

    def due(self, now: Instant) -> Instant | None:
        """Return when to open a ballot, or None if there is nothing to propose."""
        void, usual = self._void_from, self._usually_due(now)
        return min((at for at in (void, usual) if at is not None), default=None)

    def _usually_due(self, now: Instant) -> Instant | None:
        match self._log.open_slot:
            case "claim":
                return self._nomination.turn()
            case "started":
                return self._opened_at if self._is_mine else self._abandon_from("started")
            case "done":
                found = [self._done_from(now), self._abandon_from("done")]
                return min((at for at in found if at is not None), default=None)
            case None:
                return None

    def own_value(self, slot: Slot, now: Instant) -> bytes | None:
        """Return what this node proposes if the quorum leaves it the choice."""
        value: Value | None
        match slot:
            case "claim":
                plan = self._nomination.draw()
                value = Claim(plan) if plan is not None else None
            case "started":
                value = Started(self._me) if self._is_mine else self._abandon(slot, now)
            case "done":
                done_from = self._done_from(now)
                ready = done_from is not None and done_from <= now
                value = self._evidence.done if ready else self._ending(now)
        return encode_value(value) if value is not None else None

    @property
    def _plan(self) -> ClusterPlan | None:
        return self._log.plan

    @property
    def _is_mine(self) -> bool:
        return self._plan is not None and self._plan.initialiser == self._me

    def _done_from(self, now: Instant) -> Instant | None:
        """Return from when DONE may be proposed, None if not as things are."""
        if self._evidence.done is None or self._log.void is not None:
            return None
        if self.forming is not None and self._is_mine:
            until = self.forming.lease_until
            if not self.forming.holds or (until is not None and until <= now):
                return None
        return self._evidence.due

    @property
    def _void_from(self) -> Instant | None:
        """Return from when the end of all plans may be proposed, None if not as things are."""
        forming = self.forming
        if forming is None or self._log.void is None or math.isinf(forming.void_from):
            return None
        started = self._log.memory.started
        if self._is_mine and started and (forming.holds or not self.stopped):
            return None
        return Instant(forming.void_from + self._later)

    def _ending(self, now: Instant) -> Value | None:
        void = self._void_from
        return self._log.void if void is not None and void <= now else self._abandon("done", now)

    @property
    def _later(self) -> float:
        """How much later than the first of all this node takes its turn."""
        return TURN_S * (self.voters.index(self._me) if self._me in self.voters else 0)

    def _abandon_from(self, slot: Slot) -> Instant | None:
        """Return from when ABANDON may be proposed, None if not as things are."""
        plan = self._plan
        if plan is None or self._log.void is not None:
            return None  # Who follows a rival plan has to be able to agree.
        forming, later = self.forming, self._later
        if slot == "started":
            silent = self._hearing.silent_since(plan.initialiser)
            patience = self._opened_at + STARTED_PATIENCE_S
            if silent is not None:
                patience = max(self._opened_at + CLAIM_PATIENCE_S, silent + UNSEEN_S)
            if forming is not None:
                patience = max(patience, forming.unstarted_from)
            return Instant(patience + later)
        if forming is None:
            return None
        if self._is_mine:
            # It comes first, because it saw who joined it; but its k3s has to be down before.
            return forming.released_at if self.stopped else None
        if forming.released_at is not None:
            return Instant(forming.released_at + TURN_S + later)
        return Instant(max(self._opened_at + ABANDON_AFTER_S, forming.abandon_from) + later)

    def _abandon(self, slot: Slot, now: Instant) -> Abandon | None:
        due, plan = self._abandon_from(slot), self._plan
        if plan is None or due is None or now < due:
            return None
        failed = {
            seat.node
            for seat in plan.seats
            if seat.node != self._me and self._hearing.silent_since(seat.node) is not None
        }
        if self.forming is not None and self.forming.released_at is not None:
            reason = "its initialiser gave it up"
            if self._is_mine:
                failed.update(self._evidence.suspects(plan))
        else:
            did = "start it" if slot == "started" else "renew its lease"
            reason = f"its initialiser did not {did}"
            failed.add(plan.initialiser)
        return Abandon(plan.initialiser, reason, tuple(sorted(failed)))
