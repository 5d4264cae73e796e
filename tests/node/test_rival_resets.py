"""Resets that were made apart: what they are told of each other, and how one of them is chosen."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from meshd.errors import MeshdError
from meshd.node import propose_reset
from meshd.node._orders import Standing, order_for
from meshd.node._resets import reset_health
from roles.resets import Succession, follow, judge, read_reset, sign_reset
from tests.node import people
from tests.node.test_resets import (
    FORMED,
    NETWORK,
    PLAN,
    TOKENS,
    after,
    done,
    network,
    refusal,
    serving,
)


def test_two_resets_of_one_epoch_are_an_alarm_and_retire_nothing_elsewhere() -> None:
    resets = done(1), done(2)
    for me, epoch in ((0, 0), (1, 1), (2, 1), (3, 0)):
        standing = after(me, *resets)
        assert (standing.epoch, standing.succession.newest) == (epoch, 1)
        (item,) = reset_health(network(me), standing)
        assert (item.code, item.severity) == ("MESH-4029", "error")
        assert "n1" in item.message
        assert "n2" in item.message
        order = order_for(network(me), wish="auto", standing=standing, sealed=TOKENS)
        assert (order.retire is None) == (epoch == 0)


def test_which_of_two_resets_stays_is_decided_on_that_one() -> None:
    resets = done(1), done(2)
    assert refusal(network(0), "n1", standing=after(0, *resets)).startswith("MESH-4029 1")
    standing = after(2, *resets)
    assert refusal(network(2), standing=standing, answers=True).startswith("MESH-4023 1 n1")
    living = network(2, heard=(1,))
    assert refusal(living, "n1", standing=standing).startswith("MESH-4022 1 n1")
    found = propose_reset(network(2), standing, api_answers=True, confirm_dead=["n1"])
    assert (found.epoch, found.dead, found.rivals) == (2, (), PLAN.seats[1:2])
    assert (found.seats, found.ended) == (PLAN.seats[2:], (resets[0].digest,))
    decided = done(2, standing=standing, ends=resets[:1])
    for me in range(4):
        settled = after(me, *resets, decided).succession
        assert (settled.epoch, settled.survivor, settled.rivals) == (2, people.IDS[2], ())


def test_the_survivor_of_the_shorter_chain_can_be_chosen() -> None:
    mine, other = done(2), done(1, 0)
    longer = done(0, standing=after(0, other))
    resets = mine, other, longer
    standing = after(2, *resets)
    assert (standing.epoch, standing.succession.newest) == (1, 1), "its gate lets it start"
    assert refusal(network(2), standing=standing, answers=True).startswith("MESH-4023 1 n0")
    found = propose_reset(network(2), standing, api_answers=True, confirm_dead=["n0"])
    assert (found.base, found.epoch, found.ended) == (1, 3, (longer.digest,))
    decided = done(2, standing=standing, ends=(longer,))
    for me in range(4):
        settled = after(me, *resets, decided)
        assert (settled.epoch, settled.succession.rivals) == (3, ())
        order = order_for(network(me), wish="auto", standing=settled, sealed=TOKENS)
        assert order.retire is not None
        assert order.retire.epoch == 3, "a database of the longer chain is of epoch 2"


def test_a_rival_that_is_heard_is_not_given_up_and_one_with_a_seat_is_accounted_for() -> None:
    wide = replace(FORMED, plan=people.plan(0, 1, 2, 3, 4))
    mine, other = done(1, 2, standing=wide), done(2, standing=wide)
    known = {one.digest: one for one in (mine, other)}
    found = follow(people.plan(0, 1, 2, 3, 4), known, held=b"", me=people.IDS[1])
    standing = replace(wide, plan=found.plan, succession=found)
    for dead in ((), ("n2",)):
        living = network(1, heard=(2,))
        assert refusal(living, *dead, standing=standing, answers=True).startswith("MESH-4022 1 n2")
    proposal = propose_reset(network(1), standing, api_answers=True, confirm_dead=["n2"])
    assert [seat.node for seat in proposal.dead] == [people.IDS[2]]
    decided = done(1, standing=standing, ends=(other,))
    assert judge(decided.record, [people.plan(0, 1, 2, 3, 4)], known) == (True, "")


def test_a_rival_at_another_address_can_be_named_and_heard() -> None:
    wide = replace(FORMED, plan=people.plan(0, 1, 2, 3, 4))
    mine, other = done(1, 2, standing=wide), done(2, standing=wide)
    (seat,) = other.record.seats
    moved = msgspec.structs.replace(other.record, seats=(replace(seat, node_ip="10.1.0.2"),))
    elsewhere = read_reset(sign_reset(people.SIGNERS[2], moved), network_id=NETWORK)
    known = {one.digest: one for one in (mine, elsewhere)}
    found = follow(people.plan(0, 1, 2, 3, 4), known, held=b"", me=people.IDS[1])
    standing = replace(wide, plan=found.plan, succession=found)
    for name in ("n2", "n2-00000002", people.IDS[2]):
        proposal = propose_reset(network(1), standing, api_answers=True, confirm_dead=[name])
        assert proposal.ended == (elsewhere.digest,)
    heard = network(1, heard=(2,))
    record = msgspec.structs.replace(people.record("waiting"), cluster_id=PLAN.cluster_id)
    heard[people.IDS[1]].k3s = msgspec.structs.replace(record, resetting=2)
    order = order_for(heard, wish="auto", standing=standing, sealed=TOKENS)
    assert people.IDS[2] in order.heard
    lower = msgspec.structs.replace(record, resetting=3)
    heard[people.IDS[2]].k3s = lower
    rivals = order_for(heard, wish="auto", standing=standing, sealed=TOKENS).rival
    assert rivals == ("n2" if people.IDS[2] < people.IDS[1] else None)


def test_whoever_follows_one_of_two_resets_with_a_seat_may_choose_it() -> None:
    wide = replace(FORMED, plan=people.plan(0, 1, 2, 3, 4))
    mine, other = done(1, 3, standing=wide), done(2, 4, standing=wide)
    known = {one.digest: one for one in (mine, other)}
    found = follow(people.plan(0, 1, 2, 3, 4), known, held=mine.digest, me=people.IDS[3])
    standing = replace(wide, plan=found.plan, succession=found)
    silent = network(3)
    assert refusal(silent, "n1", "n2", standing=standing).startswith("MESH-4023 1 n4")
    dead = ["n1", "n2", "n4"]
    proposal = propose_reset(silent, standing, api_answers=False, confirm_dead=dead)
    assert [seat.node for seat in proposal.dead] == [people.IDS[1]]
    assert proposal.ended == (other.digest,)
    heard = network(3, heard=(4,))
    heard[people.IDS[4]].k3s = serving(4, replace(standing, succession=Succession()))
    assert refusal(heard, "n1", "n2", standing=standing).startswith("MESH-4022 1 n4")


def test_no_chain_whose_other_servers_have_a_majority_is_split_by_choosing_it() -> None:
    wide = replace(FORMED, plan=people.plan(0, 1, 2, 3, 4))
    mine, other = done(0, 1, 2, standing=wide), done(3, standing=wide)
    known = {one.digest: one for one in (mine, other)}
    found = follow(people.plan(0, 1, 2, 3, 4), known, held=b"", me=people.IDS[0])
    standing = replace(wide, plan=found.plan, succession=found)
    heard = network(0, heard=(1, 2))
    for number in (1, 2):
        heard[people.IDS[number]].k3s = serving(number, standing)
    refused = refusal(heard, "n3", standing=standing, answers=True)
    assert refused.startswith("MESH-4021 1 n1, n2 serve without this node")
    for restores in (False, True):
        with pytest.raises(MeshdError) as caught:
            propose_reset(heard, standing, api_answers=True, confirm_dead=["n3"], restores=restores)
        assert caught.value.code == "MESH-4021"
    heard[people.IDS[2]].connected = False
    heard[people.IDS[2]].link = "failed"
    proposal = propose_reset(heard, standing, api_answers=True, confirm_dead=["n2", "n3"])
    assert [seat.node for seat in proposal.seats] == [people.IDS[0], people.IDS[1]]
    with pytest.raises(MeshdError, match="answers, so etcd has its majority"):
        propose_reset(heard, standing, api_answers=True, confirm_dead=["n2", "n3"], restores=True)


def test_a_server_of_a_contradicting_reset_is_none_to_join() -> None:
    wide = replace(FORMED, plan=people.plan(0, 1, 2, 3, 4))
    mine, other = done(2, 3, 4, standing=wide), done(1, 3, standing=wide)
    known = {one.digest: one for one in (mine, other)}

    def of(me: int, held: bytes) -> Standing:
        found = follow(people.plan(0, 1, 2, 3, 4), known, held=held, me=people.IDS[me])
        return replace(wide, plan=found.plan, succession=found)

    standing = of(4, mine.digest)
    found = network(4, heard=(3,))
    # n3 went with the other one before it was heard here: its seat is in both.
    found[people.IDS[3]].k3s = serving(3, of(3, other.digest))
    order = order_for(found, wish="auto", standing=standing, sealed=TOKENS)
    assert order.retire is not None
    assert (order.epoch, order.retire.now) == (1, False)
    found[people.IDS[3]].k3s = serving(3, standing)
    order = order_for(found, wish="auto", standing=standing, sealed=TOKENS)
    assert order.retire is not None
    assert order.retire.now
