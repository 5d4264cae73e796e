"""`bootstrap reset` in the core: when it is refused, and what every node makes of one."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from meshd.errors import MeshdError
from meshd.events import MembershipReset
from meshd.node import Directory, propose_reset
from meshd.node._orders import Standing, order_for, seat_in, servers_to_join
from meshd.node._resets import reset_entry, reset_health, reset_notes, reset_text, utc
from meshd.schema import K3sRecord, LinkRecord
from roles.resets import Reset, Succession, follow, origin_of, read_reset
from tests.node import people

PLAN = people.plan(0, 1, 2)
FORMED = Standing(plan=PLAN, started=True, formed=True)
TOKENS = {"agent-token": b"a", "server-token": b"s"}
NETWORK = "oak-1"


def network(me: int, *, heard: tuple[int, ...] = (), size: int = 5) -> Directory:
    """Return a directory in which `me` hears only these."""
    found = people.directory(me, size)
    for number in range(size):
        if number not in (me, *heard):
            known = found[people.IDS[number]]
            known.connected, known.link = False, "failed"
    return found


def refusal(
    found: Directory, *dead: str, standing: Standing = FORMED, answers: bool = False
) -> str:
    with pytest.raises(MeshdError) as caught:
        propose_reset(found, standing, api_answers=answers, confirm_dead=dead)
    return f"{caught.value.code} {caught.value.exit_code} {caught.value.what}"


def done(me: int, *alive: int, standing: Standing = FORMED, ends: tuple[Reset, ...] = ()) -> Reset:
    """Return the record of a reset on `me` that left these beside it."""
    plan = standing.plan
    assert plan is not None
    seats = {seat.node: seat for seat in plan.seats}
    kept = tuple(seats[people.IDS[n]] for n in (me, *alive))
    epoch = max([standing.epoch, *(one.record.epoch for one in ends)]) + 1
    event = MembershipReset(
        epoch=epoch,
        cluster_id=plan.cluster_id,
        before=standing.succession.head or origin_of(plan),
        seats=kept,
        dead=tuple(node for node in seats if node not in {seat.node for seat in kept}),
        by="anna",
        at_ms=1_795_715_760_000,
        ended=tuple(one.digest for one in ends),
    )
    key, value = reset_entry(people.SIGNERS[me], NETWORK, event)
    assert key == f"cluster/seats/{epoch}"
    return read_reset(value, network_id=NETWORK)


def after(me: int, *resets: Reset, held: bytes = b"") -> Standing:
    """Return where a node stands that knows these."""
    known = {reset.digest: reset for reset in resets}
    found = follow(PLAN, known, held=held, me=people.IDS[me])
    return replace(FORMED, plan=found.plan, succession=found)


def serving(number: int, standing: Standing, *, epoch: int | None = None) -> K3sRecord:
    """Return the record of a server that answers, and follows what `standing` follows."""
    return msgspec.structs.replace(
        people.record(serves=number),
        epoch=standing.epoch if epoch is None else epoch,
        seats=standing.succession.head.hex(),
    )


def test_the_survivor_of_three_names_both_others_dead() -> None:
    found = propose_reset(network(2), FORMED, api_answers=False, confirm_dead=["n0", "n1-00000001"])
    assert (found.cluster_id, found.base, found.epoch) == (PLAN.cluster_id, 0, 1)
    assert found.before == origin_of(PLAN)
    assert (found.seats, found.dead) == (PLAN.seats[2:], PLAN.seats[:2])


def test_who_is_heard_keeps_its_seat() -> None:
    wide = Standing(plan=people.plan(0, 1, 2, 3, 4), started=True, formed=True)
    dead = [people.IDS[n] for n in (0, 1, 3)]
    found = propose_reset(network(2, heard=(4,)), wide, api_answers=False, confirm_dead=dead)
    assert [seat.node for seat in found.seats] == [people.IDS[2], people.IDS[4]]


def test_it_is_refused_before_the_cluster_has_formed_and_without_a_seat() -> None:
    early = replace(FORMED, formed=False)
    assert refusal(network(2), "n0", "n1", standing=early).startswith("MESH-4020 4")
    assert refusal(network(3), "n0", "n1").startswith("MESH-4020 4")


def test_a_living_server_is_not_named_dead() -> None:
    assert refusal(network(2, heard=(1,)), "n0", "n1") == (
        "MESH-4022 1 n1 is named dead, and is heard: its meshd runs"
    )
    assert refusal(network(2), "n0", "n2").startswith("MESH-4022 1 n2 is this node itself")


def test_a_server_heard_through_others_lives() -> None:
    found = network(2, heard=(3,))
    links = found[people.IDS[3]]
    links.neighbours = (LinkRecord(peer=people.IDS[1], path="direct", rtt_class_ms=1),)
    assert refusal(found, "n0", "n1").startswith("MESH-4022 1 n1")


def test_every_silent_server_must_be_named() -> None:
    assert refusal(network(2), "n0") == (
        "MESH-4023 1 n1 has a seat, is not heard, and is not named dead: it may be alive where "
        "this node does not see it, and serve"
    )


@pytest.mark.parametrize("name", ["n3", "n4-00000004", "nobody"])
def test_only_seats_can_be_given_up(name: str) -> None:
    assert refusal(network(2), "n0", "n1", name).startswith("MESH-4027 2")


def test_nothing_is_reset_that_serves_or_can_repair_itself() -> None:
    assert refusal(network(2), "n0", "n1", answers=True).startswith("MESH-4021 1 the API server")
    found = network(2, heard=(1,))
    assert refusal(found, "n0") == (
        "MESH-4021 1 this node and n1 are 2 of 3 seats: etcd can have its majority again"
    )
    found[people.IDS[1]].k3s = people.record(serves=1)
    assert "the API server of n1 answers" in refusal(found, "n0")


def test_the_last_word_of_a_dead_server_does_not_count() -> None:
    found = network(2)
    found[people.IDS[1]].k3s = people.record(serves=1)
    assert propose_reset(found, FORMED, api_answers=False, confirm_dead=["n0", "n1"]).epoch == 1


def test_one_reset_at_a_time() -> None:
    found = network(2, heard=(3,))
    record = msgspec.structs.replace(
        people.record("waiting"), resetting=1, cluster_id=PLAN.cluster_id
    )
    found[people.IDS[3]].k3s = record  # No server: nobody asks what it says of resets.
    assert propose_reset(found, FORMED, api_answers=False, confirm_dead=["n0", "n1"]).epoch == 1
    found[people.IDS[2]].k3s = record
    assert refusal(found, "n0", "n1").startswith("MESH-4026 1 a reset is under way on n2")


def test_of_two_nodes_that_begin_at_the_same_time_one_gives_way() -> None:
    lower, higher = network(1, heard=(2,)), network(2, heard=(1,))
    for found in (lower, higher):
        for number in (1, 2):
            record = msgspec.structs.replace(
                people.record("waiting"), resetting=1, cluster_id=PLAN.cluster_id
            )
            found[people.IDS[number]].k3s = record
    rivals = [
        order_for(found, wish="auto", standing=FORMED, sealed=TOKENS).rival
        for found in (lower, higher)
    ]
    assert rivals == [None, "n1"]


def test_the_survivor_serves_alone_and_removes_the_nodes_of_the_dead_once() -> None:
    standing = after(2, done(2))
    found = network(2)
    order = order_for(found, wish="auto", standing=standing, sealed=TOKENS)
    assert (order.seat, order.join, order.epoch, order.survivor) == ("server", (), 1, True)
    assert order.remove == ("n0-00000000", "n1-00000001")
    found[people.IDS[2]].k3s = msgspec.structs.replace(people.record(), epoch=1)
    assert order_for(found, wish="auto", standing=standing, sealed=TOKENS).remove == ()


def test_the_dead_come_back_as_workers_once_the_survivor_serves() -> None:
    for me in (0, 1):
        standing = after(me, done(2))
        found = network(me, heard=(2,))
        for epoch, now in ((0, False), (1, True)):
            found[people.IDS[2]].k3s = serving(2, standing, epoch=epoch)
            order = order_for(found, wish="auto", standing=standing, sealed=TOKENS)
            assert (order.seat, order.join) == ("worker", ("10.0.0.12",))
            assert order.retire is not None
            assert (order.retire.epoch, order.retire.wholly, order.retire.now) == (1, True, now)
            assert (order.survivor, order.remove) == (False, ())


def test_who_keeps_its_seat_joins_the_survivor_with_an_empty_database() -> None:
    wide = people.plan(0, 1, 2, 3, 4)
    first = done(2, 4, standing=replace(FORMED, plan=wide))
    succession = follow(wide, {first.digest: first}, held=b"", me=people.IDS[4])
    standing = replace(FORMED, plan=succession.plan, succession=succession)
    found = network(4, heard=(2,))
    found[people.IDS[2]].k3s = serving(2, standing)
    order = order_for(found, wish="auto", standing=standing, sealed=TOKENS)
    assert (order.seat, order.join) == ("server", ("10.0.0.12",))
    assert order.retire is not None
    assert (order.retire.wholly, order.retire.now) == (False, True)


def test_a_worker_is_left_as_it_is() -> None:
    found = network(3, heard=(2,))
    before = order_for(found, wish="auto", standing=FORMED, sealed=TOKENS)
    order = order_for(found, wish="auto", standing=after(3, done(2)), sealed=TOKENS)
    assert (before.seat, order.seat) == ("worker", "worker")
    assert order.join == ("10.0.0.12",)


def test_an_initialiser_that_was_given_up_is_a_worker() -> None:
    standing = after(0, done(2))
    assert seat_in(standing.plan, people.IDS[0], "auto") == "worker"
    assert seat_in(standing.plan, people.IDS[2], "auto") == "server"


def test_from_a_snapshot_it_may_be_while_all_are_heard_and_no_server_answers() -> None:
    heard = network(2, heard=(0, 1))
    found = propose_reset(heard, FORMED, api_answers=False, confirm_dead=(), restores=True)
    assert (found.seats, found.dead) == ((PLAN.seats[2], *PLAN.seats[:2]), ())
    with pytest.raises(MeshdError, match="answers, so etcd has its majority"):
        propose_reset(heard, FORMED, api_answers=True, confirm_dead=(), restores=True)
    with pytest.raises(MeshdError, match="is not heard, and is not named dead"):
        propose_reset(network(2), FORMED, api_answers=False, confirm_dead=(), restores=True)


def test_a_server_without_a_database_is_never_sent_to_one_of_before() -> None:
    wide = replace(FORMED, plan=people.plan(0, 1, 2, 3, 4))
    first = done(1, 0, 2, standing=wide)
    found = follow(people.plan(0, 1, 2, 3, 4), {first.digest: first}, held=b"", me=people.IDS[2])
    standing = replace(wide, plan=found.plan, succession=found)
    here = network(2, heard=(0,))
    # n0 serves the old database still, and the survivor is down.
    old = msgspec.structs.replace(people.record(serves=0), superseded=True)
    here[people.IDS[0]].k3s = msgspec.structs.replace(old, seats=first.digest.hex())
    assert servers_to_join(here, standing) == ("10.0.0.11",)
    here[people.IDS[0]].k3s = serving(0, standing)
    assert servers_to_join(here, standing) == ("10.0.0.10",)
    here[people.IDS[0]].connected = False
    here[people.IDS[0]].link = "failed"
    assert servers_to_join(here, standing) == ("10.0.0.10",)
    here[people.IDS[0]].k3s = msgspec.structs.replace(serving(0, standing), endpoint=None)
    assert servers_to_join(here, standing) == ("10.0.0.10", "10.0.0.11")
    # The survivor itself has it on its disk.
    there = network(1)
    assert servers_to_join(there, replace(standing)) == ("10.0.0.10", "10.0.0.12")


def test_an_old_database_that_is_served_is_an_alarm() -> None:
    found = network(2, heard=(0,))
    served = msgspec.structs.replace(people.record(serves=0), superseded=True)
    found[people.IDS[0]].k3s = served
    (item,) = reset_health(found, after(2, done(2)))
    assert (item.code, item.severity) == ("MESH-4034", "error")
    assert item.message.startswith("n0 still serves the database of before the reset of epoch 1")
    found[people.IDS[0]].connected = False
    assert reset_health(found, after(2, done(2))) == []


def test_the_history_says_it_once() -> None:
    found, one = network(3), done(2)
    now = after(3, one).succession
    (note,) = reset_notes(found, Succession(), now)
    assert note.kind == "cluster_reset"
    assert note.text == (
        "epoch 1, 2026-11-26 17:56 UTC: anna reset etcd's membership on n2, whose database holds "
        "from now on; confirmed dead: n0, n1"
    )
    assert reset_notes(found, now, now) == []
    record = msgspec.structs.replace(one.record, snapshot="etcd-snapshot-n2-1795715760")
    assert "on n2, whose database, restored from etcd-snapshot-n2-1795715760, holds from now" in (
        reset_text(found, record)
    )
    assert reset_notes(found, Succession(), now, held=one.digest) == []


def test_times_are_dates() -> None:
    assert utc(0) == "1970-01-01 00:00 UTC"
    assert utc(951_827_696_000) == "2000-02-29 12:34 UTC"
    assert utc(1_735_689_599_999) == "2024-12-31 23:59 UTC"
