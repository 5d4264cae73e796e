"""What k3s on this node shows of the new cluster, and when that is enough for DONE."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ledger import Instant, NodeId
from roles._records import Done, done_voters_min
from roles._types import ClusterPlan

DONE_TURN_S = 3.0
"""Each further seat leaves DONE this much longer to those before it; deciding takes under 1 s."""


class Evidence:
    """The etcd voters of the plan as this node's own k3s names them."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self.joined: tuple[str, ...] = ()  # Node names of plan members that vote in etcd.
        self.done: Done | None = None  # What this node would propose.
        self.due = Instant(math.inf)  # When it would.
        self._reading: tuple[tuple[str, ...], str | None] = ((), None)

    def observe(
        self,
        plan: ClusterPlan | None,
        voters: Sequence[str],
        kube_system_uid: str | None,
        now: Instant,
    ) -> None:
        """Take a new reading; it replaces the one before."""
        self._reading = (tuple(voters), kube_system_uid)
        self.weigh(plan, now)

    def weigh(self, plan: ClusterPlan | None, now: Instant) -> None:
        """Find out whether the last reading is enough for DONE under this plan.

        DONE is proposed by the initialiser, or by a joined member that sees itself and the
        initialiser vote, and only once `done_voters_min` members do.
        """
        voters, kube_system_uid = self._reading
        seats = plan.seats if plan is not None else ()
        self.joined = tuple(seat.node_name for seat in seats if seat.node_name in voters)
        place = next((p for p, seat in enumerate(seats) if seat.node == self._me), None)
        if plan is None or place is None or not kube_system_uid or not self._enough(plan, place):
            self.done, self.due = None, Instant(math.inf)
            return
        if self.done is None:
            self.due = Instant(now + place * DONE_TURN_S)
        self.done = Done(plan.initialiser, kube_system_uid, tuple(sorted(self.joined)))

    def _enough(self, plan: ClusterPlan, place: int) -> bool:
        needed = {plan.seats[0].node_name, plan.seats[place].node_name}
        return needed <= set(self.joined) and len(self.joined) >= done_voters_min(len(plan.seats))
