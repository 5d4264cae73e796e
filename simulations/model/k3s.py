"""A model of k3s with embedded etcd, its supervisor and its fuse, as far as forming clusters goes.

A cluster-init makes a cluster with a uid of its own, once its first write-ahead log is on disk; a
data directory, once made, survives every crash and never belongs to another cluster. Supervisor
and fuse are processes of their own: they outlive the daemon, and die, or freeze, with the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from meshd.events import LEASE_START_MIN_S, ClusterOrder, K3sObserved
from meshd.schema import K3sState
from roles import ClusterPlan
from simulations.model.etcd import Etcd, Host, Image
from simulations.model.timeline import Timeline

VERSION = "v1.34.1+model"

LEARNER_EVICTED_S = 300.0
"""A learner that is gone blocks all other joins for so long (k3s, pkg/etcd, learner progress)."""

STEP_S = 2.0


@dataclass(slots=True)
class Site:
    """All machines' k3s, and what the world tells them and hears from them."""

    timeline: Timeline
    rng: Random
    connects: Callable[[int, int], bool]
    read_boottime: Callable[[int], float]
    to_real_s: Callable[[int, float], float]  # What a span by a machine's clock really takes.
    on_start: Callable[[int, Etcd], None]  # A cluster-init took effect on this machine.
    on_running: Callable[[K3s], None]  # K3s with data runs (again) on this machine.
    on_observed: Callable[[int, K3sObserved], None]
    on_launch: Callable[[int], None]  # The daemon has k3s started on this machine.
    slow: float = 1.0  # Factor on every duration.
    fuses: bool = True
    services: list[K3s] = field(default_factory=list)

    def serving(self, client: int, address: str) -> K3s | None:
        """Return the server at `address` if its API answers `client`."""
        for service in self.services:
            if service.host.node_ip == address and service.ready and service.data is not None:
                return service if self.connects(client, service.host.machine) else None
        return None


class K3s:
    """k3s on one machine, with the supervisor that obeys orders and the fuse."""

    def __init__(self, host: Host, site: Site) -> None:
        self.host = host
        self.data: Etcd | None = None
        self.aside: list[Etcd] = []
        self.order: ClusterOrder | None = None  # The supervisor's; gone with the power.
        self.running = False
        self.ready = False
        self.frozen = False
        self.broken = False  # K3s ends soon after each start.
        self.broke = False  # It really did.
        self.ready_never = False  # It comes as far as its database, and no further.
        self.resumed_at = float("-inf")
        self.mark = ""  # Cluster id, written before k3s' first start.
        self._site = site
        self._launches = 0  # Timers of an earlier process are void.
        self._ready_at = 0.0
        self._fuse: tuple[str, float] | None = None  # Cluster id, BOOTTIME; of this boot.
        self._stops: set[str] = set()  # On disk: clusters whose k3s stays down.
        self._exits = 0
        self._killing = False
        self._reported: K3sObserved | None = None
        site.services.append(self)

    # What the daemon asks for.

    def apply(self, order: ClusterOrder) -> None:
        """Take an order, and forget those before: first end what is to end, then start."""
        if order.seat == "none" and self.running and self.mark not in order.abandoned:
            return
        self.order = order
        plan = order.plan
        if plan is not None and order.stop:
            self._stops.add(plan.cluster_id)
        elif plan is not None:
            self._stops.discard(plan.cluster_id)
        self._set_fuse(order)
        if order.hold is not None:
            self._launches += not self.running  # A start that was to come is put off.
        self._obey(by_daemon=True)

    def _set_fuse(self, order: ClusterOrder) -> None:
        plan = order.plan
        if plan is None or order.seat == "none":
            return
        if order.formed or order.lease_until is None:
            self._fuse = None
            return
        held = self._fuse[1] if self._fuse and self._fuse[0] == plan.cluster_id else 0.0
        if order.lease_until > held:
            self._fuse = (plan.cluster_id, order.lease_until)
            self._arm()

    def _obey(self, *, by_daemon: bool = False) -> None:
        order = self.order
        ending = order is not None and (self.mark in order.abandoned or self.mark in self._stops)
        if self.running and ending and not self._killing:
            self._kill_soon(0.1, 2.0)
        if not self.running:
            self._set_aside()
            if self._may_launch():
                if by_daemon:
                    self._site.on_launch(self.host.machine)
                self._launch()
        self._report()

    def _set_aside(self) -> None:
        """One rename: the folder that carries the mark goes out of the way."""
        order = self.order
        if order is None or self.mark not in order.abandoned:
            return
        if self.data is not None:
            self.aside.append(self.data)
        self.data, self.mark, self._exits = None, "", 0

    def _may_launch(self) -> bool:
        """What the gate looks at before every start."""
        order = self.order
        if order is None or order.seat == "none" or order.plan is None or self.frozen:
            return False
        if order.hold is not None:
            return False
        plan = order.plan
        if plan.cluster_id in self._stops or self.mark not in ("", plan.cluster_id):
            return False
        if order.lease_until is None:
            return True
        fuse = self._fuse
        left = fuse[1] - self._now() if fuse and fuse[0] == plan.cluster_id else 0.0
        return left >= LEASE_START_MIN_S

    # What happens to it.

    def kill(self, *, power_cut: bool) -> None:
        """Let the process die. The supervisor starts it again, unless the power is gone."""
        self._exits += self.running
        self._ended()
        if power_cut:
            self.order, self._fuse, self._exits = None, None, 0
        else:
            self._again()

    def wipe(self) -> None:
        """Lose the disk."""
        self.kill(power_cut=True)
        self.data, self.mark, self._stops = None, "", set()

    @property
    def image(self) -> Image:
        """What of it is on the disk."""
        return Image(self.data, self.mark, frozenset(self._stops))

    def put_back(self, image: Image) -> None:
        """Go on, some time after a power cut, with an older copy of the disk."""
        self.kill(power_cut=True)
        self.data, self.mark, self._stops = image.data, image.mark, set(image.stops)

    def freeze(self) -> None:
        """Stop the machine's processes, fuse and supervisor included."""
        self.frozen = True

    def resume(self) -> None:
        """Let them go on; whatever is overdue happens now."""
        self.frozen = False
        self.resumed_at = self._site.timeline.now
        self._arm()
        if self.running and self.data is not None:
            self._site.on_running(self)

    def daemon_started(self) -> None:
        """Report the state anew: a new daemon knows nothing of what was reported before."""
        self._reported = None
        self._report()

    def _again(self) -> None:
        launches = self._launches

        def again() -> None:
            if launches == self._launches and not self.running:
                self._obey()
                if not self.running:
                    self._again()

        self._site.timeline.after(self._span(1, 6), again)

    def _ended(self) -> None:
        self.running = self.ready = self._killing = False
        self._launches += 1

    def _kill_soon(self, low_s: float, high_s: float) -> None:
        """SIGKILL to the whole cgroup; containers take a moment."""
        self._killing, launches = True, self._launches

        def end() -> None:
            if launches != self._launches:
                return
            if self.frozen:
                self._site.timeline.after(0.5, end)
                return
            self._ended()
            self._obey()
            self._again()

        self._site.timeline.after(self._site.rng.uniform(low_s, high_s), end)

    # The fuse: a process of its own, that looks once a second.

    def _arm(self) -> None:
        if self._fuse is None or not self._site.fuses:
            return
        fuse = self._fuse
        left = max(0.0, fuse[1] - self._now())
        delay_s = self._site.to_real_s(self.host.machine, left) + self._site.rng.uniform(0.0, 1.0)

        def blow() -> None:
            if self._fuse is not fuse or self.frozen:
                return  # Replaced; or armed again when the machine resumes.
            if self.running and self.mark == fuse[0] and not self._killing:
                self._kill_soon(0.1, 0.9)

        self._site.timeline.after(delay_s, blow)

    # K3s itself.

    def _now(self) -> float:
        return self._site.read_boottime(self.host.machine)

    def _span(self, low_s: float, high_s: float) -> float:
        return self._site.rng.uniform(low_s, high_s) * self._site.slow

    def _launch(self) -> None:
        assert self.order is not None
        assert self.order.plan is not None
        self._launches += 1
        self.running, self.ready = True, False
        if self.order.seat != "worker":
            self.mark = self.order.plan.cluster_id
        self._ready_at = self._site.timeline.now + self._span(3, 15)
        if self.data is not None:
            self._site.on_running(self)
        self._later(self._span(0.5, 3))
        if self.broken:
            self._break(self._span(1, 5))

    def _break(self, after_s: float) -> None:
        launches = self._launches

        def end() -> None:
            if launches == self._launches and self.running and not self.frozen:
                self.broke = True
                self.kill(power_cut=False)
                self._report()

        self._site.timeline.after(after_s, end)

    def _later(self, delay_s: float) -> None:
        launches = self._launches

        def step() -> None:
            if launches == self._launches and self.running:
                if not self.frozen:
                    self._step()
                    self._report()
                self._later(STEP_S)

        self._site.timeline.after(delay_s, step)

    def _step(self) -> None:
        order = self.order
        assert order is not None
        if order.seat == "worker":
            self.ready = any(
                self._site.serving(self.host.machine, address) for address in order.join
            )
            return
        if self.data is None and order.plan is not None and order.plan.cluster_id == self.mark:
            if order.seat == "initialiser" and not (order.formed and order.join):
                self._initialise(order.plan)
            else:
                self._join(order)
        if self.data is None:
            return
        etcd, machine, now = self.data, self.host.machine, self._site.timeline.now
        if machine not in etcd.voters and etcd.learner != machine:
            self._become_learner(etcd, machine)
        caught_up_at = etcd.learner_since + 5.0 * self._site.slow
        if etcd.learner == machine and now >= caught_up_at and self._writable(etcd):
            etcd.voters.append(machine)
            etcd.learner = None
        writable = self._writable(etcd)
        may = not self.ready_never and now >= self._ready_at
        self.ready = machine in etcd.voters and writable and may

    def _initialise(self, plan: ClusterPlan) -> None:
        uid = f"{self._site.rng.getrandbits(64):016x}"
        self.data = Etcd(uid=uid, plan=plan, voters=[self.host.machine])
        self._site.on_start(self.host.machine, self.data)
        self._site.on_running(self)

    def _join(self, order: ClusterOrder) -> None:
        assert order.plan is not None
        for address in order.join:
            server = self._site.serving(self.host.machine, address)
            if server is None or server.data is None:
                continue
            etcd = server.data
            if ("server-token", etcd.plan.token_commitment.encode()) not in order.sealed:
                continue  # Another cluster's token: 401.
            if self._writable(etcd, server.host.machine):
                self._become_learner(etcd, self.host.machine)
                if etcd.learner == self.host.machine:
                    self.data = etcd
                    self._site.on_running(self)
            return

    def _become_learner(self, etcd: Etcd, machine: int) -> None:
        now = self._site.timeline.now
        if etcd.learner is not None and now - etcd.learner_since < LEARNER_EVICTED_S:
            return
        etcd.learner, etcd.learner_since = machine, now

    def is_alive_in(self, etcd: Etcd) -> bool:
        """Whether this is a member of that etcd, and runs."""
        return self.running and not self.frozen and self.data is etcd

    def _writable(self, etcd: Etcd, seen_from: int | None = None) -> bool:
        """Whether a majority of the voters runs and is connected to the machine that asks."""
        asker = self.host.machine if seen_from is None else seen_from
        live = [
            voter
            for voter in etcd.voters
            if self._site.services[voter].is_alive_in(etcd) and self._site.connects(asker, voter)
        ]
        return 2 * len(live) > len(etcd.voters)

    # What it says.

    def _state(self) -> K3sState:
        if self.order is None or self.order.seat == "none":
            return "absent"
        if not self.running:
            return "failed" if self.order.hold is None else "waiting"
        return "ready" if self.ready else "starting"

    def _stopped(self) -> tuple[str, ...]:
        order = self.order
        ended = set(self._stops) | (set(order.abandoned) if order is not None else set())
        if self.running or self._killing:
            ended.discard(self.mark)
        return tuple(sorted(ended))

    def _report(self) -> None:
        if self.frozen:
            return
        services = self._site.services
        serving = self.ready and self.data is not None
        names: tuple[str, ...] = ()
        members: tuple[str, ...] = ()
        if serving and self.data is not None:
            etcd = self.data
            names = tuple(sorted(services[voter].host.node_name for voter in etcd.voters))
            learner = [etcd.learner] if etcd.learner is not None else []
            members = tuple(sorted((*names, *(services[m].host.node_name for m in learner))))
        observed = K3sObserved(
            state=self._state(),
            waiting_for=None if self.ready else "k3s to become ready",
            version=VERSION,
            endpoint=f"https://{self.host.node_ip}:6443" if serving else None,
            voters=names,
            kube_system_uid=self.data.uid if serving and self.data is not None else None,
            nodes_ready=sum(service.ready for service in services) if serving else None,
            cluster_id=self.mark,
            members=members,
            exits=self._exits,
            stopped=self._stopped(),
        )
        if observed != self._reported:
            self._reported = observed
            self._site.on_observed(self.host.machine, observed)
