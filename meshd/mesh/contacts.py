"""What this node knows about reaching its peers, for explanations."""

from __future__ import annotations

from meshd.explain import Contact
from meshd.mesh.book import AddressBook
from meshd.mesh.links import Links


def contacts(book: AddressBook, links: Links) -> tuple[Contact, ...]:
    """Return everyone in the book, in the order of their names; unnamed seeds come first."""
    return tuple(
        Contact(
            peer=entry.node,
            addresses=tuple(map(str, entry.addresses)),
            ways=tuple(entry.ways),
            dialled=links.dialled(entry.node) if entry.node is not None else None,
            failures=entry.failures,
            failure=entry.failure,
        )
        for entry in book
    )
