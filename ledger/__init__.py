"""A signed, replicated ledger of single-writer registers. Pure: values in, effects out."""

from ledger._identity import (
    Instant,
    Moment,
    NodeId,
    Signer,
    node_id_of,
    public_key_of,
    verify,
)

__all__ = [
    "Instant",
    "Moment",
    "NodeId",
    "Signer",
    "node_id_of",
    "public_key_of",
    "verify",
]
