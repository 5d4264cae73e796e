"""New addresses after a reset: on the survivor, on servers that join again, and on workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ledger import NodeId
from meshd.cluster.gate import read_permit, refusal
from meshd.cluster.groundwork import Surroundings, Tokens
from meshd.cluster.hostinit import Exit
from meshd.cluster.kubevip import Address, Interface
from meshd.cluster.mark import MARK_NAME, Mark, read_mark
from meshd.cluster.obstacle import Obstacle
from meshd.cluster.plan import Launch
from meshd.cluster.retiring import Retiring
from meshd.events import ClusterOrder, Retire
from tests.cluster import test_reset
from tests.cluster.bench import (
    ADDRESSES,
    N1,
    N2,
    N4,
    groundwork,
    k3s_paths,
    plan,
    server,
    worker,
)
from tests.cluster.laying import begin, drop_in, lay
from tests.cluster.test_keeper import FakeHostInit
from tests.cluster.test_reset import Crash, Daemon, Disk, life, two_lives
from tests.cluster.test_retiring import DOWN

NOW = {N1: "10.1.0.11", N2: "10.1.0.12", N4: "10.1.0.14"}
SEATS = tuple(replace(seat, node_ip=NOW.get(seat.node, seat.node_ip)) for seat in plan().seats[:2])
MOVED = replace(plan(), seats=SEATS)
INTENT = msgspec.structs.replace(
    test_reset.INTENT, seats=(SEATS[1], SEATS[0]), dead=plan().seats[2:]
)


def moved(order: ClusterOrder, *, now: bool = True) -> ClusterOrder:
    """Return an order after the reset; `now`: a server of it answers."""
    seat = {"server": N2, "worker": N4}[order.seat]
    retire = Retire(
        cluster_id=MOVED.cluster_id,
        epoch=1,
        wholly=order.seat == "worker",
        now=now,
        address=NOW[seat] if order.seat == "server" else None,
    )
    return replace(order, plan=MOVED, join=(NOW[N1],), epoch=1, readdressed=1, retire=retire)


def around(node_ip: str | None, *held: str) -> Surroundings:
    addresses = tuple(Address(local=one, prefixlen=24) for one in held)
    return Surroundings(
        node_ip=node_ip,
        interfaces=(Interface(ifname="eth7", addr_info=addresses),),
        environment={"PATH": "/usr/bin"},
    )


def lay_at(folder: Path, node: NodeId, order: ClusterOrder, at: Surroundings) -> Launch | Obstacle:
    ground = groundwork(node, folder)
    tokens = ground.tokens(order)
    assert isinstance(tokens, Tokens)
    return ground.lay(order, tokens, at)


def address_in(folder: Path) -> object:
    return json.loads((folder / MARK_NAME).read_text())["node_ip"]


def gate_says(folder: Path, *words: str) -> str | None:
    return refusal(
        read_permit(folder / "state"),
        argv=("/usr/bin/true", *words),
        environment={"K3S_CONFIG_FILE": str(k3s_paths(folder).config)},
        state_dir=folder / "state",
        newest_generation=1,
        newest_epoch=1,
        has_fuse=True,
    )


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("crash_at", range(2, 8))
async def test_the_survivor_goes_on_at_its_new_address_over_crashes(
    tmp_path: Path, crash_at: int, *, before: bool
) -> None:
    disk = Disk(tmp_path)
    told = replace(moved(server(formed=True)), survivor=True)
    daemon, _ = await two_lives(disk, INTENT, crash_at=crash_at, before=before)
    assert daemon.outcome() == "done"
    assert drop_in(tmp_path)["node-ip"] == NOW[N2]
    mark = read_mark(disk.paths.server)
    assert isinstance(mark, Mark)
    assert (mark.epoch, mark.node_ip) == (1, NOW[N2])
    launch = lay_at(tmp_path, N2, told, around(NOW[N2], NOW[N2]))
    assert isinstance(launch, Launch), launch
    assert address_in(disk.paths.agent) == NOW[N2]
    assert (drop_in(tmp_path)["node-ip"], drop_in(tmp_path)["server"]) == (
        NOW[N2],
        f"https://{NOW[N1]}:6443",
    )
    assert gate_says(tmp_path, "server") is None


@pytest.mark.parametrize("crash_at", range(11))
async def test_what_fails_is_undone_with_the_old_address(tmp_path: Path, crash_at: int) -> None:
    disk = Disk(tmp_path)
    disk.fails = 9
    daemon, _ = await two_lives(disk, INTENT, crash_at=crash_at)
    assert daemon.outcome() == "failed"
    mark = read_mark(disk.paths.server)
    assert isinstance(mark, Mark)
    assert (mark.epoch, mark.node_ip) == (0, ADDRESSES[N2])
    assert isinstance(lay(tmp_path, N2, server(formed=True)), Launch)
    assert gate_says(tmp_path, "server") is not None, "of epoch 1 somewhere else"


async def test_an_attempt_that_was_marked_and_then_failed_is_undone_wholly(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    # The fifth step notes that k3s succeeded: the mark is written by then, the note is not.
    daemon = Daemon(disk, crash_at=5, before=True)
    daemon.begin(INTENT)
    with pytest.raises(Crash):
        await life(disk, daemon)
    mark = read_mark(disk.paths.server)
    assert isinstance(mark, Mark)
    assert (mark.epoch, mark.node_ip) == (1, NOW[N2])
    # A machine that was switched off starts it again, and k3s refuses for its own flag.
    ended = Exit(code=1, signal=None, lines=("membership was previously reset",))
    disk.fails, disk.held = 9, replace(disk.held, last_exit=ended)
    daemon = Daemon(disk)
    await life(disk, daemon)
    assert daemon.outcome() == "failed"
    mark = read_mark(disk.paths.server)
    assert isinstance(mark, Mark)
    assert (mark.epoch, mark.node_ip) == (0, ADDRESSES[N2])
    assert disk.database.read_bytes() == test_reset.OLD


async def silent() -> bool:
    return False


async def test_a_server_that_joins_again_takes_its_seats_address(tmp_path: Path) -> None:
    before = lay(tmp_path, N2, server(formed=True))
    begin(tmp_path)
    host = FakeHostInit()
    host.held = DOWN
    paths, order = k3s_paths(tmp_path), moved(server(formed=True))
    waiting = await Retiring(tmp_path / "state", paths, host, silent).retire(
        moved(server(formed=True), now=False), 0.0
    )
    assert waiting is not None
    assert address_in(paths.server) == ADDRESSES[N2]
    assert await Retiring(tmp_path / "state", paths, host, silent).retire(order, 0.0) is None
    assert (address_in(paths.server), address_in(paths.agent)) == (NOW[N2], ADDRESSES[N2])
    launch = lay_at(tmp_path, N2, order, around(NOW[N2], NOW[N2]))
    assert isinstance(launch, Launch), launch
    assert isinstance(before, Launch)
    assert launch.incarnation != before.incarnation, "the one before is to end"
    assert (launch.server, address_in(paths.agent)) == (f"https://{NOW[N1]}:6443", NOW[N2])
    assert gate_says(tmp_path, "server") is None


def test_a_worker_waits_for_a_server_and_then_takes_its_new_address_once(tmp_path: Path) -> None:
    before = lay(tmp_path, N4, worker())
    assert isinstance(before, Launch)
    agent = k3s_paths(tmp_path).agent
    here = around(NOW[N4], NOW[N4])
    waiting = lay_at(tmp_path, N4, moved(worker(), now=False), here)
    assert isinstance(waiting, Obstacle)
    assert waiting.sentence.startswith("a server of epoch 1 to answer")
    nowhere = lay_at(tmp_path, N4, moved(worker()), around(None))
    assert isinstance(nowhere, Obstacle)
    assert (nowhere.state, nowhere.sentence) == (
        "waiting",
        "this machine to get a network address",
    )
    assert address_in(agent) == ADDRESSES[N4]
    launch = lay_at(tmp_path, N4, moved(worker()), here)
    assert isinstance(launch, Launch), launch
    assert launch.incarnation == f"{before.incarnation}/addresses-1"
    assert (drop_in(tmp_path)["node-ip"], address_in(agent)) == (NOW[N4], NOW[N4])
    assert gate_says(tmp_path, "agent") is None
    again = lay_at(tmp_path, N4, moved(worker()), around("10.1.0.99", "10.1.0.99"))
    assert again == launch, "from now on it keeps that one"


def test_a_worker_whose_address_did_not_change_keeps_it(tmp_path: Path) -> None:
    lay(tmp_path, N4, worker())
    both = around(NOW[N4], NOW[N4], ADDRESSES[N4])
    assert isinstance(lay_at(tmp_path, N4, moved(worker()), both), Launch)
    assert drop_in(tmp_path)["node-ip"] == ADDRESSES[N4]


def test_a_worker_that_first_starts_afterwards_is_not_asked_again(tmp_path: Path) -> None:
    here, later = around(NOW[N4], NOW[N4]), around("10.1.0.99", "10.1.0.99")
    first = lay_at(tmp_path, N4, moved(worker()), here)
    assert isinstance(first, Launch)
    assert lay_at(tmp_path, N4, moved(worker()), later) == first
    assert drop_in(tmp_path)["node-ip"] == NOW[N4]
