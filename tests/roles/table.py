"""Genesis machines around a table: no time passes and no message moves unless the test says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from ledger import Instant, NodeId
from roles import (
    Bounds,
    Candidate,
    ClusterPlan,
    Effect,
    Genesis,
    GenesisState,
    K3sReading,
    Publish,
    Record,
    Reject,
    Seat,
    SendTo,
    Slot,
)
from roles._messages import (
    Accept,
    Authentic,
    Ballot,
    LeaseMessage,
    Nack,
    Prepare,
    Promise,
    Proof,
    hash_of,
    read_frame,
    seal,
)
from roles._messages import Record as DecidedFrame
from roles._records import read_record
from tests.roles.world import NETWORK, candidate_of, signer_of

THREE = Bounds.bounded(control_plane=1, nodes_max=3)


@dataclass(frozen=True, slots=True)
class Posted:
    """A frame on its way."""

    sender: int
    to: int
    frame: bytes


@dataclass(slots=True)
class Table:
    """Nodes 1..n with their disks, the frames between them, and what they put into the ledger."""

    bounds: Bounds
    machines: dict[int, Genesis] = field(default_factory=dict)
    disks: dict[int, dict[str, bytes]] = field(default_factory=dict)
    candidates: dict[int, Candidate] = field(default_factory=dict)
    posted: list[Posted] = field(default_factory=list)
    ledger: dict[str, bytes] = field(default_factory=dict)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)
    now: float = 100.0

    def seat(self, *numbers: int, **changes: object) -> None:
        """Put nodes at the table, with their disks if they sat here before."""
        for number in numbers:
            self.candidates[number] = candidate_of(number, self.bounds, **changes)
            candidate = self.candidates[number]
            self.machines[number] = Genesis(
                signer_of(number),
                network_id=NETWORK,
                bounds=candidate.bounds,
                may_vote=candidate.may_vote,
                vip="10.0.0.50",
                rng=Random(number),
                now=Instant(self.now),
                journal=self.disks.setdefault(number, {}).items(),
            )

    def look_around(self, present: Sequence[int] | None = None) -> None:
        """Tell everyone about the candidates, and who of them is connected (default: all)."""
        here = sorted(self.machines) if present is None else present
        for number, machine in self.machines.items():
            peers = [signer_of(n).node_id for n in here if n != number]
            effects = machine.update(list(self.candidates.values()), peers, Instant(self.now))
            self.perform(number, effects)

    def wait(self, seconds: float) -> None:
        """Let time pass, from deadline to deadline, without moving any message."""
        end = self.now + seconds
        while (due := min(m.deadline for m in self.machines.values())) <= end:
            self.now = max(self.now, due)
            for number, machine in self.machines.items():
                if machine.deadline <= self.now:
                    self.perform(number, machine.tick(Instant(self.now)))
        self.now = end

    def deliver(self, *, to: int | None = None, lose: bool = False) -> None:
        """Deliver (or lose) what was posted so far, in order."""
        batch = [p for p in self.posted if to in (None, p.to)]
        self.posted = [p for p in self.posted if p not in batch]
        for post in batch:
            machine = self.machines.get(post.to)
            if machine is None or lose:
                continue
            sender = signer_of(post.sender).node_id
            self.perform(post.to, machine.receive(sender, post.frame, Instant(self.now)))

    def settle(self) -> None:
        """Deliver until nothing is under way."""
        for _ in range(100):
            if not self.posted:
                return
            self.deliver()
        raise AssertionError("the machines never fall silent")

    def observe(self, number: int, voters: Sequence[int], uid: str | None = "uid-1") -> None:
        """Let k3s on a node name these nodes as etcd's voters."""
        names = [self.candidates[n].node_name for n in voters]
        reading = K3sReading(voters=tuple(names), kube_system_uid=uid)
        effects = self.machines[number].observe(reading, Instant(self.now))
        self.perform(number, effects)

    def perform(self, number: int, effects: Sequence[Effect]) -> None:
        """Perform effects in order."""
        for effect in effects:
            self.transcript.append(f"n{number} {in_words(effect)}")
            match effect:
                case Record(rows):
                    self.disks[number].update(rows)
                case SendTo(node, frame):
                    self.posted.append(Posted(number, number_of(node), frame))
                case Publish(key, record):
                    self.ledger[key] = record
                case Reject(_, reason):
                    self.rejected.append((number, reason))


def number_of(node: NodeId) -> int:
    """Return the number of a test node."""
    return next(number for number in range(1, 100) if signer_of(number).node_id == node)


def in_words(effect: Effect) -> str:
    """Return an effect as a golden conversation shows it."""
    match effect:
        case Record(rows):
            return "records " + ", ".join(key for key, _ in rows)
        case SendTo(node, frame):
            return f"tells n{number_of(node)}: {frame_in_words(frame)}"
        case Publish(key, record):
            return f"publishes {key}: {frame_in_words(record)}"
        case Reject(peer, reason):
            return f"rejects n{number_of(peer)}: {reason}"


def frame_in_words(frame: bytes) -> str:
    """Return what a frame says, in one line."""
    found = read_frame(frame)
    if isinstance(found, DecidedFrame):
        decision = read_record(frame, network_id=NETWORK, quorum=1)
        signers = ", ".join(f"n{n}" for n in sorted(number_of(s) for s in decision.signers))
        return f"Decided {decision.slot}, signed by {signers}"
    if isinstance(found, Proof):
        first = read_frame(found.first)
        assert isinstance(first, Authentic)
        return f"Proof about n{number_of(first.message.sender)}"
    message = found.message
    if isinstance(message, LeaseMessage):
        return f"{type(message).__name__} of generation {message.generation}"
    ballot = f"{message.ballot.round}.n{number_of(message.ballot.node)}"
    extra = ""
    if isinstance(message, Promise) and message.accepted is not None:
        extra = f", has accepted {message.accepted[0].round}.n{number_of(message.accepted[0].node)}"
    if isinstance(message, Nack):
        promised = message.promised
        extra = f", {message.open_slot} is open here" if promised is None else ""
        extra += f", promised {promised.round}.n{number_of(promised.node)}" if promised else ""
    return f"{type(message).__name__} {message.slot} {ballot}{extra}"


# What several tests do.


def states(table: Table) -> dict[int, GenesisState]:
    return {number: machine.state for number, machine in table.machines.items()}


def claimed(bounds: Bounds = THREE, size: int = 3) -> Table:
    """Return a table at which CLAIM and STARTED are decided."""
    table = Table(bounds)
    table.seat(*range(1, size + 1))
    table.look_around()
    if not table.posted:
        table.wait(1.6)
    table.settle()
    return table


def phase_of(table: Table, number: int) -> str:
    return table.machines[number].state.phase


def plan_of(number: int, bounds: Bounds = THREE) -> ClusterPlan:
    """Return a plan with that node alone, as a test's own proposer makes it."""
    plan = claimed(bounds).machines[1].state.plan
    assert plan is not None
    candidate = candidate_of(number, bounds)
    seat = Seat(node=candidate.node, node_name=candidate.node_name, node_ip=candidate.node_ip)
    return ClusterPlan(
        cluster_id=f"{number:032x}",
        generation=1,
        initialiser=candidate.node,
        seats=(seat,),
        network="lan",
        settings_hash=candidate.settings_hash,
        ca_hash=candidate.ca_hash,
        token_commitment=candidate.token_commitment,
        vip=None,
    )


def prepare(
    number: int,
    round_: int,
    bounds: Bounds = THREE,
    network_id: str = NETWORK,
    slot: Slot = "claim",
) -> bytes:
    signer = signer_of(number)
    message = Prepare(
        network_id=network_id,
        limits=bounds.limits,
        generation=1,
        slot=slot,
        ballot=Ballot(round_, signer.node_id),
        sender=signer.node_id,
    )
    return seal(message, signer).frame


def accept(number: int, round_: int, value: bytes) -> bytes:
    signer = signer_of(number)
    message = Accept(
        network_id=NETWORK,
        limits=THREE.limits,
        generation=1,
        slot="claim",
        ballot=Ballot(round_, signer.node_id),
        sender=signer.node_id,
        value_hash=hash_of(value),
    )
    return seal(message, signer, value).frame


def give(table: Table, sender: int, to: int, frame: bytes) -> None:
    """Hand a frame over, as if the sender had sent it."""
    machine = table.machines[to]
    sender_id = signer_of(sender).node_id
    table.perform(to, machine.receive(sender_id, frame, Instant(table.now)))
