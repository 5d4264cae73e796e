"""What k3s on this node shows of the new cluster, and when that is enough for DONE."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ledger import Instant, NodeId
from roles._records import Done, done_voters_min
from roles._types import ClusterPlan

DONE_TURN_S = 3.0
"""Each further seat leaves DONE this much longer to those before it; deciding takes under 1 s."""


EXITS_MAX = 5
"""So many ends of k3s by itself are more than bad luck."""

DOUBLINGS_MAX = 5


def exits_max(generation: int) -> int:
    """Return how many ends of k3s a generation bears.

    Where k3s ends on all machines, generations must not follow in a minute's time for ever, each
    with data to set aside; the first one after a failure shall be quick.
    """
    return EXITS_MAX << min(max(generation - 2, 0), DOUBLINGS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class K3sReading:
    """What k3s on this node says.

    Args:
        cluster_id: whose data it runs with; "" if that is not known.
        voters: node names of etcd's voters.
        kube_system_uid: tells clusters apart.
        members: node names of etcd's members, learners included.
        exits: how often k3s of this cluster ended by itself in this boot.
        stopped: cluster ids of which nothing runs here, and nothing will be started.
    """

    cluster_id: str = ""
    voters: tuple[str, ...] = ()
    kube_system_uid: str | None = None
    members: tuple[str, ...] = ()
    exits: int = 0
    stopped: tuple[str, ...] = ()


class Evidence:
    """The etcd voters of the plan as this node's own k3s names them."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self.joined: tuple[str, ...] = ()  # Node names of plan members that vote in etcd.
        self.members: tuple[NodeId, ...] = ()  # Plan members that etcd has, as was last read.
        self.done: Done | None = None  # What this node would propose.
        self.due = Instant(math.inf)  # When it would.
        self.reading = K3sReading()
        self._came: set[NodeId] = set()  # Plan members that etcd ever had in this life,
        self._voted: set[NodeId] = set()  # and that ever voted in it.
        self._exits = 0  # The most that were read.

    def observe(self, plan: ClusterPlan | None, reading: K3sReading, now: Instant) -> None:
        """Take a new reading; it replaces the one before."""
        self.reading = reading
        self.weigh(plan, now)

    def about(self, plan: ClusterPlan) -> K3sReading | None:
        """Return the last reading if it is of this plan's cluster.

        K3s of an earlier generation may still have been running when it was read; of plans without
        a lease there is no other generation.
        """
        ours = self.reading.cluster_id == plan.cluster_id
        unnamed = self.reading.cluster_id == "" and not plan.leased
        return self.reading if ours or unnamed else None

    def weigh(self, plan: ClusterPlan | None, now: Instant) -> None:
        """Find out whether the last reading is enough for DONE under this plan.

        DONE is proposed by the initialiser, or by a joined member that sees itself and the
        initialiser vote, and only once `done_voters_min` members do.
        """
        reading = self.about(plan) if plan is not None else None
        seats = plan.seats if plan is not None else ()
        voters = reading.voters if reading is not None else ()
        self.joined = tuple(seat.node_name for seat in seats if seat.node_name in voters)
        if reading is not None:
            self._voted |= {seat.node for seat in seats if seat.node_name in voters}
            self._came |= {seat.node for seat in seats if seat.node_name in reading.members}
            self._exits = max(self._exits, reading.exits)
        if reading is None:
            self.members = ()
        elif reading.members:  # An etcd without a majority cannot say; then the last word counts.
            self.members = tuple(s.node for s in seats if s.node_name in reading.members)
        place = next((p for p, seat in enumerate(seats) if seat.node == self._me), None)
        uid = reading.kube_system_uid if reading is not None else None
        if plan is None or place is None or not uid or not self._enough(plan, place):
            self.done, self.due = None, Instant(math.inf)
            return
        if self.done is None:
            self.due = Instant(now + place * DONE_TURN_S)
        self.done = Done(plan.initialiser, uid, tuple(sorted(self.joined)))

    def suspects(self, plan: ClusterPlan) -> tuple[NodeId, ...]:
        """Return, on the initialiser, who kept the control plane from being complete.

        That is whoever never got to vote in its etcd: those that stayed learners, if there are any,
        because k3s lets nobody else join meanwhile. If nobody came at all, or its own k3s ended
        again and again, it is the initialiser.
        """
        others = [seat.node for seat in plan.seats if seat.node != self._me]
        came = self._came | self._voted
        if self._exits >= exits_max(plan.generation) or not came.intersection(others):
            return (self._me,)
        late = [node for node in others if node not in self._voted]
        return tuple([node for node in late if node in came] or late)

    def _enough(self, plan: ClusterPlan, place: int) -> bool:
        needed = {plan.seats[0].node_name, plan.seats[place].node_name}
        return needed <= set(self.joined) and len(self.joined) >= done_voters_min(len(plan.seats))
