"""A small world for replicas: an unreliable network, disks that keep what was stored, one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import (
    Effect,
    Entry,
    Instant,
    Moment,
    NodeId,
    Policy,
    Reject,
    Replica,
    Signer,
    Store,
    Transmit,
    encode_entry,
    sign_entry,
)
from ledger._messages import Pull, Push, decode_frame, encode_frame
from ledger._passing import PASSED_ON_AFTER_S

NETWORK = "oak-7f3a9c12"
EPOCH_MS = 1_700_000_000_000
SILENT_AFTER_FRAMES = 5_000  # Ten times what the largest test needs.


@cache
def signer_of(number: int) -> Signer:
    """Return the same key for the same number, in every process."""
    return Signer(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))


def moment(at: float) -> Moment:
    """Return the time `at` seconds after boot; the wall clock agrees with it."""
    return Moment(at=Instant(at), wall_ms=EPOCH_MS + int(at * 1000))


def entry_of(
    author: int, name: str = "facts", *, seq: int = 1, value: bytes | None = b"v", stamp_s: int = 0
) -> Entry:
    """Return an entry in the author's own part of the ledger."""
    signer = signer_of(author)
    return sign_entry(
        signer,
        network=NETWORK,
        key=f"node/{signer.node_id}/{name}",
        seq=seq,
        stamp_ms=EPOCH_MS + stamp_s * 1000,
        value=value,
    )


def open_policy() -> Policy:
    """Return a policy under which whatever depends on the cluster's state is lawful."""
    return Policy(
        genesis_valid=lambda _generation, _slot, _value: True,
        seats_valid=lambda _epoch, _value: True,
        held_seat=lambda _node: True,
    )


@dataclass(frozen=True)
class Frame:
    """A frame under way."""

    sender: NodeId
    receiver: NodeId
    content: bytes


class World:
    """Replicas that only meet through frames. Delivery is the test's to decide.

    Args:
        size: how many nodes; node `i` signs with `signer_of(i + 1)`.
        policy: makes each replica's authority.
    """

    def __init__(
        self, size: int, *, seed: int = 0, policy: Callable[[], Policy] = open_policy
    ) -> None:
        self.rng = Random(seed)
        self.at = 100.0
        self.policy = policy
        self.ids = [signer_of(i + 1).node_id for i in range(size)]
        self.disks: list[dict[tuple[NodeId, str], Entry]] = [{} for _ in range(size)]
        self.frames: list[Frame] = []
        self.rejects: list[Reject] = []
        self.stored: list[list[Entry]] = [[] for _ in range(size)]
        self.links: dict[tuple[int, int], None] = {}
        self.sent_bytes = 0
        self.replicas = [self._boot(i) for i in range(size)]

    @property
    def now(self) -> Moment:
        return moment(self.at)

    def perform(self, index: int, effects: Iterable[Effect]) -> None:
        """Perform a replica's effects in order."""
        for effect in effects:
            match effect:
                case Store(entries):
                    self.stored[index].extend(entries)
                    self.disks[index].update({(e.author, e.key): e for e in entries})
                case Transmit(peer, content):
                    assert len(content) <= 256 * 1024
                    self.sent_bytes += len(content)
                    if peer in self.ids:  # Others are played by the test.
                        self.frames.append(Frame(self.ids[index], peer, content))
                case Reject():
                    self.rejects.append(effect)
                case _:
                    assert_never(effect)

    def link(self, one: int, other: int) -> None:
        """Connect two nodes; both are told."""
        self.links[min(one, other), max(one, other)] = None
        for a, b in ((one, other), (other, one)):
            self.perform(a, self.replicas[a].connected(self.ids[b], self.now))

    def cut(self, one: int, other: int) -> None:
        """Disconnect two nodes; what is under way between them is lost."""
        self.links.pop((min(one, other), max(one, other)), None)
        ends = {self.ids[one], self.ids[other]}
        self.frames = [f for f in self.frames if {f.sender, f.receiver} != ends]
        self.replicas[one].disconnected(self.ids[other])
        self.replicas[other].disconnected(self.ids[one])

    def write(self, index: int, name: str, value: bytes) -> None:
        """Let a node write into its own part of the ledger."""
        key = f"node/{self.ids[index]}/{name}"
        self.perform(index, self.replicas[index].write(key, value, self.now))

    def restart(self, index: int, disk: dict[tuple[NodeId, str], Entry] | None = None) -> None:
        """Kill a node and start it from its disk, or from an older copy of it."""
        neighbours = [b if a == index else a for a, b in self.links if index in {a, b}]
        for other in neighbours:
            self.cut(index, other)
        if disk is not None:
            self.disks[index] = dict(disk)
        self.replicas[index] = self._boot(index)
        for other in neighbours:
            self.link(index, other)

    def deliver(self, position: int = 0) -> None:
        """Deliver one frame under way."""
        frame = self.frames.pop(position)
        index = self.ids.index(frame.receiver)
        replica = self.replicas[index]
        self.perform(index, replica.receive(frame.sender, frame.content, self.now))

    def tick(self) -> None:
        """Let every replica do what is due."""
        for index, replica in enumerate(self.replicas):
            if replica.deadline <= self.at:
                self.perform(index, replica.tick(self.now))

    def settle(self) -> None:
        """Deliver everything in order, with what is due in a moment, until the world is silent."""
        self.tick()
        delivered = 0
        while self.frames:
            delivered += 1
            assert delivered <= SILENT_AFTER_FRAMES, "a conversation that does not end"
            self.deliver()
            if not self.frames:
                self.wait_a_moment()

    def wait_a_moment(self) -> None:
        """Do what is due, and what is to be passed on in a moment."""
        self.tick()
        while not self.frames and (due := self._next_due()) <= self.at + PASSED_ON_AFTER_S[1]:
            self.at = max(self.at, due)
            self.tick()

    def _next_due(self) -> float:
        return min(replica.deadline for replica in self.replicas)

    def settle_until_pull(self, index: int) -> None:
        """Deliver everything until a node's `Pull` is under way; it is not delivered."""
        while not any(
            isinstance(decode_frame(frame.content), Pull) and frame.sender == self.ids[index]
            for frame in self.frames
        ):
            self.deliver()

    def run(self, seconds: float) -> None:
        """Deliver everything, then let time pass from deadline to deadline."""
        end = self.at + seconds
        self.settle()
        while (due := self._next_due()) <= end:
            self.at = max(self.at, due)
            self.settle()
        self.at = end

    @property
    def converged(self) -> bool:
        first, *others = self.replicas
        return all(dict(other.entries) == dict(first.entries) for other in others)

    def _boot(self, index: int) -> Replica:
        return Replica(
            signer_of(index + 1),
            network=NETWORK,
            authority=self.policy(),
            rng=Random(self.rng.getrandbits(32)),
            now=self.now,
            entries=self.disks[index].values(),
        )


def push(*entries: Entry) -> bytes:
    """Return a frame that pushes these entries."""
    return encode_frame(Push(tuple(map(encode_entry, entries))))


def lone_world() -> tuple[World, Replica, NodeId]:
    """Return a world of one node, its replica, and the id of a peer that the test plays."""
    world = World(1)
    peer = signer_of(77).node_id
    world.replicas[0].connected(peer, world.now)
    return world, world.replicas[0], peer
