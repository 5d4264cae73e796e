"""Who does what: the electorate, genesis (one Paxos log), and the ranking. Pure."""

from roles._election import NotYet, Ranking, Refusal, elect, rank
from roles._electorate import Electorate, electorate, is_willing
from roles._evidence import K3sReading
from roles._genesis import Genesis
from roles._messages import VOTES_MAX
from roles._records import read_record, verify_record
from roles._state import (
    Effect,
    GenesisPhase,
    GenesisState,
    LeaseState,
    Problem,
    Publish,
    Record,
    Reject,
    SendTo,
    Slot,
    SlotState,
)
from roles._types import Bounds, Candidate, ClusterPlan, RoleWish, Seat

__all__ = [
    "VOTES_MAX",
    "Bounds",
    "Candidate",
    "ClusterPlan",
    "Effect",
    "Electorate",
    "Genesis",
    "GenesisPhase",
    "GenesisState",
    "K3sReading",
    "LeaseState",
    "NotYet",
    "Problem",
    "Publish",
    "Ranking",
    "Record",
    "Refusal",
    "Reject",
    "RoleWish",
    "Seat",
    "SendTo",
    "Slot",
    "SlotState",
    "elect",
    "electorate",
    "is_willing",
    "rank",
    "read_record",
    "verify_record",
]
