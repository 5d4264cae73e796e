"""What an exchange costs, counted in bytes of frames, and whom it asks."""

from __future__ import annotations

from random import Random

from ledger import Entry, Transmit, encode_entry
from ledger._messages import Bulk, Digests, Pull, Root, decode_frame, encode_frame
from tests.ledger.world import World, entry_of

COLD_ENTRIES = 3000


def cold_entries() -> list[Entry]:
    """Return 3000 entries by 1000 nodes, in the sizes that facts, links and k3s records have."""
    rng = Random(3)
    return [
        entry_of(author, name, value=rng.randbytes(size))
        for author in range(1000, 2000)
        for name, size in (("facts", 400), ("links", 150), ("k3s", 150))
    ]


def fill(world: World, index: int, entries: list[Entry]) -> None:
    """Put entries on a node's disk and start it from there."""
    world.disks[index] = {(entry.author, entry.key): entry for entry in entries}
    world.restart(index)


def test_a_cold_synchronisation_costs_little_more_than_its_payload() -> None:
    entries = cold_entries()
    assert len(entries) == COLD_ENTRIES
    payload = sum(len(encode_entry(entry)) for entry in entries)
    world = World(2)
    fill(world, 0, entries)
    world.link(0, 1)
    world.settle()
    assert world.converged
    assert world.sent_bytes <= 1.05 * payload


def test_a_newcomer_with_seven_neighbours_fetches_the_ledger_once() -> None:
    entries = cold_entries()[:600]
    payload = sum(len(encode_entry(entry)) for entry in entries)
    world = World(8)
    for index in range(7):
        fill(world, index, entries)
    for index in range(7):
        world.link(index, 7)
    world.run(10.0)
    assert world.converged
    assert world.sent_bytes <= 1.5 * payload


def test_many_news_reach_the_neighbours_of_the_one_that_pulled_them() -> None:
    """A chain: nobody pushes hundreds of entries, but nobody waits for a round either."""
    world = World(4)
    for index in range(3):
        world.link(index, index + 1)
    world.settle()
    world.cut(0, 1)
    fill(world, 0, cold_entries()[:300])
    world.link(0, 1)
    world.run(2.0)
    assert world.converged


def test_equal_replicas_exchange_one_frame_of_37_bytes_per_round() -> None:
    world = World(2)
    world.link(0, 1)
    world.write(0, "facts", b"v")
    world.settle()
    before = world.sent_bytes
    world.at = max(replica.deadline for replica in world.replicas)
    world.settle()
    assert world.sent_bytes - before == 2 * 37  # Each of the two began a round.


def test_one_changed_entry_among_thousands_is_found_for_little() -> None:
    entries = cold_entries()[:900]
    world = World(2)
    for index in (0, 1):
        fill(world, index, entries)
    fill(world, 0, [*entries[1:], entry_of(1000, seq=2, value=b"changed")])
    world.link(0, 1)
    world.settle()
    assert world.converged
    digests = 300 * 12
    assert world.sent_bytes < digests + 1500


def test_of_two_greetings_that_cross_one_is_answered() -> None:
    world = World(2)
    world.write(0, "facts", b"v")
    world.write(1, "facts", b"v")
    world.link(0, 1)
    kinds = []
    while world.frames:
        kinds.append(type(decode_frame(world.frames[0].content)))
        world.deliver()
    assert kinds.count(Root) == 2
    assert kinds.count(Digests) == 2  # All that one has, and what the other has besides.
    assert kinds.count(Pull) == 2
    assert world.converged


def test_a_greeting_is_answered_though_the_other_side_saw_no_new_connection() -> None:
    for restarted in (0, 1):
        world = World(2)
        world.link(0, 1)
        world.settle()
        world.replicas[restarted] = World(2, seed=1).replicas[restarted]
        world.write(restarted, "facts", b"after")
        other = world.ids[1 - restarted]
        effects = world.replicas[restarted].connected(other, world.now)
        world.perform(restarted, effects)
        world.settle()
        assert world.converged


def test_a_peer_that_promises_and_does_not_deliver_delays_by_three_seconds() -> None:
    world = World(3)
    fill(world, 0, cold_entries()[:10])
    fill(world, 1, cold_entries()[:10])
    world.link(0, 2)
    world.settle_until_pull(2)
    world.frames = []  # All of it lost, the question included.
    world.link(1, 2)
    world.settle()
    assert not world.converged
    world.run(3.1)
    assert world.converged


def test_a_pull_from_a_peer_that_left_goes_to_another_at_once() -> None:
    world = World(3)
    fill(world, 0, cold_entries()[:10])
    fill(world, 1, cold_entries()[:10])
    world.link(0, 2)
    world.settle_until_pull(2)
    stuck = list(world.frames)
    world.frames = []
    world.link(1, 2)
    while world.frames:
        world.deliver()
    assert not world.converged
    assert stuck
    world.cut(0, 2)
    world.run(0.1)
    assert world.converged


def test_endless_promises_of_more_end() -> None:
    """A peer that always has more, and never anything new, is left after three seconds."""
    world = World(2)
    fill(world, 1, cold_entries()[:10])
    liar = entry_of(77).author
    replica = world.replicas[0]
    replica.connected(liar, world.now)
    promise = Digests(salt=bytes(8), full=False, items=b"\xff" * 12)
    (pull,) = replica.receive(liar, encode_frame(promise), world.now)
    assert isinstance(pull, Transmit)
    assert isinstance(decode_frame(pull.frame), Pull)
    world.link(0, 1)
    while world.at < 104.0:
        world.at += 0.5
        more = encode_frame(Bulk((), more=True))
        world.perform(0, replica.receive(liar, more, world.now))
        world.settle()
    assert world.converged


def test_a_lost_exchange_with_the_only_neighbour_is_begun_again_within_seconds() -> None:
    world = World(2)
    fill(world, 0, cold_entries()[:10])
    world.link(0, 1)
    world.settle_until_pull(1)
    world.frames = []
    world.run(4.5)
    assert world.converged


def test_what_does_not_fit_into_one_pull_is_asked_for_in_the_next() -> None:
    """Two authors differ, each with so many keys that their lists need a frame of their own."""
    world = World(2)
    old = [entry_of(author, f"x-{i}") for author in (1000, 1001) for i in range(999)]
    fill(world, 1, old)
    fill(world, 0, [*old, *(entry_of(author, "facts") for author in (1000, 1001))])
    world.link(0, 1)
    world.settle()
    assert world.converged


def test_a_neighbour_is_caught_up_with_once_all_it_held_is_here_and_while_it_is_connected() -> None:
    world = World(3)
    fill(world, 0, cold_entries()[:30])
    world.link(0, 1)
    assert not world.replicas[1].caught_up
    world.settle()
    assert world.replicas[1].caught_up == (world.ids[0],)
    world.run(20.0)  # Whoever had more learns at the next round that the other has no more.
    assert world.replicas[0].caught_up == (world.ids[1],)
    world.cut(0, 1)
    assert not world.replicas[1].caught_up
