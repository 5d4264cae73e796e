"""What the genesis machine shows and asks for: its state, and its closed set of effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ledger import Instant, NodeId
from roles._election import Refusal
from roles._types import ClusterPlan

Slot = Literal["claim", "started", "done"]

SLOTS: tuple[Slot, ...] = ("claim", "started", "done")

GenesisPhase = Literal[
    "discovering",
    "voting",
    "claimed",
    "started",
    "formed",
    "halted-too-many-voters",
    "halted-settings-mismatch",
    "halted-equivocation",
    "halted-lost-memory",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with genesis; the shape of a health item."""

    code: str
    severity: Literal["warning", "error"]
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """What is known of one slot, for `explain genesis`."""

    slot: Slot
    decided: bool
    ballot: tuple[int, NodeId] | None  # Of the decision, else the highest this node promised.
    signers: tuple[NodeId, ...]  # Whose signed votes certify it, or have come in so far.
    proposer: NodeId | None
    value: str | None = None  # In words, what is decided.
    voted: tuple[int, NodeId] | None = None  # The ballot in which this node itself voted last.
    voted_for: str | None = None  # In words, what for.
    promises: tuple[NodeId, ...] = ()  # Who promised the ballot that this node leads.


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generation that was abandoned; its votes are kept as evidence."""

    number: int
    cluster_id: str | None  # None if its CLAIM is not known here.
    initialiser: NodeId | None
    reason: str | None  # None if all that is known is that a later one began.
    failed: tuple[NodeId, ...]  # Who ranks last from then on, besides the initialiser.
    slots: tuple[SlotState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """The forming lease as far as it concerns this node.

    Args:
        role: what this node is in it.
        until: on the initialiser and on members, when k3s must be down; 0 without a lease.
        answered: on the initialiser, who let it run on, and when that was asked.
        last_answer: on a voter, when it last let the initialiser run on, or when this life began.
        mute: whether this node voted to abandon, and therefore answers no more.
        gave_up: on the initialiser, why it gave the generation up.
        released: whether the initialiser said that nothing of the plan runs any more.
        down: on the initialiser that gave up, which members said that their k3s is down.
    """

    role: Literal["initialiser", "member", "voter"]
    until: Instant
    answered: tuple[tuple[NodeId, Instant], ...]
    last_answer: Instant
    mute: bool
    gave_up: str | None
    released: bool
    down: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisState:
    """Genesis as this node knows it.

    Until `phase` is `formed` the cluster is provisional. `may_initialise` is the only leave to run
    `cluster-init`: STARTED names this node, and its intent is on disk; of a leased plan only while
    `lease_until` allows it, too.
    """

    phase: GenesisPhase
    generation: int
    plan: ClusterPlan | None
    started: bool = False  # STARTED is decided in this generation.
    formed: bool = False  # DONE is.
    may_initialise: bool
    lease_until: Instant | None = None  # Of k3s on this node; None: no limit; 0: no lease yet.
    stop: bool = False  # k3s of this plan must be down on this node.
    waiting_for: str | None
    votes: int  # How many voters signed the newest decision.
    kube_system_uid: str | None  # DONE's evidence, once formed.
    slots: tuple[SlotState, ...]
    voters: tuple[NodeId, ...] = ()  # Whose votes this node counts, here or not; sorted.
    quorum: int = 0  # How many of them decide; grows in an open network.
    lease: LeaseState | None = None
    history: tuple[Generation, ...] = ()
    spent: frozenset[str] = frozenset()  # CA hashes of abandoned plans: secrets not to be used.
    rivals: tuple[ClusterPlan, ...] = ()  # Plans of other clusters that came of the same token.
    excluded: tuple[Refusal, ...]
    problems: tuple[Problem, ...]

    @property
    def abandoned(self) -> tuple[str, ...]:
        """The clusters of the generations before, as far as known; the current one proves that."""
        return tuple(one.cluster_id for one in self.history if one.cluster_id is not None)


# Effects, performed in order.


@dataclass(frozen=True, slots=True)
class Record:
    """Make these journal rows durable before any later effect; equal keys replace older rows."""

    rows: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send a genesis frame to a voter, best effort."""

    node: NodeId
    frame: bytes


@dataclass(frozen=True, slots=True)
class Publish:
    """Put a self-certifying record into the ledger under `genesis/<generation>/<slot>`."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """A peer broke the protocol."""

    peer: NodeId
    reason: str


Effect = Record | SendTo | Publish | Reject
