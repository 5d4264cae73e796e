"""One seed from start to end: faults, safety checked at every step; then healing, and liveness."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from ledger import decode_entry
from meshd.node import Node
from simulations.model.checkers import Violation
from simulations.model.coverage import met_in
from simulations.model.faults import Faults
from simulations.model.machine import NETWORK_ID, Boot, Strategy
from simulations.model.scenario import Scenario, scenario_of
from simulations.model.world import World

LIVENESS_S = 360.0
"""Time allowed from the end of all faults to a formed cluster, if no machine was lost."""

LIVENESS_AFTER_LOSS_S = 600.0
"""The same if machines were lost, or disks wiped (docs/genesis.md)."""

SLOWNESS_USUAL = 4.0
"""Of k3s: up to a minute from start to ready, 20 s from learner to voter. Where it takes longer, a
generation may end for that alone, and the next one has twice the time."""

AFTER_DONE_S = 25.0
"""How long faults go on after DONE."""

_STEP_S = 5.0
_LOOK_EVERY_S = 1.0
"""How often it is looked at whether everything is in place, which ends the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a seed."""

    seed: int
    failure: str | None
    formed_after_s: float | None  # From the end of the faults until everything was in place.
    starts: int
    steps: int  # Events that machines handled.
    reached: Counter[str]
    fingerprint: str | None


def start_node(boot: Boot, *, kind: type[Node] = Node) -> Node:
    """Start the very class that the daemon runs, or a mutant of it."""
    return kind(
        network_id=NETWORK_ID,
        signer=boot.signer,
        bounds=boot.bounds,
        facts=boot.facts,
        vip=boot.vip,
        rng=boot.rng,
        now=boot.now,
        entries=tuple(decode_entry(entry, NETWORK_ID) for entry in boot.entries),
        votes=boot.votes,
    )


MESHD = Strategy(name="meshd", start=start_node)


def run_seed(
    seed: int,
    strategy: Strategy = MESHD,
    *,
    scenario: Scenario | None = None,
    trace: Callable[[str], None] | None = None,
    fingerprinted: bool = False,
) -> Result:
    """Run one seed; a broken promise or invariant is returned as `failure`."""
    chosen = scenario if scenario is not None else scenario_of(seed)
    world = World(
        strategy.rewrite(chosen) if strategy.rewrite is not None else chosen,
        strategy,
        trace=trace,
        fingerprinted=fingerprinted,
    )
    failure: str | None = None
    formed_after_s: float | None = None
    try:
        with exchanged(strategy.broken):
            formed_after_s = _run(world, strategy)
    except AssertionError as error:  # A broken promise, or one of the node's own invariants.
        failure = f"at {world.timeline.now:.3f} s: {error if str(error) else _place(error)}"
        world.say(None, f"VIOLATION {failure}")
    return Result(
        seed=seed,
        failure=failure,
        formed_after_s=formed_after_s,
        starts=world.checkers.starts,
        steps=world.steps,
        reached=met_in(world),
        fingerprint=world.fingerprint if fingerprinted else None,
    )


@contextmanager
def exchanged(broken: Iterable[tuple[object, str, object]]) -> Iterator[None]:
    """Exchange attributes while a mutant runs."""
    undo = [(owner, name, getattr(owner, name)) for owner, name, _ in broken]
    for owner, name, value in broken:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)


def _place(error: AssertionError) -> str:
    """Return where a nameless assertion stands."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}: assert {frame.line}"


def _run(world: World, strategy: Strategy) -> float:
    scenario = world.scenario
    faults = Faults(world, Random(f"faults {scenario.seed}"))
    faults.schedule()
    while world.timeline.now < scenario.faults_until_s:
        world.timeline.run_until(min(world.timeline.now + _STEP_S, scenario.faults_until_s))
        if world.checkers.decided("done"):
            # Once it has formed there is little left to break: end the faults soon.
            rest_s = min(scenario.faults_until_s - world.timeline.now, AFTER_DONE_S)
            world.timeline.run_until(world.timeline.now + rest_s)
            break
    for slot in ("claim", "started", "done"):
        if world.checkers.decided(slot):
            world.checkers.reached[f"{slot} decided under faults"] = 1
    faults.heal()
    healed_at = world.timeline.now
    whole = all(machine.is_sound for machine in world.machines)
    allowed_s = LIVENESS_S if whole else LIVENESS_AFTER_LOSS_S
    if scenario.k3s_slowness > SLOWNESS_USUAL:
        allowed_s += LIVENESS_AFTER_LOSS_S
    world.timeline.run_until(healed_at + strategy.run_on_s)
    while strategy.decides and any(missing(world)):
        if _died_while_forming(world):
            world.checkers.reached["formed, and too few servers live"] = 1
            break
        world.timeline.run_until(world.timeline.now + _LOOK_EVERY_S)
        if world.timeline.now - healed_at >= allowed_s and any(missing(world)):
            lacks = "; ".join(missing(world))
            raise Violation(f"not formed {allowed_s:.0f} s after healing: {lacks}")
    return world.timeline.now - healed_at


def _died_while_forming(world: World) -> bool:
    """Whether DONE is decided, and the servers that it needs were lost while it was voted for.

    A vote for DONE that was cast is kept, whoever died since; then etcd has no majority, and only
    an operator can decide what becomes of that.
    """
    lost = {machine.node for machine in world.machines if machine.lost}
    peers = [machine.peer for machine in world.machines if not machine.lost]
    formed = [peer.standing for peer in peers if isinstance(peer, Node) and peer.standing.formed]
    plan = formed[0].plan if formed else None
    if plan is None or len(formed) < len(peers):
        return False
    alive = sum(seat.node not in lost for seat in plan.seats)
    return alive <= len(plan.seats) // 2


def missing(world: World, *, ledgers_differ: bool = False) -> Iterator[str]:
    """Yield what one cluster still lacks: roles, k3s, words, equal ledgers, one plan.

    Args:
        world: to be looked at.
        ledgers_differ: whether ledgers may.
    """
    roots: set[bytes] = set()
    plans: set[str] = set()
    for machine in world.machines:
        if machine.lost:
            continue
        node, name = machine.peer, machine.facts.name
        if not isinstance(node, Node):
            yield f"{name} is down"
            continue
        roots.add(node.replica.root)
        plans.add(node.standing.plan.cluster_id if node.standing.plan is not None else "none")
        if node.phase != "steady":
            yield f"{name} is {node.phase}, waits for {node.waiting_for}"
        if node.seat in ("initialiser", "server"):
            data = machine.k3s.data
            if data is None or machine.spec.index not in data.voters:
                yield f"{name} does not vote in etcd"
        if node.seat != "none" and not machine.k3s.ready:
            yield f"k3s on {name} is not ready"
    if len(roots) > 1 and not ledgers_differ:
        yield f"{len(roots)} different ledgers"
    if len(plans) > 1:
        yield f"{len(plans)} different plans"
