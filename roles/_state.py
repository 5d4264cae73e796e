"""What the genesis machine shows and asks for: its state, and its closed set of effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ledger import NodeId
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisState:
    """Genesis as this node knows it.

    Until `phase` is `formed` the cluster is provisional. `may_initialise` is the only leave to run
    `cluster-init`: STARTED names this node, and its intent is on disk.
    """

    phase: GenesisPhase
    generation: int
    plan: ClusterPlan | None
    may_initialise: bool
    waiting_for: str | None
    votes: int  # How many voters signed the newest decision.
    kube_system_uid: str | None  # DONE's evidence, once formed.
    slots: tuple[SlotState, ...]
    voters: tuple[NodeId, ...]  # Whose votes this node counts, here or not; sorted.
    excluded: tuple[Refusal, ...]
    problems: tuple[Problem, ...]


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
