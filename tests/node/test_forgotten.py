"""A node that is given an old disk says so and votes no more; one that was only restarted never."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import Entry, Instant, Moment, NodeId, Signer
from meshd.events import (
    Apply,
    Connected,
    Disconnected,
    Effect,
    Event,
    FactsObserved,
    K3sObserved,
    Persist,
    Received,
    Send,
    Wakeup,
)
from meshd.node import Node
from meshd.schema import Facts
from roles import Bounds

NETWORK = "oak-7f3a9c12"
BOUNDS = Bounds.bounded(control_plane=1, nodes_max=3)
NUMBERS = (1, 2, 3)

Disk = tuple[dict[tuple[NodeId, str], Entry], dict[str, bytes]]


def signer_of(number: int) -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def facts_of(number: int) -> Facts:
    """Return what node `number` says of itself; the lowest number ranks best."""
    return Facts(
        name=f"n{number}",
        node_name=f"n{number}-{number:08x}",
        node_ip=f"10.0.0.{number}",
        addresses=(),
        sealing_key=bytes(32),
        memory_mib=8192 - 1024 * number,
        cpus=2,
        role_wish="auto",
        may_vote=True,
        bound="bounded",
        nodes_max=BOUNDS.nodes_max,
        quorum=BOUNDS.quorum,
        control_plane=BOUNDS.control_plane,
        settings_hash="5e" * 32,
        ca_hash=f"{number:064x}",
        token_commitment=f"{number:064x}",
        fingerprint=(f"fingerprint-{number}",),
    )


class Net:
    """Three nodes, their disks, and links that deliver at once and in order."""

    def __init__(self) -> None:
        self.at = 0.0
        self.nodes: dict[int, Node] = {}
        self.disks: dict[int, Disk] = {number: ({}, {}) for number in NUMBERS}
        self.links: set[frozenset[int]] = set()
        self.under_way: list[tuple[int, Received]] = []
        self.initialisers: list[int] = []
        for number in NUMBERS:
            self.boot(number)

    def boot(self, number: int, disk: Disk | None = None) -> None:
        """Start a node from its disk, or from the one it is given instead."""
        for other in NUMBERS:
            self.cut(number, other)
        if disk is not None:
            self.disks[number] = disk
        entries, votes = self.disks[number]
        self.nodes[number] = Node(
            network_id=NETWORK,
            signer=signer_of(number),
            bounds=BOUNDS,
            facts=facts_of(number),
            vip=None,
            rng=Random(number),
            now=self._now(),
            entries=list(entries.values()),
            votes=list(votes.items()),
        )
        self.handle(number, FactsObserved(facts_of(number)))

    def copy_of(self, number: int) -> Disk:
        entries, votes = self.disks[number]
        return dict(entries), dict(votes)

    def link(self, one: int, two: int) -> None:
        if one != two and frozenset((one, two)) not in self.links:
            self.links.add(frozenset((one, two)))
            for a, b in ((one, two), (two, one)):
                self.handle(a, Connected(self.nodes[b].me, "direct"))

    def cut(self, one: int, two: int) -> None:
        if frozenset((one, two)) in self.links:
            self.links.discard(frozenset((one, two)))
            for a, b in ((one, two), (two, one)):
                self.handle(a, Disconnected(self.nodes[b].me, "cut"))

    def handle(self, number: int, event: Event, *, survived: int | None = None) -> None:
        """Let a node handle an event; power fails after `survived` effects, if given."""
        for effect in self.nodes[number].handle(event, self._now())[:survived]:
            self._perform(number, effect)

    def run(self, seconds: float) -> None:
        end = self.at + seconds
        while self.at < end:
            self.deliver()
            self.at += 0.05
            for number in NUMBERS:
                if self.nodes[number].deadline <= self.at:
                    self.handle(number, Wakeup())

    def deliver(self) -> None:
        while self.under_way:
            self.handle(*self.under_way.pop(0))

    def _now(self) -> Moment:
        return Moment(at=Instant(self.at), wall_ms=1_760_000_000_000 + int(self.at * 1000))

    def _perform(self, number: int, effect: Effect) -> None:
        entries, votes = self.disks[number]
        if isinstance(effect, Persist):
            entries.update({(entry.author, entry.key): entry for entry in effect.entries})
            votes.update(effect.votes)
        elif isinstance(effect, Send):
            to = next(n for n in NUMBERS if signer_of(n).node_id == effect.peer)
            frame = Received(signer_of(number).node_id, effect.channel, effect.frame)
            if frozenset((number, to)) in self.links:
                self.under_way.append((to, frame))
        elif isinstance(effect, Apply) and effect.order.seat == "initialiser":
            self.initialisers.append(number)


@pytest.mark.parametrize("disk", ["old", "empty"])
def test_a_voter_with_an_old_disk_does_not_start_a_second_cluster(disk: str) -> None:
    """n2 votes for n1's plan, then its disk is put back; n3 knows of n2 what that disk does not."""
    net = Net()
    net.link(1, 2)
    net.link(2, 3)
    net.run(0.1)
    old = net.copy_of(2) if disk == "old" else ({}, {})
    net.handle(2, FactsObserved(msgspec.structs.replace(facts_of(2), cpus=4)))
    net.deliver()
    net.cut(2, 3)
    net.run(10.0)
    assert net.initialisers == [1]
    net.cut(1, 2)
    net.boot(2, old)
    for _ in range(2):
        net.link(2, 3)
        net.run(30.0)
        assert net.initialisers == [1]
        genesis = net.nodes[2].genesis.state
        assert genesis.phase == "halted-lost-memory"
        assert [problem.code for problem in genesis.problems] == ["MESH-4005"]
        net.boot(2)  # And a restart makes it forget no more.


def test_a_disk_lost_after_the_cluster_stands_is_no_problem() -> None:
    net = Net()
    net.link(1, 2)
    net.link(2, 3)
    net.run(5.0)
    (plan,) = {node.genesis.state.plan for node in net.nodes.values()}
    assert plan is not None
    name = plan.seats[0].node_name
    net.handle(1, K3sObserved(state="ready", voters=(name,), kube_system_uid="uid-1"))
    net.run(5.0)
    net.boot(3, ({}, {}))
    net.link(2, 3)
    net.run(5.0)
    assert net.nodes[3].replica.forgotten is not None
    assert net.nodes[3].genesis.state.phase == "formed"
    assert net.nodes[3].genesis.state.problems == ()


@pytest.mark.parametrize("seed", range(10))
def test_restarts_and_power_cuts_at_any_moment_are_nothing_forgotten(seed: int) -> None:
    rng = Random(seed)
    net = Net()
    for _ in range(60):
        one, two = rng.sample(NUMBERS, 2)
        match rng.randrange(5):
            case 0:
                net.boot(one)
            case 1 if net.under_way:  # Power fails somewhere among the effects of a frame.
                number, event = net.under_way.pop(0)
                net.handle(number, event, survived=rng.randrange(4))
                net.boot(number)
            case 2:
                net.cut(one, two)
            case _:
                net.link(one, two)
        if rng.random() < 0.5:
            net.run(rng.choice((0.05, 0.3, 2.5)))
    for one, two in ((1, 2), (2, 3), (1, 3)):
        net.link(one, two)
    net.run(40.0)
    assert [net.nodes[number].replica.forgotten for number in NUMBERS] == [None] * 3
    assert len({node.genesis.state.plan for node in net.nodes.values()}) == 1
    assert set(net.initialisers) == {
        number for number in NUMBERS if net.nodes[number].genesis.state.may_initialise
    }
