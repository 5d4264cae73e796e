"""Whom to dial, which connection stays, and who may wait at the door: all without I/O."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from ledger import NodeId
from meshd.config.multiaddress import parse_tcp_address
from meshd.mesh.admission import Admission, DoorFull, prefix_of
from meshd.mesh.book import AddressBook
from meshd.mesh.choice import supersedes
from meshd.mesh.neighbours import RINGS_MAX, ring_of, wanted_peers
from meshd.mesh.refusals import Refusals

OWN, PEER = NodeId("b-own"), NodeId("c-peer")
HERE = parse_tcp_address("/ip4/10.0.0.1/tcp/7946")
THERE = parse_tcp_address("/ip4/10.0.0.2/tcp/7946")


def test_back_off_doubles_from_one_second_to_thirty_and_ends_with_success() -> None:
    book = AddressBook(OWN, Random(1))
    book.learn(PEER, [HERE], "beacon")
    now, pauses = 0.0, []
    for _ in range(10):
        assert book.due([PEER], now) == [PEER]
        book.began(PEER, now)
        assert book.due([PEER], now) == []
        book.failed(PEER, now, "refused")
        pauses.append(book.next_due([PEER]) - now)
        now = book.next_due([PEER])
    for pause, nominal in zip(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30], strict=True):
        assert 0.75 * nominal <= pause <= 1.25 * nominal
    assert book.failing(PEER)
    book.began(PEER, now)
    book.reached(PEER, PEER)
    assert not book.failing(PEER)
    assert book.due([PEER], now) == [PEER]


def test_a_peer_that_is_heard_of_is_dialled_soon_whatever_the_back_off() -> None:
    book = AddressBook(OWN, Random(1))
    book.learn(PEER, [HERE], "beacon")
    for now in range(10):
        book.began(PEER, now)
        book.failed(PEER, now, "refused")
    book.hurry(PEER, 9.5)
    assert book.next_due([PEER]) > 10  # But not twice in a second.
    book.hurry(PEER, 20.0, delay_s=0.3)
    assert book.next_due([PEER]) == 20.3


def test_the_newest_addresses_are_kept_and_own_ones_never() -> None:
    book = AddressBook(OWN, Random(1))
    assert book.learn(PEER, [HERE], "beacon")
    assert book.learn(PEER, [THERE], "beacon")
    assert not book.learn(PEER, [HERE], "beacon")
    assert book[PEER].addresses == [HERE, THERE]
    many = [parse_tcp_address(f"/ip4/10.1.0.{n}/tcp/1") for n in range(40)]
    book.learn(PEER, many, "beacon")
    assert book[PEER].addresses == many[:16]
    assert not book.learn(OWN, [HERE], "beacon")
    assert book.peers() == [PEER]


names = st.lists(st.integers(0, 999).map(lambda n: NodeId(f"n{n:03}")), unique=True, min_size=2)


def reached_over(choose: Callable[[NodeId], set[NodeId]], start: NodeId) -> set[NodeId]:
    reached, new = set(), {start}
    while new:
        reached |= new
        new = set().union(*map(choose, new)) - reached
    return reached


@given(names, st.integers(0, RINGS_MAX - 1))
def test_each_ring_alone_connects_everyone(peers: list[NodeId], ring: int) -> None:
    assert reached_over(lambda peer: ring_of(peer, peers, ring), peers[0]) == set(peers)


@given(names)
def test_few_are_all_neighbours_and_of_many_six_or_seven(peers: list[NodeId]) -> None:
    own, known = peers[0], peers[1:]
    wanted = wanted_peers(own, known=known, failing=set())
    assert wanted == sorted(wanted)
    assert set(wanted) <= set(known)
    if len(known) <= 7:
        assert set(wanted) == set(known)
    else:
        assert 6 <= len(wanted) <= 7
        assert ring_of(own, known) <= set(wanted)


@pytest.mark.parametrize(("nodes", "links_max"), [(10, 8), (30, 9), (200, 9)])
def test_nodes_that_know_the_same_choose_each_other(nodes: int, links_max: int) -> None:
    everyone = [NodeId(f"n{n:03}") for n in range(nodes)]
    chosen = {one: set(wanted_peers(one, known=everyone, failing=set())) for one in everyone}
    links = {frozenset((one, peer)) for one in everyone for peer in chosen[one]}
    mutual = [link for link in links if all(link - {one} <= chosen[one] for one in link)]
    assert len(mutual) >= 0.75 * len(links)
    assert max(sum(one in link for link in links) for one in everyone) <= links_max
    far = reached_over(lambda one: {n for link in links if one in link for n in link}, everyone[0])
    assert far == set(everyone)


def test_one_more_node_changes_few_links() -> None:
    everyone = [NodeId(f"n{n:03}") for n in range(30)]
    more = [*everyone, NodeId("newcomer")]
    changed = 0
    for one in everyone:
        before = set(wanted_peers(one, known=everyone, failing=set()))
        changed += len(before - set(wanted_peers(one, known=more, failing=set())))
    assert changed <= 10


def test_a_neighbour_that_cannot_be_reached_is_replaced_and_tried_again() -> None:
    own, known = NodeId("n00"), [NodeId(f"n{n:02}") for n in range(1, 20)]
    first = wanted_peers(own, known=known, failing=set())
    failing = {first[0], next(peer for peer in known if peer not in first)}
    wanted = wanted_peers(own, known=known, failing=failing)
    assert failing & set(wanted) == {first[0]}
    assert len(set(wanted) - failing) >= 6


def test_a_dial_gives_way_three_times() -> None:
    book = AddressBook(OWN, Random(1))
    book.learn(PEER, [HERE], "beacon")
    for now in (1.0, 2.0, 3.0):
        assert book.give_way(PEER, now)
        assert book.next_due([PEER]) == now
    assert not book.give_way(PEER, 4.0)
    book.began(PEER, 4.0)
    book.failed(PEER, 4.0, "refused")
    assert book.give_way(PEER, 5.0)


@given(st.booleans(), st.booleans(), st.floats(0, 100))
def test_both_ends_keep_the_same_one_of_two_connections(
    old_by_own: bool,  # noqa: FBT001  (Hypothesis passes it by position)
    new_by_own: bool,  # noqa: FBT001
    age_s: float,
) -> None:
    here = supersedes(
        own=OWN, peer=PEER, old_dialled=old_by_own, new_dialled=new_by_own, old_age_s=age_s
    )
    there = supersedes(
        own=PEER, peer=OWN, old_dialled=not old_by_own, new_dialled=not new_by_own, old_age_s=age_s
    )
    assert here == there
    if old_by_own == new_by_own or age_s > 10:
        assert here  # The newest.
    else:
        assert here is new_by_own  # OWN is the lower id, so what it dialled stays.


def test_crossed_dials_end_alike_in_whichever_order_they_are_seen() -> None:
    for dialled_first in (True, False):
        replaced = supersedes(
            own=OWN,
            peer=PEER,
            old_dialled=dialled_first,
            new_dialled=not dialled_first,
            old_age_s=0.1,
        )
        stays_dialled = (not dialled_first) if replaced else dialled_first
        assert stays_dialled is True


@pytest.mark.parametrize(
    ("host", "same"),
    [
        ("10.1.2.3", "10.1.2.200"),
        ("2001:db8::1", "2001:db8::ffff:1"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        ("::ffff:10.1.2.3", "10.1.2.9"),
    ],
)
def test_one_machine_cannot_pass_for_many(host: str, same: str) -> None:
    assert prefix_of(host) == prefix_of(same)
    assert prefix_of(host) != prefix_of("192.0.2.1")


async def test_four_of_one_prefix_are_inside_and_the_next_waits_its_turn(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    door = Admission()
    came_in: list[tuple[str, float]] = []

    async def visit(host: str, stay_s: float) -> None:
        try:
            async with door.place(host):
                came_in.append((host, trio.current_time()))
                assert door.greets(host)
                await trio.sleep(stay_s)
        except DoorFull:
            came_in.append(("full", trio.current_time()))

    started = trio.current_time()
    async with trio.open_nursery() as visitors:
        for n in range(5):
            visitors.start_soon(visit, f"10.0.0.{n}", 2.0)
        visitors.start_soon(visit, "10.0.1.1", 2.0)
    assert sorted(at - started for _, at in came_in) == [0, 0, 0, 0, 0, pytest.approx(2.0)]
    assert door.inside == 0
    assert not door.greets("10.0.0.0")


async def test_who_finds_the_waiting_room_full_or_waits_long_is_turned_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    door = Admission()
    refused = 0

    async def visit() -> None:
        nonlocal refused
        try:
            async with door.place("10.0.0.1"):
                await trio.sleep(100)
        except DoorFull:
            refused += 1

    async with trio.open_nursery() as visitors:
        for _ in range(50):
            visitors.start_soon(visit)
        await trio.sleep(1)
        assert refused == 50 - 4 - 32
        await trio.sleep(4)
        assert refused == 50 - 4
        visitors.cancel_scope.cancel()


WRONG = "its proof is not made with our token"


def test_refusals_are_counted_by_peer_and_shown_for_ten_minutes() -> None:
    refusals = Refusals()
    assert refusals.add(["10.0.0.9"], PEER, WRONG, 1.0, other_token=True)
    assert not refusals.add(["10.0.0.9"], PEER, WRONG, 2.0, other_token=True)
    assert [refusal.count for refusal in refusals.all] == [2]
    (item,) = refusals.health(seeking=False, now=3.0)
    assert (item.code, item.severity) == ("MESH-3101", "warning")
    assert item.message == f"a machine at 10.0.0.9 has another token: {WRONG}"
    assert refusals.health(seeking=False, now=603.0) == ()


def test_a_machine_that_gets_the_right_token_is_named_no_more() -> None:
    refusals = Refusals()
    refusals.add(["10.0.0.9", "fd00::9"], PEER, WRONG, 1.0, other_token=True)
    refusals.add(["10.0.0.8"], NodeId("d-other"), WRONG, 1.0, other_token=True)
    assert refusals.health(seeking=False, now=2.0)[0].message.startswith(
        "machines at 10.0.0.8, 10.0.0.9, fd00::9 have another token"
    )
    refusals.forgive(["fd00::9"])  # With its new token it may well have a new identity.
    assert "10.0.0.9" not in refusals.health(seeking=False, now=2.0)[0].message
    refusals.forgive(["10.0.0.8"])
    assert refusals.health(seeking=False, now=2.0) == ()


def test_a_peer_that_broke_the_protocol_is_not_said_to_have_another_token() -> None:
    refusals = Refusals()
    refusals.add(["10.0.0.9"], PEER, "it broke the protocol too often", 1.0, other_token=False)
    assert [item.code for item in refusals.health(seeking=False, now=2.0)] == ["MESH-3104"]


def test_another_network_nearby_is_told_once_and_matters_only_while_nobody_is_found() -> None:
    refusals = Refusals()
    assert refusals.hear_foreign("10.0.0.9", 1.0)
    assert not refusals.hear_foreign("10.0.0.9", 1.5)
    assert not refusals.hear_foreign("fe80::9%eth0", 1.5)  # The same machine, for all we know.
    assert Refusals().hear_foreign("fe80::9%eth0", 1.5)
    assert refusals.health(seeking=False, now=2.0) == ()
    assert refusals.health(seeking=True, now=2.0)[0].code == "MESH-3102"
