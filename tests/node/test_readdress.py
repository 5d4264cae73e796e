"""A reset that also takes over new addresses: what it would do, and when it is refused."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from meshd.errors import MeshdError
from meshd.node import Directory, propose_reset
from meshd.node._orders import Standing, order_for
from roles.resets import SeatsRecord, follow, read_reset, sign_reset
from tests.node import people
from tests.node.test_resets import FORMED, NETWORK, PLAN, TOKENS, network


def moved(me: int, *heard: int, to: str = "10.1.0.") -> Directory:
    """Return a directory in which all that are heard have another address than the plan says."""
    found = network(me, heard=heard)
    for number in (me, *heard):
        move(found, number, f"{to}{number}")
    return found


def move(found: Directory, number: int, address: str | None) -> None:
    known = found[people.IDS[number]]
    assert known.facts is not None
    known.facts = msgspec.structs.replace(known.facts, node_ip=address)


def refusal(
    found: Directory,
    *dead: str,
    readdress: bool = True,
    answers: bool = False,
    standing: Standing = FORMED,
) -> str:
    with pytest.raises(MeshdError) as caught:
        propose_reset(found, standing, api_answers=answers, confirm_dead=dead, readdress=readdress)
    return f"{caught.value.code} {caught.value.what} | {caught.value.fix}"


def after(me: int, survivor: int, *alive: int) -> Standing:
    """Return where a node stands after a reset at new addresses."""
    proposal = propose_reset(
        moved(survivor, *alive), FORMED, api_answers=False, confirm_dead=(), readdress=True
    )
    record = SeatsRecord(
        network_id=NETWORK,
        cluster_id=proposal.cluster_id,
        epoch=proposal.epoch,
        before=proposal.before,
        survivor=people.IDS[survivor],
        seats=proposal.seats,
        dead=(),
        by="anna",
        at_ms=1,
    )
    reset = read_reset(sign_reset(people.SIGNERS[survivor], record), network_id=NETWORK)
    found = follow(PLAN, {reset.digest: reset}, held=b"", me=people.IDS[me])
    return replace(FORMED, plan=found.plan, succession=found)


def test_all_that_are_heard_keep_their_seats_at_their_new_addresses() -> None:
    found = propose_reset(
        moved(2, 0, 1), FORMED, api_answers=False, confirm_dead=(), readdress=True
    )
    assert [(s.node, s.node_name, s.node_ip) for s in found.seats] == [
        (PLAN.seats[n].node, PLAN.seats[n].node_name, f"10.1.0.{n}") for n in (2, 0, 1)
    ]
    assert (found.dead, [s.node_ip for s in found.were]) == (
        (),
        ["10.0.0.12", "10.0.0.10", "10.0.0.11"],
    )


def test_who_is_not_heard_must_be_named_dead_and_who_kept_its_address_keeps_it() -> None:
    found = moved(2)
    assert refusal(found, "n0").startswith("MESH-4023 n1")
    found = network(2, heard=(1,))
    move(found, 2, "10.1.0.2")
    proposal = propose_reset(found, FORMED, api_answers=False, confirm_dead=["n0"], readdress=True)
    assert [seat.node_ip for seat in proposal.seats] == ["10.1.0.2", "10.0.0.11"]
    assert proposal.dead == PLAN.seats[:1]


def test_it_is_refused_while_a_majority_is_where_etcd_knows_it() -> None:
    found = network(2, heard=(0, 1))
    move(found, 2, "10.1.0.2")
    assert refusal(found).startswith("MESH-4021 n0, n1 are 2 of 3 seats")
    assert refusal(moved(2, 0, 1), answers=True).startswith("MESH-4021 the API server of this node")


def test_without_the_flag_moved_servers_are_pointed_to_it() -> None:
    said = refusal(moved(2, 0), "n1", readdress=False)
    assert said.startswith("MESH-4021 this node and n0 are 2 of 3 seats")
    assert said.endswith(
        "n2, n0 has another address now: give back those that the cluster knows, or, if they are "
        "gone for good, add --readdress"
    )


def test_an_only_server_that_still_answers_may_take_its_new_address() -> None:
    alone = Standing(plan=people.plan(2), started=True, formed=True)
    found = propose_reset(moved(2, 3), alone, api_answers=True, confirm_dead=(), readdress=True)
    assert [seat.node_ip for seat in found.seats] == ["10.1.0.2"]
    assert refusal(network(2), answers=True, standing=alone).startswith("MESH-4035 no server")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, "n1 has no address that k3s could use now"),
        ("10.0.0.50", "n1 says that its address is 10.0.0.50, which is the cluster's virtual one"),
        ("10.1.0.2", "n2 and n1 both say that their address is 10.1.0.2"),
        ("fd00::1", "n1 was at 10.0.0.11 and is at fd00::1 now, of the other IP version"),
    ],
)
def test_an_address_that_cannot_be_a_members_is_refused(address: str | None, why: str) -> None:
    found = moved(2, 0, 1)
    move(found, 1, address)
    assert refusal(found).startswith(f"MESH-4035 {why}")


def test_every_node_is_told_the_new_addresses_once_the_survivor_serves() -> None:
    for me, seat in ((0, "initialiser"), (1, "server"), (2, "server"), (3, "worker")):
        found = moved(me, *(n for n in range(4) if n != me))
        standing = after(me, 2, 0, 1)
        found[people.IDS[2]].k3s = msgspec.structs.replace(
            people.record(serves=2), epoch=1, seats=standing.succession.head.hex()
        )
        order = order_for(found, wish="auto", standing=standing, sealed=TOKENS)
        assert (order.seat, order.epoch, order.readdressed) == (seat, 1, 1)
        assert order.join == (("10.1.0.0", "10.1.0.1") if me == 2 else ("10.1.0.2",))
        assert order.retire is not None
        assert order.retire.address == (f"10.1.0.{me}" if me < 3 else None)
