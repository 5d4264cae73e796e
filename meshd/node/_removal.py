"""Whose old membership of etcd has to go before that server can join again: pure.

A server of a formed cluster that lost its database is told to join, and etcd refuses it while its
member of before is listed. Only that server itself knows that nothing is left of its member, and
says so; nobody is removed on what others think of him.
"""

from __future__ import annotations

from ledger import NodeId
from meshd.node._directory import Directory, Known
from roles import ClusterPlan
from roles.resets import Succession


def members_to_remove(directory: Directory, plan: ClusterPlan) -> tuple[str, ...]:
    """Return the Kubernetes node names of members that this server shall remove now.

    Nothing, unless all other seats are ready servers, so that no majority hangs on the one that
    is removed; of those the first in the plan does it.
    """
    seats = [directory[seat.node] for seat in plan.seats]
    lost = [known for known in seats if _lost(known, plan)]
    others = [known for known in seats if known not in lost]
    if not lost or not all(_is_ready(known, directory.me, plan) for known in others):
        return ()
    if not others or others[0].node != directory.me:
        return ()
    names = {seat.node: seat.node_name for seat in plan.seats}
    return tuple(names[known.node] for known in lost)


def given_up_nodes(directory: Directory, succession: Succession) -> tuple[str, ...]:
    """Return the Kubernetes node names of seats that a reset gave up, for its survivor to remove.

    Only until this node has said that they are gone: a machine that comes back as a worker gets a
    Node of the same name, which must not be taken for the old one.
    """
    record = directory[directory.me].k3s
    if not succession.chain or (record is not None and record.epoch >= succession.epoch):
        return ()
    last = succession.chain[-1].record
    if last.survivor != directory.me:
        return ()
    seats = succession.before_last
    return tuple(seat.node_name for seat in seats if seat.node in last.dead)


def _lost(known: Known, plan: ClusterPlan) -> bool:
    record = known.k3s
    return record is not None and record.lost_database and record.cluster_id == plan.cluster_id


def _is_ready(known: Known, me: NodeId, plan: ClusterPlan) -> bool:
    record = known.k3s
    if record is None or record.state != "ready" or record.cluster_id != plan.cluster_id:
        return False
    return known.node == me or known.link not in ("failed", "left")
