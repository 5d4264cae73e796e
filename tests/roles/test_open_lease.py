"""The forming lease in an open network, where some voters know of others of whom some do not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ledger import Instant
from roles import Bounds, K3sReading, Slot
from roles._lease import ABANDON_AFTER_S
from roles._messages import Accept, Ballot, hash_of, seal
from roles._nomination import OPEN_SETTLE_S
from roles._records import Abandon, encode_value
from tests.roles.leases import lease, pass_time, state
from tests.roles.table import Table, give
from tests.roles.world import NETWORK, signer_of

OPEN = Bounds.unbounded(control_plane=1)
FUSE_S = 10.0
FIRST = [1, 2]
LATER = [3, 4, 5]
ALL = [*FIRST, *LATER]


def meet(table: Table, number: int, known: Sequence[int], here: Sequence[int]) -> None:
    """Let one node know these machines, of which some are connected to it."""
    peers = [signer_of(other).node_id for other in here if other != number]
    candidates = [table.candidates[other] for other in known]
    effects = table.machines[number].update(candidates, peers, Instant(table.now))
    table.perform(number, effects)


def started() -> Table:
    """Return a table of five that run for long, at which 1 and 2 began a cluster by themselves."""
    table = Table(OPEN)
    table.seat(*ALL, fuse=True)
    for number in ALL:
        meet(table, number, [number], [number])
    table.wait(500.0)
    for number in FIRST:
        meet(table, number, FIRST, FIRST)
    table.wait(OPEN_SETTLE_S + 0.1)
    table.settle()
    pass_time(table, 15.0)
    assert lease(table, 1).role == "initialiser"
    assert len(lease(table, 1).answered) == 2
    return table


def introduce(table: Table) -> None:
    """Let 2 bring 3, 4 and 5 all that is known; 1 hears nothing of them."""
    meet(table, 2, ALL, ALL)
    for number in LATER:
        meet(table, number, ALL, [2, *LATER])
        for _, record in sorted(table.ledger.items()):
            effects = table.machines[number].learn(record, Instant(table.now))
            table.perform(number, effects)
    assert all(state(table, number).started for number in LATER)


def tell_only_claim(table: Table) -> None:
    """Let 3, 4 and 5 know the plan, and not that it was started."""
    for number in LATER:
        meet(table, number, ALL, LATER)
        claim = table.ledger["genesis/1/claim"]
        table.perform(number, table.machines[number].learn(claim, Instant(table.now)))
    assert not any(state(table, number).started for number in LATER)


def pass_time_apart(table: Table, seconds: float, *, dead: Sequence[int] = ()) -> None:
    """Let time pass; nothing goes between 1 and those that it does not know."""
    end = table.now + seconds
    while table.now < end:
        table.wait(min(0.5, end - table.now))
        for _ in range(8):
            table.posted = [
                post
                for post in table.posted
                if not {post.sender, post.to} & set(dead)
                and not (1 in {post.sender, post.to} and {post.sender, post.to} & set(LATER))
            ]
            table.deliver()


def bring_up(table: Table, number: int, *, uid: str) -> None:
    """Let k3s of the present plan run on a node, its initialiser."""
    plan = state(table, number).plan
    assert plan is not None
    reading = K3sReading(
        cluster_id=plan.cluster_id,
        voters=(table.candidates[number].node_name,),
        kube_system_uid=uid,
    )
    table.perform(number, table.machines[number].observe(reading, Instant(table.now)))


def abandoning(table: Table) -> list[int]:
    """Return who voted for ABANDON."""
    places = ("accept/1/started", "accept/1/done")
    return [n for n in LATER if any(place in table.disks[n] for place in places)]


def ask_to_abandon(slot: Slot, *, number: int, quorum: int) -> bytes:
    """Return an Accept of ABANDON from a voter that asks for it too early."""
    value = encode_value(Abandon(signer_of(1).node_id, "it does"))
    signer = signer_of(number)
    message = Accept(
        network_id=NETWORK,
        limits=OPEN.signed_with(quorum),
        generation=1,
        slot=slot,
        ballot=Ballot(100, signer.node_id),
        sender=signer.node_id,
        value_hash=hash_of(value),
    )
    return seal(message, signer, value).frame


def test_an_answer_names_its_voters_quorum_and_the_initialiser_asks_for_as_many() -> None:
    table = started()
    introduce(table)
    held = state(table, 1).lease_until
    assert held is not None
    assert state(table, 1).quorum == 2
    pass_time_apart(table, 40.0)
    assert state(table, 1).quorum == 3  # As 2 says; 1 knows nobody but 2.
    # The answers of two, one of which knew better, give nothing; what was given stays given.
    assert state(table, 1).lease_until == held
    assert [number for number, _ in lease(table, 1).answered] == sorted(
        signer_of(number).node_id for number in FIRST
    )
    pass_time_apart(table, held + 1.0 - table.now)
    assert state(table, 1).lease_until == held


@pytest.mark.parametrize("dead", [[], [2]])
def test_whoever_meets_a_plan_abandons_it_only_when_the_lease_of_those_before_is_over(
    dead: list[int],
) -> None:
    table = started()
    introduce(table)
    held = state(table, 1).lease_until
    assert held is not None
    while not abandoning(table):
        assert table.now < held + 600.0
        pass_time_apart(table, 0.5, dead=dead)
    until = state(table, 1).lease_until
    assert until is not None
    assert until <= held
    assert until + FUSE_S < table.now


@pytest.mark.parametrize("slot", ["started", "done"])
def test_a_voter_that_just_learned_of_the_plan_does_not_abandon_it_whoever_asks(slot: Slot) -> None:
    table = started()
    met = table.now
    if slot == "done":
        introduce(table)
    else:
        tell_only_claim(table)
    ask = ask_to_abandon(slot, number=3, quorum=3)
    table.posted.clear()
    give(table, 3, 4, ask)
    assert abandoning(table) == []
    table.now = met + ABANDON_AFTER_S
    give(table, 3, 4, ask)
    assert abandoning(table) == []
    table.now += 0.1
    give(table, 3, 4, ask)
    assert abandoning(table) == [4]


def test_a_lease_outlives_the_coming_of_more_voters_for_as_long_as_it_was_given() -> None:
    table = started()
    held = state(table, 1).lease_until
    for number in ALL:
        meet(table, number, ALL, ALL)
    assert state(table, 1).quorum == 3
    assert state(table, 1).lease_until == held
    pass_time(table, 10.0)  # The new ones are told what is decided, and answer.
    assert len(lease(table, 1).answered) == 5
    until = state(table, 1).lease_until
    assert until is not None
    assert held is not None
    assert until > held
    assert not state(table, 1).stop


def test_two_clusters_in_two_generations_name_each_other_and_nothing_changes() -> None:
    table = started()
    tell_only_claim(table)
    bring_up(table, 1, uid="uid-1")
    pass_time_apart(table, 20.0)
    assert state(table, 1).formed
    first = dict(table.ledger)
    table.ledger.clear()
    pass_time_apart(table, ABANDON_AFTER_S + 60.0, dead=FIRST)
    assert state(table, 3).generation == 2
    plan = state(table, 3).plan
    assert plan is not None
    leader = next(n for n in LATER if signer_of(n).node_id == plan.initialiser)
    bring_up(table, leader, uid="uid-2")
    pass_time_apart(table, 20.0, dead=FIRST)
    assert [state(table, number).formed for number in LATER] == [True] * 3
    second = dict(table.ledger)
    before = [(state(table, n).plan, state(table, n).generation) for n in ALL]
    for number in ALL:
        meet(table, number, ALL, ALL)
        for record in [*first.values(), *second.values()]:
            effects = table.machines[number].learn(record, Instant(table.now))
            table.perform(number, effects)
    pass_time(table, 600.0)
    assert [(state(table, n).plan, state(table, n).generation) for n in ALL] == before
    for number in ALL:
        assert state(table, number).formed
        assert not state(table, number).stop
        alarms = [p.message for p in state(table, number).problems if p.code == "MESH-4007"]
        for one in {found.cluster_id for found, _ in before if found is not None}:
            assert any(one[:8] in alarm for alarm in alarms)
        assert len(state(table, number).rivals) == 1
    assert table.rejected == []
