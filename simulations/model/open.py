"""Open networks, where nobody knows how many machines there are: how often do they split?

There is no promise to break here, so nothing ends a run early. Afterwards it is looked at which
clusters there are; and of meshd, that whoever is in one of two says so and goes on with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from ledger import NodeId
from meshd.events import ClusterOrder, Persist, Seal
from meshd.node import Node
from roles import Bounds
from simulations.model.checkers import Checkers, Violation
from simulations.model.disk import Disk
from simulations.model.etcd import Etcd
from simulations.model.faults import Faults
from simulations.model.k3s import K3s
from simulations.model.kairos import KAIROS
from simulations.model.many import in_processes
from simulations.model.runs import (
    LIVENESS_AFTER_LOSS_S,
    MESHD,
    SLOWNESS_USUAL,
    missing,
)
from simulations.model.scenario import Scenario, open_scenario_of
from simulations.model.wire import kind_held, quorum_counted, value_in
from simulations.model.world import World

Outcome = Literal["one cluster", "two clusters", "one cluster, and a plan beside it", "no cluster"]

_STEP_S = 5.0
_SPLIT_S = 120.0
"""How long a split is watched once everybody has said so: nobody may be stopped or moved."""

_FAULTS_SEED = "open faults"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenResult:
    """What came of a seed."""

    seed: int
    outcome: Outcome
    doubled: bool  # Two machines ran cluster-init in one generation.
    beside: bool  # K3s of a generation ran beside that of a later one.
    flaw: str | None  # No cluster; a split that is not shown, or stopped or moved somebody.
    theirs_doubled: bool  # The same machines and faults, and Kairos' rule.


class Onlooker(Checkers):
    """Counts the clusters of a generation, however many there are.

    Of the promises those stay that one node keeps by itself: no vote leaves it before it is on its
    disk, no k3s starts with a clock that its neighbours refute. Who holds DONE keeps to it, and the
    quorum that it tells of is on its disk.
    """

    def __init__(self, bounds: Bounds, names: Mapping[NodeId, str]) -> None:
        super().__init__(bounds, names)
        self.beside = False
        self.unfaithful: list[str] = []
        self._formed_in: dict[NodeId, int] = {}  # Of which generation a node holds DONE.
        self._kept: dict[tuple[NodeId, str], bytes] = {}  # (node, row) -> what is decided there.

    def started(self, node: NodeId, etcd: Etcd) -> None:
        """Take note of a cluster-init."""
        del node
        self._etcds.setdefault(etcd.plan.generation, []).append(etcd)

    def persisted(self, node: NodeId, change: Persist, *, mark: str) -> None:
        """Take note of a disk on which a slot changes, or anything ends or follows DONE.

        There may be two decisions of one slot, but not for one node.
        """
        del mark
        for row, record in change.votes:
            if not row.startswith("decided/"):
                continue
            value, kind = value_in(record), kind_held(record)
            name, generation = self._names[node], int(row.split("/")[1])
            if self._kept.setdefault((node, row), value) != value:
                self.unfaithful.append(f"{name} takes another {kind} of generation {generation}")
            formed_in = self._formed_in.get(node, generation)
            ended = node in self._formed_in and kind in ("abandon", "void")
            if generation > formed_in or (generation == formed_in and ended):
                found = f"{kind} of generation {generation}"
                self.unfaithful.append(f"{name} holds DONE of {formed_in}, and takes {found}")
            if kind == "done":
                self._formed_in.setdefault(node, generation)

    def revealed(self, node: NodeId, frame: bytes, disk: Disk) -> None:
        """Take note of a quorum, besides, that is told and would be smaller after a restart."""
        super().revealed(node, frame, disk)
        kept = max(int(disk.holds_vote("quorum") or b"0"), self._bounds.quorum)
        if quorum_counted(frame) > kept:
            name = self._names[node]
            self.unfaithful.append(
                f"{name} tells of a quorum of {quorum_counted(frame)}, and its disk of {kept}"
            )

    def ordered(self, node: NodeId, order: ClusterOrder, disk: Disk) -> None:
        """Pass: what is decided is one cluster's."""

    def sealed(self, node: NodeId, seal: Seal, disk: Disk) -> None:
        """Pass: likewise."""

    def started_as_decided(self, node: NodeId, etcd: Etcd, disk: Disk) -> None:
        """Pass: likewise."""

    def running(self, services: Sequence[K3s], now: float) -> None:
        """Take note of k3s beside that of a later generation."""
        try:
            super().running(services, now)
        except Violation:
            self.beside = True

    @property
    def doubled(self) -> bool:
        """Whether any generation has two clusters."""
        return any(len(etcds) > 1 for etcds in self._etcds.values())


def run_open_seeds(seeds: range, *, jobs: int) -> Iterator[OpenResult]:
    """Run seeds; results come in the order of the seeds."""
    return in_processes(run_open_seed, seeds, jobs=jobs)


def run_open_seed(seed: int, trace: Callable[[str], None] | None = None) -> OpenResult:
    """Run one seed with meshd, then with Kairos' rule."""
    world, onlooker = begin(open_scenario_of(seed), trace)
    flaw: str | None = None
    try:
        _until_healed(world)
        _until_still(world)
        if len(_formed(world)) > 1:
            world.timeline.run_until(world.timeline.now + _SPLIT_S)
        flaw = next(flaws(world), None) or next(iter(onlooker.unfaithful), None)
    except AssertionError as error:
        flaw = f"at {world.timeline.now:.3f} s: {str(error) or type(error).__name__}"
    return OpenResult(
        seed=seed,
        outcome=_outcome(world),
        doubled=onlooker.doubled,
        beside=onlooker.beside,
        flaw=flaw,
        theirs_doubled=_theirs_doubled(seed),
    )


def begin(scenario: Scenario, trace: Callable[[str], None] | None = None) -> tuple[World, Onlooker]:
    """Return a world of meshd nodes in which two clusters may come up."""
    world = World(scenario, MESHD, trace=trace)
    return world, _watched(world)


def _watched(world: World) -> Onlooker:
    names = {machine.node: machine.facts.name for machine in world.machines}
    onlooker = Onlooker(world.scenario.bounds, names)
    world.checkers = onlooker
    return onlooker


def _theirs_doubled(seed: int) -> bool:
    world = World(open_scenario_of(seed), KAIROS)
    onlooker = _watched(world)
    _until_healed(world)
    world.timeline.run_until(world.timeline.now + KAIROS.run_on_s)
    return onlooker.doubled


def _until_healed(world: World) -> None:
    faults = Faults(world, Random(f"{_FAULTS_SEED} {world.scenario.seed}"))
    faults.schedule()
    world.timeline.run_until(world.scenario.faults_until_s)
    faults.heal()


def _until_still(world: World) -> None:
    """Go on until every machine is in a cluster and all is said, or for as long as is allowed."""
    allowed_s = LIVENESS_AFTER_LOSS_S
    if world.scenario.k3s_slowness > SLOWNESS_USUAL:
        allowed_s += LIVENESS_AFTER_LOSS_S
    until = world.timeline.now + allowed_s
    while world.timeline.now < until:
        world.timeline.run_until(world.timeline.now + _STEP_S)
        nodes = _nodes(world)
        whole = len(nodes) == len(world.machines)
        if not whole or not all(node.genesis.state.formed for node in nodes):
            continue
        if next(flaws(world), None) is None:
            return


def _nodes(world: World) -> list[Node]:
    return [machine.peer for machine in world.machines if isinstance(machine.peer, Node)]


def _formed(world: World) -> dict[str, list[Node]]:
    """Return the nodes of each formed cluster, by cluster id."""
    clusters: dict[str, list[Node]] = {}
    for node in _nodes(world):
        state = node.genesis.state
        if state.formed and state.plan is not None:
            clusters.setdefault(state.plan.cluster_id, []).append(node)
    return clusters


def _outcome(world: World) -> Outcome:
    formed = _formed(world)
    if len(formed) > 1:
        return "two clusters"
    if not formed:
        return "no cluster"
    plans = [node.genesis.state.plan for node in _nodes(world)]
    beside = len({plan.cluster_id for plan in plans if plan is not None}) > 1
    return "one cluster, and a plan beside it" if beside else "one cluster"


def flaws(world: World) -> Iterator[str]:
    """Yield what is wrong with a split: each node of each cluster has to name both, and go on.

    Where one cluster formed, and there is no other plan, all must be in place on every machine, and
    no k3s of an abandoned generation ran beside it.
    Of two plans of which one formed, each node that follows either has to say so. None may form
    only if two plans were decided and one has no lease; else plans that met are ended together.
    """
    formed = _formed(world)
    if not formed:
        plans = {node.genesis.state.plan for node in _nodes(world)} - {None}
        if len(plans) > 1 and not all(plan.leased for plan in plans if plan is not None):
            yield from _unsaid(world)
            return
        yield f"no cluster formed: {sorted({str(node.waiting_for) for node in _nodes(world)})}"
        return
    if len(formed) < 2:
        if _outcome(world) == "one cluster, and a plan beside it":
            yield from _unsaid(world)
            return
        # After a split ledgers stay different: what was sealed in one is of no use in the other.
        yield from missing(world, ledgers_differ=_was_split(world))
        if isinstance(world.checkers, Onlooker) and world.checkers.beside:
            yield "k3s of an abandoned generation ran beside the cluster"
        return
    for own, nodes in sorted(formed.items()):
        for node in nodes:
            yield from _untold(node, own, others=formed.keys() - {own})
            yield from _disturbed(world, node, own)


def _was_split(world: World) -> bool:
    """Whether two plans of one generation were ever decided."""
    plans = {plan.cluster_id: plan for node in _nodes(world) for plan in node.genesis.plans}
    return len({plan.generation for plan in plans.values()}) < len(plans)


def _unsaid(world: World) -> Iterator[str]:
    for node in _nodes(world):
        alarmed = any(item.code == "MESH-4007" for item in node.health)
        if node.genesis.state.plan is not None and not alarmed:
            yield f"{node.facts.name} does not say that two plans were decided"


def _untold(node: Node, own: str, others: set[str]) -> Iterator[str]:
    alarms = [item.message for item in node.health if item.code == "MESH-4007"]
    for other in sorted(others):
        if not any(own[:8] in text and other[:8] in text for text in alarms):
            yield f"{node.facts.name} of {own[:8]} does not name {other[:8]}: {alarms}"


def _disturbed(world: World, node: Node, own: str) -> Iterator[str]:
    service = world.by_node[node.me].k3s
    if service.data is not None and service.data.plan.cluster_id != own:
        yield f"{node.facts.name} of {own[:8]} has data of {service.data.plan.cluster_id[:8]}"
    if node.seat in ("initialiser", "server") and not service.running:
        yield f"k3s of {own[:8]} does not run on {node.facts.name}"


def report(results: list[OpenResult]) -> str:
    """Return the rates, in words."""
    count = len(results)
    share = partial(_share, count=count)
    outcomes: tuple[Outcome, ...] = (
        "one cluster",
        "two clusters",
        "one cluster, and a plan beside it",
        "no cluster",
    )
    doubled, theirs = sum(r.doubled for r in results), sum(r.theirs_doubled for r in results)
    beside = sum(r.beside and r.outcome == "one cluster" for r in results)
    flawed = sum(r.flaw is not None for r in results)
    lines = [
        f"{count} open networks of 3 to 10 voters",
        *(f"meshd: {name}: {share(sum(r.outcome == name for r in results))}" for name in outcomes),
        f"meshd: two machines ran cluster-init in one generation: {share(doubled)}",
        f"meshd: one cluster, and k3s of an abandoned generation ran beside it: {share(beside)}",
        f"Kairos' rule: two machines ran cluster-init: {share(theirs)}",
        f"no cluster, one not in place everywhere or left again, or a split not shown: {flawed}",
    ]
    return "\n".join(lines)


def _share(part: int, *, count: int) -> str:
    return f"{part} ({part / count:.2%})"
