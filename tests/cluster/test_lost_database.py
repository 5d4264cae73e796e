from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.cluster.mark import MARK_NAME
from meshd.cluster.plan import Launch
from meshd.events import ClusterOrder
from tests.cluster.bench import ADDRESSES, N1, N2, groundwork, initialiser, plan, tree
from tests.cluster.laying import begin, drop_in, expect_obstacle, lay


def test_once_formed_the_initialiser_joins_even_without_its_database(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    begin(tmp_path)
    assert groundwork(N1, tmp_path).note_begun()
    assert not groundwork(N1, tmp_path).note_begun()
    (tmp_path / "data/server/db/etcd/member/wal").rmdir()
    assert isinstance(lay(tmp_path, N1, initialiser(formed=True)), Launch)
    assert drop_in(tmp_path)["server"] == f"https://{ADDRESSES[N2]}:6443"
    assert "cluster-init" not in drop_in(tmp_path)


def test_a_database_lost_before_that_is_never_replaced_by_an_empty_one(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    begin(tmp_path)
    launched = lay(tmp_path, N1, initialiser())
    assert isinstance(launched, Launch)
    assert launched.needs == (tmp_path / "data/server/db/etcd/member/wal",)
    (tmp_path / "data/server/db/etcd/member/wal").rmdir()
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", "database is gone")


def note_begun(folder: Path) -> None:
    """Have the daemon notice a database."""
    begin(folder)
    assert groundwork(N1, folder).note_begun()


def test_a_first_start_that_came_to_no_database_is_tried_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert isinstance(lay(tmp_path, N1, initialiser()), Launch)
        assert drop_in(tmp_path)["cluster-init"] is True


@pytest.mark.parametrize("noticed", [True, False])
def test_a_cluster_whose_whole_folder_is_lost_is_not_started_anew(
    tmp_path: Path, *, noticed: bool
) -> None:
    lay(tmp_path, N1, initialiser())
    if noticed:
        note_begun(tmp_path)
    shutil.rmtree(tmp_path / "data")  # Its disk is not mounted, or was wiped.
    before = tree(tmp_path)
    result = lay(tmp_path, N1, initialiser())
    expect_obstacle(result, "failed", "k3s' server folder is gone: mount its disk")
    assert tree(tmp_path) == before


def test_an_older_copy_of_the_folder_does_not_hide_the_loss_of_the_database(
    tmp_path: Path,
) -> None:
    lay(tmp_path, N1, initialiser())
    mark = (tmp_path / "data/server" / MARK_NAME).read_bytes()
    note_begun(tmp_path)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data/server").mkdir(parents=True)
    (tmp_path / "data/server" / MARK_NAME).write_bytes(mark)
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", "database is gone")


def test_once_formed_the_initialiser_joins_even_without_its_folder(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    note_begun(tmp_path)
    shutil.rmtree(tmp_path / "data")
    launched = lay(tmp_path, N1, initialiser(formed=True))
    assert isinstance(launched, Launch)
    assert launched.needs == ()
    assert drop_in(tmp_path)["server"] == f"https://{ADDRESSES[N2]}:6443"
    # And that it had a database is not forgotten by that.
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", "database is gone")


def test_the_only_server_does_not_start_anew_without_its_folder(tmp_path: Path) -> None:
    alone = plan(seats=(N1,))
    early = ClusterOrder(seat="initialiser", plan=alone, formed=False)
    lay(tmp_path, N1, early)
    note_begun(tmp_path)
    shutil.rmtree(tmp_path / "data")
    for order in (early, replace(early, formed=True)):
        expect_obstacle(lay(tmp_path, N1, order), "failed", "server folder is gone")


def test_a_damaged_note_of_the_first_start_counts_as_one(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    (tmp_path / "state/cluster/started" / plan().cluster_id).write_bytes(b"")
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", "database is gone")
