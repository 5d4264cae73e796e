"""A signed, replicated ledger of single-writer registers. Pure: values in, effects out.

`Replica` is the entry point; everything else is a value it takes or returns.
"""

from ledger._effects import Effect, Reject, Store, Transmit
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
from ledger._policy import Authority, Policy, Verdict
from ledger._replica import Replica

__all__ = [
    "Authority",
    "BadEntry",
    "Effect",
    "Entry",
    "Instant",
    "Moment",
    "NodeId",
    "Policy",
    "Reject",
    "Replica",
    "Signer",
    "Store",
    "Transmit",
    "Verdict",
    "decode_entry",
    "encode_entry",
    "node_id_of",
    "public_key_of",
    "sign_entry",
    "verify",
]
