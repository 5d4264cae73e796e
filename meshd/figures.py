"""What a node can be counted by: a snapshot of a `Node` for `/metrics`. Pure.

Invariant: no figure is kept for each node, key or address, so their number does not grow.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from meshd.node import Node, NodePhase, seat_in
from meshd.schema import K3sState, LinkState, PathKind
from meshd.status import living_servers
from roles import GenesisPhase

Seat = Literal["control-plane", "worker", "none", "undecided"]
Path = PathKind | Literal["none"]


_PEERS: tuple[tuple[LinkState, Path], ...] = (
    *(("alive", path) for path in ("direct", "relay", "none")),
    *(("suspect", path) for path in ("direct", "relay", "none")),
    ("failed", "none"),
    ("left", "none"),
)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of one node."""

    role: Seat
    phase: NodePhase
    genesis_phase: GenesisPhase
    generation: int
    k3s: K3sState
    peers: tuple[tuple[LinkState, Path, int], ...]  # Others only; sorted.
    entries: tuple[tuple[str, int], ...]  # Of the ledger, by the first word of their keys; sorted.
    rejected: int
    equivocating: int
    health: tuple[tuple[str, str, int], ...]  # (code, severity, how many), sorted.
    holds_vip: bool | None  # None without a VIP.
    control_plane_ready: int
    nodes_ready: int | None


def read_figures(node: Node) -> Figures:
    """Return the figures of `node` as it stands between two events."""
    present = node.directory.present()
    # With zeros, so that "none is alive" can be asked for.
    peers: Counter[tuple[LinkState, Path]] = Counter(dict.fromkeys(_PEERS, 0))
    peers.update(
        (node.directory.state_of(known, present), _path(known.path if known.connected else None))
        for known in node.directory.others()
    )
    buckets = Counter(
        entry.key.partition("/")[0]
        for entry in node.replica.entries.values()
        if entry.value is not None
    )
    observed = node.observed
    records = [known.k3s for known in living_servers(node, present) if known.k3s is not None]
    counts = [one.nodes_ready for one in records if one.nodes_ready is not None]
    health = Counter((item.code, item.severity) for item in node.health)
    return Figures(
        role=_role(node),
        phase=node.phase,
        genesis_phase=node.genesis.state.phase,
        generation=node.genesis.state.generation,
        k3s=observed.state if observed is not None else "absent",
        peers=tuple((state, path, count) for (state, path), count in sorted(peers.items())),
        entries=tuple(sorted(buckets.items())),
        rejected=sum(node.rejected.values()),
        equivocating=len(node.replica.equivocations),
        health=tuple((code, severity, count) for (code, severity), count in sorted(health.items())),
        holds_vip=_holds_vip(node),
        control_plane_ready=sum(one.state == "ready" for one in records),
        nodes_ready=max(counts, default=None),
    )


def _path(path: PathKind | None) -> Path:
    return path if path is not None else "none"


def _role(node: Node) -> Seat:
    if node.facts.role_wish == "none":
        return "none"
    if node.standing.plan is None:
        return "undecided"
    seat = seat_in(node.standing.plan, node.me, node.facts.role_wish)
    return "worker" if seat == "worker" else "control-plane"


def _holds_vip(node: Node) -> bool | None:
    """Return whether k3s here says that this node serves the VIP."""
    if node.vip is None:
        return None
    return node.observed is not None and node.observed.vip_holder == node.facts.node_name
