"""A cluster that is given up before it was formed: k3s down, its data aside, the way free."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from ledger import Instant
from meshd.cluster import ending, keeper
from meshd.cluster.aside import aside_folder, set_aside
from meshd.cluster.gate import permit_file, read_permit
from meshd.cluster.hostinit import Held
from meshd.cluster.mark import MARK_NAME
from meshd.cluster.plan import Launch
from meshd.events import ClusterOrder, K3sObserved
from tests.cluster.bench import N1, initialiser, k3s_paths, plan, tree
from tests.cluster.laying import begin, lay
from tests.cluster.power import power_cut_before
from tests.cluster.test_keeper import IDLE, Bench

FIRST = plan()
LEASED = replace(plan(), leased=True)
SECOND = replace(plan(), cluster_id="c2" * 16, generation=2)
NEXT = ClusterOrder(
    seat="initialiser", plan=SECOND, formed=False, abandoned=(FIRST.cluster_id,)
)  # fmt: skip


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "FAST_S", 0.02)
    monkeypatch.setattr(keeper, "BLOCKED_S", 0.02)


def started(folder: Path) -> None:
    """Leave a disk as k3s of the first plan leaves it, with what a user had put there before."""
    manifests = folder / "data/server/manifests"
    manifests.mkdir(parents=True)
    (manifests / "shop.yaml").write_text("kind: Shop\n")
    (folder / "data/agent/images").mkdir(parents=True)
    (folder / "data/agent/images/shop.tar").write_text("image")
    assert isinstance(lay(folder, N1, initialiser()), Launch)
    begin(folder)
    (manifests / "coredns.yaml").write_text("kind: Packaged\n")
    (folder / "data/agent/client-kubelet.crt").write_text("of the first cluster")
    (folder / "etc/k3s.yaml").write_text("of the first cluster")


def test_a_cluster_goes_aside_whole_and_a_users_own_files_come_back(tmp_path: Path) -> None:
    started(tmp_path)
    before = tree(tmp_path / "data")
    paths = k3s_paths(tmp_path)
    assert set_aside(paths, FIRST.cluster_id)
    aside = aside_folder(paths, FIRST.cluster_id)
    assert json.loads((aside / "server" / MARK_NAME).read_bytes())["cluster_id"] == FIRST.cluster_id
    assert (aside / "server/db/etcd/member/wal").is_dir()
    assert (aside / "k3s.yaml").read_text() == "of the first cluster"
    live = {name for name in tree(tmp_path / "data") if not name.startswith("set-aside/")}
    assert live == {"server/manifests/shop.yaml", "agent/images/shop.tar"}
    assert not paths.drop_in.exists(), "whoever starts k3s by hand finds no order to begin"
    # Nothing was lost.
    assert sorted(before.values()) == sorted(
        content
        for name, content in tree(tmp_path / "data").items()
        if not name.endswith(("/k3s.yaml", "/given-back"))
    )
    # The way is free.
    assert isinstance(lay(tmp_path, N1, replace(NEXT, plan=replace(SECOND))), Launch)


def test_what_another_cluster_has_stays(tmp_path: Path) -> None:
    started(tmp_path)
    before = tree(tmp_path)
    assert not set_aside(k3s_paths(tmp_path), SECOND.cluster_id)
    assert tree(tmp_path) == before


def test_twice_is_once(tmp_path: Path) -> None:
    started(tmp_path)
    paths = k3s_paths(tmp_path)
    set_aside(paths, FIRST.cluster_id)
    after = tree(tmp_path)
    assert not set_aside(paths, FIRST.cluster_id)
    assert tree(tmp_path) == after


def test_a_power_cut_at_any_line_leaves_files_of_known_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    started(whole)
    set_aside(k3s_paths(whole), FIRST.cluster_id)
    expected = {name: tree(whole / name) for name in ("data", "etc")}
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for call in count():
        folder = tmp_path / str(call)
        folder.mkdir()
        started(folder)
        with power_cut_before(call, monkeypatch, folder, names_hurry=True) as made:
            set_aside(k3s_paths(folder), FIRST.cluster_id)
        for database in folder.rglob("member/wal"):
            assert (database.parents[3] / MARK_NAME).exists(), "data without its mark"
        set_aside(k3s_paths(folder), FIRST.cluster_id)
        assert {name: tree(folder / name) for name in ("data", "etc")} == expected
        if "cut" not in made:
            break
    assert call > 10


async def test_an_abandoned_cluster_is_stopped_before_it_goes_aside(tmp_path: Path) -> None:
    started(tmp_path)
    bench = Bench(tmp_path, N1)
    bench.host.held = replace(IDLE, pid=1, cluster=FIRST.cluster_id)
    async with bench.running():
        bench.cluster.apply(NEXT)
        await bench.until(lambda: bench.host.stops and bench.said)
        assert (tmp_path / "data/server/db").exists()
        assert bench.said[-1].stopped == ()
        assert "being stopped" in str(bench.said[-1].waiting_for)
        assert bench.host.launches == []
        bench.host.held = replace(IDLE, cluster=FIRST.cluster_id, down=True)
        await bench.until(lambda: bench.host.launches)
        await bench.until(lambda: bench.said[-1].stopped == (FIRST.cluster_id,))
    assert bench.host.launches[-1].incarnation == f"{SECOND.cluster_id}/server"
    assert aside_folder(k3s_paths(tmp_path), FIRST.cluster_id).is_dir()


async def test_a_cluster_that_never_ran_here_is_ended_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    async with bench.running():
        bench.cluster.apply(replace(NEXT, seat="none", plan=None))
        await bench.until(lambda: bench.said)
    assert bench.said == [K3sObserved(state="absent", stopped=(FIRST.cluster_id,))]


async def test_a_given_up_start_stays_down_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    bench.host.held = replace(IDLE, pid=1, cluster=FIRST.cluster_id)
    order = ClusterOrder(
        seat="initialiser", plan=LEASED, formed=False, lease_until=Instant(9.0), stop=True
    )
    async with bench.running():
        bench.cluster.apply(order)
        await bench.until(lambda: bench.host.stops)
        bench.host.held = replace(IDLE, cluster=FIRST.cluster_id, down=True)
        await bench.until(lambda: bench.said and bench.said[-1].stopped == (FIRST.cluster_id,))
    assert bench.host.launches == []
    assert "given up" in str(bench.said[-1].waiting_for)


async def test_a_growing_lease_is_passed_on_and_lays_nothing_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    order = ClusterOrder(
        seat="initialiser", plan=LEASED, formed=False, lease_until=Instant(100.0)
    )  # fmt: skip
    async with bench.running():
        bench.cluster.apply(order)
        await bench.until(lambda: bench.host.launches)
        bench.cluster.apply(replace(order, lease_until=Instant(110.0)))
        wanted = (FIRST.cluster_id, Instant(110.0))
        await bench.until(lambda: wanted in bench.host.leases)
        bench.cluster.apply(replace(order, lease_until=None, formed=True))
        await bench.until(lambda: (FIRST.cluster_id, None) in bench.host.leases)
        await bench.until(lambda: len(bench.host.launches) == 2)
    assert [launch.leased for launch in bench.host.launches] == [True, False]


async def test_what_the_fuse_holds_is_reported(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    bench.host.held = Held(
        pid=None,
        exits=2,
        last_exit=None,
        blocked=None,
        cluster=FIRST.cluster_id,
        unleased=True,
        lease_until=Instant(7.0),
    )
    async with bench.running():
        bench.cluster.apply(
            ClusterOrder(seat="initialiser", plan=LEASED, formed=False, lease_until=Instant(0.0))
        )
        await bench.until(lambda: bench.said)
    assert (bench.said[-1].lease_until, bench.said[-1].exits) == (7.0, 2)
    assert bench.said[-1].state == "waiting"
    assert "quorum of voters" in str(bench.said[-1].waiting_for)


STOP = ClusterOrder(
    seat="initialiser", plan=LEASED, formed=False, lease_until=Instant(0.0), stop=True
)  # fmt: skip
FORMED = replace(initialiser(formed=True), plan=LEASED)


async def test_what_was_stopped_first_and_abandoned_then_goes_aside_too(tmp_path: Path) -> None:
    started(tmp_path)
    bench = Bench(tmp_path, N1)
    bench.host.held = replace(IDLE, cluster=FIRST.cluster_id, stopping=True, down=True)
    async with bench.running():
        bench.cluster.apply(STOP)
        await bench.until(lambda: bench.said and bench.said[-1].stopped == (FIRST.cluster_id,))
        bench.cluster.apply(NEXT)
        await bench.until(lambda: bench.host.launches)
    assert aside_folder(k3s_paths(tmp_path), FIRST.cluster_id).is_dir()


async def test_a_daemon_that_forgot_the_stop_starts_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    bench.host.held = replace(IDLE, cluster=FIRST.cluster_id, stopping=True, down=True)
    async with bench.running():
        bench.cluster.apply(replace(STOP, stop=False))
        await bench.until(lambda: bench.said and "given up" in str(bench.said[-1].waiting_for))
        assert bench.host.launches == []
        assert read_permit(tmp_path / "state") is None
        bench.cluster.apply(FORMED)
        await bench.until(lambda: bench.host.launches)


async def test_a_formed_cluster_has_no_lease_whatever_keeps_k3s_from_being_laid(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, N1)
    async with bench.running():
        bench.cluster.apply(replace(STOP, stop=False, lease_until=Instant(100.0)))
        await bench.until(lambda: bench.host.launches)
        bench.cluster.apply(
            replace(STOP, stop=False, lease_until=Instant(150.0), hold="the clock is wrong")
        )
        await bench.until(lambda: (FIRST.cluster_id, Instant(150.0)) in bench.host.leases)
        bench.cluster.apply(replace(FORMED, hold="the clock is wrong"))
        await bench.until(lambda: (FIRST.cluster_id, None) in bench.host.leases)
    assert len(bench.host.launches) == 1


async def test_what_cannot_be_moved_of_an_earlier_cluster_keeps_a_later_one_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(errno.EBUSY, "Device or resource busy", "/data/server")

    monkeypatch.setattr(ending, "set_aside", refuse)
    bench = Bench(tmp_path, N1)
    second = replace(SECOND, leased=True)
    order = replace(FORMED, plan=second, abandoned=(FIRST.cluster_id,))
    async with bench.running():
        bench.cluster.apply(order)
        await bench.until(lambda: bench.host.launches)
    assert (second.cluster_id, None) in bench.host.leases
    assert bench.said[-1].stopped == (), "its data are not out of the way"


async def test_a_permit_that_was_lost_is_written_again_once_the_gate_misses_it(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, N1)
    async with bench.running():
        bench.cluster.apply(initialiser())
        await bench.until(lambda: read_permit(tmp_path / "state"))
        permit_file(tmp_path / "state").write_text("")
        bench.host.held = replace(IDLE, cluster=FIRST.cluster_id, refused="no part")
        await bench.until(lambda: read_permit(tmp_path / "state"))
    assert bench.host.launches


def test_what_a_user_removed_since_does_not_come_back(tmp_path: Path) -> None:
    started(tmp_path)
    paths = k3s_paths(tmp_path)
    (paths.agent / "images/shop.tar").unlink()
    set_aside(paths, FIRST.cluster_id)
    (paths.manifests / "shop.yaml").unlink()
    kept = aside_folder(paths, FIRST.cluster_id) / "server/manifests/shop.yaml"
    kept.write_text("kind: Shop\n")
    assert not set_aside(paths, FIRST.cluster_id)
    assert not (paths.manifests / "shop.yaml").exists()
