"""Whatever network and disks do: once they stop, all replicas hold the same, and the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger import Entry, NodeId, encode_entry
from ledger._messages import Push, encode_frame
from tests.ledger.world import World, entry_of, signer_of

SIZE = 4
LIAR = 9

indices = st.integers(0, SIZE - 1)
names = st.sampled_from(["facts", "k3s", "x-1"])
positions = st.integers(0, 1000)


class Replicas(RuleBasedStateMachine):
    """Four nodes; frames are lost, doubled and overtaken; nodes restart, some from old disks."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(SIZE)
        self.copies: list[list[dict[tuple[NodeId, str], Entry]]] = [[{}] for _ in range(SIZE)]
        self.written: dict[tuple[int, str], bytes | None] = {}  # Since the writer's last start.
        self.suspects: dict[NodeId, None] = {signer_of(LIAR).node_id: None}

    @rule(index=indices, name=names, value=st.binary(max_size=2))
    def write(self, index: int, name: str, value: bytes) -> None:
        self.world.write(index, name, value)
        self.written[index, name] = value

    @rule(index=indices, name=names)
    def delete(self, index: int, name: str) -> None:
        key = f"node/{self.world.ids[index]}/{name}"
        replica = self.world.replicas[index]
        if (self.world.ids[index], key) in replica.entries:
            self.world.perform(index, replica.delete(key, self.world.now))
            self.written[index, name] = None

    @rule(one=indices, other=indices)
    def link(self, one: int, other: int) -> None:
        if one != other:
            self.world.link(one, other)

    @rule(one=indices, other=indices)
    def cut(self, one: int, other: int) -> None:
        if one != other:
            self.world.cut(one, other)

    @rule(picks=st.lists(positions, max_size=6))
    def deliver_in_any_order(self, picks: list[int]) -> None:
        for pick in picks:
            if self.world.frames:
                self.world.deliver(pick % len(self.world.frames))

    @rule(pick=positions)
    def lose(self, pick: int) -> None:
        if self.world.frames:
            self.world.frames.pop(pick % len(self.world.frames))

    @rule(pick=positions)
    def double(self, pick: int) -> None:
        if self.world.frames:
            self.world.frames.append(self.world.frames[pick % len(self.world.frames)])

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.at += seconds
        self.world.tick()

    @rule(index=indices)
    def copy_disk(self, index: int) -> None:
        self.copies[index].append(dict(self.world.disks[index]))

    @rule(index=indices)
    def restart(self, index: int) -> None:
        self.world.restart(index)
        self._forget_written(index)

    @rule(index=indices, pick=positions)
    def restart_from_an_old_disk(self, index: int, pick: int) -> None:
        copies = self.copies[index]
        self.world.restart(index, copies[pick % len(copies)])
        self._forget_written(index)
        self.suspects[self.world.ids[index]] = None

    @rule(index=indices, seq=st.integers(1, 2), value=st.sampled_from([b"a", b"b"]))
    def lie(self, index: int, seq: int, value: bytes) -> None:
        entry = entry_of(LIAR, seq=seq, value=value)
        frame = encode_frame(Push((encode_entry(entry),)))
        replica = self.world.replicas[index]
        self.world.perform(index, replica.receive(signer_of(77).node_id, frame, self.world.now))

    @invariant()
    def nobody_is_blamed(self) -> None:
        assert self.world.rejects == []
        for replica in self.world.replicas:
            assert set(replica.equivocations) <= set(self.suspects)

    @invariant()
    def nobody_forgets_whose_disk_is_its_newest(self) -> None:
        for node, replica in zip(self.world.ids, self.world.replicas, strict=True):
            assert replica.forgotten is None or node in self.suspects

    @invariant()
    def disks_hold_what_replicas_hold(self) -> None:
        for disk, replica in zip(self.world.disks, self.world.replicas, strict=True):
            assert disk == dict(replica.entries)

    @invariant()
    def equal_roots_mean_equal_registers(self) -> None:
        first, *others = self.world.replicas
        for other in others:
            assert (first.root == other.root) == (dict(first.entries) == dict(other.entries))

    def teardown(self) -> None:
        for index in range(SIZE - 1):  # A chain: everything has to be passed on.
            self.world.link(index, index + 1)
        self.world.run(120.0)
        assert self.world.converged
        self.nobody_is_blamed()
        for (index, name), value in self.written.items():
            author = self.world.ids[index]
            for replica in self.world.replicas:
                assert replica.entries[author, f"node/{author}/{name}"].value == value

    def _forget_written(self, index: int) -> None:
        for one, name in list(self.written):
            if one == index:
                del self.written[one, name]


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def lossy_run(seed: int) -> tuple[World, str]:
    """Run ten nodes with loss, doubling and reordering, then without; return them and a print."""
    size = 10
    rng = Random(seed)
    world = World(size, seed=seed)
    edges = [(i, (i + step) % size) for i in range(size) for step in (1, 3)]
    history = sha256()
    for step in range(600):
        world.at += 0.05
        if step < len(edges):
            world.link(*edges[step])
        if step < 400 and step % 4 == 0:
            world.write(rng.randrange(size), rng.choice(["facts", "k3s"]), rng.randbytes(4))
        for _ in range(len(world.frames)):
            position = rng.randrange(len(world.frames))
            fate = rng.random()
            if fate < 0.3:
                world.frames.pop(position)
            elif fate < 0.4:
                world.frames.append(world.frames[position])
            else:
                history.update(world.frames[position].content)
                world.deliver(position)
        world.tick()
    world.run(90.0)
    return world, history.hexdigest()


@pytest.mark.parametrize("seed", range(30))
def test_ten_replicas_converge_after_30_percent_loss(seed: int) -> None:
    world, _ = lossy_run(seed)
    assert world.converged
    assert world.rejects == []
    assert [replica.forgotten for replica in world.replicas] == [None] * 10


def test_a_run_is_the_same_in_processes_with_different_hash_seeds() -> None:
    program = "from tests.ledger.test_convergence import lossy_run; print(lossy_run(7)[1])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
