"""A model of k3s with embedded etcd, as far as starting and joining clusters goes.

A cluster-init makes a cluster with a uid of its own, once its first write-ahead log is on disk; a
data directory, once made, survives every crash and never belongs to another cluster. k3s is a
service of its own: it outlives the daemon, and dies with the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from meshd.events import ClusterOrder, K3sObserved
from meshd.schema import K3sState
from roles import ClusterPlan
from simulations.model.timeline import Timeline

VERSION = "v1.34.1+model"


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


@dataclass(slots=True)
class Site:
    """All machines' k3s, and what the world tells them and hears from them."""

    timeline: Timeline
    rng: Random
    connects: Callable[[int, int], bool]
    on_start: Callable[[int, Etcd], None]  # A cluster-init took effect on this machine.
    on_observed: Callable[[int, K3sObserved], None]
    on_launch: Callable[[int], None]  # The daemon has k3s started on this machine.
    slow: float = 1.0  # Factor on every duration.
    services: list[K3s] = field(default_factory=list)

    def serving(self, client: int, address: str) -> K3s | None:
        """Return the server at `address` if its API answers `client`."""
        for service in self.services:
            if service.host.node_ip == address and service.ready and service.data is not None:
                return service if self.connects(client, service.host.machine) else None
        return None


class K3s:
    """k3s on one machine."""

    def __init__(self, host: Host, site: Site) -> None:
        self.host = host
        self.data: Etcd | None = None
        self.order: ClusterOrder | None = None
        self.running = False
        self.ready = False
        self._site = site
        self._launches = 0  # Timers of an earlier process are void.
        self._ready_at = 0.0
        self._reported: K3sObserved | None = None
        site.services.append(self)

    def apply(self, order: ClusterOrder) -> None:
        """Take an order; start the service if the order asks for one, and never stop it."""
        if order.seat == "none" and self.running:
            return
        self.order = order
        if order.seat == "none" or self.running:
            return
        if order.hold is None:
            self._site.on_launch(self.host.machine)
            self._launch()
        else:
            self._launches += 1  # A start that was to come is put off.
            self._report()

    def kill(self, *, power_cut: bool) -> None:
        """Let the process die. The service comes back by itself, unless the power is gone."""
        self.running = self.ready = False
        self._launches += 1
        if power_cut:
            self.order = None
        elif self.order is not None and self.order.seat != "none":
            launches = self._launches

            def again() -> None:
                if launches == self._launches and not self.running:
                    self._launch()

            self._site.timeline.after(self._span(1, 6), again)

    def daemon_started(self) -> None:
        """Report the state anew: a new daemon knows nothing of what was reported before."""
        self._reported = None
        self._report()

    def _span(self, low_s: float, high_s: float) -> float:
        return self._site.rng.uniform(low_s, high_s) * self._site.slow

    def _launch(self) -> None:
        self._launches += 1
        self.running, self.ready = True, False
        self._ready_at = self._site.timeline.now + self._span(3, 15)
        self._later(self._span(0.5, 3))
        self._report()

    def _later(self, delay_s: float) -> None:
        launches = self._launches

        def step() -> None:
            if launches == self._launches and self.running:
                self._step()
                self._report()
                self._later(2.0)

        self._site.timeline.after(delay_s, step)

    def _step(self) -> None:
        order = self.order
        assert order is not None
        assert order.plan is not None
        if order.seat == "worker":
            self.ready = any(
                self._site.serving(self.host.machine, address) for address in order.join
            )
            return
        if self.data is None:
            if order.seat == "initialiser" and not (order.formed and order.join):
                self._initialise(order.plan)
            else:
                self._join(order)
        if self.data is None:
            return
        etcd, machine = self.data, self.host.machine
        caught_up_at = etcd.learner_since + 5.0 * self._site.slow
        caught_up = self._site.timeline.now >= caught_up_at
        if etcd.learner == machine and caught_up and self._writable(etcd):
            etcd.voters.append(machine)
            etcd.learner = None
        self.ready = (
            machine in etcd.voters
            and self._writable(etcd)
            and self._site.timeline.now >= self._ready_at
        )

    def _initialise(self, plan: ClusterPlan) -> None:
        uid = f"{self._site.rng.getrandbits(64):016x}"
        self.data = Etcd(uid=uid, plan=plan, voters=[self.host.machine])
        self._site.on_start(self.host.machine, self.data)

    def _join(self, order: ClusterOrder) -> None:
        assert order.plan is not None
        for address in order.join:
            server = self._site.serving(self.host.machine, address)
            if server is None or server.data is None:
                continue
            etcd = server.data
            if etcd.plan.token_commitment != order.plan.token_commitment:
                continue  # Another cluster's token: 401.
            if etcd.learner is None and self._writable(etcd, server.host.machine):
                etcd.learner, etcd.learner_since = self.host.machine, self._site.timeline.now
                self.data = etcd
            return

    def _writable(self, etcd: Etcd, seen_from: int | None = None) -> bool:
        """Whether a majority of the voters runs and is connected to the machine that asks."""
        asker = self.host.machine if seen_from is None else seen_from
        live = [
            voter
            for voter in etcd.voters
            if self._site.services[voter].running and self._site.connects(asker, voter)
        ]
        return 2 * len(live) > len(etcd.voters)

    def _state(self) -> K3sState:
        if self.order is None or self.order.seat == "none":
            return "absent"
        if not self.running:
            return "failed" if self.order.hold is None else "waiting"
        return "ready" if self.ready else "starting"

    def _report(self) -> None:
        services = self._site.services
        serving = self.ready and self.data is not None
        names: tuple[str, ...] = ()
        if serving and self.data is not None:
            names = tuple(sorted(services[voter].host.node_name for voter in self.data.voters))
        observed = K3sObserved(
            state=self._state(),
            waiting_for=None if self.ready else "k3s to become ready",
            version=VERSION,
            endpoint=f"https://{self.host.node_ip}:6443" if serving else None,
            voters=names,
            kube_system_uid=self.data.uid if serving and self.data is not None else None,
            nodes_ready=sum(service.ready for service in services) if serving else None,
        )
        if observed != self._reported:
            self._reported = observed
            self._site.on_observed(self.host.machine, observed)
