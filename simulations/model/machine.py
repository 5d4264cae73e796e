"""The machines of a run: their keys, what they are made of, and the peer that runs on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from ledger import Instant, Moment, NodeId, Signer
from meshd.events import Effect, Event
from meshd.schema import Facts
from roles import Bounds
from simulations.model.disk import Disk
from simulations.model.k3s import K3s
from simulations.model.scenario import MachineSpec, Scenario

NETWORK_ID = "sim-00000001"
VIP = "10.0.0.250"


class Peer(Protocol):
    """What runs on a machine: `meshd.node.Node`, or a strategy to compare it with."""

    @property
    def deadline(self) -> Instant: ...

    def handle(self, event: Event, now: Moment) -> list[Effect]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What a starting peer is given."""

    signer: Signer
    bounds: Bounds
    facts: Facts
    vip: str | None
    rng: Random
    now: Moment
    entries: tuple[bytes, ...]
    votes: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A way to start a cluster, and how the shell around it behaves."""

    name: str
    start: Callable[[Boot], Peer]
    arrange: Callable[[Sequence[Effect]], Sequence[Effect]] = tuple
    fsync: bool = True
    fuses: bool = True  # Whether the fuse of k3s does its work.
    broken: tuple[tuple[object, str, object], ...] = ()  # Attributes exchanged while it runs.
    rewrite: Callable[[Scenario], Scenario] | None = None
    run_on_s: float = 0.0  # How long after the faults a run without liveness goes on.
    decides: bool = True  # Keeps a decision log that orders and starts are checked against.


@dataclass(slots=True, kw_only=True)
class Machine:
    """One machine in the course of a run."""

    spec: MachineSpec
    signer: Signer
    facts: Facts
    disk: Disk
    k3s: K3s
    rate: float = 1.0  # Of its clocks.
    peer: Peer | None = None
    edition: int = 0  # Counts wiped disks: each makes a new identity.
    renews_in: int = 0  # The life that is about to make new secrets.
    lost: bool = False  # For good.
    asleep: bool = False  # The daemon, or the whole machine, got SIGSTOP.
    backlog: list[Event] = field(default_factory=list)  # What waits for it meanwhile.
    is_sound: bool = True  # Its disk never lost anything.
    life: int = 0  # Counts starts of the daemon; events for an earlier life are void.
    powered_at: float = 0.0  # CLOCK_BOOTTIME counts from here.
    wall_offset_ms: int = 0
    clock_set_at: float = float("-inf")
    wake_at: float = float("inf")
    sees: dict[int, int] = field(default_factory=dict)  # Machine -> life that is connected.

    @property
    def node(self) -> NodeId:
        return self.signer.node_id

    def boottime(self, now: float) -> float:
        """Return CLOCK_BOOTTIME in seconds."""
        return (now - self.powered_at) * self.rate

    def moment(self, now: float) -> Moment:
        """Return the time by this machine's clocks."""
        return Moment(
            at=Instant(self.boottime(now)),
            wall_ms=max(0, EPOCH_MS + round(now * 1000) + self.wall_offset_ms),
        )


EPOCH_MS = 1_760_000_000_000


def facts_of(
    spec: MachineSpec, bounds: Bounds, *, memory_mib: int, vip: str | None, edition: int = 0
) -> Facts:
    """Return what a machine says about itself; each edition has a disk, and keys, of its own."""
    hardware = hashlib.sha256(f"hardware {spec.index}".encode()).hexdigest()
    mark = hashlib.sha256(f"secret {spec.index} {edition}".encode()).hexdigest()
    return Facts(
        name=f"n{spec.index + 1}",
        node_name=f"n{spec.index + 1}-{mark[:8]}",
        node_ip=f"10.0.0.{spec.index + 1}",
        addresses=(f"/ip4/10.0.0.{spec.index + 1}/tcp/7946",),
        sealing_key=hashlib.sha256(f"sealing {spec.index}".encode()).digest(),
        memory_mib=memory_mib,
        cpus=2,
        role_wish=spec.wish,
        may_vote=spec.may_vote,
        bound=bounds.bound,
        nodes_max=bounds.nodes_max,
        quorum=bounds.quorum,
        control_plane=bounds.control_plane,
        settings_hash="5e" * 32,
        ca_hash=mark,
        token_commitment=mark[::-1],
        fingerprint=(hardware[:16],),
        vip=vip,
        vip_interface="eth0",
        fuse=spec.fuse,
    )


def boot_of(machine: Machine, bounds: Bounds, now: float, rng: Random) -> Boot:
    """Return what the daemon on a machine finds when it starts."""
    entries, votes = machine.disk.load()
    return Boot(
        signer=machine.signer,
        bounds=bounds,
        facts=machine.facts,
        vip=machine.facts.vip,
        rng=Random(rng.getrandbits(64)),
        now=machine.moment(now),
        entries=entries,
        votes=votes,
    )


def part_of(machine: Machine) -> str:
    """Return how far a machine is on its way: which moments crashes met."""
    order, data = machine.k3s.order, machine.k3s.data
    if order is None or order.seat == "none":
        return "without an order"
    if order.seat == "worker":
        return "worker"
    if data is None:
        return f"{order.seat} before it has data"
    index = machine.spec.index
    part = "learner" if data.learner == index else order.seat
    return f"{part} {'formed' if order.formed else 'before DONE'}"
