"""References to what establishes a cause: ledger entries and records of the decision log."""

from __future__ import annotations

from collections.abc import Iterable

from ledger import NodeId
from meshd.explain._model import EntryRef, RecordRef
from meshd.node import Node


def own_entry(node: Node, author: NodeId, record: str) -> tuple[EntryRef, ...]:
    """Return the entry `node/<author>/<record>` as its author wrote it, if it is here."""
    return tuple(ref for ref in entries(node, f"node/{author}/{record}") if ref.author_id == author)


def entries(node: Node, key: str) -> tuple[EntryRef, ...]:
    """Return what each author holds under `key`."""
    return tuple(
        EntryRef(
            key=key,
            author=node.directory.name(entry.author),
            author_id=entry.author,
            seq=entry.seq,
            stamp_ms=entry.stamp_ms,
        )
        for entry in node.replica.get(key)
    )


def record_of(node: Node, slot: str) -> tuple[RecordRef | None, tuple[EntryRef, ...]]:
    """Return the record that decides `slot` in this generation, and the entries that carry it.

    Right after the decision this node may know it from the vote itself, before any entry exists.
    """
    state = node.genesis.state
    key = f"genesis/{state.generation}/{slot}"
    for one in state.slots:
        if one.slot == slot and one.decided and one.ballot is not None:
            round_, proposer = one.ballot
            record = RecordRef(
                key=key,
                round=round_,
                proposer=node.directory.name(proposer),
                signers=names(node, one.signers),
            )
            return record, entries(node, key)
    return None, ()


def names(node: Node, nodes: Iterable[NodeId]) -> tuple[str, ...]:
    """Return the names of nodes, sorted."""
    return tuple(sorted(node.directory.name(one) for one in nodes))


def listed(words: Iterable[str]) -> str:
    """Return words with commas; `nobody` for none."""
    return ", ".join(words) or "nobody"
