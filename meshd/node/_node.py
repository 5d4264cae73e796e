"""`Node`: feeds each event to the machines it composes, then settles what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import assert_never

import msgspec

import ledger
import roles
from ledger import Entry, Instant, Moment, NodeId, Replica, Signer
from meshd.events import (
    Apply,
    Channel,
    ClockObserved,
    ClusterOrder,
    Connected,
    Disconnected,
    Effect,
    Event,
    FactsObserved,
    Health,
    HealthObserved,
    K3sObserved,
    LinkObserved,
    MembershipReset,
    Persist,
    Received,
    Reject,
    SecretSealed,
    Send,
    Wakeup,
)
from meshd.node._authority import authority_of
from meshd.node._batch import durable_first, link_effects
from meshd.node._chronicle import AddressLog, genesis_notes, k3s_notes
from meshd.node._clocks import RECHECK_S
from meshd.node._health import changed_settings, health_items
from meshd.node._orders import NOTHING, SERVER_SECRETS, SeatKind, Standing, order_for, seat_in
from meshd.node._registers import OwnRegisters, k3s_record, reading_of
from meshd.node._resets import reset_entry, reset_health, stand
from meshd.node._seals import Seals, sealed_key
from meshd.node._view import View
from meshd.node._waiting import NodePhase, phase_of, waiting_for
from meshd.schema import Facts
from roles import Bounds, Candidate, ClusterPlan, Genesis, GenesisState


class Node:
    """One member of a network.

    Args:
        network_id: whose ledger and decision log this is.
        signer: this node's key.
        bounds: what the token and the configuration say; equal to those in `facts`.
        facts: what this node says about itself at start.
        vip: the virtual address of the cluster, or None.
        rng: for jitter and choices that need not be agreed.
        now: when this life begins.
        entries: what the store held, already decoded.
        votes: the journal, as the store held it.
    """

    def __init__(
        self,
        *,
        network_id: str,
        signer: Signer,
        bounds: Bounds,
        facts: Facts,
        vip: str | None,
        rng: Random,
        now: Moment,
        entries: Iterable[Entry] = (),
        votes: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        assert facts.bounds == bounds
        self.me = signer.node_id
        self.network_id = network_id
        self.bounds = bounds
        self.facts = facts
        self.vip = vip
        self._view = View(self.me)
        self.directory = self._view.directory
        self.order: ClusterOrder = NOTHING
        self.observed: K3sObserved | None = None
        self.shell_health: tuple[Health, ...] = ()
        self.genesis = Genesis(
            signer,
            network_id=network_id,
            bounds=bounds,
            may_vote=facts.may_vote and facts.role_wish in ("auto", "control-plane"),
            vip=vip,
            rng=rng,
            now=now.at,
            journal=votes,
        )
        self.replica = Replica(
            signer,
            network=network_id,
            authority=authority_of(
                network_id=network_id,
                bounds=bounds,
                plans=lambda: self.genesis.plans,
                resets=lambda: self._view.resets,
            ),
            rng=rng,
            now=now,
            entries=entries,
        )
        self.standing = Standing()
        self._state: GenesisState | None = None
        self._plans: tuple[ClusterPlan, ...] = ()
        self._resets = 0  # How many records of resets were known at the last look.
        self._signer = signer
        self._people: tuple[tuple[Candidate, ...], frozenset[NodeId]] = (), frozenset()
        self._broken: Counter[NodeId] = Counter()  # Genesis frames at fault, by peer.
        self._seals = Seals()
        self._address_log = AddressLog()
        self._registers = OwnRegisters(self.me)
        self._out: list[Effect] = []
        self._started = False
        self._deadline = now.at
        self._unsettled = True

    # What a shell asks.

    @property
    def deadline(self) -> Instant:
        """When `handle` is to be called with `Wakeup` if nothing else happens before."""
        return self._deadline

    @property
    def seat(self) -> SeatKind:
        """What this node is under the decided plan; `none` before there is one."""
        return seat_in(self.standing.plan, self.me, self.facts.role_wish)

    @property
    def waiting_for(self) -> str | None:
        """What stands between this node and its place, in words; None if nothing does."""
        return waiting_for(
            self.directory,
            wish=self.facts.role_wish,
            genesis=replace(self.genesis.state, plan=self.standing.plan),
            order=self.order,
            observed=self.observed,
            sealed=self._sealed,
        )

    @property
    def phase(self) -> NodePhase:
        """Where this node is on its way, as status shows it."""
        return phase_of(
            self.genesis.state,
            seat=self.seat,
            waiting=self.waiting_for,
            has_facts=self._started,
        )

    @property
    def rejected(self) -> Mapping[NodeId, int]:
        """How often each peer broke the protocol since this node started."""
        return Counter(self.replica.rejected) + Counter(self._broken + self._view.malformed)

    @property
    def health(self) -> tuple[Health, ...]:
        """What is wrong: the shell's findings and the core's own, errors first."""
        plan = self.standing.plan
        found = health_items(
            self.directory,
            state=self.genesis.state,
            rejected=self.rejected,
            contradictions={
                author: proof[0].key for author, proof in self.replica.equivocations.items()
            },
            vip=self.vip,
            servers=[seat.node for seat in plan.seats] if plan and self.standing.formed else (),
        )
        formed_with = self.genesis.state.plan if self.standing.formed else None
        changed = changed_settings(formed_with, self.me, self.facts)
        changed += reset_health(self.directory, self.standing)
        items = (*self.shell_health, *found, *changed, *self._view.clocks.health)
        return tuple(sorted(items, key=lambda one: one.severity != "error"))

    def candidates(self) -> tuple[Candidate, ...]:
        """Return every node whose facts are known, this one included, sorted by id."""
        found = (known.candidate for known in self.directory)
        return tuple(candidate for candidate in found if candidate is not None)

    # What happens.

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        """Take one event and return what is to be done, in this order.

        Nothing a peer sent raises. Effects already returned are never taken back: if persisting
        fails, the shell discards this object and makes a new one from what the disk holds.
        """
        assert not self._out
        if not self._started:
            self._begin(now)
        self._react(event, now)
        self._settle(now)
        while self._deadline <= now.at:
            self._settle(now)
        effects, self._out = self._out, []
        return durable_first(effects)

    def _begin(self, now: Moment) -> None:
        """Take in what earlier lives left behind."""
        self._started = True
        for entry in sorted(self.replica.entries.values(), key=lambda one: (one.author, one.key)):
            self._learned(entry, now)
        self._write(f"node/{self.me}/facts", msgspec.msgpack.encode(self.facts), now)

    def _react(self, event: Event, now: Moment) -> None:
        match event:
            case Received():
                self._received(event, now)
            case Connected() | Disconnected() | LinkObserved() | ClockObserved():
                self._unsettled = True
                self._out += self._view.link_changed(event)
                self._from_ledger(link_effects(self.replica, event, now), now)
            case FactsObserved(facts):
                assert facts.bounds == self.bounds
                self.facts = facts
                self._write(f"node/{self.me}/facts", msgspec.msgpack.encode(facts), now)
            case K3sObserved():
                self._out += k3s_notes(self.observed, event)
                self._out += self._address_log.notes(self.directory, event)
                self.observed = event
                self._unsettled = True
                self._from_genesis(self.genesis.observe(reading_of(event), now.at), now)
            case SecretSealed():
                self._take_seal(event, now)
            case HealthObserved(items):
                self.shell_health = items
            case MembershipReset():
                self._write(*reset_entry(self._signer, self.network_id, event), now)
            case Wakeup():
                pass
            case _:
                assert_never(event)

    def _take_seal(self, event: SecretSealed, now: Moment) -> None:
        """Put a sealed secret into the ledger, unless its cluster was abandoned meanwhile."""
        plan = self.standing.plan
        if plan is not None and event.cluster_id in ("", plan.cluster_id):
            self._write(sealed_key(event.recipient, event.name, plan.generation), event.value, now)

    def _received(self, event: Received, now: Moment) -> None:
        match event.channel:
            case Channel.LEDGER:
                self._from_ledger(self.replica.receive(event.peer, event.frame, now), now)
                if (forgotten := self.replica.forgotten) is not None:
                    self._from_genesis(self.genesis.contradicted(forgotten.key, now.at), now)
            case Channel.GENESIS:
                self._from_genesis(self.genesis.receive(event.peer, event.frame, now.at), now)
            case _:
                assert_never(event.channel)

    def _settle(self, now: Moment) -> None:
        """Do what is due and what follows from the event; then say when the next thing is due."""
        due = self._deadline <= now.at
        if due:
            self._from_ledger(self.replica.tick(now), now)
        self._view.caught_up(self.replica)
        judged = due or self._unsettled
        if judged:
            self._view.judge_clocks(now)
        if self._view.people_changed:
            self._view.people_changed = False
            self._meet(now)
        if due:
            self._from_genesis(self.genesis.tick(now.at), now)
        self._follow_genesis(now)
        if due or self._unsettled:
            self._unsettled = False
            if not judged:  # No order rests on what a clock showed at an earlier moment.
                self._view.judge_clocks(now)
            self._reorder()
            self._ask_for_seals(now)
            self._publish(now)
        self._deadline = min(
            self.replica.deadline,
            self.genesis.deadline,
            self._seals.deadline,
            self._registers.deadline,
            *([Instant(now.at + RECHECK_S)] if self.me in self._view.clocks.wrong else []),
            *([now.at] if self._view.people_changed else []),
        )

    def _meet(self, now: Moment) -> None:
        """Tell genesis who is known and who is here, if that is not what it was told last."""
        people = self.candidates(), self.directory.present() - {self.me}
        if people != self._people:
            self._people = people
            self._from_genesis(self.genesis.update(*people, now.at), now)

    def _follow_genesis(self, now: Moment) -> None:
        """Take note of what was decided, and let the ledger use it."""
        state, resets = self.genesis.state, len(self._view.resets)
        same = state is self._state or state == self._state
        if same and resets == self._resets:
            return
        before, self._state = self._state, state
        self._unsettled = True
        self.directory.name_seats(state.plan)
        wish, candidates = self.facts.role_wish, self.candidates()
        self._out += genesis_notes(self.directory, before, state, wish=wish, candidates=candidates)
        self.standing, notes = stand(self.directory, self.standing, state, self._view.resets)
        self._out += notes
        if (self.genesis.plans, resets) != (self._plans, self._resets):
            self._plans, self._resets = self.genesis.plans, resets
            self._from_ledger(self.replica.reconsider(now), now)

    def _reorder(self) -> None:
        order = order_for(
            self.directory,
            wish=self.facts.role_wish,
            standing=self.standing,
            sealed=self._sealed,
            hold=self._view.clocks.hold,
        )
        if order != self.order:
            self.order = order
            self._out.append(Apply(order))

    def _ask_for_seals(self, now: Moment) -> None:
        self._out += self._seals.due(
            self.directory,
            self.standing,
            written=self._view.handed_over(self.standing.generation),
            holds_secrets=self.seat == "initialiser" or set(SERVER_SECRETS) <= self._sealed.keys(),
            now=now.at,
            for_admins=(self.observed, self._view.copies(self.standing.generation)),
        )

    def _publish(self, now: Moment) -> None:
        record = k3s_record(
            seat=self.seat,
            standing=self.standing,
            order=self.order,
            observed=self.observed,
            held=self.directory[self.me].k3s,
            waiting=self.waiting_for,
        )
        for key, value in self._registers.due(self.directory, record, now.at):
            self._write(key, value, now)

    def _write(self, key: str, value: bytes, now: Moment) -> None:
        self._from_ledger(self.replica.write(key, value, now), now)

    # What the machines inside ask for.

    def _from_ledger(self, effects: Iterable[ledger.Effect], now: Moment) -> None:
        for effect in effects:
            match effect:
                case ledger.Store(entries):
                    self._out.append(Persist(entries=entries))
                    for entry in entries:
                        self._learned(entry, now)
                case ledger.Transmit(peer, frame):
                    self._out.append(Send(peer, Channel.LEDGER, frame))
                case ledger.Reject(peer, reason):
                    self._out.append(Reject(peer, reason))
                case _:
                    assert_never(effect)

    def _from_genesis(self, effects: Iterable[roles.Effect], now: Moment) -> None:
        for effect in effects:
            match effect:
                case roles.Record(rows):
                    self._out.append(Persist(votes=rows))
                case roles.SendTo(node, frame):
                    self._out.append(Send(node, Channel.GENESIS, frame))
                case roles.Publish(key, value):
                    self._write(key, value, now)
                case roles.Reject(peer, reason):
                    self._broken[peer] += 1
                    self._out.append(Reject(peer, reason))
                case _:
                    assert_never(effect)

    def _learned(self, entry: Entry, now: Moment) -> None:
        self._unsettled = True
        self._out += self._view.take(entry)
        if entry.key.startswith("genesis/") and entry.value is not None:
            self._from_genesis(self.genesis.learn(entry.value, now.at), now)

    @property
    def _sealed(self) -> Mapping[str, bytes]:
        """The secrets sealed to this node, by name."""
        first = self.standing.plan.initialiser if self.standing.plan is not None else None
        return self._view.sealed_by(first, generation=self.standing.generation)
