"""A server that lost its database: whose old member of etcd is removed, by whom, and when not."""

from __future__ import annotations

import msgspec
import pytest

from meshd.node import Directory
from meshd.node._orders import Standing, order_for
from meshd.node._removal import members_to_remove
from tests.node import people

PLAN = people.plan(0, 1, 2)
LOST = msgspec.structs.replace(people.record("failed"), lost_database=True)


def network(me: int, *, lost: tuple[int, ...] = (0,)) -> Directory:
    found = people.directory(me)
    for number in range(3):
        ready = people.record(serves=number)
        found[people.IDS[number]].k3s = LOST if number in lost else ready
    return found


def test_the_first_of_the_others_removes_it_and_nobody_else() -> None:
    removed = [members_to_remove(network(me), PLAN) for me in range(3)]
    assert removed == [(), (PLAN.seats[0].node_name,), ()]


def test_nothing_is_removed_while_all_have_their_databases() -> None:
    assert [members_to_remove(network(me, lost=()), PLAN) for me in range(3)] == [()] * 3


@pytest.mark.parametrize("link", ["failed", "left"])
def test_nothing_is_removed_while_another_server_is_away(link: str) -> None:
    found = network(1)
    found[people.IDS[2]].link = link  # type: ignore[assignment]  # One of LinkState.
    assert members_to_remove(found, PLAN) == ()


def test_nothing_is_removed_while_another_server_is_not_ready_or_lost_its_own() -> None:
    found = network(1)
    found[people.IDS[2]].k3s = people.record("starting")
    assert members_to_remove(found, PLAN) == ()
    assert [members_to_remove(network(me, lost=(0, 1, 2)), PLAN) for me in range(3)] == [()] * 3


def test_what_a_node_says_about_another_cluster_removes_nothing() -> None:
    found = network(1)
    found[people.IDS[0]].k3s = msgspec.structs.replace(LOST, cluster_id="ff" * 16)
    assert members_to_remove(found, PLAN) == ()


def test_only_servers_of_a_formed_cluster_are_told_to_remove() -> None:
    tokens = {"agent-token": b"a", "server-token": b"s"}
    names = (PLAN.seats[0].node_name,)
    for me, formed, expected in ((1, True, names), (1, False, ()), (4, True, ())):
        standing = Standing(plan=PLAN, started=True, formed=formed)
        order = order_for(network(me), wish="auto", standing=standing, sealed=tokens)
        assert order.remove == expected
