"""Small tables of machines: the happy path word by word, what they wait for, loss and restart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ledger import Instant
from roles import Bounds
from roles._messages import Ballot, Nack, seal
from tests.roles.table import (
    THREE,
    Table,
    claimed,
    frame_in_words,
    give,
    phase_of,
    prepare,
    states,
)
from tests.roles.world import NETWORK, candidate_of, signer_of

GOLDEN = Path(__file__).parent / "golden"


# The happy path.


def test_the_conversation_of_three_nodes_is_the_golden_one() -> None:
    table = claimed(Bounds.bounded(control_plane=3, nodes_max=3))
    for number in (1, 2, 3):
        table.observe(number, [1, 2])
    table.transcript.append("-- n1, n2 and n3 vote in etcd")
    for number in (1, 2, 3):
        table.observe(number, [1, 2, 3])
    table.wait(0.0)
    table.settle()
    golden = GOLDEN / "three_nodes.txt"
    found = "\n".join(table.transcript) + "\n"
    if os.environ.get("MESHD_REWRITE"):
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize(
    ("control_plane", "nodes_max", "size"),
    [(1, 1, 1), (1, 3, 2), (1, 3, 3), (3, 3, 3), (3, 5, 3), (3, 5, 5), (5, 5, 5), (5, 9, 7)],
)
def test_it_forms_with_every_control_plane(control_plane: int, nodes_max: int, size: int) -> None:
    table = claimed(Bounds.bounded(control_plane=control_plane, nodes_max=nodes_max), size)
    starters = [n for n, state in states(table).items() if state.may_initialise]
    assert starters == [1]
    table.observe(1, range(1, control_plane + 1))
    table.settle()
    for state in states(table).values():
        assert state.phase == "formed"
        assert state.plan is not None
        assert len(state.plan.seats) == control_plane
        assert (state.waiting_for, state.kube_system_uid) == (None, "uid-1")
        assert not state.may_initialise
        assert state.votes >= table.bounds.quorum
    assert sorted(table.ledger) == ["genesis/1/claim", "genesis/1/done", "genesis/1/started"]
    table.wait(60.0)
    assert all(machine.deadline == float("inf") for machine in table.machines.values())
    assert table.rejected == []


def test_the_best_ranked_node_becomes_the_initialiser_and_its_secrets_count() -> None:
    plan = claimed(Bounds.bounded(control_plane=3), 5).machines[4].state.plan
    assert plan is not None
    assert plan.initialiser == signer_of(1).node_id
    assert [seat.node for seat in plan.seats] == [signer_of(n).node_id for n in (1, 2, 3)]
    assert plan.ca_hash == candidate_of(1, THREE).ca_hash
    assert plan.vip == "10.0.0.50"


def test_a_worker_only_learns() -> None:
    table = Table(THREE)
    table.seat(1, 2)
    table.seat(7, may_vote=False, wish="worker")
    table.look_around()
    table.wait(2.0)
    table.settle()
    assert phase_of(table, 7) == "discovering"
    assert table.disks[7] == {}
    for record in list(table.ledger.values()):
        table.perform(7, table.machines[7].learn(record, Instant(table.now)))
    assert phase_of(table, 7) == "started"


# What it waits for.


def test_missing_voters_are_counted_and_those_present_named() -> None:
    table = Table(Bounds.bounded(control_plane=3))
    table.seat(1, 2)
    table.look_around()
    assert table.machines[1].state.waiting_for == (
        "2 of 3 voters seen (n1, n2): one more machine with this token must be reachable"
    )
    table.look_around(present=[])
    assert table.machines[1].state.waiting_for == (
        "1 of 3 voters seen (n1): 2 more machines with this token must be reachable"
    )


def test_enough_voters_but_too_few_servers_is_said_with_the_reason() -> None:
    table = Table(Bounds.bounded(control_plane=3))
    table.seat(1, 2)
    table.seat(3, memory_mib=1024)
    table.look_around()
    table.wait(60.0)
    assert table.machines[1].state.waiting_for == (
        "2 of 3 servers found (n1, n2); n3: it has 1024 MiB of memory, a server needs 1843"
    )
    assert table.posted == []


def test_each_later_step_names_who_is_waited_for() -> None:
    table = Table(THREE)
    table.seat(1, 2)
    table.look_around()
    assert table.machines[2].state.waiting_for == (
        "2 of 2 voters seen (n1, n2): a moment for the other machines of 3, then a plan"
    )
    table.wait(1.6)
    assert table.machines[1].state.waiting_for == "1 of 2 promises for this node's plan (n1)"
    assert phase_of(table, 1) == "voting"
    for _ in range(4):
        table.deliver()
    assert phase_of(table, 1) == "claimed"
    assert table.machines[1].state.waiting_for == "n1 to get 2 votes to start k3s"
    table.settle()
    assert table.machines[2].state.waiting_for == (
        "the control plane (n1) to come up: 0 of 1 etcd voters seen from here"
    )


def test_a_plan_waits_a_moment_for_stragglers_but_not_if_all_are_here() -> None:
    table = Table(THREE)
    table.seat(1, 2)
    table.look_around()
    table.wait(1.4)
    assert table.posted == []
    table.seat(3)
    table.look_around()
    assert [frame_in_words(post.frame) for post in table.posted] == ["Prepare claim 1.n1"] * 2


def test_a_flapping_link_delays_a_plan_for_a_few_seconds_only() -> None:
    bounds = Bounds.bounded(control_plane=1, nodes_max=5)
    table = Table(bounds)
    table.seat(1, 2, 3, 4)
    for _ in range(6):
        table.look_around(present=[1, 2, 3])
        table.wait(0.5)
        table.look_around(present=[1, 2, 3, 4])
        table.wait(0.5)
    assert table.posted


def test_the_next_ranked_proposes_itself_when_the_best_stays_silent() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    del table.machines[1]  # Connected, but hung.
    table.posted.clear()
    table.wait(2.5)
    table.settle()
    plan = table.machines[3].state.plan
    assert plan is not None
    assert plan.initialiser == signer_of(2).node_id


# Loss, lag, restart.


def test_lost_questions_and_answers_are_repeated() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    for _ in range(4):
        table.deliver(lose=True)
        table.wait(6.0)
    table.settle()
    assert {state.phase for state in states(table).values()} == {"started"}


def test_a_voter_that_missed_a_decision_is_brought_up_to_date_by_its_own_refusal() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    table.deliver(to=2)  # n3 hears nothing of the CLAIM.
    table.deliver(to=1)
    table.deliver(to=3, lose=True)
    table.deliver(to=2)
    table.deliver(to=1)
    table.deliver(to=2, lose=True)  # Nor does n2 of its decision.
    claim = [p for p in table.posted if "Decided" in frame_in_words(p.frame)]
    table.posted = [p for p in table.posted if p not in claim]
    assert phase_of(table, 3) == "discovering"
    table.settle()
    table.wait(2.0)
    table.settle()
    assert {state.phase for state in states(table).values()} == {"started"}


def test_a_node_that_asks_about_a_decided_slot_is_told_the_decision() -> None:
    table = claimed()
    give(table, 9, 2, prepare(9, 50))
    told = [frame_in_words(post.frame).split(",")[0] for post in table.posted]
    assert told == ["Decided claim", "Decided started"]
    assert {post.to for post in table.posted} == {9}


def test_a_decision_that_nobody_published_is_published_by_who_knows_it() -> None:
    table = claimed()
    table.ledger.clear()
    table.wait(10.0)
    assert sorted(table.ledger) == ["genesis/1/claim", "genesis/1/started"]


def test_a_decision_seen_in_the_ledger_is_not_published_again() -> None:
    table = claimed()
    records = dict(table.ledger)
    for number, machine in table.machines.items():
        for record in records.values():
            table.perform(number, machine.learn(record, Instant(table.now)))
    table.ledger.clear()
    table.wait(60.0)
    assert table.ledger == {}


def test_everything_survives_a_restart_of_everyone() -> None:
    table = claimed()
    before = states(table)
    table.seat(1, 2, 3)
    after = states(table)
    for number in (1, 2, 3):
        assert after[number].phase == "started"
        assert after[number].plan == before[number].plan
        assert after[number].may_initialise == (number == 1)


def test_the_intent_is_on_disk_before_started_is_proposed() -> None:
    table = claimed()
    mine = [line for line in table.transcript if line.startswith("n1 ")]
    intent = next(i for i, line in enumerate(mine) if "intent/1" in line)
    proposed = next(i for i, line in enumerate(mine) if "Prepare started" in line)
    assert intent < proposed


def test_without_its_intent_on_disk_nobody_initialises() -> None:
    table = claimed()
    del table.disks[1]["intent/1"]
    table.seat(1)
    assert phase_of(table, 1) == "started"
    assert not table.machines[1].state.may_initialise


def test_done_needs_a_surviving_majority_in_etcd() -> None:
    table = claimed(Bounds.bounded(control_plane=5, nodes_max=5), 5)
    table.observe(1, [1, 2, 3])
    assert table.posted == []
    table.observe(1, [1, 2, 3, 4], uid=None)
    assert table.posted == []
    table.observe(4, [1, 2, 3, 5])  # n4 does not see itself.
    table.observe(5, [2, 3, 4, 5])  # n5 does not see the initialiser.
    table.wait(60.0)
    assert table.posted == []
    table.observe(2, [1, 2, 3, 4])  # A joined member does it if the initialiser does not.
    table.wait(2.9)
    assert table.posted == []
    table.wait(0.2)
    assert "Prepare done" in frame_in_words(table.posted[0].frame)
    table.settle()
    assert {state.phase for state in states(table).values()} == {"formed"}


def test_evidence_read_before_the_plan_was_known_counts_once_it_is() -> None:
    table = claimed()
    claim = table.disks[1].pop("decided/1/claim")
    table.seat(1)
    table.look_around()
    table.observe(1, [1])
    table.posted.clear()
    table.perform(1, table.machines[1].learn(claim, Instant(table.now)))
    asked = {frame_in_words(post.frame) for post in table.posted}
    assert [words.rsplit(" ", 1)[0] for words in asked] == ["Prepare done"]


def test_a_refusal_with_a_higher_ballot_is_answered_with_one_above_it() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    table.posted.clear()
    higher = Ballot(40, signer_of(3).node_id)
    nack = Nack(
        network_id=NETWORK,
        limits=THREE.limits,
        generation=1,
        slot="claim",
        ballot=Ballot(1, signer_of(1).node_id),
        sender=signer_of(2).node_id,
        promised=higher,
        open_slot="claim",
    )
    give(table, 2, 1, seal(nack, signer_of(2)).frame)
    assert table.posted == []
    table.wait(8.0)
    mine = [frame_in_words(post.frame) for post in table.posted if post.sender == 1]
    assert "Prepare claim 41.n1" in mine
