"""Nodes, plans and records that the tests of the node's parts are made of."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import NodeId, Signer
from meshd.events import K3sObserved
from meshd.node import Directory
from meshd.schema import Facts, K3sRecord, K3sState
from roles import Bounds, ClusterPlan, RoleWish, Seat

BOUNDS = Bounds.bounded(control_plane=3, nodes_max=5)
SIGNERS = tuple(
    sorted(
        (Signer(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(1, 8)),
        key=lambda signer: signer.node_id,
    )
)
IDS: tuple[NodeId, ...] = tuple(signer.node_id for signer in SIGNERS)


def facts(number: int, *, wish: RoleWish = "auto", may_vote: bool = True) -> Facts:
    """Return what node `number`, from 0, says of itself."""
    return Facts(
        name=f"n{number}",
        node_name=f"n{number}-{number:08x}",
        node_ip=f"10.0.0.{10 + number}",
        addresses=(f"/ip4/10.0.0.{10 + number}/tcp/7946",),
        sealing_key=bytes([number]) * 32,
        memory_mib=4096,
        cpus=2,
        role_wish=wish,
        may_vote=may_vote,
        bound="bounded",
        nodes_max=BOUNDS.nodes_max,
        quorum=BOUNDS.quorum,
        control_plane=BOUNDS.control_plane,
        settings_hash="5e" * 32,
        ca_hash="ca" * 32,
        token_commitment="70" * 32,
        fingerprint=(f"fp-{number}",),
        vip="10.0.0.50",
    )


def plan(*numbers: int) -> ClusterPlan:
    """Return a plan with these seats; the first starts the cluster."""
    seats = tuple(
        Seat(node=IDS[n], node_name=f"n{n}-{n:08x}", node_ip=f"10.0.0.{10 + n}") for n in numbers
    )
    return ClusterPlan(
        cluster_id="c1" * 16,
        generation=1,
        initialiser=IDS[numbers[0]],
        seats=seats,
        network="lan",
        settings_hash="5e" * 32,
        ca_hash="ca" * 32,
        token_commitment="70" * 32,
        vip="10.0.0.50",
    )


def record(state: K3sState = "ready", *, serves: int | None = None) -> K3sRecord:
    """Return a k3s record under `plan`; one that serves has an endpoint on that node."""
    return K3sRecord(
        state=state,
        seat="server",
        cluster_id="c1" * 16,
        generation=1,
        endpoint=f"https://10.0.0.{10 + serves}:6443" if serves is not None else None,
    )


def directory(me: int, size: int = 5) -> Directory:
    """Return a directory in which `me` is connected to all of `size` nodes."""
    found = Directory(IDS[me])
    for number in range(size):
        known = found[IDS[number]]
        known.facts = facts(number)
        if number != me:
            known.connected, known.path, known.link = True, "direct", "alive"
    return found


def ready() -> K3sObserved:
    """Return what k3s that serves says."""
    return K3sObserved(state="ready", version="v1.34.1+k3s1", voters=("n0-00000000",))
