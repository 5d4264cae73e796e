"""How two replicas find what differs with few bytes. Pure functions over `Registers`.

An author costs 12 bytes if both hold the same of it. Short digests are salted anew for each
exchange, so a collision, prepared or not, hides a difference from one exchange at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from ledger._entry import Entry
from ledger._identity import NodeId, public_key_of
from ledger._limits import FRAME_GOAL_BYTES
from ledger._messages import Digests, Pull
from ledger._registers import Register, Registers

_PREFIX_BYTES = 4
_ITEM_BYTES = 12
_TAG_BYTES = 4


@dataclass(frozen=True, slots=True)
class Difference:
    """What a peer's digests say.

    Args:
        unmatched: own authors of which the peer holds something else or nothing, sorted.
        differing: those of them of which the peer holds something.
        lacking: key prefixes of authors that only the peer knows, sorted.
    """

    unmatched: tuple[NodeId, ...]
    differing: tuple[NodeId, ...]
    lacking: tuple[bytes, ...]


def digests_of(
    registers: Registers, authors: Iterable[NodeId], salt: bytes, *, full: bool
) -> Digests:
    """Return the digests of these authors."""
    items = (_item(registers, author, salt) for author in authors)
    return Digests(salt=salt, full=full, items=b"".join(items))


def compare(registers: Registers, theirs: Digests) -> Difference:
    """Return how this replica's registers differ from the digests of a peer.

    If the digests are not full, authors that they leave out count as equal.
    """
    items = theirs.items
    remaining = {items[i : i + _ITEM_BYTES] for i in range(0, len(items), _ITEM_BYTES)}
    known = {item[:_PREFIX_BYTES] for item in remaining}
    unmatched: list[NodeId] = []
    differing: list[NodeId] = []
    explained: set[bytes] = set()
    for author in registers.authors:
        item = _item(registers, author, theirs.salt)
        prefix = item[:_PREFIX_BYTES]
        if item in remaining:
            remaining.discard(item)
        elif prefix in known:
            unmatched.append(author)
            differing.append(author)
            explained.add(prefix)
        elif theirs.full:
            unmatched.append(author)
    lacking = {item[:_PREFIX_BYTES] for item in remaining} - explained
    return Difference(tuple(unmatched), tuple(differing), tuple(sorted(lacking)))


def pull_of(
    registers: Registers, differing: Iterable[NodeId], lacking: Iterable[bytes], salt: bytes
) -> tuple[Pull, bool]:
    """Return the request for what a peer has newer, and whether it fitted into one frame."""
    authors: list[tuple[bytes, tuple[tuple[str, int, bytes], ...]]] = []
    authors.extend((prefix, ()) for prefix in lacking)
    size = 8 * len(authors)
    for author in differing:
        shelf = registers.shelf_of(author)
        size += 40 + sum(len(key) + 16 for key in shelf)
        if size > FRAME_GOAL_BYTES and authors:
            return Pull(salt=salt, authors=tuple(authors)), False
        held = tuple((key, entry.seq, _tag(entry, salt)) for key, entry in shelf.items())
        authors.append((public_key_of(author), held))
    return Pull(salt=salt, authors=tuple(authors)), True


def answer_of(registers: Registers, pull: Pull) -> tuple[Register, ...]:
    """Return the registers of which the sender of `pull` holds something older or nothing."""
    by_prefix: dict[bytes, list[NodeId]] = {}
    for author in registers.authors:
        by_prefix.setdefault(public_key_of(author)[:_PREFIX_BYTES], []).append(author)
    wanted: dict[Register, None] = {}  # Ordered, and each once.
    for name, held in pull.authors:
        theirs = {key: (seq, tag) for key, seq, tag in held}
        for author in by_prefix.get(name[:_PREFIX_BYTES], ()):
            if not public_key_of(author).startswith(name):
                continue
            for key, entry in registers.shelf_of(author).items():
                if _lacks(theirs.get(key), entry, pull.salt):
                    wanted[author, key] = None
    return tuple(wanted)


def _lacks(theirs: tuple[int, bytes] | None, entry: Entry, salt: bytes) -> bool:
    if theirs is None or theirs[0] < entry.seq:
        return True
    return theirs[0] == entry.seq and theirs[1] != _tag(entry, salt)


def _item(registers: Registers, author: NodeId, salt: bytes) -> bytes:
    digest = sha256(salt + registers.digest_of(author)).digest()
    return public_key_of(author)[:_PREFIX_BYTES] + digest[: _ITEM_BYTES - _PREFIX_BYTES]


def _tag(entry: Entry, salt: bytes) -> bytes:
    return sha256(salt + entry.digest).digest()[:_TAG_BYTES]
