"""Who was heard when: presence with a memory, for rules that wait a while before they give up."""

from __future__ import annotations

from collections.abc import Collection

from ledger import Instant, NodeId


class Hearing:
    """Since when each node is not heard any more.

    Args:
        now: when this life began; whoever was never heard counts from there.
    """

    def __init__(self, now: Instant) -> None:
        self._began = now
        self._present: frozenset[NodeId] = frozenset()
        self._left_at: dict[NodeId, Instant] = {}

    def update(self, present: Collection[NodeId], now: Instant) -> None:
        """Take who can be reached now."""
        for node in sorted(self._present.difference(present)):
            self._left_at[node] = now
        self._present = frozenset(present)

    def heard(self, node: NodeId, now: Instant) -> None:
        """Take note of a message of a node."""
        if node not in self._present:
            self._left_at[node] = now

    def silent_since(self, node: NodeId) -> Instant | None:
        """Return since when `node` is not heard, or None if it is there."""
        return None if node in self._present else self._left_at.get(node, self._began)
