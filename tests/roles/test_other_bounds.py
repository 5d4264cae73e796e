"""What machines with other bounds decide under the same token is another log."""

from __future__ import annotations

import pytest

from ledger import Instant
from roles import Bounds, Slot
from roles._messages import Ballot, Prepare, seal
from roles._nomination import OPEN_SETTLE_S
from tests.roles.table import Table, frame_in_words, give, phase_of
from tests.roles.world import NETWORK, signer_of

BOUNDED = Bounds.bounded(control_plane=1, nodes_max=5)
OPEN = Bounds.unbounded(control_plane=1)


def decided(bounds: Bounds) -> dict[str, bytes]:
    """Return what 3 to 7 decided among themselves."""
    table = Table(bounds)
    table.seat(3, 4, 5, 6, 7)
    table.look_around()
    table.wait(OPEN_SETTLE_S + 0.1)
    table.settle()
    table.wait(10.0)
    return table.ledger


def ask(bounds: Bounds, slot: Slot) -> bytes:
    """Return a question of 2, as machines with these bounds ask it."""
    signer = signer_of(2)
    message = Prepare(
        network_id=NETWORK,
        limits=bounds.signed_with(3),
        generation=1,
        slot=slot,
        ballot=Ballot(9, signer.node_id),
        sender=signer.node_id,
    )
    return seal(message, signer).frame


def learn(table: Table, number: int, records: dict[str, bytes]) -> None:
    for _, record in sorted(records.items()):
        effects = table.machines[number].learn(record, Instant(table.now))
        table.perform(number, effects)


@pytest.mark.parametrize(("ours", "theirs"), [(BOUNDED, OPEN), (OPEN, BOUNDED)])
def test_who_voted_follows_no_log_of_other_bounds(ours: Bounds, theirs: Bounds) -> None:
    table = Table(ours)
    table.seat(1, 2)
    table.look_around()
    give(table, 2, 1, ask(ours, "claim"))
    assert "promise/1/claim" in table.disks[1]
    disk = dict(table.disks[1])
    for _ in range(2):
        learn(table, 1, decided(theirs))
        assert table.machines[1].state.plan is None
        assert table.machines[1].state.problems == ()
        assert table.disks[1] == disk
        table.seat(1)  # A restart knows from the disk alone with which bounds it voted.
        table.look_around()


@pytest.mark.parametrize(("ours", "theirs"), [(BOUNDED, OPEN), (OPEN, BOUNDED)])
def test_who_never_voted_follows_as_a_worker_and_votes_in_neither(
    ours: Bounds, theirs: Bounds
) -> None:
    table = Table(ours)
    table.seat(1, 2)
    for _ in range(2):
        table.look_around()
        learn(table, 1, decided(theirs))
        state = table.machines[1].state
        assert state.plan is not None
        (problem,) = state.problems
        assert problem.code == "MESH-4002"
        assert "follows what machines with" in problem.message
        table.posted.clear()
        for bounds in (ours, theirs):
            give(table, 2, 1, ask(bounds, "done"))
        assert not any("Promise" in frame_in_words(post.frame) for post in table.posted)
        assert table.machines[1].deadline > table.now
        table.seat(1)


def test_a_machine_with_a_join_token_follows_whatever_bounds_its_own_file_says() -> None:
    table = Table(BOUNDED)
    table.seat(1, may_vote=False)
    table.look_around()
    learn(table, 1, decided(OPEN))
    assert phase_of(table, 1) == "started"
    assert table.machines[1].state.problems == ()


def test_whoever_follows_one_log_takes_nothing_of_another() -> None:
    table = Table(BOUNDED)
    table.seat(1, may_vote=False)
    table.look_around()
    first = decided(OPEN)
    learn(table, 1, {"genesis/1/claim": first["genesis/1/claim"]})
    before = table.machines[1].state.plan
    learn(table, 1, decided(BOUNDED))
    state = table.machines[1].state
    assert before is not None
    assert state.plan == before
    assert not state.started
    assert state.rivals == ()
    assert signer_of(3).node_id == before.initialiser
