"""One node's machine and small tables of them: the happy path word by word, and each way off it."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from ledger import Instant
from roles import Bounds, ClusterPlan, GenesisState
from roles._messages import Accept, Ballot, Nack, Prepare, hash_of, read_frame, seal
from roles._messages import Record as DecidedFrame
from roles._records import Claim, Started, encode_value, read_record
from tests.roles.table import Table, frame_in_words
from tests.roles.world import NETWORK, candidate_of, signer_of

GOLDEN = Path(__file__).parent / "golden"
THREE = Bounds.bounded(control_plane=1, nodes_max=3)


def states(table: Table) -> dict[int, GenesisState]:
    return {number: machine.state for number, machine in table.machines.items()}


def claimed(bounds: Bounds = THREE, size: int = 3) -> Table:
    """Return a table at which CLAIM and STARTED are decided."""
    table = Table(bounds)
    table.seat(*range(1, size + 1))
    table.look_around()
    if not table.posted:
        table.wait(1.6)
    table.settle()
    return table


def phase_of(table: Table, number: int) -> str:
    return table.machines[number].state.phase


def plan_of(number: int, bounds: Bounds = THREE) -> ClusterPlan:
    """Return a plan with that node alone, as a test's own proposer makes it."""
    plan = claimed(bounds).machines[1].state.plan
    assert plan is not None
    candidate = candidate_of(number, bounds)
    seat = plan.seats[0].__class__(
        node=candidate.node, node_name=candidate.node_name, node_ip=candidate.node_ip
    )
    return ClusterPlan(
        cluster_id=f"{number:032x}",
        generation=1,
        initialiser=candidate.node,
        seats=(seat,),
        network="lan",
        settings_hash=candidate.settings_hash,
        ca_hash=candidate.ca_hash,
        token_commitment=candidate.token_commitment,
        vip=None,
    )


def prepare(number: int, round_: int, bounds: Bounds = THREE, network_id: str = NETWORK) -> bytes:
    signer = signer_of(number)
    message = Prepare(
        network_id=network_id,
        limits=bounds.limits,
        generation=1,
        slot="claim",
        ballot=Ballot(round_, signer.node_id),
        sender=signer.node_id,
    )
    return seal(message, signer).frame


def accept(number: int, round_: int, value: bytes) -> bytes:
    signer = signer_of(number)
    message = Accept(
        network_id=NETWORK,
        limits=THREE.limits,
        generation=1,
        slot="claim",
        ballot=Ballot(round_, signer.node_id),
        sender=signer.node_id,
        value_hash=hash_of(value),
    )
    return seal(message, signer, value).frame


def give(table: Table, sender: int, to: int, frame: bytes) -> None:
    """Hand a frame over, as if the sender had sent it."""
    machine = table.machines[to]
    sender_id = signer_of(sender).node_id
    table.perform(to, machine.receive(sender_id, frame, Instant(table.now)))


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
    if os.environ.get("MESHD_REWRITE_GOLDEN"):
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
        "1 of n1 to be voting members of etcd (0 so far as seen from here)"
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
    (post,) = table.posted
    found = read_frame(post.frame)
    assert isinstance(found, DecidedFrame)


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


# Halts.


@pytest.mark.parametrize("key", ["promise/1/claim", "accept/1/claim", "ballot/1", "intent/1"])
def test_a_damaged_row_is_noticed_and_ends_voting(key: str) -> None:
    whole = claimed().disks[1]
    for position in range(0, len(whole[key]), 7):
        table = Table(THREE)
        damaged = bytearray(whole[key])
        damaged[position] ^= 1 << (position % 8)
        table.disks[1] = {k: v for k, v in whole.items() if not k.startswith("decided/")}
        table.disks[1][key] = bytes(damaged)
        table.seat(1, 2, 3)
        table.look_around()
        state = table.machines[1].state
        assert state.phase == "halted-lost-memory", position
        assert state.problems[0].code == "MESH-4005"
        assert f"row {key} of this node's journal is damaged" in state.problems[0].message
        table.posted.clear()
        give(table, 2, 1, prepare(2, 99))
        assert not any(post.sender == 1 for post in table.posted)


@pytest.mark.parametrize(
    ("key", "source"),
    [
        ("promise/1/claim", (2, "promise/1/claim")),  # Another node's.
        ("promise/1/claim", (1, "accept/1/claim")),  # Another kind.
        ("accept/1/started", (1, "accept/1/claim")),  # Another slot.
        ("lease/1", (1, "accept/1/claim")),  # A kind that only a newer version knows.
    ],
)
def test_a_row_in_the_wrong_place_ends_voting(key: str, source: tuple[int, str]) -> None:
    table = claimed()
    table.disks[1][key] = table.disks[source[0]][source[1]]
    del table.disks[1]["decided/1/claim"]
    table.seat(1)
    table.look_around()
    assert phase_of(table, 1) == "halted-lost-memory"


def test_too_many_voters_halt_everyone_until_done() -> None:
    table = claimed()
    table.seat(4)
    table.look_around()
    assert {state.phase for state in states(table).values()} == {"halted-too-many-voters"}
    table.observe(1, [1])
    assert table.posted == []
    assert "4 machines may vote" in (table.machines[1].state.waiting_for or "")


def test_too_many_voters_after_done_are_just_workers() -> None:
    table = claimed()
    table.observe(1, [1])
    table.settle()
    table.seat(4, 5)
    table.look_around()
    assert phase_of(table, 1) == "formed"
    assert table.machines[1].state.problems == ()


def test_a_machine_whose_disk_was_wiped_does_not_vote_again() -> None:
    table = claimed(Bounds.bounded(control_plane=1, nodes_max=5), 3)
    table.seat(8, fingerprint=("fingerprint-2",), name="n2")
    table.look_around()
    state = table.machines[8].state
    assert state.phase == "halted-lost-memory"
    table.posted.clear()
    give(table, 1, 8, prepare(1, 90, table.bounds))
    assert table.posted == []


def test_a_disk_put_back_from_an_old_copy_is_noticed() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    old = dict(table.disks[2])
    table.look_around()
    table.settle()
    table.disks[2] = old
    table.seat(2)
    table.look_around()
    signed = next(
        record
        for record in table.ledger.values()
        if signer_of(2).node_id in read_record(record, network_id=NETWORK, quorum=2).signers
    )
    table.perform(2, table.machines[2].learn(signed, Instant(table.now)))
    problems = table.machines[2].state.problems
    assert [problem.code for problem in problems] == ["MESH-4005"]
    assert "an old copy of the disk was put back" in problems[0].message


def test_settings_that_were_changed_after_a_vote_end_voting() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    table.bounds = Bounds.bounded(control_plane=1, nodes_max=5)
    table.seat(1)
    table.look_around()
    state = table.machines[1].state
    assert state.phase == "halted-settings-mismatch"
    assert "this node has voted with 3 machines, quorum 2" in (state.waiting_for or "")


def test_voters_with_other_bounds_do_not_answer_each_other() -> None:
    table = Table(THREE)
    table.seat(1)
    table.look_around()
    give(table, 2, 1, prepare(2, 1, Bounds.bounded(control_plane=3)))
    assert table.posted == []
    assert table.rejected == []


def test_a_proposer_of_two_values_in_one_ballot_is_proven_faulty_and_excluded() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    table.posted.clear()
    first, second = (encode_value(Claim(plan_of(number))) for number in (2, 3))
    give(table, 3, 1, accept(3, 9, first))
    assert [frame_in_words(post.frame) for post in table.posted] == ["Accepted claim 9.n3"]
    give(table, 3, 1, accept(3, 9, second))
    assert table.rejected == [(1, "two values for one ballot")]
    state = table.machines[1].state
    assert [problem.code for problem in state.problems] == ["MESH-4006"]
    assert [refusal.node for refusal in state.excluded] == [signer_of(3).node_id]
    table.seat(1)  # The proof is on disk.
    table.look_around()
    table.posted.clear()
    assert table.machines[1].state.problems == state.problems


def test_two_decisions_of_one_slot_are_an_alarm_and_change_nothing() -> None:
    ours, theirs = claimed(), Table(THREE)
    theirs.seat(4, 5, 6)
    theirs.look_around()
    theirs.settle()
    machine = ours.machines[1]
    plan = machine.state.plan
    ours.perform(1, machine.learn(theirs.ledger["genesis/1/claim"], Instant(ours.now)))
    assert machine.state.plan == plan
    assert machine.state.phase == "started"
    assert [problem.code for problem in machine.state.problems] == ["MESH-4007"]


# What peers may not do.


def test_a_broken_rule_is_rejected_with_its_reason_and_changes_no_disk() -> None:
    table = Table(THREE)
    table.seat(1)
    table.look_around()
    disk = dict(table.disks[1])
    three_seats = claimed(Bounds.bounded(control_plane=3, nodes_max=3)).machines[1].state.plan
    assert three_seats is not None
    started = encode_value(Started(signer_of(2).node_id))
    foreign = Ballot(5, signer_of(3).node_id)
    stolen = Prepare(
        network_id=NETWORK,
        limits=THREE.limits,
        generation=1,
        slot="claim",
        ballot=foreign,
        sender=signer_of(2).node_id,
    )
    for frame, reason in [
        (b"", "not a genesis frame"),
        (b"\x00" * 70_000, "70000 bytes, at most 61440"),
        (prepare(3, 1), f"a message of {signer_of(3).node_id[-8:]}, not the sender's own"),
        (prepare(2, 1, network_id="elm"), "a message of network elm"),
        (accept(2, 1, started), "slot claim cannot hold Started"),
        (accept(2, 1, b"\x90"), "not a genesis value"),
        (accept(2, 1, encode_value(Claim(three_seats))), "a plan with 3 seats"),
        (seal(stolen, signer_of(2)).frame, "a ballot of another proposer"),
    ]:
        table.rejected.clear()
        give(table, 2, 1, frame)
        assert table.rejected == [(1, reason)]
    assert table.disks[1] == disk


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


def test_garbage_never_raises() -> None:
    """Truncated, bit-flipped and random frames: rejected or ignored, and no decision changes."""
    table = claimed()
    rng = Random(5)
    samples = [prepare(2, 7), accept(2, 7, encode_value(Claim(plan_of(2)))), *table.ledger.values()]
    before = table.machines[1].state
    for _ in range(1500):
        frame = bytearray(rng.choice(samples))
        match rng.randrange(3):
            case 0:
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            case 1:
                frame = frame[: rng.randrange(len(frame))]
            case _:
                frame = bytearray(rng.randbytes(rng.randrange(60)))
        give(table, 2, 1, bytes(frame))
        table.machines[1].learn(bytes(frame), Instant(table.now))
    assert table.machines[1].state == before
    assert len(table.rejected) > 1000
