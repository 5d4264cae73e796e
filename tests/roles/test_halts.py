"""When a machine must not vote, and what peers may not do: each noticed, named and harmless."""

from __future__ import annotations

from random import Random

import pytest

from ledger import Instant
from roles import Bounds
from roles._messages import Ballot, Prepare, seal
from roles._records import Claim, Started, encode_value, read_record
from tests.roles.table import (
    THREE,
    Table,
    accept,
    claimed,
    frame_in_words,
    give,
    number_of,
    phase_of,
    plan_of,
    prepare,
    states,
)
from tests.roles.world import NETWORK, signer_of, value_of


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


def test_a_message_that_is_never_kept_is_no_row() -> None:
    table = claimed()
    table.disks[1] = {"promise/1/claim": accept(1, 1, encode_value(Claim(plan_of(1))))}
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


@pytest.mark.parametrize("kept", [(), ("promise/1/claim",)])
def test_a_disk_put_back_from_an_old_copy_is_noticed_for_good(kept: tuple[str, ...]) -> None:
    """Its journal may still hold the promise that went before the vote."""
    table = claimed()
    signed = table.ledger["genesis/1/claim"]
    signers = read_record(signed, network_id=NETWORK, quorum=2).signers
    assert signer_of(2).node_id in signers
    table.disks[2] = {key: table.disks[2][key] for key in kept}
    table.seat(2)
    table.look_around()
    table.perform(2, table.machines[2].learn(signed, Instant(table.now)))
    for _ in range(2):
        problems = table.machines[2].state.problems
        assert [problem.code for problem in problems] == ["MESH-4005"]
        assert "an old copy of the disk was put back" in problems[0].message
        table.posted.clear()
        give(table, 1, 2, prepare(1, 99, slot="started"))
        assert table.posted == []
        table.seat(2)
        table.look_around()


def test_a_vote_that_is_only_newer_than_the_decision_is_no_loss() -> None:
    """n2 votes for the claim again in a later ballot; then it hears that the first decided it."""
    table = claimed()
    signed = table.ledger["genesis/1/claim"]
    del table.disks[2]["decided/1/claim"]
    del table.disks[2]["decided/1/started"]
    table.seat(2)
    table.look_around()
    give(table, 3, 2, accept(3, 99, value_of(signed)))
    assert frame_in_words(table.disks[2]["accept/1/claim"]) == "Accepted claim 99.n3"
    table.perform(2, table.machines[2].learn(signed, Instant(table.now)))
    assert table.machines[2].state.problems == ()


def test_a_past_that_the_journal_does_not_know_ends_voting_for_good() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    table.perform(1, table.machines[1].contradicted("node/x/facts", Instant(table.now)))
    for _ in range(2):
        state = table.machines[1].state
        assert state.phase == "halted-lost-memory"
        assert [problem.code for problem in state.problems] == ["MESH-4005"]
        assert "others hold node/x/facts of this node, and its disk does not" in (
            state.waiting_for or ""
        )
        assert table.machines[1].deadline == float("inf")
        table.posted.clear()
        give(table, 2, 1, prepare(2, 9))
        give(table, 2, 1, accept(2, 9, encode_value(Claim(plan_of(2)))))
        assert table.posted == []
        table.seat(1)
        table.look_around()


def test_the_others_decide_without_a_voter_that_forgot() -> None:
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.perform(1, table.machines[1].contradicted("node/x/facts", Instant(table.now)))
    table.look_around()
    table.wait(2.0)
    table.settle()
    assert phase_of(table, 2) == "started"
    for record in list(table.ledger.values()):
        table.perform(1, table.machines[1].learn(record, Instant(table.now)))
        found = read_record(record, network_id=NETWORK, quorum=2)
        assert signer_of(1).node_id not in found.signers
    plan = table.machines[1].state.plan
    assert plan is not None
    table.observe(number_of(plan.initialiser), [number_of(plan.initialiser)])
    table.settle()
    assert phase_of(table, 1) == "formed"
    assert table.machines[1].state.problems == ()


def test_once_the_cluster_stands_nothing_that_was_forgotten_matters() -> None:
    table = claimed()
    table.observe(1, [1])
    table.settle()
    disk = dict(table.disks[2])
    table.perform(2, table.machines[2].contradicted("node/x/facts", Instant(table.now)))
    assert table.disks[2] == disk
    assert table.machines[2].state.problems == ()


@pytest.mark.parametrize("row", [b"", b"\xff\xfe", b"a reason"])
def test_a_row_of_doubt_ends_voting_whatever_it_says(row: bytes) -> None:
    table = Table(THREE)
    table.disks[1] = {"doubt": row}
    table.seat(1, 2, 3)
    table.look_around()
    assert phase_of(table, 1) == "halted-lost-memory"


def test_settings_that_were_changed_after_a_vote_end_voting() -> None:
    """All machines are set up anew in the same way; n1 has voted before, n4 has not."""
    table = Table(THREE)
    table.seat(1, 2, 3)
    table.look_around()
    table.bounds = Bounds.bounded(control_plane=1, nodes_max=5)
    table.seat(1, 2, 3, 4)
    table.look_around()
    state = table.machines[1].state
    assert state.phase == "halted-settings-mismatch"
    assert "this node has voted with 3 machines, quorum 2" in (state.waiting_for or "")
    assert table.machines[1].deadline == float("inf")
    table.posted.clear()
    for number in (1, 4):
        give(table, 2, number, prepare(2, 9, table.bounds))
    assert [(post.sender, frame_in_words(post.frame)) for post in table.posted] == [
        (4, "Promise claim 9.n2")
    ]


def test_odd_k3s_settings_keep_a_machine_from_voting_until_a_plan_is_decided() -> None:
    table = Table(THREE)
    table.seat(1, 2)
    table.seat(3, settings_hash="77" * 32)
    table.look_around()
    assert phase_of(table, 3) == "halted-settings-mismatch"
    for state in states(table).values():
        assert [refusal.node for refusal in state.excluded] == [signer_of(3).node_id]
    table.posted.clear()
    give(table, 1, 3, prepare(1, 9))
    assert table.posted == []
    table.wait(2.0)
    table.settle()
    assert "promise/1/claim" not in table.disks[3]
    assert "promise/1/started" in table.disks[3]


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
    proofs = [post for post in table.posted if "Proof" in frame_in_words(post.frame)]
    assert sorted(post.to for post in proofs) == [2, 3]
    table.deliver(to=2)  # One is enough for everyone: it checks itself.
    assert [problem.code for problem in table.machines[2].state.problems] == ["MESH-4006"]
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
        (prepare(2, 1, network_id="elm" * 22), "not a genesis message"),
        (accept(2, 1, started), "slot claim cannot hold Started"),
        (accept(2, 1, b"\x90"), "not a genesis value"),
        (accept(2, 1, encode_value(Claim(three_seats))), "a plan with 3 seats"),
        (seal(stolen, signer_of(2)).frame, "a ballot of another proposer"),
    ]:
        table.rejected.clear()
        give(table, 2, 1, frame)
        assert table.rejected == [(1, reason)]
    assert table.disks[1] == disk


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
