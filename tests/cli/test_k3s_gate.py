"""`meshd k3s-gate` beside a daemon: how long it listens, and what it then refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest

from meshd.cli import k3s_gate
from meshd.cluster.gate import Permit, grant
from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FORMED, FakeDaemon, Json, running


class Clock:
    """Time as the gate sees it: it passes only while the gate sleeps, and something may happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.happens: dict[float, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happens.pop(self.now, lambda: None)()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(k3s_gate, "time", clock)
    return clock


def permitted(
    folder: Path,
    *,
    epoch: int,
    seat: Literal["server", "worker"] = "server",
    formed: bool = True,
) -> None:
    permit = Permit(
        cluster_id="c1" * 16,
        generation=1,
        seat=seat,
        formed=formed,
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


@pytest.fixture
def daemons() -> Iterator[ExitStack]:
    """Hold the daemons that come up during a test."""
    with ExitStack() as stack:
        yield stack


def comes_up(daemons: ExitStack, folder: Path, status: Json) -> Callable[[], None]:
    def up() -> None:
        daemons.enter_context(running(folder)).status = status

    return up


def test_it_waits_for_a_daemon_that_comes_up_later_than_k3s(
    meshd: Meshd, daemons: ExitStack, clock: Clock, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=0)
    clock.happens = {5.0: comes_up(daemons, tmp_path, heard(epoch=1, whole=True))}
    assert "etcd's membership was reset (epoch 1)" in asked(meshd, tmp_path)
    assert clock.now == 5.0


def test_a_daemon_that_came_late_has_as_long_as_any_to_hear_a_neighbour(
    meshd: Meshd, daemons: ExitStack, clock: Clock, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=0)
    status = heard(epoch=0, whole=False)

    def hears() -> None:
        status["genesis"]["epoch"] = 1
        status["ledger"]["synchronised_with"] = ["n2"]

    clock.happens = {9.0: comes_up(daemons, tmp_path, status), 18.0: hears}
    assert "etcd's membership was reset (epoch 1)" in asked(meshd, tmp_path)
    assert clock.now == 18.0


def test_what_a_daemon_said_before_it_ended_counts(
    meshd: Meshd, daemons: ExitStack, clock: Clock, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=0)
    daemons.enter_context(running(tmp_path)).status = heard(epoch=1, whole=False)
    clock.happens = {1.0: daemons.close}
    assert "etcd's membership was reset (epoch 1)" in asked(meshd, tmp_path)
    assert clock.now == k3s_gate.ASKING_S


def test_a_daemon_that_never_answers_keeps_no_formed_k3s_down_for_longer_than_that(
    meshd: Meshd, clock: Clock, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=0)
    assert "50-meshd.yaml, which meshd writes, is gone" in asked(meshd, tmp_path)
    assert clock.now == k3s_gate.ASKING_S


def test_only_a_formed_servers_database_is_worth_waiting_for_the_daemon(
    meshd: Meshd, clock: Clock, tmp_path: Path
) -> None:
    permitted(tmp_path, epoch=0, seat="worker")
    assert "this node is to run `k3s agent`" in asked(meshd, tmp_path)
    permitted(tmp_path, epoch=0, formed=False)
    assert "50-meshd.yaml, which meshd writes, is gone" in asked(meshd, tmp_path)
    assert clock.now == 0.0
