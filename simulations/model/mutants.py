"""meshd with one thing broken: what the checkers must catch, or they prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ledger import Moment
from meshd.events import Apply, ClusterOrder, Effect, Event, Send
from meshd.node import Node
from simulations.model.machine import Boot, Strategy
from simulations.model.runs import start_node
from simulations.model.scenario import Scenario


def _persist_last(effects: Sequence[Effect]) -> Sequence[Effect]:
    """Frames first, the commit after them: what a shell does that does not wait for the disk."""
    return sorted(effects, key=lambda effect: not isinstance(effect, Send))


def _quorum_minus_one(scenario: Scenario) -> Scenario:
    """A quorum of which two fit into the voters of a token."""
    bounds = replace(scenario.bounds, quorum=scenario.bounds.nodes_max // 2)
    return replace(scenario, bounds=bounds) if bounds.quorum > 0 else scenario


class _Hasty(Node):
    """Starts the cluster as soon as CLAIM names this node, without waiting for STARTED."""

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        before = self.standing.plan
        effects = super().handle(event, now)
        plan = self.standing.plan
        if plan is not None and plan.initialiser == self.me and before is None:
            effects.append(Apply(ClusterOrder(seat="initialiser", plan=plan, formed=False)))
        return effects


def _hasty(boot: Boot) -> Node:
    return start_node(boot, kind=_Hasty)


def _forgetful(boot: Boot) -> Node:
    return start_node(replace(boot, votes=()))


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Strategy(name="persist-after-send", start=start_node, arrange=_persist_last),
        Strategy(name="no-fsync", start=start_node, fsync=False),
        Strategy(name="quorum-minus-one", start=start_node, rewrite=_quorum_minus_one),
        Strategy(name="start-before-started", start=_hasty),
        Strategy(name="no-journal", start=_forgetful),
    )
}
