"""meshd with one thing broken: what the checkers must catch, or they prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from ledger import Instant, Moment
from meshd.events import Apply, ClusterOrder, Effect, Event, Persist
from meshd.node import Node
from simulations.model.machine import Boot, Strategy
from simulations.model.runs import start_node


def _persist_last(effects: Sequence[Effect]) -> Sequence[Effect]:
    """Reveal first, keep later: what a shell does that does not wait for the commit."""
    kept = [effect for effect in effects if isinstance(effect, Persist)]
    return [effect for effect in effects if not isinstance(effect, Persist)] + kept


def _quorum_minus_one(boot: Boot) -> Node:
    bounds = replace(boot.bounds, quorum=max(1, boot.bounds.quorum - 1))
    facts = msgspec.structs.replace(boot.facts, quorum=bounds.quorum)
    return start_node(replace(boot, bounds=bounds, facts=facts))


class _Hasty:
    """Starts the cluster as soon as CLAIM names this node, without waiting for STARTED."""

    def __init__(self, boot: Boot) -> None:
        self._node = start_node(boot)
        self._hurried = False

    @property
    def deadline(self) -> Instant:
        return self._node.deadline

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        effects = self._node.handle(event, now)
        plan = self._node.standing.plan
        if plan is not None and plan.initialiser == self._node.me and not self._hurried:
            self._hurried = True
            effects.append(Apply(ClusterOrder(seat="initialiser", plan=plan, formed=False)))
        return effects


def _forgetful(boot: Boot) -> Node:
    return start_node(replace(boot, votes=()))


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Strategy(name="persist-after-send", start=start_node, arrange=_persist_last),
        Strategy(name="no-fsync", start=start_node, fsync=False),
        Strategy(name="quorum-minus-one", start=_quorum_minus_one),
        Strategy(name="start-before-started", start=_Hasty),
        Strategy(name="no-journal", start=_forgetful),
    )
}
