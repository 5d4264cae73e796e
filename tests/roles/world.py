"""A small world of Genesis machines under simulated time: disks, a bad network, a ledger, a judge.

Everything is a function of the seed. The judge watches what leaves the machines and what reaches
their disks; it knows Paxos' laws and nothing of the machines' insides.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import Instant, NodeId, Signer
from roles import (
    Bounds,
    Candidate,
    Effect,
    Genesis,
    K3sReading,
    Publish,
    Record,
    Reject,
    SendTo,
    verify_record,
)
from roles._journal import row_key
from roles._messages import Accepted, Authentic, Ballot, Message, Prepare, Promise, read_frame
from roles._messages import Record as DecidedFrame

NETWORK = "oak-7f3a9c12"


class Violation(AssertionError):
    """The judge saw a law broken."""


def signer_of(number: int) -> Signer:
    """Return the key of test node `number`; the same in every run."""
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def candidate_of(number: int, bounds: Bounds, **changes: object) -> Candidate:
    """Return what test node `number` publishes: ranked by its number, first is best."""
    fields: dict[str, object] = {
        "node": signer_of(number).node_id,
        "node_name": f"n{number}-{number:08x}",
        "node_ip": f"10.0.0.{10 + number}",
        "wish": "auto",
        "may_vote": True,
        "direct": True,
        "memory_mib": 4096 - 100 * number,
        "cpus": 4,
        "bounds": bounds,
        "settings_hash": "5e" * 32,
        "ca_hash": f"{number:064x}",
        "token_commitment": f"{number + 100:064x}",
        "fingerprint": (f"fingerprint-{number}",),
        "name": f"n{number}",
    }
    return Candidate(**(fields | changes))  # type: ignore[arg-type] # Tests name what they change.


def value_of(record: bytes) -> bytes:
    """Return the raw value that a record proves."""
    found = read_frame(record)
    assert isinstance(found, DecidedFrame)
    return found.value


@dataclass(slots=True, kw_only=True)
class Faults:
    """How bad the world is until it heals."""

    loss: float = 0.2
    duplication: float = 0.1
    delay_s: tuple[float, float] = (0.005, 1.0)
    crash: float = 0.01  # For each event handled: somewhere among its effects.
    down_s: tuple[float, float] = (0.1, 8.0)
    flap_every_s: tuple[float, float] = (0.5, 8.0)
    until_s: float = 60.0


HARSH = Faults(
    loss=0.3,
    delay_s=(0.005, 4.0),
    crash=0.05,
    down_s=(0.1, 2.0),
    flap_every_s=(0.5, 3.0),
    until_s=30.0,
)
"""Used with impolite proposers: the point is to bring ballots into each other's way."""


@dataclass(slots=True)
class Member:
    """One machine: what survives a crash, and the process, if it runs."""

    number: int
    signer: Signer
    candidate: Candidate
    disk: dict[str, bytes] = field(default_factory=dict)
    genesis: Genesis | None = None
    boots: int = 0
    initialised: set[str] = field(default_factory=set)  # Cluster ids that it ran cluster-init for.


class Judge:
    """Holds what was ever shown to anybody against Paxos' laws."""

    def __init__(self, quorum: int) -> None:
        self.quorum = quorum
        self._votes: dict[tuple[str, Ballot, bytes], set[NodeId]] = defaultdict(set)
        self._values: dict[tuple[str, Ballot], bytes] = {}
        self._promised: dict[tuple[NodeId, str], Ballot] = {}
        self.chosen: dict[str, bytes] = {}
        self._decided: dict[str, bytes] = {}

    def sees_frame(self, frame: bytes, disk: Mapping[str, bytes]) -> None:
        """Judge what a node reveals, against what would survive if it crashed now."""
        found = read_frame(frame)
        if isinstance(found, Authentic):
            self._is_durable(found.message, disk)
            self._sees(found)

    def _is_durable(self, message: Message, disk: Mapping[str, bytes]) -> None:
        if not isinstance(message, Promise | Accepted | Prepare):
            return
        key = row_key(message)
        row = disk.get(key) if key is not None else None
        found = read_frame(row) if row is not None else None
        kept = found.message if isinstance(found, Authentic) else None
        held = isinstance(kept, Promise | Accepted | Prepare) and kept.ballot >= message.ballot
        if not held:
            raise Violation(f"a {type(message).__name__} revealed before it was durable")

    def _sees(self, sealed: Authentic) -> None:
        message = sealed.message
        if not isinstance(message, Promise | Accepted):
            return
        slot = f"{message.generation}/{message.slot}"
        if isinstance(message, Promise):
            key = (message.sender, slot)
            self._promised[key] = max(self._promised.get(key, message.ballot), message.ballot)
            return
        promised = self._promised.get((message.sender, slot))
        if promised is not None and message.ballot < promised:
            raise Violation(f"a vote below a promise in slot {slot}")
        value = self._values.setdefault((slot, message.ballot), message.value_hash)
        if value != message.value_hash:
            raise Violation(f"two values voted for in one ballot of slot {slot}")
        voters = self._votes[slot, message.ballot, message.value_hash]
        voters.add(message.sender)
        if len(voters) >= self.quorum:
            self._chose(slot, message.value_hash)

    def _chose(self, slot: str, value: bytes) -> None:
        if self.chosen.setdefault(slot, value) != value:
            raise Violation(f"two values chosen in slot {slot}")

    def ballots(self, slot: str) -> set[Ballot]:
        """Return the ballots in which anyone voted in this slot."""
        return {ballot for at, ballot in self._values if at.endswith(f"/{slot}")}

    def sees_row(self, key: str, data: bytes) -> None:
        """Judge what reached a disk: a vote counts from here on, sent or not."""
        found = read_frame(data)
        if key.startswith("accept/") and isinstance(found, Authentic):
            self._sees(found)
        if key.startswith("decided/"):
            self.sees_record(key.replace("decided/", "genesis/"), data)

    def sees_record(self, key: str, record: bytes) -> None:
        """Judge a record on its way into the ledger or onto a disk."""
        flaw = verify_record(record, key=key, network_id=NETWORK, quorum=self.quorum)
        if flaw is not None:
            raise Violation(f"{key} does not verify: {flaw}")
        value = value_of(record)
        if self._decided.setdefault(key, value) != value:
            raise Violation(f"{key} was decided twice")


class World:
    """Machines, their disks, and a network that loses, delays, duplicates and reorders."""

    def __init__(
        self, seed: int, *, size: int, bounds: Bounds, faults: Faults | None = None
    ) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.faults = faults or Faults()
        self.bounds = bounds
        self.judge = Judge(bounds.quorum)
        self.now = 0.0
        self.members = [
            Member(number, signer_of(number), candidate_of(number, bounds))
            for number in range(1, size + 1)
        ]
        self.by_id = {member.signer.node_id: member for member in self.members}
        self.log: list[str] = []
        self._ledger: dict[str, bytes] = {}
        self._order = count()
        self._queue: list[tuple[float, int, tuple[object, ...]]] = []
        self._group: dict[NodeId, int] = dict.fromkeys(self.by_id, 0)
        for member in self.members:
            self._at(self.rng.uniform(0, 3.0), ("boot", member))
        self._at(self.rng.uniform(*self.faults.flap_every_s), ("flap",))

    # Running.

    def run(self, until_s: float) -> None:
        """Let everything happen that happens before `until_s`."""
        while True:
            due = min((m.genesis.deadline for m in self.members if m.genesis), default=1e18)
            event_at = self._queue[0][0] if self._queue else 1e18
            self.now = max(self.now, min(due, event_at))
            if self.now > until_s:
                self.now = until_s
                return
            if event_at <= due:
                self._happens(*heapq.heappop(self._queue)[2])
            else:
                member = next(m for m in self.members if m.genesis and m.genesis.deadline <= due)
                self._tick(member)

    def run_until_formed(self, until_s: float) -> bool:
        """Run step by step; whether all running machines came to know DONE."""
        while self.now < until_s:
            self.run(self.now + 1.0)
            if all(m.genesis and m.genesis.state.phase == "formed" for m in self.members):
                return True
        return False

    @property
    def healed(self) -> bool:
        return self.now >= self.faults.until_s

    def _tick(self, member: Member) -> None:
        genesis = member.genesis
        assert genesis is not None
        self._perform(member, genesis.tick(Instant(self.now)))
        if member.genesis is genesis and genesis.deadline <= self.now:
            raise Violation(f"n{member.number} would spin")

    def _happens(self, kind: object, *rest: object) -> None:
        match kind, rest:
            case "boot", (Member() as member,):
                self._boot(member)
            case "flap", ():
                self._flap()
            case "frame", (str(sender), str(to), bytes(frame)):
                member = self.by_id[NodeId(to)]
                if member.genesis is not None:
                    effects = member.genesis.receive(NodeId(sender), frame, Instant(self.now))
                    self._perform(member, effects)
            case "record", (Member() as member, bytes(record)):
                if member.genesis is not None:
                    self._perform(member, member.genesis.learn(record, Instant(self.now)))
            case _:
                raise AssertionError(kind)

    def _boot(self, member: Member) -> None:
        if member.genesis is not None:
            return
        member.boots += 1
        member.genesis = Genesis(
            member.signer,
            network_id=NETWORK,
            bounds=self.bounds,
            may_vote=member.candidate.may_vote,
            vip="10.0.0.50",
            rng=Random(self.rng.getrandbits(64)),
            now=Instant(self.now),
            journal=sorted(member.disk.items()),
        )
        for record in self._ledger.values():  # The ledger catches up with what it missed.
            self._at(self.now + self.rng.uniform(0.1, 2.0), ("record", member, record))
        self._views()

    def _flap(self) -> None:
        """Draw new partitions; once the world has healed, start and connect everyone."""
        parts = 1 if self.healed else self.rng.choice((1, 1, 2, 2, 3))
        for node in sorted(self._group):
            self._group[node] = self.rng.randrange(parts)
        if self.healed:
            for member in self.members:
                self._boot(member)
        else:
            after = self.rng.uniform(*self.faults.flap_every_s)
            self._at(min(self.now + after, self.faults.until_s), ("flap",))
        self._views()

    def _views(self) -> None:
        """Tell everyone who is connected; the candidates are known to all."""
        candidates = [m.candidate for m in self.members if m.boots]
        for member in self.members:
            if member.genesis is None:
                continue
            present = [
                other.signer.node_id
                for other in self.members
                if other is not member and other.genesis is not None and self._linked(member, other)
            ]
            genesis = member.genesis
            self._perform(member, genesis.update(candidates, present, Instant(self.now)))

    def _linked(self, one: Member, two: Member) -> bool:
        return self._group[one.signer.node_id] == self._group[two.signer.node_id]

    # Effects.

    def _perform(self, member: Member, effects: list[Effect]) -> None:
        """Perform effects in order; a crash may come between any two of them."""
        crashes = not self.healed and self.rng.random() < self.faults.crash
        survived = self.rng.randrange(len(effects) + 1) if crashes else len(effects)
        for effect in effects[:survived]:
            self.log.append(f"{self.now:.3f} n{member.number} {effect!r}")
            self._perform_one(member, effect)
        if crashes:
            member.genesis = None
            self._at(self.now + self.rng.uniform(*self.faults.down_s), ("boot", member))
            self._views()
            return
        self._run_k3s(member)

    def _perform_one(self, member: Member, effect: Effect) -> None:
        match effect:
            case Record(rows):
                for key, data in rows:
                    self.judge.sees_row(key, data)
                    member.disk[key] = data
            case SendTo(node, frame):
                self.judge.sees_frame(frame, member.disk)
                self._post(member, node, frame)
            case Publish(key, record):
                self.judge.sees_record(key, record)
                self._ledger.setdefault(key, record)
                for other in self.members:
                    delay = self.rng.uniform(0.1, 20.0 if not self.healed else 0.5)
                    self._at(self.now + delay, ("record", other, record))
            case Reject(_, reason):
                raise Violation(f"n{member.number} blames an honest node: {reason}")

    def _post(self, member: Member, to: NodeId, frame: bytes) -> None:
        """Put a frame on its way, once, twice or not at all."""
        receiver = self.by_id[to]
        copies = 1
        if not self.healed:
            copies += self.rng.random() < self.faults.duplication
            lost = not self._linked(member, receiver) or self.rng.random() < self.faults.loss
            copies = 0 if lost else copies
        for _ in range(copies):
            least, most = self.faults.delay_s if not self.healed else (0.005, 0.05)
            delay = self.rng.uniform(least, most)
            self._at(self.now + delay, ("frame", member.signer.node_id, to, frame))

    def _run_k3s(self, member: Member) -> None:
        """Play k3s: init where it is allowed, members join once it stands, voters are seen."""
        genesis = member.genesis
        if genesis is None:
            return
        state = genesis.state
        if state.may_initialise and state.plan is not None:
            member.initialised.add(state.plan.cluster_id)
            if sum(len(m.initialised) for m in self.members) > 1:
                raise Violation("cluster-init twice")
            if f"{state.generation}/started" not in self.judge.chosen:
                raise Violation("cluster-init before STARTED was chosen")
        if state.plan is None or state.phase != "started":
            return
        started = {m.candidate.node_name for m in self.members if m.initialised}
        up = {
            m.candidate.node_name
            for m in self.members
            if m.genesis is not None and m.genesis.state.phase in ("started", "formed")
        }
        if started and state.plan.seat_of(member.signer.node_id) is not None:
            uid = f"uid-{state.plan.cluster_id}"
            reading = K3sReading(voters=tuple(sorted(up | started)), kube_system_uid=uid)
            effects = genesis.observe(reading, Instant(self.now))
            if effects:
                self._perform(member, effects)

    def _at(self, at: float, event: tuple[object, ...]) -> None:
        heapq.heappush(self._queue, (at, next(self._order), event))
