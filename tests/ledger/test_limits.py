"""Every limit holds, holds against neighbours of honest replicas, and does not stop convergence."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ledger import Entry, Reject, Store, encode_entry
from ledger import _registers as registers_module
from ledger._limits import AUTHOR_KEYS_MAX, AUTHOR_MAX_BYTES, TokenBucket
from ledger._messages import Bulk, Push, encode_frame
from ledger._registers import Registers
from tests.ledger.world import World, entry_of, moment, signer_of

PEER = signer_of(77).node_id


def feed(world: World, index: int, entries: Iterable[Entry]) -> None:
    """Hand entries to a node as the answers of a peer, a few in each frame."""
    encoded = [encode_entry(entry) for entry in entries]
    for start in range(0, len(encoded), 3):
        frame = encode_frame(Bulk(tuple(encoded[start : start + 3]), more=False))
        world.perform(index, world.replicas[index].receive(PEER, frame, world.now))


def test_an_author_gets_a_thousand_keys_and_not_one_more() -> None:
    world = World(1)
    feed(world, 0, (entry_of(9, f"x-{i}") for i in range(AUTHOR_KEYS_MAX + 1)))
    assert len(world.replicas[0].entries) == AUTHOR_KEYS_MAX
    feed(world, 0, [entry_of(9, "x-0", seq=2, value=b"new"), entry_of(8)])
    assert [e.value for e in world.stored[0][-2:]] == [b"new", b"v"]
    assert world.rejects == []


def test_a_tombstone_counts_as_a_key() -> None:
    world = World(1)
    feed(world, 0, (entry_of(9, f"x-{i}", value=None) for i in range(AUTHOR_KEYS_MAX + 1)))
    assert len(world.replicas[0].entries) == AUTHOR_KEYS_MAX


def test_the_keys_in_one_frame_count_too() -> None:
    world = World(1)
    encoded = tuple(encode_entry(entry_of(9, f"x-{i}")) for i in range(AUTHOR_KEYS_MAX + 5))
    frame = encode_frame(Bulk(encoded, more=False))
    world.perform(0, world.replicas[0].receive(PEER, frame, world.now))
    assert len(world.replicas[0].entries) == AUTHOR_KEYS_MAX


def test_an_author_gets_four_mebibytes_and_can_still_shrink() -> None:
    world = World(1)
    feed(world, 0, (entry_of(9, f"x-{i}", value=bytes(64 * 1024)) for i in range(70)))
    held = list(world.replicas[0].entries.values())
    size = sum(len(encode_entry(entry)) for entry in held)
    assert AUTHOR_MAX_BYTES - 66 * 1024 < size <= AUTHOR_MAX_BYTES
    feed(world, 0, [entry_of(9, "x-0", seq=2, value=b""), entry_of(9, "x-69", value=b"fits now")])
    assert [e.value for e in world.stored[0][-2:]] == [b"", b"fits now"]


def test_authors_beyond_the_limit_are_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers_module, "AUTHORS_MAX", 4)
    world = World(2)
    feed(world, 0, (entry_of(author) for author in range(10, 16)))
    assert len({author for author, _ in world.replicas[0].entries}) == 4
    feed(world, 0, [entry_of(10, seq=2, value=b"known authors go on")])
    assert world.stored[0][-1].seq == 2


def test_the_size_kept_for_the_limit_is_that_of_the_entries() -> None:
    registers = Registers()
    author = entry_of(9).author
    for seq, value in ((1, bytes(5000)), (2, b""), (3, None), (4, bytes(100))):
        registers.merge(entry_of(9, "a", seq=seq, value=value))
        registers.merge(entry_of(9, "b", seq=seq, value=value))
    size = sum(len(encode_entry(entry)) for entry in registers.all.values())
    assert registers.has_room(author, "c", AUTHOR_MAX_BYTES - size)
    assert not registers.has_room(author, "c", AUTHOR_MAX_BYTES - size + 1)


def test_an_author_over_its_limit_costs_its_neighbours_no_endless_pulls() -> None:
    """Two replicas hold different thousands of one author's keys; neither can take the others'."""
    world = World(2)
    feed(world, 0, (entry_of(9, f"x-{i}") for i in range(AUTHOR_KEYS_MAX)))
    feed(world, 1, (entry_of(9, f"y-{i}") for i in range(AUTHOR_KEYS_MAX)))
    world.link(0, 1)
    world.settle()
    before = world.sent_bytes
    world.run(300.0)
    assert world.sent_bytes - before < 40 * 200  # Roots and digests of some 40 rounds.
    assert world.rejects == []


def test_more_pushes_than_an_author_may_make_wait_for_the_next_exchange() -> None:
    world = World(2)
    world.link(0, 1)
    world.settle()
    for index in range(150):
        world.write(0, f"x-{index}", b"v")
        while world.frames:
            world.deliver()
    assert len(world.replicas[1].entries) == 100
    world.run(19.0)
    assert world.converged
    assert len(world.replicas[1].entries) == 150
    assert world.rejects == []


def test_pushes_at_a_lawful_pace_all_pass() -> None:
    world = World(2)
    world.link(0, 1)
    for index in range(300):
        world.at = 100.0 + index / 50
        world.write(0, f"x-{index}", b"v")
        while world.frames:
            world.deliver()
        assert world.converged


def test_a_forger_does_not_use_up_its_victims_pace() -> None:
    world = World(1)
    encoded = encode_entry(entry_of(9))
    forged = encode_frame(Push((encoded[:-1] + bytes([encoded[-1] ^ 1]),) * 8))
    for _ in range(50):
        world.perform(0, world.replicas[0].receive(PEER, forged, world.now))
    assert len(world.rejects) == 50
    genuine = encode_frame(Push((encoded,)))
    store, *_ = world.replicas[0].receive(PEER, genuine, world.now)
    assert isinstance(store, Store)


def test_an_answer_larger_than_the_burst_goes_on_at_the_allowed_rate() -> None:
    world = World(2)
    entries = [
        entry_of(author, f"x-{i}", value=bytes(60_000))
        for author in range(10, 15)
        for i in range(60)
    ]
    world.disks[0] = {(entry.author, entry.key): entry for entry in entries}  # 18 MB in all.
    world.restart(0)
    world.link(0, 1)
    started = world.at
    world.settle()
    at_once = sum(len(encode_entry(entry)) for entry in world.stored[1])
    assert at_once <= 9 * 1024 * 1024
    while not world.converged:
        assert world.at - started < 10.0
        world.run(0.1)
    assert world.at - started > 1.5
    before = world.sent_bytes
    world.run(5.0)
    assert world.sent_bytes - before < 200  # Nothing is served any more.
    assert world.rejects == []


def test_a_token_bucket_gives_its_burst_and_then_its_rate() -> None:
    start = moment(5.0).at
    bucket = TokenBucket(10.0, 20.0, start)
    assert [bucket.take(1.0, start) for _ in range(21)] == [True] * 20 + [False]
    ready = bucket.ready_at(5.0, start)
    assert 5.5 <= ready <= 5.51
    assert not bucket.has(5.0, moment(5.49).at)
    assert bucket.take(5.0, ready)
    assert bucket.has(20.0, moment(100.0).at)
    assert not bucket.has(20.1, moment(1000.0).at)


def test_rejections_name_the_peer_that_sent_not_the_author() -> None:
    world = World(1)
    frame = encode_frame(Push((encode_entry(entry_of(9))[:-1],)))
    (effect,) = world.replicas[0].receive(PEER, frame, world.now)
    assert isinstance(effect, Reject)
    assert effect.peer == PEER


def test_an_author_at_its_limit_can_replace_a_value_by_one_as_large() -> None:
    world = World(1)
    feed(world, 0, (entry_of(9, f"x-{i}", value=bytes(64 * 1024)) for i in range(70)))
    feed(world, 0, [entry_of(9, "x-0", seq=2, value=b"\x01" * (64 * 1024))])
    assert world.stored[0][-1].seq == 2
