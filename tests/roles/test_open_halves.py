"""Two plans of one generation that meet before either formed are ended together, by one vote."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ledger import Instant
from roles import Bounds, K3sReading
from roles._journal import ballot_of
from roles._lease import ABANDON_AFTER_S
from roles._messages import Accept, Ballot, hash_of, seal
from roles._nomination import OPEN_SETTLE_S
from roles._records import Void, contradiction, decode_value, encode_value
from tests.roles.leases import pass_time, state
from tests.roles.table import Table, give, plan_of, states
from tests.roles.test_open_lease import bring_up, meet
from tests.roles.world import NETWORK, signer_of

OPEN = Bounds.unbounded(control_plane=1)
FUSE_S = 10.0


def apart(*halves: Sequence[int], fuse: Sequence[int] = range(1, 10)) -> Table:
    """Return a table at which each half decided CLAIM and STARTED, seeing no other."""
    table = Table(OPEN)
    for half in halves:
        for number in half:
            table.seat(number, fuse=number in fuse)
    for half in halves:
        for number in half:
            meet(table, number, half, half)
    table.wait(OPEN_SETTLE_S + 0.1)
    table.settle()
    assert all(one.started for one in states(table).values())
    pass_time(table, 15.0)
    return table


def bring_together(table: Table, *, without: Sequence[int] = ()) -> None:
    """Let all know and hear all, and have all records."""
    everybody = [number for number in sorted(table.machines) if number not in without]
    memories = [table.machines[n]._log.memory for n in everybody]
    records = [d.record for memory in memories for d in memory.decided.values()]
    for number in everybody:
        meet(table, number, everybody, everybody)
        for record in records:
            machine = table.machines[number]
            table.perform(number, machine.learn(record, Instant(table.now)))


def obey(table: Table) -> None:
    """Let k3s be down wherever it must be."""
    for number, one in states(table).items():
        if one.stop and one.plan is not None:
            reading = K3sReading(stopped=(one.plan.cluster_id,))
            machine = table.machines[number]
            table.perform(number, machine.observe(reading, Instant(table.now)))


def voided(table: Table) -> list[int]:
    """Return who voted for the end of all plans of the first generation."""
    memories = {n: m._journal.of(1) for n, m in table.machines.items()}
    return [n for n, memory in memories.items() if memory.voided]


@pytest.mark.parametrize("halves", [([1, 2], [3, 4]), ([1, 2, 3], [4, 5, 6])])
def test_halves_that_met_before_either_formed_begin_the_next_generation_as_one(
    halves: tuple[list[int], list[int]],
) -> None:
    table = apart(*halves)
    bring_together(table)
    for one in states(table).values():
        (problem,) = one.problems
        assert problem.code == "MESH-4007"
        assert problem.fix.startswith("nothing is needed: when both leases are over")
        assert "votes to end two plans that were made apart" in str(one.waiting_for)
    held = [one.lease_until or 0.0 for one in states(table).values()]
    while not voided(table):
        assert table.now < 2000.0
        held += [one.lease_until or 0.0 for one in states(table).values()]
        obey(table)
        pass_time(table, 1.0)
    assert max(held) + FUSE_S < table.now  # R1 to R11 hold for both plans.
    while not all(one.generation == 2 and one.started for one in states(table).values()):
        assert table.now < 2000.0
        obey(table)
        pass_time(table, 1.0)
    plans = {one.plan.cluster_id for one in states(table).values() if one.plan is not None}
    assert len(plans) == 1
    for one in states(table).values():
        assert one.problems == ()
        assert one.rivals == ()
        assert [past.reason for past in one.history] == [
            "2 clusters were planned, and no one of them could form"
        ]
    assert table.rejected == []


def test_it_ends_a_plan_that_was_not_started_too() -> None:
    table = Table(OPEN)
    table.seat(1, 2, 3, 4, fuse=True)
    for half in ([1, 2], [3, 4]):
        for number in half:
            meet(table, number, half, half)
    table.wait(OPEN_SETTLE_S + 0.1)
    while not all(one.plan for one in states(table).values()):
        table.deliver()
    behind = [n for n, one in states(table).items() if not one.started]
    table.posted.clear()
    assert {3, 4} & set(behind)
    bring_together(table)
    while not all(one.generation == 2 and one.started for one in states(table).values()):
        assert table.now < 2000.0
        obey(table)
        pass_time(table, 1.0)
    assert len({one.plan.cluster_id for one in states(table).values() if one.plan}) == 1


def ask_for_void(table: Table, to: int, *, clusters: Sequence[str] = ()) -> None:
    """Let 9, whom nobody knows, ask for the end of all plans, early."""
    named = clusters or {one.plan.cluster_id for one in states(table).values() if one.plan}
    value = encode_value(Void(tuple(sorted(named))))
    signer = signer_of(9)
    message = Accept(
        network_id=NETWORK,
        limits=OPEN.signed_with(3),
        generation=1,
        slot="done",
        ballot=Ballot(900, signer.node_id),
        sender=signer.node_id,
        value_hash=hash_of(value),
    )
    give(table, 9, to, seal(message, signer, value).frame)


def test_who_learned_of_a_rival_votes_only_when_its_lease_and_the_own_one_are_over() -> None:
    table = apart([1, 2], [3, 4])
    table.now += 600.0  # Nobody answered anybody for long.
    bring_together(table)
    table.posted.clear()
    met = table.now
    for passed, voters in ((0.0, []), (ABANDON_AFTER_S, []), (ABANDON_AFTER_S + 0.1, [2])):
        table.now = met + passed
        ask_for_void(table, 2)
        assert voided(table) == voters
    ask_for_void(table, 1)  # Its k3s is not down.
    assert voided(table) == [2]
    assert state(table, 2).lease is not None
    assert table.machines[2]._stand.mute


def test_nobody_ends_plans_of_which_one_is_known_to_have_formed() -> None:
    table = apart([1, 2], [3, 4])
    bring_up(table, 3, uid="uid-3")
    pass_time(table, 20.0)
    assert state(table, 3).formed
    bring_together(table)
    for _ in range(600):
        obey(table)
        pass_time(table, 1.0)
    assert voided(table) == []
    assert [state(table, n).formed for n in (1, 2, 3, 4)] == [False, False, True, True]
    fixes = {problem.code: problem.fix for problem in state(table, 1).problems}
    assert fixes["MESH-4007"].startswith("this node's cluster forms only if 3 machines follow it")
    assert fixes["MESH-4009"] == "see MESH-4007"


def test_a_plan_without_a_lease_is_never_ended() -> None:
    table = apart([1, 2], [3, 4], fuse=[1, 2])
    bring_together(table)
    for _ in range(600):
        obey(table)
        pass_time(table, 1.0)
    assert voided(table) == []
    assert [one.generation for one in states(table).values()] == [1] * 4


def test_a_cluster_that_formed_meanwhile_stays_and_both_are_shown() -> None:
    table = apart([1, 2], [3, 4], [5, 6])
    bring_together(table, without=[5, 6])
    bring_up(table, 5, uid="uid-5")
    pass_time(table, 20.0, silent=[1, 2, 3, 4])
    assert state(table, 5).formed
    while state(table, 1).generation != 2:
        assert table.now < 2000.0
        obey(table)
        pass_time(table, 1.0, silent=[5, 6])
    void = table.machines[1]._journal.of(1).decided["done"]
    before = state(table, 5).plan
    for number in (5, 6):
        machine = table.machines[number]
        table.perform(number, machine.learn(void.record, Instant(table.now)))
        assert state(table, number).formed
        assert state(table, number).plan == before
        assert [one.code for one in state(table, number).problems] == ["MESH-4007"]
    done = table.machines[5]._log.memory.decided["done"]
    table.perform(1, table.machines[1].learn(done.record, Instant(table.now)))
    assert state(table, 1).generation == 2
    assert [one.code for one in state(table, 1).problems] == ["MESH-4007"]


def test_who_voted_for_the_end_starts_nothing_more_after_a_restart_either() -> None:
    table = apart([1, 2], [3, 4])
    bring_together(table)
    while 1 not in voided(table):
        assert table.now < 2000.0
        obey(table)
        pass_time(table, 1.0)
    kept = {key: row for key, row in table.disks[1].items() if "decided/1/done" not in key}
    table.disks[1] = {key: row for key, row in kept.items() if "/2" not in key}
    del table.disks[1]["gave-up/1"]
    table.seat(1, fuse=True)
    meet(table, 1, [1, 2], [1, 2])
    one = state(table, 1)
    assert (one.generation, one.started, one.may_initialise) == (1, True, False)
    assert table.machines[1]._stand.mute
    vote = table.machines[1]._log.memory.accepted["done"]
    assert isinstance(decode_value(vote.value, "done", 1), Void)
    assert ballot_of(vote).round > 0


def test_the_end_of_other_plans_is_not_that_of_ones_own() -> None:
    plan = plan_of(1)
    other = Void(("aa" * 16, "bb" * 16))
    assert contradiction(other, plan, "done") == "VOID does not name the cluster of CLAIM"
    assert contradiction(other, None, "done") is not None
    named = Void(tuple(sorted((plan.cluster_id, "bb" * 16))))
    assert contradiction(named, plan, "done") is None
