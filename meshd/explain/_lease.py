"""How long k3s may still run before the cluster has formed, and who lets it."""

from __future__ import annotations

from ledger import NodeId
from meshd.explain._evidence import listed, names
from meshd.explain._model import Cause
from meshd.node import Node
from roles import GenesisState, LeaseState


def lease_causes(node: Node, state: GenesisState, now: float) -> list[Cause]:
    """Return this node's part in the forming lease; nothing once formed, and without a lease."""
    lease, plan = state.lease, state.plan
    if lease is None or plan is None or state.formed:
        return []
    texts = {
        "initialiser": _of_initialiser,
        "member": _of_member,
        "voter": _of_voter,
    }[lease.role](node, lease, plan.initialiser, now)
    return [Cause(subject="lease", text=text) for text in texts]


def _of_initialiser(node: Node, lease: LeaseState, _: NodeId, now: float) -> list[str]:
    if lease.gave_up is not None:
        down = listed(names(node, lease.down)) if lease.down else "nobody yet"
        said = "it said that nothing runs any more" if lease.released else f"down so far: {down}"
        return [f"this node gave this generation up: {lease.gave_up}; {said}"]
    answers = [
        f"{node.directory.name(voter)} (asked {now - at:.0f} s ago)" for voter, at in lease.answered
    ]
    by = listed(answers) if answers else "nobody yet"
    return [f"{_left(lease, now)}; let run on by {by}"]


def _of_member(node: Node, lease: LeaseState, first: NodeId, now: float) -> list[str]:
    return [f"{_left(lease, now)}, as {node.directory.name(first)} shares it", *_vote(lease, now)]


def _of_voter(node: Node, lease: LeaseState, first: NodeId, now: float) -> list[str]:
    return [f"{node.directory.name(first)} needs this node's answers", *_vote(lease, now)]


def _left(lease: LeaseState, now: float) -> str:
    left = lease.until - now
    return f"k3s here may run {left:.0f} s more" if left > 0 else "k3s here may not run now"


def _vote(lease: LeaseState, now: float) -> list[str]:
    if lease.mute:
        return ["this node voted to give the generation up, so it answers no more"]
    ago = now - lease.last_answer
    since = f"this node's last answer, or its start, was {ago:.0f} s ago"
    return [f"{since}; it may vote to give the generation up 90 s after that (docs/genesis.md)"]
