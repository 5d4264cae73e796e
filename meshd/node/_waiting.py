"""What this node waits for, in words: every state that is not the last one names its cause."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, assert_never

from meshd.events import ClusterOrder, K3sObserved
from meshd.node._directory import Directory
from meshd.node._orders import NO_LEASE, SERVER_SECRETS, WORKER_SECRETS, seat_in
from roles import ClusterPlan, GenesisState, RoleWish

NodePhase = Literal["starting", "discovering", "voting", "joining", "steady", "halted", "leaving"]


def waiting_for(
    directory: Directory,
    *,
    wish: RoleWish,
    genesis: GenesisState,
    order: ClusterOrder,
    observed: K3sObserved | None,
    sealed: Collection[str],
) -> str | None:
    """Return a sentence a person understands, or None if this node is where it should be."""
    plan = genesis.plan
    facts = directory[directory.me].facts
    if plan is None and wish != "none" and facts is not None and facts.node_ip is None:
        return "this machine to get a network address"
    if genesis.phase.startswith("halted") or plan is None:
        return genesis.waiting_for or "other machines with this token"
    seat = seat_in(plan, directory.me, wish)
    if seat == "none":
        return None
    if genesis.phase == "claimed":
        return genesis.waiting_for or f"{directory.name(plan.initialiser)} to start the cluster"
    if order.seat == "none":
        return _before_any_order(directory, plan, seat, genesis, sealed)
    return _under_orders(directory, plan, genesis, order, observed)


def _under_orders(
    directory: Directory,
    plan: ClusterPlan,
    genesis: GenesisState,
    order: ClusterOrder,
    observed: K3sObserved | None,
) -> str | None:
    if order.stop or order.lease_until == NO_LEASE:
        return genesis.waiting_for or "the voters to let k3s run"
    if observed is None or observed.state != "ready":
        told = observed.waiting_for if observed is not None else None
        return told or "k3s on this node to become ready"
    if genesis.phase != "formed":
        return genesis.waiting_for or _before_done(directory, plan, observed)
    return None


def phase_of(
    genesis: GenesisState, *, seat: str, waiting: str | None, has_facts: bool
) -> NodePhase:
    """Return interface.md's `node.phase`: where this node is on its way."""
    if not has_facts:
        return "starting"
    match genesis.phase:
        case "discovering":
            return "discovering"
        case "voting":
            return "voting"
        case "claimed" | "started" | "formed":
            done = waiting is None and (genesis.phase == "formed" or seat == "none")
            return "steady" if done else "joining"
        case (
            "halted-too-many-voters"
            | "halted-settings-mismatch"
            | "halted-equivocation"
            | "halted-lost-memory"
        ):
            return "halted"
        case _:
            assert_never(genesis.phase)


def _before_any_order(
    directory: Directory,
    plan: ClusterPlan,
    seat: Literal["initialiser", "server", "worker"],
    genesis: GenesisState,
    sealed: Collection[str],
) -> str:
    first = directory.name(plan.initialiser)
    match seat:
        case "initialiser":
            return genesis.waiting_for or "the vote that lets this node start the cluster"
        case "server":
            missing = [name for name in SERVER_SECRETS if name not in sealed]
            return (
                f"{first} to hand over the {' and the '.join(missing)}"
                if missing
                else f"k3s on {first} to answer: it starts the cluster, this node joins it"
            )
        case "worker":
            if genesis.phase != "formed":
                return f"the control plane ({_names(directory, plan)}) to be complete"
            missing = [name for name in WORKER_SECRETS if name not in sealed]
            return (
                f"a server ({_names(directory, plan)}) to hand over the agent-token"
                if missing
                else f"a server ({_names(directory, plan)}) to answer"
            )
        case _:
            assert_never(seat)


def _before_done(directory: Directory, plan: ClusterPlan, observed: K3sObserved) -> str:
    absent = [seat.node for seat in plan.seats if seat.node_name not in observed.voters]
    there = len(plan.seats) - len(absent)
    names = ", ".join(directory.name(node) for node in absent) or "none"
    return f"{there} of {len(plan.seats)} control-plane members vote in etcd; missing: {names}"


def _names(directory: Directory, plan: ClusterPlan) -> str:
    return ", ".join(directory.name(seat.node) for seat in plan.seats)
