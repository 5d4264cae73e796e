"""A signed, replicated ledger of single-writer registers. Pure: values in, effects out."""

from ledger._entry import BadEntry, Entry, decode_entry, encode_entry, sign_entry
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
    "BadEntry",
    "Entry",
    "Instant",
    "Moment",
    "NodeId",
    "Signer",
    "decode_entry",
    "encode_entry",
    "node_id_of",
    "public_key_of",
    "sign_entry",
    "verify",
]
