"""etcd clusters with their members, the machines they run on, and what of them is on a disk."""

from __future__ import annotations

from dataclasses import dataclass

from roles import ClusterPlan


@dataclass(slots=True, kw_only=True)
class Etcd:
    """One etcd cluster with its members, by machine. One learner at a time, as k3s does it."""

    uid: str
    plan: ClusterPlan
    voters: list[int]
    learner: int | None = None
    learner_since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What k3s on a machine is called, and where it listens."""

    machine: int
    node_name: str
    node_ip: str


@dataclass(frozen=True, slots=True)
class Image:
    """k3s' part of a disk: its database, the mark beside it, the clusters that stay down."""

    data: Etcd | None
    mark: str
    stops: frozenset[str]
