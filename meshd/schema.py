"""Ledger values as typed records. The wire form is msgpack of these structs.

A field may be added with a default; none is ever renamed or removed (version N works with N - 1).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ledger import NodeId
from roles import Bounds, Candidate, RoleWish

K3sState = Literal["absent", "waiting", "starting", "ready", "failed"]
CLOCK_MIN_MS = 1_735_689_600_000
"""2025-01-01, before this program was written: a wall clock before it was never set."""

PathKind = Literal["self", "direct", "relay"]
LinkState = Literal["alive", "suspect", "failed", "left"]


ADMIN_KUBECONFIG = "kubeconfig"
"""Name of the secret that is sealed to administrators: `sealed/<age1…>/kubeconfig`."""

ADMIN_DIGEST_BYTES = 16
"""Before its ciphertext: a digest of what was sealed, to see whether that changed."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`node/<id>/facts`: what a node says about itself. Rewritten only when it changes."""

    name: str  # Hostname, as operators call the node.
    node_name: str  # Of the Kubernetes Node: <hostname>-<8 hex of SHA-256(public key)>.
    node_ip: str | None  # None while no usable interface exists.
    addresses: tuple[str, ...]  # Multiaddrs without /p2p, such as /ip4/10.0.0.11/tcp/7946.
    sealing_key: bytes  # X25519 public key, 32 bytes.
    memory_mib: int
    cpus: int
    role_wish: RoleWish
    may_vote: bool
    bound: Literal["bounded", "open"]
    nodes_max: int
    quorum: int
    control_plane: int
    settings_hash: str
    ca_hash: str
    token_commitment: str
    fingerprint: tuple[str, ...]
    vip: str | None = None
    settings: tuple[tuple[str, str], ...] = ()  # Of those in `settings_hash`: not the default ones.
    software: str = ""
    protocol_min: int = 1
    protocol_max: int = 1
    fuse: bool = False  # A process of its own ends k3s here when the forming lease does.
    blocked: str | None = None  # Why this machine cannot be a server: a port or the VIP is in use.
    vip_interface: str = ""  # Which would carry the VIP; empty too if kube-vip is to be its own.

    @property
    def bounds(self) -> Bounds:
        return Bounds(
            bound=self.bound,
            nodes_max=self.nodes_max,
            quorum=self.quorum,
            control_plane=self.control_plane,
        )

    def candidate(
        self,
        node: NodeId,
        *,
        direct: bool,
        name: str | None = None,
        clock_is_wrong: bool = False,
    ) -> Candidate:
        """Return what ranking and voting need of these facts; `name` is what to call the node."""
        return Candidate(
            node=node,
            node_name=self.node_name,
            node_ip=self.node_ip or "",
            wish=self.role_wish,
            may_vote=self.may_vote and self.node_ip is not None,
            direct=direct,
            memory_mib=self.memory_mib,
            cpus=self.cpus,
            bounds=self.bounds,
            settings_hash=self.settings_hash,
            ca_hash=self.ca_hash,
            token_commitment=self.token_commitment,
            fingerprint=self.fingerprint,
            name=name or self.name,
            fuse=self.fuse,
            blocked=self.blocked,
            settings=self.settings,
            vip_interface=self.vip_interface,
            clock_is_wrong=clock_is_wrong,
        )


class K3sRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`node/<id>/k3s`: what k3s on that node is doing."""

    state: K3sState
    seat: Literal["initialiser", "server", "worker", "none"]
    cluster_id: str = ""
    generation: int = 0
    version: str = ""  # As the binary says, "stand-in" included.
    waiting_for: str | None = None
    endpoint: str | None = None  # https://ADDRESS:6443 while its API answers.
    voters: tuple[str, ...] = ()  # Kubernetes node names of etcd's voting members, sorted.
    kube_system_uid: str | None = None
    nodes_ready: int | None = None
    vip_holder: str | None = None  # Kubernetes node name.
    lost_database: bool = False  # Its member of etcd is listed, and nothing of it is left here.
    epoch: int = 0  # The highest of a database that was served here, with dead seats' Nodes gone.
    seats: str = ""  # Digest, in hex, of the newest reset that this node follows; empty in epoch 0.
    resetting: int = 0  # The epoch that a reset under way on this node is to begin.
    superseded: bool = False  # It serves a database of before a reset, and is not stopped for it.


class LinkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One neighbour in `node/<id>/links`."""

    peer: NodeId
    path: PathKind
    rtt_class_ms: int  # 1, 2, 5, 10, 20, 50, …: coarse, so that it seldom changes.
