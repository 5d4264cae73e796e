"""What k3s is told, for every seat and moment."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from meshd.node._orders import NOTHING, Standing, order_for, seat_in
from meshd.schema import K3sRecord
from tests.node import people

TOKENS = {"agent-token": b"a", "server-token": b"s"}
PLAN = people.plan(0, 1, 2)
CLAIMED = Standing(plan=PLAN)
STARTED = Standing(plan=PLAN, started=True)
FORMED = Standing(plan=PLAN, started=True, formed=True)


def test_nobody_is_told_anything_before_the_start_is_decided() -> None:
    for me in range(5):
        found = people.directory(me)
        found[people.IDS[0]].k3s = people.record(serves=0)
        for standing in (Standing(), CLAIMED):
            assert order_for(found, wish="auto", standing=standing, sealed=TOKENS) == NOTHING


def test_the_initialiser_starts_only_with_its_intent_on_disk() -> None:
    found = people.directory(0)
    assert order_for(found, wish="auto", standing=STARTED, sealed={}) == NOTHING
    leave = replace(STARTED, may_initialise=True)
    order = order_for(found, wish="auto", standing=leave, sealed={})
    assert (order.seat, order.formed, order.join) == ("initialiser", False, ())


def test_the_initialiser_of_a_formed_cluster_joins_others_should_it_lose_its_database() -> None:
    found = people.directory(0)
    found[people.IDS[2]].k3s = people.record(serves=2)
    order = order_for(found, wish="auto", standing=FORMED, sealed={})
    assert (order.seat, order.join) == ("initialiser", ("10.0.0.12",))
    found[people.IDS[2]].k3s = None
    assert order_for(found, wish="auto", standing=FORMED, sealed={}).join == (
        "10.0.0.11",
        "10.0.0.12",
    )


@pytest.mark.parametrize("missing", ["agent-token", "server-token", "endpoint"])
def test_a_server_waits_for_its_secrets_and_for_the_initialiser(missing: str) -> None:
    found = people.directory(1)
    if missing != "endpoint":
        found[people.IDS[0]].k3s = people.record(serves=0)
    sealed = {name: value for name, value in TOKENS.items() if name != missing}
    assert order_for(found, wish="auto", standing=STARTED, sealed=sealed) == NOTHING


def test_a_server_joins_the_initialiser_first_never_itself_never_the_vip() -> None:
    found = people.directory(1)
    for number in (0, 1, 2):
        found[people.IDS[number]].k3s = people.record(serves=number)
    order = order_for(found, wish="auto", standing=STARTED, sealed=TOKENS)
    assert (order.seat, order.join) == ("server", ("10.0.0.10", "10.0.0.12"))
    assert order.sealed == (("agent-token", b"a"), ("server-token", b"s"))


def test_a_server_seen_dead_is_left_out_while_another_answers() -> None:
    found = people.directory(1)
    for number in (0, 2):
        found[people.IDS[number]].k3s = people.record(serves=number)
    found[people.IDS[0]].link = "failed"
    order = order_for(found, wish="auto", standing=STARTED, sealed=TOKENS)
    assert order.join == ("10.0.0.12",)


def test_a_server_of_another_cluster_is_nobody_to_join() -> None:
    found = people.directory(1)
    found[people.IDS[0]].k3s = replace_cluster("d2" * 16)
    assert order_for(found, wish="auto", standing=STARTED, sealed=TOKENS) == NOTHING


def test_a_server_that_was_sent_before_starts_again_without_waiting_for_the_others() -> None:
    """After a power cut etcd answers only once a majority has started."""
    found = people.directory(1)
    found[people.IDS[1]].k3s = people.record("starting")
    order = order_for(found, wish="auto", standing=STARTED, sealed=TOKENS)
    assert (order.seat, order.join) == ("server", ("10.0.0.10", "10.0.0.12"))


def test_a_worker_waits_for_done_and_gets_no_server_token() -> None:
    found = people.directory(3)
    found[people.IDS[0]].k3s = people.record(serves=0)
    assert order_for(found, wish="auto", standing=STARTED, sealed=TOKENS) == NOTHING
    assert order_for(found, wish="auto", standing=FORMED, sealed={}) == NOTHING
    order = order_for(found, wish="auto", standing=FORMED, sealed=TOKENS)
    assert (order.seat, order.join, order.formed) == ("worker", ("10.0.0.10",), True)
    assert order.sealed == (("agent-token", b"a"),)


def test_a_node_that_wishes_no_role_gets_none_unless_the_plan_seats_it() -> None:
    found = people.directory(3)
    order = order_for(found, wish="none", standing=FORMED, sealed=TOKENS)
    assert (order.seat, order.formed) == ("none", True)
    assert seat_in(PLAN, people.IDS[3], "none") == "none"
    assert seat_in(PLAN, people.IDS[1], "none") == "server"
    assert seat_in(None, people.IDS[0], "auto") == "none"


def replace_cluster(cluster_id: str) -> K3sRecord:
    served = people.record(serves=0)
    return K3sRecord(
        state=served.state, seat=served.seat, cluster_id=cluster_id, endpoint=served.endpoint
    )


def test_an_order_to_join_says_which_version_the_first_server_runs() -> None:
    found = people.directory(1)
    found[people.IDS[0]].k3s = replace_version(people.record(serves=0), "v1.34.1+k3s1")
    found[people.IDS[2]].k3s = replace_version(people.record(serves=2), "v1.33.0+k3s1")
    order = order_for(found, wish="auto", standing=STARTED, sealed=TOKENS)
    assert (order.join[0], order.servers_version) == ("10.0.0.10", "v1.34.1+k3s1")


def replace_version(record: K3sRecord, version: str) -> K3sRecord:
    return msgspec.structs.replace(record, version=version)
