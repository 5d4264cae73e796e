"""R2 and R7: when an initialiser gives its generation up, and when it may say so."""

from __future__ import annotations

from ledger import Instant
from roles import Bounds, K3sReading
from roles._evidence import exits_max
from roles._messages import Lease
from roles._tenure import LIVES_MAX
from tests.roles.leases import (
    ALL_OF_THREE,
    lease,
    leased,
    messages,
    part,
    pass_time,
    state,
    stop_k3s,
)
from tests.roles.table import Table, states
from tests.roles.world import candidate_of, signer_of


def give_up(table: Table) -> None:
    part(table, 1)
    pass_time(table, 121.0, silent=[1])


def test_an_initialiser_without_a_lease_gives_up_for_good() -> None:
    table = leased()
    give_up(table)
    found = state(table, 1)
    assert lease(table, 1).gave_up == "it had no lease for 60 s"
    assert (found.may_initialise, found.stop, found.lease_until) == (False, True, 0.0)
    table.seat(1, fuse=True)  # A restart changes nothing.
    table.look_around()
    table.settle()
    assert (state(table, 1).may_initialise, state(table, 1).stop) == (False, True)
    assert messages(table, Lease) == []


def test_it_gives_up_when_k3s_ended_five_times() -> None:
    table = leased()
    plan = state(table, 1).plan
    assert plan is not None
    for exits in (4, 5):
        assert lease(table, 1).gave_up is None
        reading = K3sReading(cluster_id=plan.cluster_id, exits=exits)
        table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    assert lease(table, 1).gave_up == "k3s ended by itself 5 times"


def test_later_generations_bear_more_ends_of_k3s() -> None:
    assert [exits_max(generation) for generation in (1, 2, 3, 4, 99)] == [5, 5, 10, 20, 160]


def test_it_gives_up_in_its_sixth_life_however_short_each_was() -> None:
    table = leased()
    for _ in range(LIVES_MAX - 1):
        pass_time(table, 100.0)
        table.seat(1, fuse=True)
        table.look_around()
    pass_time(table, 100.0)
    assert lease(table, 1).gave_up is None
    table.seat(1, fuse=True)
    table.look_around()
    pass_time(table, 1.0)
    said = "meshd there was stopped 5 times before the cluster was formed"
    assert lease(table, 1).gave_up == said
    stop_k3s(table, 1)
    pass_time(table, 10.0)
    assert {one.generation for one in states(table).values()} == {2}


def test_an_answer_that_counts_no_more_is_no_minute_without_a_lease() -> None:
    table = leased()
    part(table, 3)
    pass_time(table, 100.0, silent=[3])
    assert lease(table, 1).until > table.now + 40.0
    # The machine of the voter that answers comes back as somebody else, too: neither counts now.
    table.seat(9, fingerprint=("fingerprint-2",), name="n2", fuse=True)
    table.look_around(present=[1, 2, 9])
    pass_time(table, 50.0, silent=[2, 3])
    assert lease(table, 1).until < table.now
    assert lease(table, 1).gave_up is None
    pass_time(table, 15.0, silent=[2, 3])
    assert lease(table, 1).gave_up == "it had no lease for 60 s"


def test_it_gives_up_when_nobody_joins_and_no_other_member_is_heard() -> None:
    table = leased(Bounds.bounded(control_plane=3, nodes_max=5), size=5)
    part(table, 2, 3)
    pass_time(table, 79.0, silent=[2, 3])
    assert lease(table, 1).gave_up is None
    pass_time(table, 3.0, silent=[2, 3])
    assert lease(table, 1).gave_up == "no other member was heard for 80 s"


def test_it_gives_up_when_etcd_has_a_member_that_is_gone() -> None:
    table = leased(Bounds.bounded(control_plane=3, nodes_max=5), size=5)
    plan = state(table, 1).plan
    assert plan is not None
    names = tuple(seat.node_name for seat in plan.seats[:2])
    reading = K3sReading(cluster_id=plan.cluster_id, voters=names[:1], members=names)
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    part(table, 2)
    # Without a majority etcd cannot say who its members are; what it said last counts.
    blind = K3sReading(cluster_id=plan.cluster_id)
    table.perform(1, table.machines[1].observe(blind, Instant(table.now)))
    pass_time(table, 82.0, silent=[2])
    assert lease(table, 1).gave_up == "etcd has a member that was not heard for 80 s"


def test_it_gives_up_when_a_seat_that_is_needed_never_comes_in_a_later_generation_too() -> None:
    table = leased(Bounds.bounded(control_plane=3, nodes_max=5), size=5)
    plan = state(table, 1).plan
    assert plan is not None
    reading = K3sReading(cluster_id=plan.cluster_id, exits=5)
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    stop_k3s(table, 1, 2, 3)
    pass_time(table, 100.0)
    second = state(table, 2)
    assert (second.generation, second.started) == (2, True)
    assert second.plan is not None
    first, gone = (
        next(n for n in table.machines if signer_of(n).node_id == second.plan.seats[place].node)
        for place in (0, 2)
    )
    part(table, gone)
    pass_time(table, 175.0, silent=[gone])
    assert lease(table, first).gave_up is None  # The control plane has 360 s in generation 2.
    pass_time(table, 10.0, silent=[gone])
    assert lease(table, first).gave_up == "too few members were heard for 180 s"


def test_it_gives_up_soon_when_a_seat_too_many_lost_its_disk() -> None:
    table = leased(Bounds.bounded(control_plane=3, nodes_max=5), size=4)
    part(table, 2)
    pass_time(table, 5.0, silent=[2])
    assert lease(table, 1).gave_up is None  # Not heard for a while: it may come back.
    table.candidates[9] = candidate_of(9, table.bounds, fingerprint=("fingerprint-2",), name="n2")
    table.look_around(present=[1, 3, 4])
    pass_time(table, 1.0, silent=[2])
    assert lease(table, 1).gave_up is None  # What is known of a machine need not be here.
    table.seat(9, fingerprint=("fingerprint-2",), name="n2", fuse=True)
    table.look_around(present=[1, 3, 4, 9])
    pass_time(table, 12.0, silent=[2])
    assert lease(table, 1).gave_up is None
    pass_time(table, 3.0, silent=[2])
    assert lease(table, 1).gave_up == "n2-00000002 came back without the disk"
    stop_k3s(table, 1, 3)
    pass_time(table, 100.0, silent=[2])
    second = state(table, 3).plan
    assert second is not None
    assert second.generation == 2
    assert {seat.node for seat in second.seats} == {signer_of(n).node_id for n in (1, 3, 4)}


def test_a_seat_that_is_not_needed_may_lose_its_disk() -> None:
    table = leased(Bounds.bounded(control_plane=5, nodes_max=5), size=5)
    part(table, 2)
    table.seat(9, fingerprint=("fingerprint-2",), name="n2")
    table.look_around(present=[1, 3, 4, 5, 9])
    pass_time(table, 5.0, silent=[2])
    assert lease(table, 1).gave_up is None


def test_it_gives_up_when_it_takes_too_long_and_later_generations_have_longer() -> None:
    table = leased()
    pass_time(table, 179.0)
    assert lease(table, 1).gave_up is None
    pass_time(table, 2.0)
    assert lease(table, 1).gave_up == "the control plane was not complete after 180 s"
    stop_k3s(table, 1)
    pass_time(table, 10.0)
    second = state(table, 2)
    assert (second.generation, second.started) == (2, True)
    starter = next(n for n, one in states(table).items() if one.may_initialise)
    pass_time(table, 300.0)
    assert lease(table, starter).gave_up is None
    pass_time(table, 62.0)
    assert lease(table, starter).gave_up == "the control plane was not complete after 360 s"


def test_it_says_so_only_once_its_own_k3s_is_down_and_the_members_are() -> None:
    table = leased(ALL_OF_THREE)
    plan = state(table, 1).plan
    assert plan is not None
    reading = K3sReading(cluster_id=plan.cluster_id, exits=5)
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    assert lease(table, 1).gave_up is not None
    pass_time(table, 20.0)  # Members ask, are told, and are ordered to stop.
    assert [state(table, n).stop for n in (2, 3)] == [True, True]
    stop_k3s(table, 1, 2)
    pass_time(table, 20.0)
    assert lease(table, 1).down == (signer_of(2).node_id,)
    assert not lease(table, 1).released
    assert state(table, 2).generation == 1
    stop_k3s(table, 3)
    pass_time(table, 10.0)
    assert {one.generation for one in states(table).values()} == {2}


def test_a_member_that_says_nothing_is_down_85_s_after_its_last_share() -> None:
    table = leased(ALL_OF_THREE)
    plan = state(table, 1).plan
    assert plan is not None
    reading = K3sReading(cluster_id=plan.cluster_id, exits=5, stopped=(plan.cluster_id,))
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    table.posted.clear()
    pass_time(table, 84.0, silent=[3])
    assert not lease(table, 1).released
    pass_time(table, 3.0, silent=[3])
    assert lease(table, 1).released
