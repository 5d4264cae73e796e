"""meshd with one thing broken: what the checkers must catch, or they prove nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ledger import Instant, Moment
from meshd.events import Apply, ClusterOrder, Effect, Event, Seal, Send
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
            order = ClusterOrder(
                seat="initialiser", plan=plan, formed=False, lease_until=Instant(now.at + 60.0)
            )
            effects.append(Apply(order))
        return effects


class _Talkative(Node):
    """Seals the agent token to everyone it knows as soon as it sees a plan."""

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        before = self.standing.plan
        effects = super().handle(event, now)
        if self.standing.plan is not None and before is None:
            effects += [
                Seal(recipient=known.node, sealing_key=known.facts.sealing_key, name="agent-token")
                for known in self.directory.others()
                if known.facts is not None
            ]
        return effects


def _change_orders(effects: Sequence[Effect], **changes: object) -> Sequence[Effect]:
    return [
        Apply(replace(effect.order, **changes)) if isinstance(effect, Apply) else effect  # type: ignore[arg-type] # The mutants below name fields of an order.
        for effect in effects
    ]


def _forgetful(boot: Boot) -> Node:
    return start_node(replace(boot, votes=()))


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Strategy(name="persist-after-send", start=start_node, arrange=_persist_last),
        Strategy(name="no-fsync", start=start_node, fsync=False),
        Strategy(name="quorum-minus-one", start=start_node, rewrite=_quorum_minus_one),
        Strategy(name="no-journal", start=_forgetful),
        Strategy(name="start-before-started", start=partial(start_node, kind=_Hasty)),
        Strategy(name="secrets-for-everyone", start=partial(start_node, kind=_Talkative)),
        Strategy(
            name="formed-before-done",
            start=start_node,
            arrange=partial(_change_orders, formed=True),
        ),
        Strategy(name="nobody-to-join", start=start_node, arrange=partial(_change_orders, join=())),
        Strategy(
            name="old-data-stay",
            start=start_node,
            arrange=partial(_change_orders, abandoned=()),
        ),
        Strategy(name="no-fuse", start=start_node, fuses=False),
        Strategy(name="any-clock", start=start_node, arrange=partial(_change_orders, hold=None)),
    )
}
