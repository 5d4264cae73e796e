"""What the nodes agree about: a network's bounds, its candidates, and the plan of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ledger import NodeId

RoleWish = Literal["auto", "control-plane", "worker", "none"]
"""`p2p.role`; Kairos' `master` is read as `control-plane`."""

Limits = tuple[int, ...]
"""`Bounds.limits`; in what is signed in an open network also how many votes decide."""

OPEN_QUORUM_MIN = 2
"""One machine that sees nobody never starts a cluster where nobody knows how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Bounds:
    """How many may vote, how many must agree, and how large the control plane is.

    Nodes with different bounds never vote together. The safety argument needs fewer than
    2 x `quorum` identities that ever vote (docs/genesis.md).
    """

    bound: Literal["bounded", "open"]
    nodes_max: int  # 0 in an open network: nobody knows.
    quorum: int  # In an open network the least; it grows with the voters that are known.
    control_plane: int

    @property
    def limits(self) -> tuple[int, int, int]:
        """Nodes, quorum and control plane: what voters must share, whatever it is called."""
        return (self.nodes_max, self.quorum, self.control_plane)

    @property
    def is_open(self) -> bool:
        """Whether nobody knows how many may vote."""
        return self.nodes_max == 0

    def signed_with(self, quorum: int) -> Limits:
        """Return what messages sign: in an open network how many votes decide, too."""
        return (*self.limits, quorum) if self.is_open else self.limits

    def admits(self, limits: Limits) -> bool:
        """Whether a message that signs these limits is of such a network."""
        return limits[:3] == self.limits and len(limits) == (4 if self.is_open else 3)

    @classmethod
    def bounded(cls, *, control_plane: int, nodes_max: int | None = None) -> Bounds:
        """Return the bounds that a token for `nodes_max` voting machines has.

        Without `nodes_max` it is 2 x `control_plane` - 1; the quorum is a majority of it, and at
        least the control plane.
        """
        most = 2 * control_plane - 1 if nodes_max is None else nodes_max
        quorum = max(most // 2 + 1, control_plane)
        return cls(bound="bounded", nodes_max=most, quorum=quorum, control_plane=control_plane)

    @classmethod
    def unbounded(cls, *, control_plane: int, minimum_nodes: int = 0) -> Bounds:
        """Return the bounds of an open network: its least quorum, and no number of machines."""
        quorum = max(minimum_nodes, OPEN_QUORUM_MIN, control_plane)
        return cls(bound="open", nodes_max=0, quorum=quorum, control_plane=control_plane)


def quorum_of(limits: Limits) -> int:
    """Return how many votes decide, as these signed limits say."""
    return max(limits[1], *limits[3:], 0)


def in_words(limits: Limits) -> str:
    """Return the limits as people are told them."""
    most, quorum, control_plane = limits[:3]
    if most == 0:
        return f"any number of machines, quorum {quorum} or more, control plane {control_plane}"
    return f"{most} machines, quorum {quorum}, control plane {control_plane}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a node publishes about itself as far as voting and ranking need it."""

    node: NodeId
    node_name: str  # Of the Kubernetes Node: <hostname>-<8 hex>.
    node_ip: str
    wish: RoleWish
    may_vote: bool
    direct: bool  # Others reach it without a relay.
    memory_mib: int
    cpus: int
    bounds: Bounds
    settings_hash: str  # Hex; of the settings that all servers must share.
    ca_hash: str  # Hex SHA-256 of the candidate's server-ca.crt.
    token_commitment: str  # Hex SHA-256 of the candidate's server token.
    fingerprint: tuple[str, ...]  # Keyed hashes of hardware identifiers.
    name: str = ""  # As operators call it; the node name if empty.
    fuse: bool = False  # A process of its own ends k3s there when the forming lease does.
    blocked: str | None = None  # Why this machine cannot be a server, as it found out itself.
    settings: tuple[tuple[str, str], ...] = ()  # Those that are not the default, for words only.
    vip_interface: str = ""  # The network interface there that the VIP would be on, if any may be.
    clock_is_wrong: bool = False  # As the asking node sees it: k3s would not be started there.

    @property
    def shown(self) -> str:
        """The name people know it by."""
        return self.name or self.node_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One control-plane member of a plan."""

    node: NodeId
    node_name: str
    node_ip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """The first assignment of a generation; everything a CLAIM decides at once."""

    cluster_id: str  # 128 random bits, 32 hex digits.
    generation: int
    initialiser: NodeId
    seats: tuple[Seat, ...]  # Ordered; the initialiser first.
    network: Literal["lan", "overlay"]
    settings_hash: str
    ca_hash: str  # Of the initialiser's server-ca.crt: joiners hold a full K10 token.
    token_commitment: str
    vip: str | None
    vip_interface: str = ""
    """The network interface that carries the VIP on every member; empty if they differ in it."""
    leased: bool = False
    """Whether k3s runs under the forming lease until DONE: all voters at CLAIM can keep one.

    Without it nothing would end the k3s of an initialiser that is cut off, so once STARTED is
    decided such a plan cannot be abandoned: the others wait for its initialiser.
    """

    def seat_of(self, node: NodeId) -> Seat | None:
        """Return `node`'s seat, or None if it is to be a worker."""
        return next((seat for seat in self.seats if seat.node == node), None)
