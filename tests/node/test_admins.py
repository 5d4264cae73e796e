"""Copies of the kubeconfig for administrators: sealed by one server, fresh, and only after DONE."""

from __future__ import annotations

from dataclasses import replace

from ledger import Instant, NodeId
from meshd.events import AdminAccess, K3sObserved, Seal, SecretSealed, Wakeup
from meshd.node import Directory
from meshd.node._admins import RETRY_AFTER_S, TAKE_OVER_AFTER_S, AdminCopies, Copies
from meshd.node._orders import Standing
from tests.node import people
from tests.node.test_status import node_in, seats, world_after

PLAN = people.plan(0, 1, 2)
FORMED = Standing(plan=PLAN, started=True, formed=True)
ADA, BOB = "age1ada", "age1bob"
ACCESS = AdminAccess(digest=b"d" * 16, admins=((ADA, b"a" * 32), (BOB, b"b" * 32)))


def asked(
    copies: AdminCopies,
    found: Directory,
    at: float,
    *,
    held: Copies | None = None,
    standing: Standing = FORMED,
    access: AdminAccess | None = ACCESS,
) -> list[str]:
    due = copies.due(access, found, standing, held or {}, Instant(at))
    assert all(seal.name == "kubeconfig" for seal in due)
    keys = dict(ACCESS.admins)
    assert all(seal.sealing_key == keys[seal.recipient] for seal in due)
    return [seal.recipient for seal in due]


def test_the_first_seat_seals_to_every_key_at_once_and_asks_again_until_it_is_written() -> None:
    copies, found = AdminCopies(), people.directory(0)
    assert asked(copies, found, 100.0) == [ADA, BOB]
    assert copies.deadline == 100.0 + RETRY_AFTER_S
    assert asked(copies, found, 101.0) == []
    written = {(ADA, people.IDS[0]): ACCESS.digest}
    assert asked(copies, found, 100.0 + RETRY_AFTER_S, held=written) == [BOB]
    written[BOB, people.IDS[0]] = ACCESS.digest
    assert asked(copies, found, 500.0, held=written) == []
    assert copies.deadline == float("inf")


def test_nobody_seals_before_done_nor_without_a_seat_nor_without_a_kubeconfig() -> None:
    for standing in (Standing(), Standing(plan=PLAN), Standing(plan=PLAN, started=True)):
        assert asked(AdminCopies(), people.directory(0), 0.0, standing=standing) == []
    assert asked(AdminCopies(), people.directory(3), 1000.0) == []
    assert asked(AdminCopies(), people.directory(0), 0.0, access=None) == []


def test_what_k3s_wrote_anew_is_sealed_anew_by_the_first_living_seat_only() -> None:
    stale = {(one, people.IDS[0]): b"o" * 16 for one in (ADA, BOB)}
    assert asked(AdminCopies(), people.directory(0), 0.0, held=stale) == [ADA, BOB]
    second = AdminCopies()
    for at in (0.0, 1000.0):
        assert asked(second, people.directory(1), at, held=stale) == []
    alone = people.directory(1)
    gone = alone[people.IDS[0]]
    gone.connected, gone.link = False, "failed"
    assert asked(second, alone, 1001.0, held=stale) == [ADA, BOB]


def test_a_later_seat_takes_over_if_there_is_no_copy_at_all() -> None:
    third, found = AdminCopies(), people.directory(2)
    assert asked(third, found, 0.0) == []
    assert third.deadline == 2 * TAKE_OVER_AFTER_S
    assert asked(third, found, 2 * TAKE_OVER_AFTER_S) == [ADA, BOB]


def test_a_server_of_a_formed_cluster_puts_it_into_the_ledger_where_others_take_it_in() -> None:
    world = world_after.__wrapped__(120.0)
    seated, workers = seats(world)
    node = next(
        node_in(world, index) for index in seated if node_in(world, index).seat == "initialiser"
    )
    assert node.observed is not None
    now = world.machines[seated[0]].moment(world.timeline.now)
    effects = node.handle(replace(node.observed, admin=ACCESS), now)
    assert [one.recipient for one in effects if isinstance(one, Seal)] == [ADA, BOB]
    node.handle(SecretSealed(NodeId(ADA), "kubeconfig", ACCESS.digest + b"sealed"), now)
    (entry,) = node.replica.get(f"sealed/{ADA}/kubeconfig")
    assert entry.value == b"d" * 16 + b"sealed"
    later = replace(now, at=Instant(now.at + RETRY_AFTER_S))
    again = node.handle(Wakeup(), later)
    assert [one.recipient for one in again if isinstance(one, Seal)] == [BOB]

    node.handle(SecretSealed(NodeId(BOB), "kubeconfig", ACCESS.digest + b"sealed"), later)
    world.timeline.run_until(world.timeline.now + 60)
    for index in workers:
        assert node_in(world, index).replica.get(entry.key) == (entry,)


def test_a_worker_that_observes_one_is_asked_for_nothing() -> None:
    world = world_after.__wrapped__(120.0)
    _, workers = seats(world)
    node = node_in(world, workers[0])
    now = world.machines[workers[0]].moment(world.timeline.now)
    effects = node.handle(K3sObserved(state="ready", admin=ACCESS), now)
    assert [one for one in effects if isinstance(one, Seal)] == []
