"""Why things are as they are, in numbered causes: from a `Node` and what the shell saw. Pure.

Each cause names what establishes it: a value of the configuration with its place, a ledger entry
with author and sequence, a record of the decision log with ballot and signers.
"""

from meshd.explain._given import Contact, Given, Refused
from meshd.explain._model import Cause, Explanation, Setting, Topic
from meshd.explain._topics import TOPICS, NoSuchNode, explain

__all__ = [
    "TOPICS",
    "Cause",
    "Contact",
    "Explanation",
    "Given",
    "NoSuchNode",
    "Refused",
    "Setting",
    "Topic",
    "explain",
]
