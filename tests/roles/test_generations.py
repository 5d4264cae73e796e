"""ABANDON, and what comes after it: generations, on a table where nothing moves by itself."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from ledger import Instant
from roles import Bounds, Candidate, ClusterPlan, K3sReading
from roles._nomination import Nomination
from tests.roles.leases import (
    ALL_OF_THREE,
    lease,
    leased,
    part,
    pass_time,
    state,
    stop_k3s,
)
from tests.roles.table import THREE, Table, states
from tests.roles.world import candidate_of, signer_of

ALONE = Bounds.bounded(control_plane=1, nodes_max=1)
ONE_TO_SPARE = Bounds.bounded(control_plane=3, nodes_max=4)


def test_a_lost_initialiser_is_abandoned_and_another_one_starts() -> None:
    table = leased()
    first = state(table, 1).plan
    assert first is not None
    part(table, 1)
    pass_time(table, 88.0, silent=[1])
    assert state(table, 2).generation == 1
    pass_time(table, 12.0, silent=[1])
    second = state(table, 2)
    assert second.generation == 2
    assert second.plan is not None
    assert second.plan.initialiser == signer_of(2).node_id
    assert second.abandoned == (first.cluster_id,)
    assert [one.reason for one in second.history] == ["its initialiser did not renew its lease"]
    assert sorted(table.ledger) == [
        "genesis/1/claim",
        "genesis/1/done",
        "genesis/1/started",
        "genesis/2/claim",
        "genesis/2/started",
    ]


def test_who_comes_back_follows_the_records_whatever_their_order() -> None:
    table = leased()
    first = state(table, 1).plan
    assert first is not None
    part(table, 1)
    pass_time(table, 100.0, silent=[1])
    table.seat(1, fuse=True)
    for key in sorted(table.ledger, reverse=True):
        table.perform(1, table.machines[1].learn(table.ledger[key], Instant(table.now)))
    back = state(table, 1)
    assert (back.generation, back.may_initialise) == (2, False)
    assert back.abandoned == (first.cluster_id,)
    assert back.plan == state(table, 2).plan
    table.seat(1, fuse=True)  # From its own journal now.
    assert state(table, 1).plan == back.plan
    assert state(table, 1).history == back.history


def test_who_asks_in_a_generation_that_is_over_is_told_what_came_of_it() -> None:
    table = leased()
    part(table, 1)
    pass_time(table, 100.0, silent=[1])
    table.look_around()
    pass_time(table, 10.0)
    assert state(table, 1).generation == 2
    assert table.rejected == []


def test_an_initialiser_that_failed_ranks_last_from_then_on() -> None:
    table = leased(ALL_OF_THREE)
    plan = state(table, 1).plan
    assert plan is not None
    reading = K3sReading(cluster_id=plan.cluster_id, exits=5)
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    pass_time(table, 20.0)
    stop_k3s(table, 1, 2, 3)
    pass_time(table, 15.0)
    second = state(table, 3).plan
    assert second is not None
    assert [seat.node for seat in second.seats] == [signer_of(n).node_id for n in (2, 3, 1)]


@pytest.mark.parametrize(
    ("voters", "members", "exits", "seats"),
    [
        ((1, 3), (1, 3), 0, (3, 4, 1)),  # The second never came.
        ((1,), (1, 2), 0, (3, 4, 1)),  # It came, never voted, and kept the third out.
        ((1, 2), (1, 2, 3), 4, (2, 4, 1)),
        ((1,), (1,), 0, (2, 3, 4)),  # Nobody came: then it is the initialiser.
        ((), (), 0, (2, 3, 4)),
        ((1, 3), (1, 3), 5, (2, 3, 4)),  # Its own k3s ends again and again.
    ],
)
def test_who_kept_the_control_plane_from_being_complete_ranks_after_the_initialiser(
    voters: tuple[int, ...], members: tuple[int, ...], exits: int, seats: tuple[int, ...]
) -> None:
    table = leased(ONE_TO_SPARE, 4)
    plan = state(table, 1).plan
    assert plan is not None
    names = {number: f"n{number}-{number:08x}" for number in range(1, 5)}
    reading = K3sReading(
        cluster_id=plan.cluster_id,
        voters=tuple(names[number] for number in voters),
        members=tuple(names[number] for number in members),
        exits=exits,
    )
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    pass_time(table, 182.0)
    stop_k3s(table, 1, 2, 3)
    pass_time(table, 20.0)
    plans = [one.plan for one in states(table).values()]
    found = {tuple(seat.node for seat in plan.seats) for plan in plans if plan is not None}
    assert found == {tuple(signer_of(number).node_id for number in seats)}
    assert {one.generation for one in states(table).values()} == {2}


def end_generation(table: Table, *everyone: int) -> None:
    """Let node 1, the initialiser, give the generation up, and all k3s stop."""
    plan = state(table, 1).plan
    assert plan is not None
    reading = K3sReading(cluster_id=plan.cluster_id, exits=5)
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    pass_time(table, 20.0)
    stop_k3s(table, *everyone)
    pass_time(table, 15.0)


def renew(table: Table, number: int) -> str:
    """Let a node say that it has new secrets; return its CA's hash."""
    ca_hash = f"{number + 1000:064x}"
    table.candidates[number] = replace(
        table.candidates[number], ca_hash=ca_hash, token_commitment="77" * 32
    )
    table.look_around()
    return ca_hash


def test_who_has_the_secrets_of_an_abandoned_plan_waits_for_others_before_it_plans() -> None:
    table = leased(ALONE, 1)
    first = state(table, 1).plan
    assert first is not None
    end_generation(table, 1)
    found = state(table, 1)
    assert (found.generation, found.plan, found.spent) == (2, None, frozenset({first.ca_hash}))
    assert found.waiting_for == ("n1 to make new secrets: those it had were of an abandoned plan")
    pass_time(table, 600.0)
    assert state(table, 1).plan is None
    ca_hash = renew(table, 1)
    pass_time(table, 5.0)
    second = state(table, 1).plan
    assert second is not None
    assert (second.generation, second.initialiser) == (2, first.initialiser)
    assert (second.ca_hash, second.token_commitment) == (ca_hash, "77" * 32)
    assert state(table, 1).spent == {first.ca_hash}


def test_nobody_plans_with_secrets_that_are_spent_and_others_say_whom_they_wait_for() -> None:
    table = Table(THREE)
    table.seat(1, fuse=True)
    table.seat(2, 3, fuse=True, memory_mib=512)  # They vote, and get no seat.
    table.look_around()
    table.settle()
    assert state(table, 1).started
    end_generation(table, 1, 2, 3)
    assert {one.generation for one in states(table).values()} == {2}
    for one in states(table).values():
        assert one.plan is None
        assert (one.waiting_for or "").startswith("n1 to make new secrets")
    ca_hash = renew(table, 1)
    pass_time(table, 10.0)
    plans = [one.plan for one in states(table).values()]
    assert [plan.ca_hash for plan in plans if plan is not None] == [ca_hash] * 3


def test_whose_secrets_are_spent_leaves_its_turn_and_the_first_seat_to_the_next() -> None:
    one, two, three = (candidate_of(number, ALL_OF_THREE) for number in (1, 2, 3))
    nodes = [one.node, two.node, three.node]

    def nominated(me: Candidate) -> Nomination:
        nomination = Nomination(
            me.node,
            bounds=ALL_OF_THREE,
            vip=None,
            network="lan",
            rng=Random(0),
            generation=2,
        )
        nomination.update(
            [one, two, three],
            nodes,
            nodes,
            Instant(5.0),
            quorum=ALL_OF_THREE.quorum,
            spent={one.ca_hash},
        )
        return nomination

    second = nominated(two)
    assert second.turn() == 5.0
    plan = second.draw()
    assert plan is not None
    assert [seat.node for seat in plan.seats] == [two.node, three.node, one.node]
    first = nominated(one)
    assert first.turn() is None
    assert first.draw() is None
    assert isinstance(first.plan, ClusterPlan)
    assert first.plan.initialiser == two.node


def test_a_plan_keeps_the_secrets_that_it_names_whatever_came_before() -> None:
    table = leased(ALONE, 1)
    first = state(table, 1).plan
    assert first is not None
    end_generation(table, 1)
    renew(table, 1)
    pass_time(table, 5.0)
    second = state(table, 1).plan
    assert second is not None
    table.seat(1, fuse=True, ca_hash=second.ca_hash)  # From its journal.
    table.look_around()
    assert state(table, 1).spent == {first.ca_hash}
    assert second.ca_hash not in state(table, 1).spent


def test_before_started_a_silent_initialiser_is_abandoned_after_30_s() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3, fuse=True)
    table.look_around()
    while state(table, 2).plan is None or state(table, 3).plan is None:
        table.deliver()
    assert not state(table, 2).started
    table.posted.clear()
    part(table, 1)
    pass_time(table, 29.0, silent=[1])
    assert state(table, 2).generation == 1
    pass_time(table, 10.0, silent=[1])
    assert state(table, 2).generation == 2


def test_a_later_generation_never_makes_a_formed_node_leave() -> None:
    table = leased()
    plan = state(table, 1).plan
    assert plan is not None
    seats = tuple(seat.node_name for seat in plan.seats)
    reading = K3sReading(cluster_id=plan.cluster_id, voters=seats, kube_system_uid="uid")
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    table.settle()
    assert state(table, 1).phase == "formed"
    other = leased()
    part(other, 1)
    pass_time(other, 100.0, silent=[1])
    for record in other.ledger.values():
        table.perform(1, table.machines[1].learn(record, Instant(table.now)))
    found = state(table, 1)
    assert (found.phase, found.generation, found.plan) == ("formed", 1, plan)
    assert (found.stop, found.abandoned) == (False, ())
    assert "MESH-4007" in [problem.code for problem in found.problems]


def test_a_reading_of_another_cluster_is_no_evidence() -> None:
    table = leased()
    plan = state(table, 1).plan
    assert plan is not None
    seats = tuple(seat.node_name for seat in plan.seats)
    for cluster_id in ("", "f" * 32):
        reading = K3sReading(cluster_id=cluster_id, voters=seats, kube_system_uid="uid")
        table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
        table.settle()
        assert state(table, 1).phase == "started"


def test_one_early_vote_to_abandon_does_not_throw_a_good_generation_away() -> None:
    table = leased()
    plan = state(table, 1).plan
    assert plan is not None
    name = plan.seats[0].node_name

    def pass_without(pair: set[int], seconds: float) -> None:
        end = table.now + seconds
        while table.now < end:
            table.wait(0.25)
            for _ in range(8):
                table.posted = [p for p in table.posted if {p.sender, p.to} != pair]
                table.posted.sort(key=lambda post: post.sender != 3)  # Its promise comes first.
                table.deliver()

    pass_without({1, 3}, 97.0)
    assert lease(table, 3).mute  # It voted for the end of x, which is alive; 2 did not.
    reading = K3sReading(
        cluster_id=plan.cluster_id, voters=(name,), members=(name,), kube_system_uid="uid"
    )
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    pass_without(set(), 60.0)
    assert {one.phase for one in states(table).values()} == {"formed"}
