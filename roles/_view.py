"""What the words about genesis are made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ledger import NodeId
from roles._attempt import Attempt
from roles._journal import Journal, Memory
from roles._log import DecisionLog
from roles._standpoint import Standpoint
from roles._term import Frame, Term
from roles._types import Bounds, ClusterPlan


@dataclass(frozen=True, slots=True)
class View:
    """One moment of genesis as this node knows it."""

    frame: Frame
    term: Term

    @property
    def bounds(self) -> Bounds:
        return self.frame.bounds

    @property
    def journal(self) -> Journal:
        return self.frame.journal

    @property
    def log(self) -> DecisionLog:
        return self.frame.log

    @property
    def stand(self) -> Standpoint:
        return self.frame.stand

    @property
    def memory(self) -> Memory:
        return self.log.memory

    @property
    def attempt(self) -> Attempt | None:
        return self.term.proposer.attempt

    @property
    def quorum(self) -> int:
        """How many votes decide, as far as this node knows."""
        return self.stand.electorate.quorum

    @property
    def plan(self) -> ClusterPlan | None:
        """The decided plan."""
        return self.memory.plan

    def name(self, node: NodeId) -> str:
        """Return what people call a node; of an unknown one the end of its id."""
        return self.stand.shown.get(node) or node[-8:]

    def names(self, nodes: Iterable[NodeId]) -> str:
        """Return several names, sorted, with commas."""
        return ", ".join(sorted(self.name(node) for node in nodes))
