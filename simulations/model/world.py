"""One run: machines, network and k3s under one queue of events; a pure function of its seed.

Effects are performed in their order, and a machine can die before or after each of them. What it
had persisted is all that its next life knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import assert_never

from ledger import NodeId
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
    K3sObserved,
    Learn,
    LinkObserved,
    Note,
    Persist,
    Received,
    Reject,
    Seal,
    SecretSealed,
    Send,
    Wakeup,
)
from simulations.model import renewal
from simulations.model.checkers import Checkers, Violation
from simulations.model.disk import Disk
from simulations.model.etcd import Etcd, Host
from simulations.model.k3s import K3s, Site
from simulations.model.machine import VIP, Machine, Strategy, boot_of, facts_of, part_of
from simulations.model.network import Network
from simulations.model.scenario import MachineSpec, Scenario
from simulations.model.signing import signer_of
from simulations.model.timeline import Timeline

BACKLOG_MAX = 200
"""What the sockets of a stopped process hold; later frames are lost."""


class World:
    """Machines that all follow one strategy.

    Args:
        scenario: what is fixed before the run.
        strategy: what runs on the machines.
        trace: takes one line for everything that happens, or None.
        fingerprinted: whether to hash every effect; equal seeds then have equal fingerprints.
    """

    def __init__(
        self,
        scenario: Scenario,
        strategy: Strategy,
        *,
        trace: Callable[[str], None] | None = None,
        fingerprinted: bool = False,
    ) -> None:
        self.scenario = scenario
        self.timeline = Timeline()
        self.rng = Random(f"world {scenario.seed}")
        self.faulty = True
        self.on_vote_crash: Callable[[], None] = lambda: None  # Faults may add to the injury.
        self.steps = 0
        self.strategy = strategy
        self._trace = trace
        self._history = hashlib.blake2b(digest_size=16) if fingerprinted else None
        self.network = Network(
            size=len(scenario.machines),
            timeline=self.timeline,
            rng=self.rng,
            weather=scenario.weather,
        )
        self._site = Site(
            timeline=self.timeline,
            rng=self.rng,
            connects=self.network.connects,
            read_boottime=lambda index: self.machines[index].boottime(self.timeline.now),
            to_real_s=lambda index, span_s: span_s / self.machines[index].rate,
            on_start=self._cluster_started,
            on_running=self._k3s_running,
            on_observed=self._k3s_observed,
            on_launch=self._k3s_launched,
            slow=scenario.k3s_slowness,
            fuses=strategy.fuses,
        )
        self.machines: list[Machine] = []
        self.machines += [self._unpack(spec) for spec in scenario.machines]
        self.by_node: dict[NodeId, Machine] = {m.node: m for m in self.machines}
        self.checkers = Checkers(
            scenario.bounds, {machine.node: machine.facts.name for machine in self.machines}
        )
        for machine in self.machines:
            self.timeline.after(machine.spec.boots_at_s, partial(self.boot, machine))

    @property
    def fingerprint(self) -> str:
        """A hash of every effect so far, contents included."""
        assert self._history is not None
        return self._history.hexdigest()

    def say(self, machine: Machine | None, text: str) -> None:
        """Write a line of the trace, if there is one."""
        if self._trace is not None:
            name = machine.facts.name if machine is not None else "--"
            self._trace(f"{self.timeline.now:9.3f} {name:3} {text}")

    # Machines coming and going.

    def boot(self, machine: Machine) -> None:
        """Start the daemon with what its disk holds, unless it runs."""
        if machine.peer is not None or machine.lost:
            return
        machine.life += 1
        machine.wake_at = float("inf")
        # Switched on earlier than was planned: no clock counts from a moment that is to come.
        machine.powered_at = min(machine.powered_at, self.timeline.now - 3.0)
        self.say(machine, f"boots with {len(machine.disk.votes)} journal rows")
        machine.peer = self.strategy.start(
            boot_of(machine, self.scenario.bounds, self.timeline.now, self.rng)
        )
        self.handle(machine, FactsObserved(machine.facts))
        self._later(machine, self.rng.uniform(0.1, 1.0), machine.k3s.daemon_started)
        self.links_changed()

    def crash(self, machine: Machine, *, power_cut: bool, down_s: float) -> None:
        """Kill the daemon, or the whole machine, and start it again later."""
        if machine.peer is None or (machine.k3s.frozen and not power_cut):
            return
        self.say(machine, "loses power" if power_cut else "its daemon dies")
        what = "machine" if power_cut else "daemon"
        self.checkers.reached[f"{what} killed, {part_of(machine)}"] += 1
        machine.peer = None
        machine.life += 1
        machine.sees.clear()
        machine.backlog.clear()
        machine.asleep = False
        if power_cut:
            machine.k3s.frozen = False
            machine.disk.lose_power(self.rng)
            machine.k3s.kill(power_cut=True)
            # BOOTTIME starts anew; a few seconds pass before the daemon runs.
            machine.powered_at = self.timeline.now + down_s - self.rng.uniform(3.0, 15.0)
        life = machine.life
        self.timeline.after(down_s, lambda: self.boot(machine) if machine.life == life else None)
        self.links_changed()

    def links_changed(self) -> None:
        """Let each daemon notice, in its own time, whom it is connected to now."""
        for machine in self.machines:
            for other in self.machines:
                if other is not machine and self._stale(machine, other):
                    gained = other.spec.index not in machine.sees
                    delay_s = self.rng.uniform(0.02, 1.5) if gained else self.rng.uniform(0.5, 10)
                    self._later(machine, delay_s, partial(self._notice, machine, other))

    def _life_seen(self, machine: Machine, other: Machine) -> int | None:
        """Return the life of `other` that `machine` can be connected to now."""
        connects = self.network.meshes(machine.spec.index, other.spec.index)
        up = other.peer is not None and not other.asleep
        return other.life if connects and up else None

    def _stale(self, machine: Machine, other: Machine) -> bool:
        seen = machine.sees.get(other.spec.index)
        return machine.peer is not None and seen != self._life_seen(machine, other)

    def _notice(self, machine: Machine, other: Machine) -> None:
        if not self._stale(machine, other):
            return
        index, life = other.spec.index, self._life_seen(machine, other)
        if machine.sees.pop(index, None) is not None:
            self.handle(machine, LinkObserved(other.node, "failed", None))
            self.handle(machine, Disconnected(other.node, "no heartbeat"))
        if life is not None and machine.peer is not None:
            machine.sees[index] = life
            self.handle(machine, Connected(other.node, "direct"))
            self.handle(machine, LinkObserved(other.node, "alive", self.rng.uniform(0.2, 3.0)))
            self._tell_clock(machine, other)

    def set_clock(self, machine: Machine, offset_ms: int) -> None:
        """Set a machine's wall clock; its neighbours hear of it in the next heartbeat."""
        machine.wall_offset_ms, machine.clock_set_at = offset_ms, self.timeline.now
        for other in self.machines:
            if machine.spec.index in other.sees:
                tell = partial(self._tell_clock, other, machine)
                self._later(other, self.rng.uniform(0.01, 1.5), tell)

    def _tell_clock(self, machine: Machine, other: Machine) -> None:
        if other.spec.index in machine.sees:
            now = self.timeline.now
            epoch_ms = other.moment(now).wall_ms - round(machine.moment(now).at * 1000)
            self.handle(machine, ClockObserved(other.node, epoch_ms))

    # Events and effects.

    def _later(self, machine: Machine, delay_s: float, action: Callable[[], None]) -> None:
        """Run `action` if this life of the daemon still lasts then."""
        life = machine.life

        def act() -> None:
            if machine.life == life and machine.peer is not None:
                action()

        self.timeline.after(delay_s, act)

    def handle(self, machine: Machine, event: Event) -> None:
        """Let a machine's daemon take an event, and perform what comes of it."""
        peer = machine.peer
        if peer is None:
            return
        if machine.asleep:
            if len(machine.backlog) < BACKLOG_MAX:
                machine.backlog.append(event)
            return
        self.steps += 1
        now = machine.moment(self.timeline.now)
        effects = peer.handle(event, now)
        for effect in self.strategy.arrange(effects):
            if not self._survives(machine, effect):
                return
        assert peer.deadline > now.at, f"the node would spin after {event}"
        self.plan_wake(machine)
        renewal.watch(self, machine)

    def _wake(self, machine: Machine, wake_at: float) -> None:
        if machine.wake_at != wake_at or machine.peer is None or machine.asleep:
            return  # An earlier deadline came up since, and has its own wake-up.
        machine.wake_at = float("inf")
        if machine.peer.deadline <= machine.moment(self.timeline.now).at:
            self.handle(machine, Wakeup())
        else:
            self.plan_wake(machine)

    def plan_wake(self, machine: Machine) -> None:
        """Call the daemon when its deadline passes."""
        assert machine.peer is not None
        wake_at = machine.peer.deadline / machine.rate + machine.powered_at
        if wake_at < machine.wake_at:
            machine.wake_at = wake_at
            # A hair late: the sum of two floats may round to just before the deadline.
            delay_s = max(0.0, wake_at - self.timeline.now) + 1e-6
            self._later(machine, delay_s, partial(self._wake, machine, wake_at))

    def _survives(self, machine: Machine, effect: Effect) -> bool:
        """Perform `effect`, unless the machine dies before it; return whether it lives on."""
        scenario = self.scenario
        votes = isinstance(effect, Persist) and effect.votes
        rate = max(scenario.crash_rate, scenario.vote_crash_rate if votes else 0.0)
        if not self.faulty or self.rng.random() >= rate:
            self._perform(machine, effect)
            return True
        performed = self.rng.random() < 0.5
        if performed:
            self._perform(machine, effect)
        self.checkers.reached[f"died {'after' if performed else 'before'} an effect"] = 1
        self.say(machine, f"dies around {type(effect).__name__}")
        self.crash(
            machine, power_cut=self.rng.random() < 0.5, down_s=self.rng.choice((0.3, 3.0, 15.0))
        )
        if votes:
            self.on_vote_crash()
        return False

    def _perform(self, machine: Machine, effect: Effect) -> None:
        if self._history is not None:
            self._history.update(repr((self.timeline.now, machine.spec.index, effect)).encode())
        match effect:
            case Persist():
                self._persist(machine, effect)
            case Send():
                self._send(machine, effect)
            case Seal():
                self._seal(machine, effect)
            case Apply(order):
                self._apply(machine, order)
            case Note():
                self.say(machine, f"note {effect.kind}: {effect.text}")
            case Reject(peer, reason):
                # Nobody lies in these runs, so whoever is rejected is wronged.
                raise Violation(f"{machine.facts.name} rejects {peer[-8:]}: {reason}")
            case Learn():
                pass
            case _:
                assert_never(effect)

    def _send(self, machine: Machine, send: Send) -> None:
        if self.strategy.decides and send.channel is Channel.GENESIS:
            self.checkers.revealed(machine.node, send.frame, machine.disk)
        target = self.by_node[send.peer]
        if target.node != send.peer or target is machine:
            return  # That identity is gone with its disk.
        event = Received(machine.node, send.channel, send.frame)

        def arrive() -> None:
            if target.node == send.peer:
                self.handle(target, event)

        self.network.send(machine.spec.index, target.spec.index, send.frame, arrive)

    def _persist(self, machine: Machine, change: Persist) -> None:
        machine.disk.persist(change)
        if self.strategy.decides:
            self.checkers.persisted(machine.node, change, mark=machine.k3s.mark)

    def _apply(self, machine: Machine, order: ClusterOrder) -> None:
        self.say(
            machine,
            f"order: {order.seat}, formed {order.formed}, join {order.join}, lease until "
            f"{order.lease_until}, stop {order.stop}, {len(order.abandoned)} abandoned",
        )
        if order.hold is not None and not machine.k3s.running:
            self.checkers.reached["k3s waits for the clock"] += 1
        if self.strategy.decides:
            self.checkers.ordered(machine.node, order, machine.disk)
        machine.k3s.apply(order)

    def _seal(self, machine: Machine, seal: Seal) -> None:
        self.say(machine, f"seals {seal.name} to {self.by_node[seal.recipient].facts.name}")
        if self.strategy.decides:
            self.checkers.sealed(machine.node, seal, machine.disk)
        order = machine.k3s.order
        held = order.plan if order is not None else None
        own = held is None or held.cluster_id != seal.cluster_id or held.initialiser == machine.node
        token = machine.facts.token_commitment if own or held is None else held.token_commitment
        event = SecretSealed(seal.recipient, seal.name, token.encode(), seal.cluster_id)
        self._later(machine, self.rng.uniform(0.01, 0.2), partial(self.handle, machine, event))

    # What k3s reports.

    def _cluster_started(self, index: int, etcd: Etcd) -> None:
        machine = self.machines[index]
        self.say(machine, f"CLUSTER-INIT took effect: kube-system {etcd.uid}")
        self.checkers.started(machine.node, etcd)
        if self.strategy.decides:
            self.checkers.started_as_decided(machine.node, etcd, machine.disk)

    def _k3s_launched(self, index: int) -> None:
        machine, now = self.machines[index], self.timeline.now
        others = [
            other.moment(now).wall_ms
            for other in self.machines
            if other.spec.index in machine.sees
            and other.spec.votes
            and other.clock_set_at < now - 5
        ]
        if self.strategy.decides:
            self.checkers.launched(machine.node, machine.moment(now).wall_ms, others)

    def _k3s_running(self, service: K3s) -> None:
        machine = self.machines[service.host.machine]
        self.say(machine, f"k3s with data runs, cluster {service.mark[:8]}")
        self.check_running()

    def check_running(self) -> None:
        """Judge all k3s that run now."""
        if self.strategy.decides:
            services = [machine.k3s for machine in self.machines]
            self.checkers.running(services, self.timeline.now)

    def _k3s_observed(self, index: int, observed: K3sObserved) -> None:
        machine = self.machines[index]
        self.say(
            machine,
            f"k3s {observed.state}, voters {observed.voters}, {len(observed.stopped)} stopped",
        )
        if machine.peer is not None:
            self._later(machine, 0.05, partial(self.handle, machine, observed))

    def _unpack(self, spec: MachineSpec) -> Machine:
        signer = signer_of(spec.index)
        facts = facts_of(
            spec,
            self.scenario.bounds,
            memory_mib=self.rng.choice((2048, 4096, 8192)),
            vip=VIP if self.scenario.vip else None,
        )
        assert facts.node_ip is not None
        host = Host(machine=spec.index, node_name=facts.node_name, node_ip=facts.node_ip)
        return Machine(
            spec=spec,
            signer=signer,
            facts=facts,
            disk=Disk(fsync=self.strategy.fsync),
            k3s=K3s(host, self._site),
            rate=spec.rate,
            powered_at=spec.boots_at_s - 5.0,
            wall_offset_ms=spec.wall_offset_ms,
        )
