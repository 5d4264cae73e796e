"""What this node knows of every node: its link to it, and the records that node published.

Invariant: only what a node itself signed stands in `facts`, `k3s` and `neighbours`; only what this
node saw itself stands in `connected`, `link`, `path`, `rtt_ms` and `clock_epoch_ms`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ledger import NodeId
from meshd.schema import Facts, K3sRecord, LinkRecord, LinkState, PathKind
from roles import Candidate, ClusterPlan


@dataclass(slots=True, kw_only=True)
class Known:
    """One node, as seen from here."""

    node: NodeId
    facts: Facts | None = None
    k3s: K3sRecord | None = None
    neighbours: tuple[LinkRecord, ...] = ()
    connected: bool = False
    link: LinkState | None = None  # None: never a neighbour of ours, or not heard of yet.
    path: PathKind | None = None
    rtt_ms: float | None = None
    clock_epoch_ms: int | None = None  # Its wall clock when CLOCK_BOOTTIME here was 0.
    clock_is_wrong: bool = False
    has_namesake: bool = False  # Another node has its hostname.
    seat_name: str | None = None  # Its hostname as a decided plan has it.
    _candidate: tuple[tuple[Facts, bool, bool, bool], Candidate] | None = None

    @property
    def name(self) -> str:
        """What operators call it: its hostname, or the end of its id until that is known.

        If another node has the same hostname: the name of its Kubernetes Node, which is unique.
        """
        if self.facts is None:
            return self.seat_name or self.node[-8:]
        return self.facts.node_name if self.has_namesake else self.facts.name

    @property
    def candidate(self) -> Candidate | None:
        """Return what ranking and voting need of its facts, once those are known.

        The same object as before unless something changed: it is asked for at every turn.
        """
        if self.facts is None:
            return None
        key = self.facts, self.path != "relay", self.clock_is_wrong, self.has_namesake
        if self._candidate is None or self._candidate[0] != key:
            candidate = self.facts.candidate(
                self.node, name=self.name, direct=key[1], clock_is_wrong=key[2]
            )
            self._candidate = key, candidate
        return self._candidate[1]

    @property
    def endpoint(self) -> str | None:
        """Return the URL of its Kubernetes API while that answers, as it says."""
        return self.k3s.endpoint if self.k3s is not None else None


class Directory:
    """All known nodes, this one included, in the order of their ids."""

    def __init__(self, me: NodeId) -> None:
        self.me = me
        self._known: dict[NodeId, Known] = {}
        self._sorted: list[Known] | None = None
        self.behind: set[NodeId] = set()  # Neighbours whose registers are not all here yet.
        self[me].path = "self"
        self[me].link = "alive"

    def __getitem__(self, node: NodeId) -> Known:
        known = self._known.get(node)
        if known is None:
            known = self._known[node] = Known(node=node)
            self._sorted = None
        return known

    def find(self, node: NodeId) -> Known | None:
        """Return what is known of `node`; unlike `[]`, this makes nobody known."""
        return self._known.get(node)

    def __iter__(self) -> Iterator[Known]:
        if self._sorted is None:
            self._sorted = [self._known[node] for node in sorted(self._known)]
        return iter(self._sorted)

    def name_seats(self, plan: ClusterPlan | None) -> None:
        """Take the names of members from a plan, for as long as their own facts are not here."""
        for seat in plan.seats if plan is not None else ():
            self[seat.node].seat_name = seat.node_name.rpartition("-")[0]

    def name_namesakes(self) -> None:
        """Find out whose hostnames are shared: cloned images often have one and the same."""
        names = Counter(known.facts.name for known in self if known.facts is not None)
        for known in self:
            known.has_namesake = known.facts is not None and names[known.facts.name] > 1

    def others(self) -> list[Known]:
        """Return every known node but this one."""
        return [known for known in self if known.node != self.me]

    def name(self, node: NodeId) -> str:
        """Return the name of a node, known or not."""
        known = self._known.get(node)
        return known.name if known is not None else node[-8:]

    def present(self) -> frozenset[NodeId]:
        """Return the nodes that can be reached now: connected, or neighbours of such, and so on.

        In a large network a node is connected to a few others only; the rest it knows through the
        neighbours that those publish. What is held of one that connected just now may be of long
        ago, so its neighbours count once its newest registers are here.
        """
        reached = {self.me}
        frontier = [
            known for known in self if known.connected and known.link not in ("failed", "left")
        ]
        while frontier:
            known = frontier.pop()
            if known.node in reached:
                continue
            reached.add(known.node)
            if known.node not in self.behind:
                frontier.extend(
                    self._known[link.peer]
                    for link in known.neighbours
                    if link.peer in self._known and link.peer not in reached
                )
        return frozenset(reached)

    def state_of(self, known: Known, present: frozenset[NodeId]) -> LinkState:
        """Return how a node is doing: our own heartbeat if there is one, else what others see."""
        if known.node == self.me:
            return "alive"
        if known.connected:
            return "suspect" if known.link == "suspect" else "alive"
        if known.link == "left":
            return "left"
        if known.node in present:
            return "alive"
        return "failed" if known.link == "failed" else "suspect"  # Of a stranger we only heard.
