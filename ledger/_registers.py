"""The registers a replica holds: a join semilattice with a root that names its state.

Two instances have equal roots exactly if they hold the same entries. Digests are remembered per
author and made anew only for authors that changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType

from ledger._entry import Entry, encode_entry
from ledger._identity import NodeId, public_key_of
from ledger._limits import AUTHOR_KEYS_MAX, AUTHOR_MAX_BYTES, AUTHORS_MAX

Register = tuple[NodeId, str]
"""The (author, key) that names one register."""


class _Shelf:
    """One author's registers."""

    __slots__ = ("digest", "entries", "size")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.size = 0  # Bytes of the encoded entries.
        self.digest: bytes | None = None  # None: not known since the last change.


class Registers:
    """Every register's newest entry, and proof against authors who contradicted themselves."""

    def __init__(self) -> None:
        self._all: dict[Register, Entry] = {}
        self._shelves: dict[NodeId, _Shelf] = {}
        self._authors: tuple[NodeId, ...] | None = ()
        self._root: bytes | None = None
        self._equivocations: dict[NodeId, tuple[Entry, Entry]] = {}

    @property
    def all(self) -> Mapping[Register, Entry]:
        """Every register's entry, tombstones included; a live view."""
        return MappingProxyType(self._all)

    @property
    def authors(self) -> tuple[NodeId, ...]:
        """All authors, sorted."""
        if self._authors is None:
            self._authors = tuple(sorted(self._shelves))
        return self._authors

    @property
    def equivocations(self) -> Mapping[NodeId, tuple[Entry, Entry]]:
        """For each author seen to sign two values with one `seq`: the first such pair."""
        return MappingProxyType(self._equivocations)

    @property
    def root(self) -> bytes:
        """SHA-256 over (author's key, digest of the author's registers), authors sorted."""
        if self._root is None:
            state = sha256()
            for author in self.authors:
                state.update(public_key_of(author) + self.digest_of(author))
            self._root = state.digest()
        return self._root

    @property
    def full(self) -> bool:
        """Whether no further author is taken in."""
        return len(self._shelves) >= AUTHORS_MAX

    def digest_of(self, author: NodeId) -> bytes:
        """Return SHA-256 over the digests of the author's entries, keys sorted."""
        shelf = self._shelves[author]
        if shelf.digest is None:
            digests = (entry.digest for _, entry in sorted(shelf.entries.items()))
            shelf.digest = sha256(b"".join(digests)).digest()
        return shelf.digest

    def shelf_of(self, author: NodeId) -> Mapping[str, Entry]:
        """Return the author's entries by key; empty for a stranger."""
        shelf = self._shelves.get(author)
        return MappingProxyType(shelf.entries if shelf is not None else {})

    def find(self, author: NodeId, key: str) -> Entry | None:
        """Return what the register holds."""
        return self._all.get((author, key))

    def has_room(self, author: NodeId, key: str, size: int) -> bool:
        """Whether an entry of `size` encoded bytes would keep the author within its limits."""
        shelf = self._shelves.get(author)
        if shelf is None:
            return not self.full
        held = shelf.entries.get(key)
        if held is None and len(shelf.entries) >= AUTHOR_KEYS_MAX:
            return False
        freed = len(encode_entry(held)) if held is not None else 0
        return shelf.size - freed + size <= AUTHOR_MAX_BYTES

    def witness(self, entry: Entry) -> None:
        """Keep `entry` as proof if it contradicts what is held; the register stays as it is."""
        held = self._all.get((entry.author, entry.key))
        if held is not None and entry.contradicts(held):
            self._equivocations.setdefault(entry.author, (held, entry))

    def merge(self, entry: Entry) -> bool:
        """Take in an entry; whether it was news. In any order and number, the result is the same.

        Limits are not looked at: see `has_room`.
        """
        register = (entry.author, entry.key)
        held = self._all.get(register)
        self.witness(entry)
        if not entry.supersedes(held):
            return False
        shelf = self._shelves.get(entry.author)
        if shelf is None:
            shelf = self._shelves[entry.author] = _Shelf()
            self._authors = None
        if held is not None:
            shelf.size -= len(encode_entry(held))
        shelf.size += len(encode_entry(entry))
        shelf.entries[entry.key] = self._all[register] = entry
        shelf.digest = self._root = None
        return True
