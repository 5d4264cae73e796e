"""What k3s on this node shall be: a pure function of what was decided and what others published.

Invariant: no order for a worker, and none that mentions the VIP, before DONE; `cluster-init` only
after STARTED; an address to join is another server's own address; before DONE k3s of a leased plan
has a deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ledger import Instant, NodeId
from meshd.events import ClusterOrder, Retire
from meshd.node._directory import Directory, Known
from meshd.node._removal import given_up_nodes, members_to_remove
from roles import ClusterPlan, GenesisState, RoleWish, Seat
from roles.resets import Succession

SeatKind = Literal["initialiser", "server", "worker", "none"]

SERVER_SECRETS = ("agent-token", "server-token")
WORKER_SECRETS = ("agent-token",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is decided in the current generation, as far as this node knows."""

    generation: int = 1
    plan: ClusterPlan | None = None
    started: bool = False
    may_initialise: bool = False  # STARTED names this node, and its intent is on its disk.
    formed: bool = False
    lease_until: Instant | None = None  # Of k3s on this node; None: no limit.
    stop: bool = False  # K3s of the plan is to be down here, for good.
    abandoned: tuple[str, ...] = ()  # Clusters of generations that are over.
    succession: Succession = field(
        default_factory=Succession
    )  # Resets since the cluster formed; `plan` has its seats.

    @property
    def epoch(self) -> int:
        """How often the cluster's membership was reset, as this node follows it."""
        return self.succession.epoch

    @classmethod
    def of(cls, state: GenesisState, succession: Succession | None = None) -> Standing:
        """Return what `state` says is decided, and what operators decided since.

        From its slots: a phase that says why this node stopped voting takes back no decision.
        """
        since = succession or Succession()
        return cls(
            generation=state.generation,
            plan=since.plan or state.plan,
            succession=since,
            started=state.started,
            may_initialise=state.may_initialise,
            formed=state.formed,
            lease_until=state.lease_until,
            stop=state.stop,
            abandoned=state.abandoned,
        )


NO_LEASE = Instant(0.0)
NOTHING = ClusterOrder(seat="none", plan=None, formed=False)


def seat_in(plan: ClusterPlan | None, node: NodeId, wish: RoleWish) -> SeatKind:
    """Return what `node` is under `plan`: its seat, else a worker, or nothing if it wishes so."""
    if plan is None:
        return "none"
    if plan.seat_of(node) is not None:
        return "initialiser" if plan.initialiser == node else "server"
    return "none" if wish == "none" else "worker"


def order_for(
    directory: Directory,
    *,
    wish: RoleWish,
    standing: Standing,
    sealed: Mapping[str, bytes],
    hold: str | None = None,
) -> ClusterOrder:
    """Return the order for this node.

    Args:
        directory: who is known, and what they published.
        wish: this node's own `p2p.role`.
        standing: what genesis decided.
        sealed: secrets sealed to this node, by name.
        hold: why k3s must not be started now, whatever was decided.
    """
    order = _order_under_plan(directory, wish=wish, standing=standing, sealed=sealed)
    if standing.epoch > 0:
        order = replace(
            order,
            epoch=standing.epoch,
            retire=_retire(directory, standing, wish),
            survivor=standing.succession.survivor == directory.me,
            readdressed=standing.succession.readdressed,
        )
    if order.seat == "none" or order.plan is None:
        return replace(order, abandoned=standing.abandoned) if standing.abandoned else order
    serves = order.formed and order.seat != "worker"
    lost = members_to_remove(directory, order.plan) if serves else ()
    return replace(
        order,
        abandoned=standing.abandoned,
        hold=hold,
        servers_version=_version_at(directory, order),
        remove=(*lost, *given_up_nodes(directory, standing.succession)),
        rival=_rival(directory, order.plan, standing) if serves else None,
        heard=_heard_seats(directory, order.plan, standing) if serves else (),
        serving=_serving_seats(directory, order.plan, standing) if serves else (),
    )


def _rival(directory: Directory, plan: ClusterPlan, standing: Standing) -> str | None:
    """Return the name of a server with a lower id on which a reset is under way, or None."""
    for seat in sorted(concerned(plan, standing.succession), key=lambda seat: seat.node):
        if seat.node >= directory.me:
            break
        known = directory[seat.node]
        if is_resetting(known, plan, standing.epoch) and seat.node in directory.present():
            return known.name
    return None


def is_resetting(known: Known, plan: ClusterPlan, epoch: int) -> bool:
    """Whether a reset of the cluster is under way there, as it says; only servers are asked."""
    record = known.k3s
    ours = record is not None and record.cluster_id == plan.cluster_id
    return ours and record is not None and record.resetting > epoch


def _heard_seats(directory: Directory, plan: ClusterPlan, standing: Standing) -> tuple[NodeId, ...]:
    """Return which other servers are heard; only while a reset is under way here."""
    if not is_resetting(directory[directory.me], plan, standing.epoch):
        return ()
    present = directory.present()
    seats = concerned(plan, standing.succession)
    return tuple(seat.node for seat in seats if seat.node in present and seat.node != directory.me)


def _serving_seats(directory: Directory, plan: ClusterPlan, standing: Standing) -> tuple[str, ...]:
    """Return the names of other servers whose API answers; only while a reset is under way here."""
    heard = _heard_seats(directory, plan, standing)
    return tuple(directory.name(node) for node in heard if answers(directory[node], plan))


def concerned(plan: ClusterPlan, succession: Succession) -> tuple[Seat, ...]:
    """Return the seats, and those of resets that contradict what is followed here."""
    rivals = (one for one in succession.rivals if one not in succession.chain)
    others = (seat for rival in rivals for seat in rival.record.seats)
    return tuple({seat.node: seat for seat in (*others, *plan.seats)}.values())


def answers(known: Known, plan: ClusterPlan) -> bool:
    """Whether an API server of the cluster answers there, with whatever database."""
    record = known.k3s
    ours = record is not None and record.cluster_id == plan.cluster_id
    return ours and record is not None and record.endpoint is not None


def _retire(directory: Directory, standing: Standing, wish: RoleWish) -> Retire | None:
    plan = standing.plan
    if plan is None or standing.epoch == 0:
        return None
    serving = any(
        _serves(directory[seat.node], plan, standing) and seat.node != directory.me
        for seat in plan.seats
        if directory[seat.node].link not in ("failed", "left")
    )
    seat = plan.seat_of(directory.me)
    return Retire(
        cluster_id=plan.cluster_id,
        epoch=standing.epoch,
        wholly=seat_in(plan, directory.me, wish) not in ("initialiser", "server"),
        now=serving,
        address=seat.node_ip if seat is not None else None,
    )


def _order_under_plan(
    directory: Directory, *, wish: RoleWish, standing: Standing, sealed: Mapping[str, bytes]
) -> ClusterOrder:
    plan = standing.plan
    if plan is None or not (standing.started or standing.formed):
        return NOTHING
    seat = seat_in(plan, directory.me, wish)
    if seat == "none" or standing.stop:
        stop = standing.stop and seat != "none"
        until = NO_LEASE if stop else None
        return ClusterOrder(
            seat=seat, plan=plan, formed=standing.formed, lease_until=until, stop=stop
        )
    join = servers_to_join(directory, standing)
    order = ClusterOrder(
        seat=seat,
        plan=plan,
        formed=standing.formed,
        join=join,
        lease_until=standing.lease_until,
    )
    if seat == "initialiser":
        if not (standing.may_initialise or standing.formed):
            return NOTHING
        # Once formed it has others to join, so that a lost database never means a second start.
        return order if standing.formed else replace(order, join=())
    needed = SERVER_SECRETS if seat == "server" else WORKER_SECRETS
    provided = tuple((name, sealed[name]) for name in needed if name in sealed)
    alone = seat == "server" and len(plan.seats) == 1  # After a reset; nobody is there to join.
    early = seat == "worker" and not standing.formed
    if early or not (join or alone) or len(provided) < len(needed):
        return NOTHING
    return replace(order, sealed=provided)


def _version_at(directory: Directory, order: ClusterOrder) -> str:
    """Return the version of k3s on the first server to join."""
    for seat in order.plan.seats if order.plan is not None else ():
        record = directory[seat.node].k3s
        if record is not None and order.join[:1] == (seat.node_ip,):
            return record.version
    return ""


def servers_to_join(directory: Directory, standing: Standing) -> tuple[str, ...]:
    """Return the node addresses of servers that this node can join now, the initialiser's first.

    Those whose API answers, and of them those not seen as dead. Should there be none: all other
    seats, if the cluster is formed or this node was sent to join before. After a power cut they
    are on their way back, and an etcd without a majority answers only once enough have started.
    After a reset a seat may still have the database of before: only those that had the new one.
    """
    plan = standing.plan
    assert plan is not None
    facts = directory[directory.me].facts
    here = facts.node_ip if facts is not None else None  # A seat of this machine's lost identity.
    others = [s for s in plan.seats if s.node != directory.me and s.node_ip != here]
    others.sort(key=lambda seat: seat.node != plan.initialiser)  # Stable: then in plan order.
    serving = [s for s in others if _serves(directory[s.node], plan, standing)]
    alive = [seat for seat in serving if directory[seat.node].link not in ("failed", "left")]
    chosen = alive or serving
    if not chosen and (standing.formed or _was_sent(directory, plan)):
        chosen = [seat for seat in others if _may_have_it(directory, seat.node, standing)]
    return tuple(seat.node_ip for seat in chosen)


def _may_have_it(directory: Directory, node: NodeId, standing: Standing) -> bool:
    """Whether a server that does not answer may have the database that is followed here.

    The survivor has it on its own disk, and is only to be told of anybody at all.
    """
    survivor, record = standing.succession.survivor, directory[node].k3s
    if standing.epoch == 0 or survivor in (node, directory.me):
        return True
    return (
        record is not None and record.epoch >= standing.epoch and follows(directory[node], standing)
    )


def follows(known: Known, standing: Standing) -> bool:
    """Whether a node says that it follows the same reset as this one."""
    head = standing.succession.head.hex()
    return standing.epoch == 0 or (known.k3s is not None and known.k3s.seats == head)


def _was_sent(directory: Directory, plan: ClusterPlan) -> bool:
    """Whether this node had an order under `plan` before: its own record says so, durably."""
    record = directory[directory.me].k3s
    return record is not None and record.cluster_id == plan.cluster_id


def _serves(known: Known, plan: ClusterPlan, standing: Standing) -> bool:
    """Whether a server answers, with a database of the resets that are followed here."""
    record = known.k3s
    is_of_now = record is not None and record.epoch >= standing.epoch
    return answers(known, plan) and is_of_now and follows(known, standing)
