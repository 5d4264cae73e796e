"""News that is passed on: a moment later, together, and not to whoever turns out to have it.

All neighbours of an author hear of an entry at the same time. If each passed it on at once, a node
with seven links would receive it seven times; those that wait a moment, each as long as chance has
it, hear from one another first.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from ledger._entry import Entry, Unverified
from ledger._identity import Instant, NodeId
from ledger._registers import Register

PASSED_ON_AFTER_S = (0.004, 0.02)
"""Longer than a push takes on a LAN; three such waits still are short for a person. A guess."""

NEVER = Instant(float("inf"))


class Passing:
    """What each neighbour is still to be told.

    Args:
        rng: how long to wait.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._pending: dict[NodeId, dict[Register, Entry]] = {}
        self.deadline = NEVER

    def add(self, entries: Iterable[Entry], peers: Iterable[NodeId], now: Instant) -> None:
        """Plan to tell `peers`; what one had not been told yet is replaced by what is newer."""
        news = {(entry.author, entry.key): entry for entry in entries}
        for peer in peers:
            self._pending.setdefault(peer, {}).update(news)
        if self._pending and self.deadline == NEVER:
            self.deadline = Instant(now + self._rng.uniform(*PASSED_ON_AFTER_S))

    def seen(self, peer: NodeId, claim: Unverified) -> None:
        """The peer itself sent this, so it need not be told as much, true or not."""
        pending = self._pending.get(peer)
        if pending is None:
            return
        entry = pending.get((claim.author, claim.key))
        if entry is not None and (claim.seq, claim.digest) >= (entry.seq, entry.digest):
            del pending[claim.author, claim.key]

    def forget(self, peer: NodeId) -> None:
        """The peer is no neighbour any more; should it return, roots are compared."""
        self._pending.pop(peer, None)

    def due(self, now: Instant) -> list[tuple[NodeId, list[Entry]]]:
        """Return who is to be told what now, if it is time."""
        if now < self.deadline:
            return []
        pending, self._pending, self.deadline = self._pending, {}, NEVER
        return [(peer, list(entries.values())) for peer, entries in pending.items() if entries]
