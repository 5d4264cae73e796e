"""meshd with one thing broken: what the checkers must catch, or they prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ledger import Instant, Moment
from meshd.events import Apply, ClusterOrder, Effect, Event, Seal, Send
from meshd.node import Node
from simulations.model.machine import VIP, Boot, Strategy
from simulations.model.runs import start_node
from simulations.model.scenario import Scenario

NO_LEASE = Instant(0.0)


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


class _Eager(Node):
    """Is a worker as soon as STARTED is decided."""

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        effects, standing = super().handle(event, now), self.standing
        if self.seat == "worker" and standing.started and not standing.formed:
            join = (standing.plan.seats[0].node_ip,) if standing.plan is not None else ()
            order = ClusterOrder(
                seat="worker", plan=standing.plan, formed=False, join=join, lease_until=NO_LEASE
            )
            effects.append(Apply(order))
        return effects


class _Usurper(Node):
    """Takes the initialiser's part if it has the last seat."""

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        effects, plan = super().handle(event, now), self.standing.plan
        if plan is not None and self.standing.started and plan.seats[-1].node == self.me:
            until = Instant(now.at + 60.0)
            effects.append(
                Apply(ClusterOrder(seat="initialiser", plan=plan, formed=False, lease_until=until))
            )
        return effects


class _Talkative(Node):
    """Seals the agent token to everyone it knows as soon as it sees a plan."""

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        before = self.standing.plan
        effects = super().handle(event, now)
        return (
            effects + self._told() if self.standing.plan is not None and before is None else effects
        )

    def _told(self) -> list[Effect]:
        return [
            Seal(recipient=known.node, sealing_key=known.facts.sealing_key, name="agent-token")
            for known in self.directory.others()
            if known.facts is not None
        ]


class _Blabbing(_Talkative):
    """Does so before there is a plan."""

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        effects = super().handle(event, now)
        return effects + self._told() if self.standing.plan is None else effects


def _change_orders(
    effects: Sequence[Effect],
    *,
    only: Callable[[ClusterOrder], bool] = lambda _order: True,
    **changes: object,
) -> Sequence[Effect]:
    return [
        Apply(replace(effect.order, **changes))  # type: ignore[arg-type] # The mutants below name fields of an order.
        if isinstance(effect, Apply) and only(effect.order)
        else effect
        for effect in effects
    ]


def _abandon_own(effects: Sequence[Effect]) -> Sequence[Effect]:
    """Orders name their own cluster among those that are over."""
    return [
        Apply(replace(effect.order, abandoned=(effect.order.plan.cluster_id,)))
        if isinstance(effect, Apply) and effect.order.plan is not None
        else effect
        for effect in effects
    ]


def _is_server(order: ClusterOrder) -> bool:
    return order.seat == "server"


def _is_formed_later(order: ClusterOrder) -> bool:
    return order.formed and bool(order.abandoned)


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
        Strategy(name="no-fuse", start=start_node, fuses=False),
        Strategy(name="workers-before-done", start=partial(start_node, kind=_Eager)),
        Strategy(name="secrets-before-claim", start=partial(start_node, kind=_Blabbing)),
        Strategy(name="own-cluster-abandoned", start=start_node, arrange=_abandon_own),
        Strategy(name="another-initialises", start=partial(start_node, kind=_Usurper)),
        Strategy(
            name="all-initialise",
            start=start_node,
            arrange=partial(_change_orders, only=_is_server, seat="initialiser", join=()),
        ),
        Strategy(
            name="leaves-when-formed",
            start=start_node,
            arrange=partial(_change_orders, only=lambda o: o.formed, seat="none", plan=None),
        ),
        Strategy(
            name="leaves-a-later-generation",
            start=start_node,
            arrange=partial(_change_orders, only=_is_formed_later, seat="none", plan=None),
        ),
        Strategy(
            name="orders-without-lease",
            start=start_node,
            arrange=partial(_change_orders, lease_until=None),
        ),
        Strategy(
            name="never-stops",
            start=start_node,
            arrange=partial(_change_orders, only=lambda o: o.stop, stop=False),
        ),
        Strategy(
            name="joins-the-vip",
            start=start_node,
            arrange=partial(_change_orders, only=lambda o: bool(o.join), join=(VIP,)),
        ),
        Strategy(name="any-clock", start=start_node, arrange=partial(_change_orders, hold=None)),
    )
}
