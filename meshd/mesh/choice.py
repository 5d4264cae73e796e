"""Which of two connections to one peer stays. Both ends decide alike without talking."""

from __future__ import annotations

from ledger import NodeId

SIMULTANEOUS_S = 10.0
"""Twice the dialer's deadline: two dials that cross are never further apart."""


def supersedes(
    *, own: NodeId, peer: NodeId, old_dialled: bool, new_dialled: bool, old_age_s: float
) -> bool:
    """Whether the new connection replaces the old one.

    Nobody dials a peer that it is connected to. So a new connection of the same direction, or any
    to an old one, means that its dialer lost the old one: the newest stays. Two dials that
    crossed are settled by names: the connection stays that the lower node id dialled.
    """
    if old_dialled == new_dialled or old_age_s > SIMULTANEOUS_S:
        return True
    return new_dialled == (own < peer)
