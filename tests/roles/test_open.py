"""Open networks: nobody knows how many may vote, so the quorum grows with those that are known."""

from __future__ import annotations

import pytest

from ledger import Instant
from roles import Bounds, Candidate, electorate
from roles._messages import (
    Accepted,
    Authentic,
    BadMessage,
    Ballot,
    Nack,
    Prepare,
    hash_of,
    read_frame,
    seal,
    write_record,
)
from roles._nomination import OPEN_SETTLE_S, SETTLE_MAX_S
from roles._records import Started, encode_value, read_record
from roles._types import quorum_of
from tests.roles.table import Table, give, states
from tests.roles.world import NETWORK, candidate_of, signer_of

OPEN = Bounds.unbounded(control_plane=1)


def quorum_among(*numbers: int, bounds: Bounds = OPEN, **changes: object) -> int:
    found = electorate(
        [candidate_of(number, bounds, **changes) for number in numbers],
        me=signer_of(1).node_id,
        bounds=bounds,
        has_voted=False,
        present=[],
    )
    assert found.halt is None
    return found.quorum


def seated(*numbers: int, bounds: Bounds = OPEN) -> Table:
    table = Table(bounds)
    table.seat(*numbers)
    table.look_around()
    return table


def test_the_quorum_is_a_majority_of_the_machines_known_present_or_not() -> None:
    assert [quorum_among(*range(1, size + 1)) for size in (1, 2, 3, 4, 5, 9)] == [2, 2, 2, 3, 3, 5]


def test_it_is_never_below_the_control_plane_or_the_minimum_or_two() -> None:
    assert Bounds.unbounded(control_plane=1).quorum == 2
    assert quorum_among(1, bounds=Bounds.unbounded(control_plane=3)) == 3
    assert quorum_among(1, 2, bounds=Bounds.unbounded(control_plane=1, minimum_nodes=4)) == 4


def test_one_machine_under_two_identities_counts_once() -> None:
    twins = {"fingerprint": ("the same board",), "may_vote": True}
    found = electorate(
        [candidate_of(1, OPEN), candidate_of(2, OPEN, **twins), candidate_of(3, OPEN, **twins)],
        me=signer_of(1).node_id,
        bounds=OPEN,
        has_voted=False,
        present=[],
    )
    assert found.quorum == 2


def test_any_number_of_voters_is_no_reason_to_halt() -> None:
    assert quorum_among(*range(1, 31)) == 16


def test_more_voters_than_a_record_has_room_for_halt_it_by_name() -> None:
    found = electorate(
        [candidate_of(1, OPEN)],
        me=signer_of(1).node_id,
        bounds=OPEN,
        has_voted=False,
        present=[],
        quorum_known=201,
    )
    assert found.halt is not None
    assert found.halt.code == "MESH-4008"


def test_machines_of_an_open_and_of_a_bounded_network_never_vote_together() -> None:
    bounded = Bounds.bounded(control_plane=1, nodes_max=3)
    people: list[Candidate] = [candidate_of(1, OPEN), candidate_of(2, bounded)]
    found = electorate(
        people, me=signer_of(1).node_id, bounds=OPEN, has_voted=False, present=[people[1].node]
    )
    assert found.halt is not None
    assert found.halt.message.startswith(
        "this node is set up for any number of machines, quorum 2 or more, control plane 1; n2 for "
        "3 machines, quorum 2"
    )


def test_one_machine_alone_proposes_nothing() -> None:
    table = seated(1)
    table.wait(600.0)
    assert table.posted == []
    assert states(table)[1].waiting_for == (
        "1 of 2 voters seen (n1): one more machine with this token must be reachable"
    )


def test_two_machines_form_after_ten_seconds_of_seeing_no_other() -> None:
    table = seated(1, 2)
    table.wait(OPEN_SETTLE_S - 0.1)
    assert table.posted == []
    assert "10 s without another machine" in (states(table)[2].waiting_for or "")
    table.wait(0.2)
    table.settle()
    assert [state.started for state in states(table).values()] == [True, True]


def test_whoever_comes_or_goes_begins_the_ten_seconds_anew_for_as_long_as_it_takes() -> None:
    assert OPEN_SETTLE_S > SETTLE_MAX_S  # Which bounds the waiting where the number is known.
    table = seated(1, 2, 3)
    del table.machines[3]  # The third is only seen.
    for present in ([1, 2], [1, 2, 3]) * 3:
        table.wait(OPEN_SETTLE_S - 1.0)
        table.look_around(present)
    assert table.posted == []
    table.wait(OPEN_SETTLE_S)
    assert table.posted != []


def prepare_with(quorum: int, number: int = 2) -> bytes:
    signer = signer_of(number)
    message = Prepare(
        network_id=NETWORK,
        limits=OPEN.signed_with(quorum),
        generation=1,
        slot="claim",
        ballot=Ballot(1, signer.node_id),
        sender=signer.node_id,
    )
    return seal(message, signer).frame


def test_a_ballot_below_what_the_voter_knows_is_refused_with_the_quorum_that_would_do() -> None:
    table = seated(1, 2, 3, 4, 5)
    give(table, 2, 1, prepare_with(2))
    (answer,) = table.posted
    nack = read_frame(answer.frame)
    assert isinstance(nack, Authentic)
    assert isinstance(nack.message, Nack)
    assert quorum_of(nack.message.limits) == 3
    assert table.disks[1] == {"quorum": b"3"}  # And no promise.


def test_whoever_is_told_of_a_larger_quorum_takes_it_and_it_survives_a_restart() -> None:
    table = seated(1, 2, 3)
    give(table, 2, 1, prepare_with(4))
    assert states(table)[1].quorum == 4
    assert "promise/1/claim" in table.disks[1]
    table.seat(1)
    table.look_around()
    assert states(table)[1].quorum == 4


def test_a_ballot_under_way_ends_when_more_voters_become_known() -> None:
    table = seated(1, 2)
    table.wait(OPEN_SETTLE_S + 0.1)
    table.posted.clear()  # Its questions are lost.
    table.seat(3, 4, 5)
    table.look_around()
    give(table, 2, 1, prepare_with(2))
    assert states(table)[1].quorum == 3
    table.wait(2 * OPEN_SETTLE_S)
    table.settle()
    assert all(state.started for state in states(table).values())
    assert all(state.votes >= 3 for state in states(table).values())


def test_a_message_without_its_ballots_quorum_is_not_answered() -> None:
    table = seated(1, 2)
    signer = signer_of(2)
    message = Prepare(
        network_id=NETWORK,
        limits=OPEN.limits,
        generation=1,
        slot="claim",
        ballot=Ballot(1, signer.node_id),
        sender=signer.node_id,
    )
    give(table, 2, 1, seal(message, signer).frame)
    assert table.posted == []


def record_of(signers: int, *, limits: tuple[int, ...]) -> bytes:
    value = encode_value(Started(signer_of(1).node_id))
    votes = [
        seal(
            Accepted(
                network_id=NETWORK,
                limits=limits,
                generation=1,
                slot="started",
                ballot=Ballot(1, signer_of(1).node_id),
                sender=signer_of(number).node_id,
                value_hash=hash_of(value),
            ),
            signer_of(number),
            value,
        )
        for number in range(1, signers + 1)
    ]
    return write_record(value, votes)


def test_a_record_needs_the_votes_that_it_names_and_the_least_of_its_network() -> None:
    found = read_record(record_of(4, limits=(0, 2, 1, 4)), network_id=NETWORK, quorum=OPEN.quorum)
    assert found.quorum == 4
    with pytest.raises(BadMessage, match="3 voters signed it, 4 are needed"):
        read_record(record_of(3, limits=(0, 2, 1, 4)), network_id=NETWORK, quorum=OPEN.quorum)
    with pytest.raises(BadMessage, match="1 voters signed it, 2 are needed"):
        read_record(record_of(1, limits=(0, 1, 1, 1)), network_id=NETWORK, quorum=OPEN.quorum)
    with pytest.raises(BadMessage, match="do not say how many are needed"):
        read_record(record_of(2, limits=(0, 2, 1)), network_id=NETWORK, quorum=OPEN.quorum)


def halves_apart() -> tuple[Table, Table]:
    """Return n1 and n2, and n3 and n4, who never met and each decided a plan."""
    ours, theirs = Table(OPEN), Table(OPEN)
    ours.seat(1, 2)
    theirs.seat(3, 4)
    for table in (ours, theirs):
        table.look_around()
        table.wait(OPEN_SETTLE_S + 0.1)
        table.settle()
    return ours, theirs


def test_two_clusters_that_meet_say_so_and_name_both_and_neither_changes() -> None:
    ours, theirs = halves_apart()
    plans = [ours.machines[1].state.plan, theirs.machines[3].state.plan]
    ours.wait(10.0)
    theirs.wait(10.0)
    for record in theirs.ledger.values():
        ours.perform(1, ours.machines[1].learn(record, Instant(ours.now)))
    state = ours.machines[1].state
    assert state.plan == plans[0]
    assert plans[1] in state.rivals
    (alarm,) = state.problems
    assert alarm.code == "MESH-4007"
    assert alarm.message.startswith("slots claim, started of generation 1 were also decided")
    for plan in plans:
        assert plan is not None
        assert plan.cluster_id[:8] in alarm.message
    assert ours.rejected == []


def test_done_of_another_cluster_never_forms_one_that_is_under_way() -> None:
    ours, theirs = halves_apart()
    theirs.observe(3, [3])
    theirs.settle()
    theirs.wait(10.0)
    assert theirs.machines[3].state.formed
    done = theirs.ledger["genesis/1/done"]
    ours.perform(1, ours.machines[1].learn(done, Instant(ours.now)))
    assert not ours.machines[1].state.formed
    assert [problem.code for problem in ours.machines[1].state.problems] == ["MESH-4007"]
    early = Table(OPEN)  # DONE came first, and then the CLAIM of another cluster.
    early.seat(1)
    early.look_around()
    for record in (done, ours.ledger["genesis/1/claim"]):
        early.perform(1, early.machines[1].learn(record, Instant(early.now)))
    assert early.machines[1].state.plan is None


def test_whoever_asks_voters_of_another_cluster_does_not_ask_again_at_once() -> None:
    ours, theirs = Table(OPEN), Table(OPEN)
    ours.seat(1, 2)
    theirs.seat(3, 4)
    for table in (ours, theirs):
        table.look_around()
        table.wait(OPEN_SETTLE_S + 0.1)
        while not table.machines[min(table.machines)].state.plan:
            table.deliver()
    theirs.settle()
    assert not ours.machines[1].state.started
    attempt = ours.machines[1].deadline
    claim, started = (
        theirs.machines[3]._log.memory.decided[s].record for s in ("claim", "started")
    )
    asked = len(ours.posted)
    for record in (claim, started) * 5:
        give(ours, 3, 1, record)
    assert len(ours.posted) == asked
    assert ours.machines[1].deadline == attempt
