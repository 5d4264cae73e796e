"""The whole member of a network as one state machine: ledger, genesis, election, cluster orders.

Pure: no I/O, no clock, no task, no randomness of its own. The daemon and the simulator run exactly
this class. Invariant: whatever an effect reveals was made durable by an earlier effect.
"""

from meshd.node._directory import Directory, Known
from meshd.node._node import Node
from meshd.node._orders import seat_in
from meshd.node._resets import Proposal, propose_reset, reset_text
from meshd.node._seals import sealed_key
from meshd.node._waiting import NodePhase

__all__ = [
    "Directory",
    "Known",
    "Node",
    "NodePhase",
    "Proposal",
    "propose_reset",
    "reset_text",
    "sealed_key",
    "seat_in",
]
