"""What is done to a laboratory while its cluster forms, drawn from a seed. Pure.

Invariants: equal seeds give equal plans; no plan wipes more disks than the guarantee bears
(docs/genesis.md), nor leaves a k3s without supervisor and fuse while its daemon stands still: that
machine is outside of what genesis assumes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

Moment = Literal["power-on", "claimed", "started", "begun", "formed"]
"""What has been seen of formation; `begun`: the initialiser has a database."""

Verb = Literal[
    "kill",
    "kill-meshd",
    "kill-k3s",
    "kill-supervisor",
    "kill-fuse",
    "freeze",
    "freeze-meshd",
    "cut",
    "wipe",
    "power-cut",
]

FIRST = "first"
"""Stands for the initialiser that is known at that moment; for n1 while none is."""

MOMENTS: tuple[Moment, ...] = ("power-on", "claimed", "started", "begun", "formed")
_WEIGHTS: dict[Verb, int] = {
    "kill": 5,
    "kill-meshd": 3,
    "kill-k3s": 3,
    "kill-supervisor": 2,
    "kill-fuse": 2,
    "freeze": 3,
    "freeze-meshd": 2,
    "cut": 5,
    "power-cut": 3,
}
LASTING: frozenset[Verb] = frozenset({"kill", "freeze", "freeze-meshd", "cut", "wipe", "power-cut"})
_LONG_SHARE = 0.2  # Of the plans: they take minutes instead of half a minute.


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is done.

    Args:
        after: it waits for this, `delay_s` more, and for the fault before it.
        nodes: whom it meets; the side of a cut. May have FIRST among them.
        for_s: how long it lasts, of what lasts.
    """

    after: Moment
    delay_s: float
    verb: Verb
    nodes: tuple[str, ...]
    for_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.for_s:.1f} s" if self.verb in LASTING else ""
        return f"{self.after} + {self.delay_s:.1f} s: {self.verb} {' '.join(self.nodes)}{lasts}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One cycle: a laboratory's shape, and what is done to it.

    Args:
        nodes_max: B, how many may ever vote under the token.
        promote_s: how long the stand-in keeps a new member of etcd from voting.
    """

    seed: int
    nodes: int
    control_plane: int
    nodes_max: int
    promote_s: float
    faults: tuple[Fault, ...]

    @property
    def quorum(self) -> int:
        """Return q, as the token fixes it."""
        return max(self.nodes_max // 2 + 1, self.control_plane)

    @property
    def wipes_max(self) -> int:
        """Return how many disks may be lost before DONE: voters stay below 2q, journals reach q.

        Journals: of the machines that are here. The bound of the token counts all that might be.
        """
        return min(
            self.nodes_max - self.quorum,
            2 * self.quorum - 1 - self.nodes_max,
            self.nodes - self.quorum,
            self.nodes - self.control_plane,
        )

    def __str__(self) -> str:
        shape = (
            f"seed {self.seed}: {self.nodes} machines, control plane {self.control_plane}, "
            f"B {self.nodes_max}, q {self.quorum}, a member of etcd votes after {self.promote_s} s"
        )
        return "\n".join([shape, *(f"    {fault}" for fault in self.faults)])


# (machines, control plane, B). With even B a disk may be lost.
_SHAPES = ((3, 3, 5), (4, 3, 4), (4, 3, 4), (5, 3, 6), (5, 3, 5), (3, 1, 3), (5, 5, 6))


def draw(seed: int) -> Plan:
    """Return the plan of a seed."""
    rng = random.Random(seed)
    nodes, control_plane, nodes_max = rng.choice(_SHAPES)
    plan = Plan(
        seed=seed,
        nodes=nodes,
        control_plane=control_plane,
        nodes_max=nodes_max,
        promote_s=rng.choice((0.5, 0.5, 3.0)),
        faults=(),
    )
    moments = sorted(rng.choices(range(len(MOMENTS)), (3, 2, 3, 4, 1), k=rng.randint(1, 4)))
    faults = [_fault(rng, plan, MOMENTS[number]) for number in moments]
    if plan.wipes_max > 0 and rng.random() < 0.5:
        at = rng.randrange(len(faults))
        victim = (_anyone(rng, plan),)
        faults[at] = replace(faults[at], verb="wipe", nodes=victim, for_s=_short_s(rng))
    if rng.random() < _LONG_SHARE:
        faults = _with_a_long_one(rng, faults)
    return replace(plan, faults=tuple(_with_a_holder(faults)))


def _fault(rng: random.Random, plan: Plan, after: Moment) -> Fault:
    verb = rng.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
    everyone = tuple(f"n{number + 1}" for number in range(plan.nodes))
    nodes: tuple[str, ...] = (_anyone(rng, plan),)
    if verb == "power-cut":
        nodes = everyone
    elif verb == "cut" and rng.random() < 0.5:
        nodes = tuple(sorted(rng.sample(everyone, rng.randint(2, plan.nodes - 1))))
    delay_s = rng.uniform(0, 10) if after == "power-on" else rng.choice((0, rng.uniform(0, 4)))
    return Fault(
        after=after,
        delay_s=round(delay_s, 1),
        verb=verb,
        nodes=nodes,
        for_s=_short_s(rng) if verb in LASTING else 0.0,
    )


def _anyone(rng: random.Random, plan: Plan) -> str:
    return FIRST if rng.random() < 0.5 else f"n{rng.randint(1, plan.nodes)}"


def _short_s(rng: random.Random) -> float:
    return round(rng.choice((rng.uniform(0, 3), rng.uniform(3, 15))), 1)


def _with_a_long_one(rng: random.Random, faults: list[Fault]) -> list[Fault]:
    """Have one fault outlast the lease, so that the others go on without whom it meets."""
    lasting = [at for at, fault in enumerate(faults) if fault.verb in LASTING]
    if lasting:
        at = rng.choice(lasting)
        faults[at] = replace(faults[at], for_s=round(rng.uniform(95, 130), 1))
    return faults


def _with_a_holder(faults: list[Fault]) -> list[Fault]:
    if not any(fault.verb == "freeze-meshd" for fault in faults):
        return faults
    if not any(fault.verb == "kill-supervisor" for fault in faults):
        return faults
    return [replace(one, verb="kill-k3s") if one.verb == "kill-fuse" else one for one in faults]
