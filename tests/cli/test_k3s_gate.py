"""`meshd k3s-gate` beside a daemon: how long it listens, and what it then refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal

import pytest

from meshd.cli import k3s_gate
from meshd.cluster.gate import Permit, grant
from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FORMED, FakeDaemon, Json


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k3s_gate, "_LOOK_S", 0.01)


def permitted(folder: Path, *, epoch: int, seat: Literal["server", "worker"] = "server") -> None:
    permit = Permit(
        cluster_id="c1" * 16,
        generation=1,
        seat=seat,
        formed=True,
        leased=False,
        alone=False,
        node_name="n1",
        node_ip=None,
        config_dir=str(folder / "etc"),
        data_dir=str(folder / "data"),
        drop_ins=(),
        epoch=epoch,
    )
    grant(folder / "state", permit)


def heard(*, epoch: int, whole: bool) -> Json:
    """Return a status of a daemon that is connected, and has all of a neighbour or not yet."""
    status = copy.deepcopy(FORMED)
    status["genesis"]["epoch"] = epoch
    status["ledger"]["synchronised_with"] = ["n2"] if whole else []
    return status


def asked(meshd: Meshd, folder: Path) -> str:
    ran = meshd("k3s-gate", "--state-dir", str(folder / "state"), "--", "/usr/bin/k3s", "server")
    assert (ran.code, ran.out) == (4, "")
    return ran.err


def test_it_waits_for_all_that_a_neighbour_knows_and_then_refuses_a_database_of_before(
    meshd: Meshd, daemon: FakeDaemon, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=0)
    looks = [heard(epoch=0, whole=False), heard(epoch=0, whole=False), heard(epoch=1, whole=True)]
    daemon.status = lambda: looks.pop(0)
    assert "etcd's membership was reset (epoch 1) and this database is of before" in asked(
        meshd, tmp_path
    )
    assert looks == []


def test_a_worker_has_no_database_and_waits_for_a_neighbour_only(
    meshd: Meshd, daemon: FakeDaemon, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=0, seat="worker")
    looks = [heard(epoch=0, whole=False)]
    daemon.status = lambda: looks.pop(0)
    assert "this node is to run `k3s agent`" in asked(meshd, tmp_path)
    assert looks == []


def test_a_database_of_now_is_not_kept_down_for_that(
    meshd: Meshd, daemon: FakeDaemon, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=1)
    daemon.status = heard(epoch=1, whole=True)
    assert "50-meshd.yaml, which meshd writes, is gone" in asked(meshd, tmp_path)
