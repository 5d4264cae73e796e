"""A machine's disk as the store uses it: whole transactions, durable when `persist` returns.

Without fsync (a mutant) a power cut may take away a tail of what was written.
"""

from __future__ import annotations

from random import Random

from ledger import encode_entry
from meshd.events import Persist


class Disk:
    """Registers and journal rows; a row or register replaces the older one of the same key."""

    def __init__(self, *, fsync: bool = True) -> None:
        self.entries: dict[tuple[str, str], bytes] = {}
        self.votes: dict[str, bytes] = {}
        self._fsync = fsync
        self._tail: list[Persist] = []

    def persist(self, change: Persist) -> None:
        """Commit `change`; durable at once unless this disk has no fsync."""
        if self._fsync:
            self._commit(change)
        else:
            self._tail.append(change)

    def holds_vote(self, row: str) -> bytes | None:
        """Return a journal row as the daemon would read it now."""
        for change in reversed(self._tail):
            for key, vote in change.votes:
                if key == row:
                    return vote
        return self.votes.get(row)

    def load(self) -> tuple[tuple[bytes, ...], tuple[tuple[str, bytes], ...]]:
        """Return what a start finds: encoded entries, journal rows."""
        for change in self._tail:  # A restart without a power cut still sees the page cache.
            self._commit(change)
        self._tail.clear()
        return tuple(self.entries.values()), tuple(self.votes.items())

    def lose_power(self, rng: Random) -> None:
        """Forget a tail of what was never synchronised."""
        kept = rng.randint(0, len(self._tail)) if self._tail else 0
        for change in self._tail[:kept]:
            self._commit(change)
        self._tail.clear()

    def copy(self) -> Disk:
        """Return an image of what is on it, to be put back later."""
        image = Disk(fsync=self._fsync)
        image.entries, image.votes = dict(self.entries), dict(self.votes)
        return image

    def tear(self, rng: Random) -> None:
        """Damage a row of the journal."""
        row = rng.choice(sorted(self.votes))
        held = self.votes[row]
        self.votes[row] = held[: rng.randrange(len(held))]

    def _commit(self, change: Persist) -> None:
        for entry in change.entries:
            self.entries[entry.author, entry.key] = encode_entry(entry)
        self.votes.update(change.votes)
