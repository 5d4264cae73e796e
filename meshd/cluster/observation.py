"""From what was seen of k3s to what is said about it: pure.

Invariant: `ready` is said only of a k3s whose own API says so, and that votes (servers) or whose
Node is Ready (all that run pods). What it was told to do proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ledger import Instant
from meshd.cluster.complaints import STALE_MEMBER, Complaint, exit_complaint
from meshd.cluster.hostinit import Exit, Held
from meshd.cluster.k3s import ServerReading
from meshd.cluster.obstacle import Obstacle
from meshd.cluster.plan import url_of
from meshd.events import ClusterOrder, K3sObserved
from meshd.schema import K3sState


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at everything.

    Args:
        obstacle: why k3s is not to be started, if it is not.
        order: what is ordered; until formed a server is of use once it can be joined.
        complaint: what k3s complained about a moment ago.
        server: what a server said; None on a worker, or if k3s does not run.
        worker: why a worker is not ready, None if it is; of no meaning on a server.
        has_database: whether etcd has one on this disk.
        stopped: clusters that are down on this node, as ordered.
        loops: whether k3s ended again and again without being ready.
        silence: its last words, if it runs for long and is not ready.
        resetting: the epoch that a reset under way is to begin.
        superseded: a database of before a reset is being served.
        has_node: whether this node has a Node object (servers without agent have none).
    """

    node_name: str
    node_ip: str | None
    order: ClusterOrder
    version: str
    obstacle: Obstacle | None
    held: Held
    complaint: Complaint | None
    server: ServerReading | None
    worker: str | None
    has_node: bool
    vip_answers: bool
    has_database: bool = True
    stopped: tuple[str, ...] = ()
    loops: bool = False
    silence: str | None = None
    resetting: int = 0
    superseded: bool = False


def observed(seen: Seen, before: K3sObserved) -> K3sObserved:
    """Return what to say, given what was said before (for what is not read at every look)."""
    state, waiting_for = _state(seen)
    said = K3sObserved(
        state=state,
        waiting_for=waiting_for,
        version=seen.version,
        vip_answers=seen.vip_answers,
        cluster_id=seen.held.cluster or "",
        exits=seen.held.exits,
        lease_until=_fuse_until(seen),
        stopped=seen.stopped,
        lost_database=_has_lost_its_database(seen),
        epoch=before.epoch,
        resetting=seen.resetting,
        superseded=seen.superseded,
    )
    server = seen.server
    if server is None:
        return said
    answers = server.api_answers or (not seen.order.formed and _can_be_joined(seen, server))
    ready = None if server.nodes is None else sum(is_ready for _, is_ready in server.nodes)
    return replace(
        said,
        endpoint=url_of(seen.node_ip) if answers and seen.node_ip else None,
        voters=server.voters or (),
        members=_member_names(seen.order, server.members or ()),
        kube_system_uid=server.uid or before.kube_system_uid,
        nodes_ready=ready,
        epoch=max(before.epoch, _served_epoch(seen, server, state)),
        vip_holder=server.lease.holder if server.lease is not None else None,
    )


def _served_epoch(seen: Seen, server: ServerReading, state: K3sState) -> int:
    """Return the epoch of the database that is served, once no Node of a dead seat is left."""
    settled = state == "ready" and not seen.superseded
    nodes = None if server.nodes is None else {name for name, _ in server.nodes}
    gone = not seen.order.remove or (nodes is not None and not nodes & set(seen.order.remove))
    return seen.order.epoch if settled and gone else 0


def _has_lost_its_database(seen: Seen) -> bool:
    if seen.has_database or not seen.order.formed or seen.order.seat == "worker":
        return False
    last = seen.held.last_exit
    how = exit_complaint(last.code, last.signal, last.lines) if last is not None else None
    return any(said is not None and said.sentence == STALE_MEMBER for said in (seen.complaint, how))


def _can_be_joined(seen: Seen, server: ServerReading) -> bool:
    """Whether others may begin to join a server of a cluster that is not formed yet.

    A k3s that joins takes seconds until it asks for etcd, and then waits for it. One that asks the
    initialiser early is in time for its first promotion of learners, and the next is 15 s later.
    """
    return server.voters is not None or (server.greets and seen.order.seat == "initialiser")


def _fuse_until(seen: Seen) -> Instant | None:
    """Return the deadline that the fuse holds for the ordered cluster, None without one."""
    plan, until = seen.order.plan, seen.held.lease_until
    if plan is None or plan.cluster_id != seen.held.cluster or until is None:
        return None
    return until if math.isfinite(until) else None


def _member_names(order: ClusterOrder, members: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Name the members: one that is joining has no name in etcd, but a seat's address."""
    seats = order.plan.seats if order.plan is not None else ()
    of_address = {seat.node_ip: seat.node_name for seat in seats}
    return tuple(sorted(name or of_address.get(host, host) for name, host in members))


def _state(seen: Seen) -> tuple[K3sState, str | None]:
    if seen.held.pid is None:
        return _state_without_k3s(seen)
    missing = seen.worker if seen.server is None else _missing_on_server(seen, seen.server)
    if missing is None:
        # Running well, yet it could not be started again: that is worth knowing before it must.
        return "ready", None if seen.obstacle is None else seen.obstacle.sentence
    if seen.obstacle is not None:
        return seen.obstacle.state, seen.obstacle.sentence
    if seen.loops and seen.held.last_exit is not None:
        return _after_exit(seen, seen.held.last_exit)
    if seen.complaint is not None:
        return "failed" if seen.complaint.hopeless else "starting", seen.complaint.sentence
    words = f", for over two minutes; it last said: {seen.silence}" if seen.silence else ""
    return "starting", f"{missing}{words}"


def _state_without_k3s(seen: Seen) -> tuple[K3sState, str]:
    if seen.obstacle is not None:
        return seen.obstacle.state, seen.obstacle.sentence
    if seen.held.blocked is not None:
        return "failed", (
            f"{seen.held.blocked} is gone: restore the database from a backup or a snapshot; an "
            "empty one would be a second cluster"
        )
    if seen.held.refused is not None:
        return "waiting", seen.held.refused
    if seen.held.unleased:
        return "waiting", (
            "until the cluster is formed k3s runs only while a quorum of voters keeps answering "
            "its initialiser, and just now too little of that time is left"
        )
    last = seen.held.last_exit
    if last is None:
        return "starting", "k3s is being started"
    return _after_exit(seen, last)


def _after_exit(seen: Seen, last: Exit) -> tuple[K3sState, str]:
    """Say why k3s ended: while it is down, and while it runs only to end again."""
    complaint = exit_complaint(last.code, last.signal, last.lines)
    if seen.loops:
        return "failed", f"again and again: {complaint.sentence}"
    return "failed" if complaint.hopeless else "starting", complaint.sentence


def _missing_on_server(seen: Seen, server: ServerReading) -> str | None:
    if server.obstacle is not None:
        return server.obstacle
    if server.voters is None:
        return "etcd's members cannot be read"
    if seen.node_name not in server.voters:
        return "etcd has not made this member a voter yet"
    if seen.has_node and (seen.node_name, True) not in (server.nodes or ()):
        return "its Node is not Ready yet"
    return None
