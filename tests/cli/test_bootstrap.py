"""`meshd bootstrap reset`: what it shows, asks, follows, and says when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.cli import bootstrap
from tests.cli import fake_daemon
from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FakeDaemon, Json, running

ID = "c1" * 16
DEAD = ("--confirm-dead", "n1", "--confirm-dead", "n2")
SHOWN = f"""\
reset of etcd's membership on n3, cluster {ID}:
  database     3.1 MiB, last written 2m05s ago; a copy of it is kept
  heard        cell-1
  given up     n1, n2: what only they had written is lost
  afterwards   control plane n3; it can lose none
"""
ASKED: Json = {"confirm_dead": [], "by": "anna", "readdress": False, "snapshot": None}


def ended(outcome: str, why: str = "") -> Json:
    last = {"epoch": 1, "at_ms": 1, "by": "anna", "outcome": outcome, "why": why}
    return {"stage": None, "epoch": None, "waiting_for": None, "last": last}


def at(stage: str) -> Json:
    return {"stage": stage, "epoch": 1, "waiting_for": "k3s", "last": None}


@pytest.fixture(autouse=True)
def as_anna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    monkeypatch.setattr(bootstrap, "_LOOK_S", 0.01)


def test_a_dry_run_shows_and_begins_nothing(meshd: Meshd, daemon: FakeDaemon) -> None:
    ran = meshd("bootstrap", "reset", *DEAD, "--dry-run")
    assert (ran.code, ran.out, ran.err) == (0, SHOWN, "")
    assert daemon.posted == [ASKED | {"confirm_dead": ["n1", "n2"]}]


def test_new_addresses_are_shown_and_what_becomes_of_the_virtual_one(
    meshd: Meshd, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = "none of its subnets (10.1.0.0/24) holds the virtual address 10.0.0.50"
    moved = [["n3", "10.0.0.13", "10.1.0.13"], ["n4", "10.0.0.14", "10.0.0.14"]]
    for one, key in ((moved, "addresses"), (problem, "vip_problem")):
        monkeypatch.setitem(fake_daemon.RESET, key, one)
    ran = meshd("bootstrap", "reset", "--readdress", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert "  address      n3: 10.0.0.13 before, 10.1.0.13 from now on\n" in ran.out
    assert "  address      n4: 10.0.0.14, as before\n" in ran.out
    assert f"  WARNING      {problem} of the cluster: nobody will reach it." in ran.out
    assert daemon.posted == [ASKED | {"readdress": True}]


def test_a_snapshot_is_named_with_its_age_and_what_it_costs(
    meshd: Meshd, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = meshd("bootstrap", "reset", *DEAD, "--from-snapshot", "kept.db", "--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1] == (
        "  database     restored from kept.db (3.1 MiB), written 2m05s ago: what was written since "
        "is lost; a copy of what lies on the disk is kept"
    )
    (posted,) = daemon.posted
    assert posted["snapshot"] == str(tmp_path / "kept.db")


def test_it_is_followed_to_its_end(meshd: Meshd, daemon: FakeDaemon) -> None:
    daemon.progress = [at("asked"), at("stopped"), at("stopped"), at("running"), ended("done")]
    ran = meshd("bootstrap", "reset", *DEAD, "--cluster-id", ID)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == SHOWN + (
        "  k3s is being stopped\n"
        "  the database is being copied aside\n"
        "  k3s resets etcd's membership\n"
        "done: epoch 1; `meshd status` shows who is back\n"
    )
    assert [one.get("cluster_id") for one in daemon.posted] == [None, ID]


def test_without_a_terminal_the_id_must_be_given(meshd: Meshd, daemon: FakeDaemon) -> None:
    ran = meshd("bootstrap", "reset", *DEAD)
    assert ran.code == 2
    assert "MESH-4032" in ran.err
    assert len(daemon.posted) == 1


def test_the_daemons_refusal_is_passed_on_with_its_exit_code(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    for code in (1, 2, 4):
        refusal = {
            "code": "MESH-4022",
            "cause": None,
            "fix": "leave it out",
            "exit_code": str(code),
        }
        daemon.refuses = {"error": "n1 is heard", "refusal": refusal}
        ran = meshd("bootstrap", "reset", *DEAD)
        assert (ran.code, ran.out) == (code, "")
        assert ran.err == "error[MESH-4022]: n1 is heard\n  fix: leave it out\n"


@pytest.mark.parametrize("outcome", ["failed", "gave way"])
def test_a_reset_that_was_not_done_is_an_error(
    meshd: Meshd, daemon: FakeDaemon, outcome: str
) -> None:
    daemon.progress = [ended(outcome, "no room")]
    ran = meshd("bootstrap", "reset", *DEAD, "--cluster-id", ID)
    assert ran.code == 1
    assert "error[MESH-4028]: etcd's membership was not reset: no room" in ran.err


def test_the_group_that_may_read_may_not_reset(meshd: Meshd, tmp_path: Path) -> None:
    with running(tmp_path, "ro.sock") as daemon:
        assert meshd("bootstrap", "reset", *DEAD).code == 3
        assert daemon.posted == []
