"""The quorum of an open network never falls: the largest one ever known is on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ledger import Instant
from roles import Bounds, Record
from roles._journal import read_journal
from roles._nomination import OPEN_SETTLE_S
from tests.roles.leases import state
from tests.roles.table import Table
from tests.roles.test_open import prepare_with
from tests.roles.test_open_lease import meet
from tests.roles.world import NETWORK, signer_of

OPEN = Bounds.unbounded(control_plane=1)
OLD = [1, 2, 6]
NEW = [3, 4, 5]
ALL_SIX = [*OLD, *NEW]


def alone(*numbers: int) -> Table:
    """Return a table of machines of which none knows any other."""
    table = Table(OPEN)
    table.seat(*numbers, fuse=True)
    for number in numbers:
        meet(table, number, [number], [number])
    return table


def test_what_was_heard_of_is_on_the_disk_before_it_is_answered_and_survives_a_restart() -> None:
    table = alone(1, 2)
    meet(table, 1, [1, 2], [1, 2])
    refused = table.machines[1].receive(signer_of(2).node_id, prepare_with(4), Instant(table.now))
    assert refused[0] == Record((("quorum", b"4"),))
    table.perform(1, refused)
    del table.disks[1]["promise/1/claim"]  # It was only heard: no vote stands for it.
    table.seat(1)
    meet(table, 1, [1, 2], [1, 2])
    assert state(table, 1).quorum == 4


def test_a_message_at_fault_is_no_reason_to_forget_its_quorum() -> None:
    table = alone(1, 2)
    meet(table, 1, [1, 2], [1, 2])
    asked = prepare_with(4, number=3)  # Of a voter that 1 does not know: not heard.
    effects = table.machines[1].receive(signer_of(2).node_id, asked, Instant(table.now))
    assert not any(isinstance(effect, Record) for effect in effects)
    assert state(table, 1).quorum == 2


@pytest.mark.parametrize(
    "later", [{"wish": "worker"}, {"bounds": Bounds.unbounded(control_plane=1, minimum_nodes=3)}]
)
def test_who_was_counted_once_stays_counted_whatever_he_becomes(later: dict[str, object]) -> None:
    table = alone(*range(1, 6))
    meet(table, 4, range(1, 6), range(1, 6))
    assert table.disks[4] == {"quorum": b"3"}
    table.seat(4)
    for number in (2, 3):
        table.candidates[number] = replace(table.candidates[number], **later)  # type: ignore[arg-type]
    meet(table, 4, range(1, 6), [4, 5])
    assert state(table, 4).quorum == 3


def test_a_bounded_network_and_the_least_quorum_need_no_row() -> None:
    table = alone(1, 2, 3)
    meet(table, 1, [1, 2, 3], [1, 2, 3])
    assert table.disks[1] == {}
    bounded = Table(Bounds.bounded(control_plane=1, nodes_max=9))
    bounded.seat(*range(1, 10))
    bounded.look_around([1])
    assert bounded.disks[1] == {}


@pytest.mark.parametrize("row", [b"", b"-1", b"3.5", b"\xc2\xb2", b"9" * 5000])
def test_a_row_that_is_no_number_ends_voting(row: bytes) -> None:
    journal = read_journal([("quorum", row)], me=signer_of(1).node_id, network_id=NETWORK)
    assert journal.damage == "row quorum of this node's journal is damaged: not a number"


def run(table: Table, seconds: float, ways: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
    """Let time pass; what goes between the two sides of any of `ways` is lost."""
    end = table.now + seconds
    while table.now < end:
        table.wait(0.5)
        for _ in range(8):
            table.posted = [
                post
                for post in table.posted
                if not any(
                    {post.sender, post.to} & {*a} and {post.sender, post.to} & {*b} for a, b in ways
                )
            ]
            table.deliver()


def test_an_initialiser_that_lost_power_asks_for_as_many_answers_as_it_once_heard_of() -> None:
    """1 and 6 know 2, which met 3, 4 and 5, answered 1 with their quorum, and was cut off."""
    table = alone(*ALL_SIX)
    table.wait(500.0)
    for number in OLD:
        meet(table, number, OLD, OLD)
    table.wait(OPEN_SETTLE_S + 0.1)
    table.settle()
    assert state(table, 1).may_initialise
    meet(table, 2, ALL_SIX, ALL_SIX)
    for number in NEW:
        meet(table, number, ALL_SIX, [2, *NEW])
        for _, record in sorted(table.ledger.items()):
            learned = table.machines[number].learn(record, Instant(table.now))
            table.perform(number, learned)
    run(table, 12.0, [([1, 6], NEW)])
    assert state(table, 1).quorum == 4
    table.seat(1, 6, fuse=True)
    for number in (1, 6):
        meet(table, number, OLD, [1, 6])
    for number in (2, *NEW):
        meet(table, number, ALL_SIX, [2, *NEW])
    while not (state(table, 2).started and state(table, 2).generation == 2):
        assert table.now < 2000.0
        run(table, 5.0, [([1, 6], [2, *NEW])])
        assert (state(table, 1).lease_until or 0.0) <= table.now
