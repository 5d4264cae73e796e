"""What one replica does: writing, judging what peers send, and defending its own registers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ledger import (
    Entry,
    Instant,
    Policy,
    Reject,
    Store,
    Transmit,
    encode_entry,
    sign_entry,
)
from ledger._limits import AUTHOR_KEYS_MAX
from ledger._messages import Push, Root, encode_frame
from tests.ledger.world import NETWORK, World, entry_of, lone_world, moment, push, signer_of


def test_a_write_is_stored_before_it_is_told_to_every_neighbour() -> None:
    world = World(3)
    world.link(0, 1)
    world.link(0, 2)
    world.settle()
    effects = world.replicas[0].write(f"node/{world.ids[0]}/facts", b"v", world.now)
    store, *sends = effects
    assert isinstance(store, Store)
    assert [e.value for e in store.entries] == [b"v"]
    told = sorted(s.peer for s in sends if isinstance(s, Transmit))
    assert told == sorted(world.ids[1:])
    assert len(told) == len(sends)


def test_writing_what_is_held_already_does_nothing() -> None:
    world = World(1)
    world.write(0, "facts", b"v")
    assert world.replicas[0].write(f"node/{world.ids[0]}/facts", b"v", world.now) == []
    world.write(0, "facts", b"w")
    assert [entry.seq for entry in world.stored[0]] == [1, 2]


def test_a_deleted_value_is_gone_and_its_tombstone_spreads() -> None:
    world = World(2)
    world.link(0, 1)
    world.write(0, "facts", b"v")
    world.settle()
    key = f"node/{world.ids[0]}/facts"
    assert [entry.value for entry in world.replicas[1].get(key)] == [b"v"]
    world.perform(0, world.replicas[0].delete(key, world.now))
    world.settle()
    assert world.replicas[1].get(key) == ()
    assert world.replicas[1].entries[world.ids[0], key].value is None
    assert world.replicas[0].delete(f"node/{world.ids[0]}/never", world.now) == []


def test_several_authors_of_one_key_stand_side_by_side() -> None:
    world = World(2)
    world.link(0, 1)
    for index in (0, 1):
        effects = world.replicas[index].write("genesis/1/claim", b"%d" % index, world.now)
        world.perform(index, effects)
    world.settle()
    held = world.replicas[0].get("genesis/1/claim")
    assert [entry.author for entry in held] == sorted(world.ids)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (f"node/{signer_of(9).node_id}/facts", "wrong author"),
        ("leader", "unknown key"),
        ("", "a key of 0 characters"),
    ],
)
def test_an_unlawful_entry_is_refused_counted_and_laid_at_the_senders_door(
    key: str, reason: str
) -> None:
    world, replica, peer = lone_world()
    entry = entry_of(2)
    if key:
        signer = signer_of(2)
        entry = sign_entry(signer, network=NETWORK, key=key, seq=1, stamp_ms=0, value=b"v")
        frame = push(entry)
    else:
        encoded = encode_entry(entry)
        named = entry.key.encode()
        empty = encoded.replace(b"\xd9" + bytes([len(named)]) + named, b"\xa0")
        frame = encode_frame(Push((empty,)))
    (reject,) = replica.receive(peer, frame, world.now)
    assert isinstance(reject, Reject)
    assert reject.peer == peer
    assert reason in reject.reason
    assert replica.rejected == {peer: 1}
    assert not replica.entries


def test_a_forged_signature_is_refused() -> None:
    world, replica, peer = lone_world()
    encoded = encode_entry(entry_of(2))
    forged = encode_frame(Push((encoded[:-1] + bytes([encoded[-1] ^ 1]),)))
    (reject,) = replica.receive(peer, forged, world.now)
    assert isinstance(reject, Reject)
    assert not replica.entries


def test_good_entries_beside_a_bad_one_are_kept() -> None:
    world, replica, peer = lone_world()
    bad = sign_entry(signer_of(2), network=NETWORK, key="bad", seq=1, stamp_ms=0, value=b"")
    effects = replica.receive(peer, push(entry_of(3), bad, entry_of(4)), world.now)
    assert [type(effect) for effect in effects] == [Store, Reject]
    assert len(replica.entries) == 2


def test_a_frame_full_of_faults_is_not_read_to_its_end() -> None:
    world, replica, peer = lone_world()
    bad = sign_entry(signer_of(2), network=NETWORK, key="bad", seq=1, stamp_ms=0, value=b"")
    replica.receive(peer, push(*[bad] * 100, entry_of(3)), world.now)
    assert replica.rejected == {peer: 8}
    assert not replica.entries


def test_what_cannot_be_judged_yet_is_no_fault_and_comes_when_it_can() -> None:
    seats: list[bool] = []
    world = World(
        2,
        policy=lambda: Policy(
            genesis_valid=lambda _generation, _slot, _value: True,
            seats_valid=lambda _epoch, _value: True,
            held_seat=lambda _node: True if seats else None,
        ),
    )
    key = f"sealed/{world.ids[1]}/server-token"
    world.perform(0, world.replicas[0].write(key, b"sealed", world.now))
    world.link(0, 1)
    world.run(40.0)
    assert world.replicas[1].get(key) == ()
    assert world.rejects == []

    seats.append(True)
    world.perform(1, world.replicas[1].reconsider(world.now))
    world.settle()
    assert [entry.value for entry in world.replicas[1].get(key)] == [b"sealed"]


def test_what_was_deferred_comes_by_itself_within_seconds() -> None:
    seats: list[bool] = []
    world = World(
        2,
        policy=lambda: Policy(
            genesis_valid=lambda _generation, _slot, _value: True,
            seats_valid=lambda _epoch, _value: True,
            held_seat=lambda _node: True if seats else None,
        ),
    )
    world.link(0, 1)
    world.settle()
    key = f"cluster/order/{world.ids[1]}"
    world.perform(0, world.replicas[0].write(key, b"worker", world.now))
    world.settle()
    seats.append(True)
    world.run(2.0)
    assert [entry.value for entry in world.replicas[1].get(key)] == [b"worker"]


@pytest.mark.parametrize("older", [b"older", b"present"])
def test_a_node_with_an_old_disk_does_not_lose_to_its_past(older: bytes) -> None:
    """The network remembers seq 5 of a node whose restored disk ended at seq 2.

    That disk may even hold what is true again: writing it is no news, but a claim all the same.
    """
    world = World(2)
    past = entry_of(1, seq=5, value=b"past")
    world.perform(1, world.replicas[1].receive(signer_of(77).node_id, push(past), world.now))
    world.disks[0] = {(past.author, past.key): entry_of(1, seq=2, value=older)}
    world.restart(0)
    world.write(0, "facts", b"present")
    world.link(0, 1)
    world.settle()
    assert world.converged
    held = world.replicas[1].entries[past.author, past.key]
    assert (held.value, held.seq) == (b"present", 6)
    assert world.replicas[0].reissues == 1


def test_a_register_not_written_since_the_start_is_learnt_back() -> None:
    world = World(2)
    past = entry_of(1, seq=5, value=b"past")
    world.perform(1, world.replicas[1].receive(signer_of(77).node_id, push(past), world.now))
    world.link(0, 1)
    world.settle()
    assert world.replicas[0].entries[past.author, past.key] == past
    assert past in world.stored[0]


@pytest.mark.parametrize(
    "disk",
    [
        (),  # Lost.
        (entry_of(1, seq=2),),  # Old.
        (entry_of(1, "links", seq=9),),  # Of another register only.
        (entry_of(1, seq=5, value=b"otherwise"),),  # Another life used the same number.
    ],
)
def test_an_own_entry_that_the_disk_does_not_know_is_noticed(disk: tuple[Entry, ...]) -> None:
    world = World(2)
    past = entry_of(1, seq=5)
    world.perform(1, world.replicas[1].receive(signer_of(77).node_id, push(past), world.now))
    world.restart(0, {(entry.author, entry.key): entry for entry in disk})
    world.link(0, 1)
    assert [replica.forgotten for replica in world.replicas] == [None, None]
    world.settle()
    assert [replica.forgotten for replica in world.replicas] == [past, None]
    world.restart(0)  # From here on the disk knows it, so whoever cares has to remember this.
    world.settle()
    assert world.replicas[0].forgotten is None


def test_a_new_life_that_wrote_at_once_still_notices_the_old_one() -> None:
    world = World(2)
    past = entry_of(1, seq=1, value=b"past")
    world.perform(1, world.replicas[1].receive(signer_of(77).node_id, push(past), world.now))
    world.write(0, "facts", b"present")
    world.link(0, 1)
    world.settle()
    assert world.replicas[0].forgotten == past


def test_own_entries_that_come_back_are_nothing_forgotten() -> None:
    world = World(2)
    world.link(0, 1)
    world.write(0, "facts", b"one")
    older = push(*world.stored[0])
    world.write(0, "facts", b"two")
    world.settle()
    world.restart(0)
    world.settle()
    newest = push(*world.replicas[1].entries.values())
    for frame in (older, newest):
        world.perform(0, world.replicas[0].receive(world.ids[1], frame, world.now))
    assert world.replicas[0].forgotten is None


def test_a_write_settles_what_was_contested() -> None:
    """The 65th re-issue of a moment has to wait; a write of that register need not."""
    world, replica, peer = lone_world()
    for index in range(65):
        world.write(0, f"x-{index}", b"present")
    past = [entry_of(1, f"x-{index}", seq=9, value=b"past") for index in range(65)]
    world.perform(0, replica.receive(peer, push(*past), world.now))
    assert replica.reissues == 64
    world.write(0, "x-64", b"newer")
    replica.tick(moment(world.at + 2.0))
    assert replica.reissues == 64
    assert {entry.seq for entry in replica.entries.values()} == {10}


def test_what_waits_to_be_issued_again_has_a_deadline() -> None:
    world, replica, peer = lone_world()
    for index in range(65):
        world.write(0, f"x-{index}", b"present")
    past = [entry_of(1, f"x-{index}", seq=9, value=b"past") for index in range(65)]
    world.perform(0, replica.receive(peer, push(*past), world.now))
    world.run(1.1)
    assert replica.reissues == 65
    assert {entry.seq for entry in replica.entries.values()} == {10}


def test_two_nodes_with_one_key_do_not_race() -> None:
    """A cloned disk: each goes on publishing above the other, once a second at most."""
    world = World(2)
    twin = World(1)
    key = f"node/{world.ids[0]}/facts"
    world.write(0, "facts", b"one")
    twin.write(0, "facts", b"two")
    peer = signer_of(77).node_id
    issued = 0
    for step in range(400):
        now = moment(100.0 + step / 10)
        for mine, theirs in ((world, twin), (twin, world)):
            frame = push(theirs.replicas[0].entries[theirs.ids[0], key])
            effects = mine.replicas[0].receive(peer, frame, now)
            effects += mine.replicas[0].tick(now)
            issued += sum(len(e.entries) for e in effects if isinstance(e, Store))
    assert 40 <= issued <= 2 * (64 + 40) + 2
    assert issued == world.replicas[0].reissues + twin.replicas[0].reissues
    assert world.ids[0] in {**world.replicas[0].equivocations, **twin.replicas[0].equivocations}


def test_the_end_of_numbers_is_not_reached_through_a_stolen_key() -> None:
    world, replica, peer = lone_world()
    world.write(0, "facts", b"mine")
    stolen = entry_of(1, seq=2**63 - 1, value=b"theirs")
    replica.receive(peer, push(stolen), world.now)
    world.write(0, "facts", b"still mine")
    assert [entry.value for entry in replica.get(stolen.key)] == [b"still mine"]


def test_a_liar_is_proven_and_all_agree_on_one_of_the_values() -> None:
    world = World(3)
    world.link(0, 1)
    world.link(1, 2)
    world.settle()
    lies = [entry_of(9, value=b"a"), entry_of(9, value=b"b")]
    peer = signer_of(77).node_id
    for index, lie in ((0, lies[0]), (2, lies[1])):
        world.perform(index, world.replicas[index].receive(peer, push(lie), world.now))
    world.settle()
    world.run(60.0)
    assert world.converged
    for replica in world.replicas:
        (kept,) = replica.get(lies[0].key)
        assert kept == max(lies, key=lambda entry: entry.digest)
    proofs = [set(replica.equivocations[lies[0].author]) for replica in world.replicas[:2]]
    assert proofs[0] == set(lies) or proofs[1] == set(lies)
    assert world.rejects == []


def test_an_author_with_too_many_keys_cannot_write() -> None:
    world = World(1)
    for index in range(AUTHOR_KEYS_MAX):
        world.write(0, f"x-{index}", b"")
    with pytest.raises(ValueError, match="more keys"):
        world.write(0, "x-more", b"")
    world.write(0, "x-0", b"changed")


def test_a_value_or_key_out_of_bounds_cannot_be_written() -> None:
    world = World(1)
    with pytest.raises(ValueError, match="65537 bytes"):
        world.write(0, "facts", b"x" * (64 * 1024 + 1))
    with pytest.raises(ValueError, match="a key of"):
        world.write(0, "x" * 128, b"")
    assert not world.replicas[0].entries


def test_time_alone_makes_rounds_of_15_s_give_or_take_a_quarter() -> None:
    world, replica, peer = lone_world()
    replica.receive(peer, encode_frame(Root(replica.root)), world.now)
    times = [world.at]
    while len(times) < 200:
        at = Instant(replica.deadline)
        effects = replica.tick(moment(at))
        if effects:
            assert [e.peer for e in effects if isinstance(e, Transmit)] == [peer]
            times.append(at)
    gaps = [b - a for a, b in pairwise(times)]
    assert 11.25 <= min(gaps) < 12.5
    assert 17.5 < max(gaps) <= 18.75
