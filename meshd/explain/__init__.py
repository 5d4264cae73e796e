"""Why things are as they are, in numbered causes: from a `Node` and what the shell saw. Pure.

Each cause names what establishes it: a value of the configuration with its place, a ledger entry
with author and sequence, a record of the decision log with ballot and signers.
"""

from meshd.explain._genesis import explain_genesis
from meshd.explain._given import Contact, Given, Refused
from meshd.explain._join import explain_join
from meshd.explain._model import Cause, EntryRef, Explanation, RecordRef, Setting, Topic
from meshd.explain._role import explain_role
from meshd.explain._topics import TOPICS, NoSuchNode, explain
from meshd.explain._vip import explain_vip

__all__ = [
    "TOPICS",
    "Cause",
    "Contact",
    "EntryRef",
    "Explanation",
    "Given",
    "NoSuchNode",
    "RecordRef",
    "Refused",
    "Setting",
    "Topic",
    "explain",
    "explain_genesis",
    "explain_join",
    "explain_role",
    "explain_vip",
]
