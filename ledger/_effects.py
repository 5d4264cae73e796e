"""What a replica asks of its caller, to be performed in order."""

from __future__ import annotations

from dataclasses import dataclass

from ledger._entry import Entry
from ledger._identity import NodeId


@dataclass(frozen=True, slots=True)
class Store:
    """Keep these entries, each in place of what its register held, before any later effect.

    All that is new to this replica appears in exactly one `Store`, whoever wrote it.
    """

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a frame, best effort; what is lost is repaired by a later exchange."""

    peer: NodeId
    frame: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """The peer broke the protocol; `Replica.rejected` has counted it already."""

    peer: NodeId
    reason: str


Effect = Store | Transmit | Reject
