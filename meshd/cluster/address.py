"""The address by which the cluster knows this node, and when it becomes another one.

Invariant: it never changes but by a reset of etcd's membership that gave seats other addresses. A
server then has its seat's; a worker, whom no record names, its machine's at that time, once.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ledger import NodeId
from meshd.cluster.mark import Disk, Mark
from meshd.events import ClusterOrder


def address_of(order: ClusterOrder, me: NodeId, disk: Disk, now: str | None) -> str | None:
    """Return the address that k3s is started with; `now` is what would be chosen today."""
    seat = order.plan.seat_of(me) if order.plan is not None else None
    if seat is not None:
        return seat.node_ip
    # Frozen at the first start, however the machine's addresses change later.
    frozen = disk.agent_mark.node_ip if isinstance(disk.agent_mark, Mark) else None
    return frozen or now


def readdressed(
    order: ClusterOrder, me: NodeId, disk: Disk, now: str | None, held: Collection[str]
) -> Mark | str | None:
    """Return the agent's mark with its new address, what that waits for, or None if it stays.

    Args:
        order: what is ordered.
        me: this node.
        disk: what lies on it.
        now: the address that would be chosen today.
        held: all that this machine has: a worker that still has its own keeps it.
    """
    mark = disk.agent_mark
    if not isinstance(mark, Mark) or mark.epoch >= order.readdressed:
        return None
    seat = order.plan.seat_of(me) if order.plan is not None else None
    if seat is not None:
        return msgspec.structs.replace(mark, node_ip=seat.node_ip, epoch=order.readdressed)
    if order.retire is None or not order.retire.now:
        return (
            f"a server of epoch {order.epoch} to answer: the servers have other addresses since "
            "then, and k3s here is started again for them"
        )
    address = mark.node_ip if mark.node_ip in held else now
    if address is None:
        return "this machine to get a network address"
    return msgspec.structs.replace(mark, node_ip=address, epoch=order.readdressed)
