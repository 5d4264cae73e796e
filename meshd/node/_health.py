"""Health items that the core itself finds; the shell's own are added to them.

Codes: MESH-3302 to MESH-3306, MESH-4030; those of clocks are in `meshd.node._clocks`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ledger import NodeId
from meshd.events import Health
from meshd.node._directory import Directory
from meshd.schema import Facts
from roles import ClusterPlan, GenesisState, Refusal


def health_items(
    directory: Directory,
    *,
    state: GenesisState,
    rejected: Mapping[NodeId, int],
    contradictions: Mapping[NodeId, str],
    vip: str | None,
    servers: Collection[NodeId],
) -> tuple[Health, ...]:
    """Return what is wrong as far as the core can tell, errors first.

    Args:
        directory: who is known.
        state: of genesis.
        rejected: how many frames or entries of each peer broke the protocol.
        contradictions: authors that signed two values with one `seq`, and of which key.
        vip: this node's own setting.
        servers: who has a seat, once the cluster is formed.
    """
    items = [
        Health(code=p.code, severity=p.severity, message=p.message, fix=p.fix)
        for p in state.problems
    ]
    items += [
        Health(
            code="MESH-3303",
            severity="error",
            message=f"{directory.name(author)} signed two different values of {key}: its key is "
            "in use on two machines, or it was restored from an old disk",
            fix="stop the machine that runs with a copied state directory, and delete the copy",
        )
        for author, key in sorted(contradictions.items())
    ]
    items += [
        Health(
            code="MESH-3302",
            severity="warning",
            message=f"{count} frames or entries from {directory.name(peer)} broke the protocol "
            "and were rejected",
            fix="run the same version of meshd on both; if it goes on, revoke that node",
        )
        for peer, count in sorted(rejected.items())
    ]
    items += [
        Health(
            code="MESH-3304",
            severity="warning",
            message=f"{known.name} is set up with the VIP {known.facts.vip or 'none'}, this node "
            f"with {vip or 'none'}",
            fix="give all machines the same kubevip.eip",
        )
        for known in directory.others()
        if servers  # Before, whoever differs does not vote, and is named for that.
        if known.facts is not None and _may_lead(known.facts.role_wish) and known.facts.vip != vip
    ]
    items += _lost_servers(directory, servers)
    items += _doubled_address(directory, state, vip)
    items += _not_counted(directory, () if state.formed else state.excluded)
    return tuple(sorted(items, key=lambda item: item.severity != "error"))


def _doubled_address(directory: Directory, state: GenesisState, vip: str | None) -> list[Health]:
    """Say who holds the virtual address in each of two clusters that came of one token."""
    if vip is None or state.plan is None:
        return []
    holders: dict[str, str] = {}
    for plan in (state.plan, *state.rivals):
        for record in (directory[seat.node].k3s for seat in plan.seats):
            if record is not None and record.vip_holder and record.cluster_id == plan.cluster_id:
                holders[plan.cluster_id] = record.vip_holder
    if len(holders) < 2:
        return []
    found = ", ".join(f"{holder} in cluster {key[:8]}" for key, holder in holders.items())
    return [
        Health(
            code="MESH-4030",
            severity="error",
            message=f"the virtual address {vip} is held twice: by {found}",
            fix="nothing is stopped: decide which cluster stays, and stop k3s on the other's nodes",
        )
    ]


def _lost_servers(directory: Directory, servers: Collection[NodeId]) -> list[Health]:
    """Say which servers are not heard, and what that means for etcd's majority."""
    lost = sorted(directory.name(node) for node in servers if directory[node].link == "failed")
    if not lost:
        return []
    left, majority = len(servers) - len(lost), len(servers) // 2 + 1
    spare = left - majority
    meaning = (
        "etcd has no majority: the cluster cannot be changed"
        if spare < 0
        else f"etcd can lose {spare} more"
        if spare
        else "etcd cannot lose another"
    )
    return [
        Health(
            code="MESH-3305",
            severity="error" if spare < 0 else "warning",
            message=f"not heard as far as this node reaches: {', '.join(lost)}; {left} of "
            f"{len(servers)} servers are left, {meaning}",
            fix="switch the machine on again, or mend its network",
        )
    ]


def changed_settings(plan: ClusterPlan | None, me: NodeId, facts: Facts) -> list[Health]:
    """Say which settings of a server are not those that the cluster was formed with.

    Args:
        plan: the decided one, once the cluster is formed.
        me: this node.
        facts: its own.
    """
    if plan is None or plan.seat_of(me) is None:
        return []
    changes = []
    if facts.control_plane != len(plan.seats):
        changes.append(f"a control plane of {facts.control_plane}, formed with {len(plan.seats)}")
    if facts.vip != plan.vip:
        changes.append(f"kubevip.eip {facts.vip or 'none'}, formed with {plan.vip or 'none'}")
    elif facts.settings_hash != plan.settings_hash:
        now = ", ".join(f"{key}={value}" for key, value in facts.settings) or "all by default"
        changes.append(f"other settings of k3s that all servers share (now {now})")
    if not changes:
        return []
    return [
        Health(
            code="MESH-3313",
            severity="warning",
            message="this node is set up otherwise than the cluster was formed: "
            f"{'; '.join(changes)}",
            fix="put the settings back: the cluster keeps what it was formed with",
        )
    ]


def _not_counted(directory: Directory, excluded: Collection[Refusal]) -> list[Health]:
    return [
        Health(
            code="MESH-3306",
            severity="warning",
            message=f"{directory.name(refusal.node)} is not counted as a voter: {refusal.reason}",
            fix="give all machines that may vote the same token and the same configuration",
        )
        for refusal in excluded
    ]


def _may_lead(wish: str) -> bool:
    return wish in ("auto", "control-plane")
