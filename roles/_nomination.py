"""When this node may propose a CLAIM, and which plan: its own, drawn from who is here.

The best-ranked voter proposes first and makes itself the initialiser; each next one waits longer,
and then ranks those before it last, because they had their turn. Turns only avoid duels: agreement
is the business of the ballots.

Invariant: no plan is made with the secrets of an abandoned one. Members of that one hold its token
and trust its CA, so they could join what is begun with them. Whose secrets are spent leaves its
turn to the next, until it has new ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Literal

from ledger import Instant, NodeId
from roles._election import NOBODY, NotYet, elect, rank
from roles._electorate import machines
from roles._types import Bounds, Candidate, ClusterPlan

SETTLE_S = 1.5
"""How long the voters here must stay the same before a CLAIM, unless all machines are here.

The target for ten nodes to see one another after a joint cold start is 1.4 s (`make bench` measures
it), so the plan sees the better candidates; who comes later only misses a better rank.
"""

OPEN_SETTLE_S = 10.0
"""The same where nobody knows how many machines there are: a cut that ends within this time is no
danger, and there is no end to this waiting (docs/genesis.md)."""

SETTLE_MAX_S = 5.0
"""A guess: after this long with enough voters a flapping link delays the CLAIM no further."""

TURN_S = 2.0
"""How much longer each rank waits: several times what a healthy CLAIM takes."""


class Nomination:
    """The candidates that are here and vote, and how long they have been the same."""

    def __init__(
        self,
        me: NodeId,
        *,
        bounds: Bounds,
        vip: str | None,
        network: Literal["lan", "overlay"],
        rng: Random,
        generation: int,
        failed_before: Mapping[NodeId, int] = NOBODY,
    ) -> None:
        self._me = me
        self._bounds = bounds
        self._vip = vip
        self._network = network
        self._rng = rng
        self._generation = generation
        self._failed_before = failed_before
        self._quorum = bounds.quorum
        self._here: tuple[Candidate, ...] = ()
        self._settled_from: Instant | None = None
        self._enough_from: Instant | None = None
        self._place: int | None = None  # This node's rank among those who may hold a seat.
        self.plan: ClusterPlan | NotYet = NotYet("no candidate is known")
        """What this node would propose, cluster id left at zero, or what it lacks."""

    @property
    def here(self) -> tuple[Candidate, ...]:
        """The voters that are here, this node included if it votes; sorted by node id."""
        return self._here

    @property
    def enough(self) -> bool:
        """Whether a quorum of voters is here."""
        return len(self._here) >= self._quorum

    def update(
        self,
        candidates: Sequence[Candidate],
        voters: Collection[NodeId],
        present: Collection[NodeId],
        now: Instant,
        *,
        quorum: int,
        spent: Collection[str] = (),
    ) -> None:
        """Take a new view.

        Args:
            candidates: all that are known.
            voters: those of them that are recognised.
            present: the peers connected.
            now: the time.
            quorum: how many votes decide.
            spent: the CA hashes of abandoned plans.
        """
        self._quorum = quorum
        before = [candidate.node for candidate in self._here]
        self._here = tuple(
            sorted(
                (c for c in candidates if c.node in voters and _is_here(c.node, self._me, present)),
                key=lambda c: c.node,
            )
        )
        if self._settled_from is None or before != [c.node for c in self._here]:
            self._settled_from = now
        if not self.enough:
            self._enough_from = None
        elif self._enough_from is None:
            self._enough_from = now
        exhausted = frozenset(c.node for c in self._here if c.ca_hash in spent)
        ranking = rank(
            self._here,
            control_plane=self._bounds.control_plane,
            vip=self._vip,
            failed_before=self._failed_before,
        )
        eligible = [candidate.node for candidate in ranking.eligible]
        fresh = [node for node in eligible if node not in exhausted]
        self._place = fresh.index(self._me) if self._me in fresh else None
        proposers = [self._me] if self._me in fresh else fresh[:1]
        plan = elect(
            self._here,
            control_plane=self._bounds.control_plane,
            generation=self._generation,
            cluster_id="0" * 32,
            network=self._network,
            vip=self._vip,
            failed_before=self._failed_before,
            had_turn=[node for first in proposers for node in eligible[: eligible.index(first)]],
            away=[
                c
                for c in candidates
                if c.node in voters and not _is_here(c.node, self._me, present)
            ],
        )
        if isinstance(plan, ClusterPlan) and plan.initialiser in exhausted:
            names = ", ".join(c.shown for c in self._here if c.node in exhausted)
            plan = NotYet(f"{names} to make new secrets: those it had were of an abandoned plan")
        self.plan = plan

    def turn(self) -> Instant | None:
        """Return when this node may propose a CLAIM, or None as long as it must not."""
        if self._place is None or not self.enough or isinstance(self.plan, NotYet):
            return None
        assert self._settled_from is not None
        assert self._enough_from is not None
        if self._bounds.is_open:
            return Instant(self._settled_from + OPEN_SETTLE_S + self._place * TURN_S)
        complete = len(machines(self._here)) >= self._bounds.nodes_max
        settled = self._settled_from + (0.0 if complete else SETTLE_S)
        latest = self._enough_from + SETTLE_MAX_S
        return Instant(min(settled, latest) + self._place * TURN_S)

    def draw(self) -> ClusterPlan | None:
        """Return a plan with this node as initialiser and a new cluster id, or None if not now."""
        plan = self.plan
        if isinstance(plan, NotYet) or plan.initialiser != self._me or not self.enough:
            return None
        return replace(plan, cluster_id=f"{self._rng.getrandbits(128):032x}")


def _is_here(node: NodeId, me: NodeId, present: Collection[NodeId]) -> bool:
    return node == me or node in present
