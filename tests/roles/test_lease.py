"""The forming lease and generations, rule by rule, on a table where nothing moves by itself."""

from __future__ import annotations

import pytest

from ledger import Instant
from roles import Bounds, K3sReading
from roles._messages import Released, Renewed
from tests.roles.leases import (
    ALL_OF_THREE,
    lease,
    leased,
    messages,
    part,
    pass_time,
    run_split,
    state,
    stop_k3s,
)
from tests.roles.table import Table, give
from tests.roles.world import signer_of

# Whether there is a lease.


def test_a_plan_is_leased_if_all_voters_have_a_fuse() -> None:
    plan = state(leased(ALL_OF_THREE), 1).plan
    assert plan is not None
    assert plan.leased


def test_without_a_fuse_on_one_member_all_is_as_it_was_without_leases() -> None:
    table = Table(ALL_OF_THREE)
    table.seat(1, 2, fuse=True)
    table.seat(3)
    table.look_around()
    table.settle()
    found = state(table, 1)
    assert found.plan is not None
    assert not found.plan.leased
    assert found.may_initialise
    assert (found.lease, found.lease_until, found.stop) == (None, None, False)
    part(table, 1)
    pass_time(table, 1000.0, silent=[1])
    assert state(table, 2).generation == 1
    assert state(table, 2).phase == "started"


@pytest.mark.parametrize("present", [[1, 2, 3, 4], [1, 2, 3]])
def test_a_voter_without_a_fuse_that_gets_no_seat_leaves_the_plan_without_a_lease(
    present: list[int],
) -> None:
    table = Table(Bounds.bounded(control_plane=3, nodes_max=4))
    table.seat(1, 2, 3, fuse=True)
    table.seat(4)
    table.look_around(present)
    table.wait(1.6)
    table.settle()
    plan = state(table, 1).plan
    assert plan is not None
    assert plan.seat_of(signer_of(4).node_id) is None
    assert not plan.leased


# Renewing it.


def test_it_lasts_60_s_from_when_the_renewal_was_sent_that_the_quorum_answered() -> None:
    table = leased()
    began = table.now
    assert state(table, 1).lease_until == began + 60.0
    table.wait(10.0)
    sent = table.now
    table.wait(2.9)  # The answers are late; the lease does not get longer by that.
    table.settle()
    assert state(table, 1).lease_until == sent + 60.0


def test_answers_of_too_few_renew_nothing() -> None:
    table = leased(ALL_OF_THREE)
    before = state(table, 1).lease_until
    pass_time(table, 30.0, silent=[3])
    assert state(table, 1).lease_until == before


def test_an_answer_to_a_question_of_an_earlier_life_renews_nothing() -> None:
    table = leased()
    table.wait(10.0)
    table.deliver()  # The questions arrive; the answers are under way.
    late = [p for p in table.posted if p.to == 1]
    table.posted.clear()
    table.seat(1, fuse=True)
    table.look_around()
    table.posted.clear()
    for post in late:
        give(table, post.sender, 1, post.frame)
    assert state(table, 1).lease_until == 0.0


# R1: members.


def test_a_member_has_what_is_left_counted_from_when_it_asked() -> None:
    table = leased(ALL_OF_THREE)
    began = table.now
    pass_time(table, 3.5)
    # It asked 3 s after the renewal was sent, and the answer took no time.
    assert state(table, 2).lease_until == pytest.approx(began + 60.0, abs=0.01)
    pass_time(table, 100.0, silent=[3])
    until = state(table, 2).lease_until
    assert until == pytest.approx(began + 60.0, abs=0.01)  # Too few answer: no more for anyone.


def test_a_member_with_no_answer_has_no_lease() -> None:
    table = Table(ALL_OF_THREE)
    table.seat(1, 2, 3, fuse=True)
    table.look_around()
    while not state(table, 2).started:
        table.deliver()
    table.posted.clear()
    pass_time(table, 50.0, silent=[2])
    assert state(table, 2).lease_until == 0.0
    assert not state(table, 2).stop


# R5, R6: voters.


def test_a_voter_that_abandons_never_answers_again() -> None:
    table = leased(Bounds.bounded(control_plane=3, nodes_max=4), size=4)
    # Node 4 still answers node 1; nodes 2 and 3 do not, and abandon it with 4's promise.
    end = table.now + 110.0
    while table.now < end:
        table.wait(0.5)
        for _ in range(8):
            table.posted = [p for p in table.posted if {p.sender, p.to} not in ({1, 2}, {1, 3})]
            table.deliver()
    assert [lease(table, n).mute for n in (2, 3, 4)] == [True, True, False]
    table.posted.clear()
    table.look_around()
    table.wait(3.5)
    table.deliver()
    assert {sender for sender, _ in messages(table, Renewed)} == {4}
    table.seat(2, fuse=True)  # Its vote is on its disk.
    table.look_around()
    assert lease(table, 2).mute


def test_a_restart_counts_as_an_answer() -> None:
    table = leased()
    pass_time(table, 5.0)
    table.seat(2, fuse=True)
    restarted = table.now
    part(table, 1)
    assert lease(table, 2).last_answer == restarted


def test_only_the_initialiser_speaks_for_itself() -> None:
    table = leased()
    plan = state(table, 1).plan
    assert plan is not None
    forming = table.machines[2]._term.forming
    assert forming is not None
    forged = forming._paper.write(Released, bytes(16))
    give(table, 2, 3, forged.frame)
    assert table.rejected == [(3, "speaks for the initialiser and is not it")]
    assert not lease(table, 3).released


def test_the_initialiser_votes_for_its_own_end_90_s_after_it_last_let_itself_run() -> None:
    # X renews through the members, then meets the two others: it is in both quorums, alone.
    table = leased(Bounds.bounded(control_plane=3, nodes_max=5), size=5)
    members, others = (2, 3), (4, 5)
    part(table, *others)
    run_split(table, 95.0, others)
    plan = state(table, 1).plan
    assert plan is not None
    assert [seat.node for seat in plan.seats] == [signer_of(n).node_id for n in (1, 2, 3)]
    reading = K3sReading(cluster_id=plan.cluster_id, exits=5, stopped=(plan.cluster_id,))
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    assert lease(table, 1).gave_up is not None
    part(table, *members)
    gave_up_at = table.now
    while state(table, 4).generation == 1 and table.now < gave_up_at + 200.0:
        run_split(table, 0.5, members)
    assert state(table, 4).generation == 2
    assert [state(table, n).stop for n in members] == [False, False]  # They know of nothing.
    for member in members:
        until = state(table, member).lease_until
        assert until is not None
        assert until + 10.0 < table.now  # The fuse needs up to 10 s.


def test_a_member_that_said_its_k3s_is_down_keeps_to_it_after_a_restart() -> None:
    table = leased(ALL_OF_THREE)
    pass_time(table, 3.5)
    plan = state(table, 1).plan
    assert plan is not None
    share = state(table, 2).lease_until
    assert share is not None
    reading = K3sReading(cluster_id=plan.cluster_id, exits=5)
    table.perform(1, table.machines[1].observe(reading, Instant(table.now)))
    pass_time(table, 11.0)
    assert state(table, 2).stop
    assert "down/1" not in table.disks[2]  # Ordered to stop, and not down yet.
    stop_k3s(table, 2)
    said = [line for line in table.transcript if line.startswith("n2 ")]
    word = said.index("n2 tells n1: Down of generation 1")
    assert said[word - 1] == "n2 records down/1"
    table.seat(2, fuse=True)
    assert share - table.now > 30.0  # Its old share would let k3s start.
    assert state(table, 2).stop  # From the first moment on, whoever it hears.
    assert state(table, 2).lease_until == 0.0
    part(table, 2)
    pass_time(table, 5.0, silent=[2])
    assert state(table, 2).stop
