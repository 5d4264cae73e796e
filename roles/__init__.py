"""Who does what: the electorate, genesis (one Paxos log), and the ranking. Pure."""

from roles._types import Bounds, Candidate, ClusterPlan, RoleWish, Seat

__all__ = ["Bounds", "Candidate", "ClusterPlan", "RoleWish", "Seat"]
