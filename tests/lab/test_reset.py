"""etcd's majority lost for good: a survivor is reset, and who was given up comes back."""

from __future__ import annotations

from typing import Any

import pytest

from simulations.lab import glance
from simulations.lab.laboratory import Laboratory
from tests.lab.conftest import Bench, Run

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]


def reset(bench: Bench, name: str, *arguments: str) -> Run:
    return bench.demo("exec", name, "--", "meshd", "bootstrap", "reset", *arguments)


def status_of(built: Laboratory, name: str) -> dict[str, Any]:
    found = next(one for one in glance.look(built) if one.name == name)
    return found.status or {}


def nodes_ready(built: Laboratory, name: str) -> int | None:
    """Return how many Nodes are Ready, as that server's API says."""
    ready: int | None = status_of(built, name).get("cluster", {}).get("nodes_ready")
    return ready


def members_in_log(built: Laboratory, name: str) -> int:
    """Return how often a database of before was started on that node."""
    log = built.node(name).state / "k3s" / "k3s.log"
    return log.read_text(errors="replace").count("Starting etcd for existing cluster member")


def test_a_survivor_is_reset_and_who_returns_with_an_old_disk_is_a_worker(bench: Bench) -> None:
    built = bench.up(nodes=4)
    bench.wait_until_complete(built)
    before = bench.clusters()
    known = status_of(built, "n1")["nodes"]
    survivor, returns, gone = sorted(n["name"] for n in known if n["role"] == "control-plane")
    (worker,) = (n["name"] for n in known if n["role"] == "worker")
    cluster_id = status_of(built, survivor)["genesis"]["cluster_id"]
    dead = ("--confirm-dead", returns, "--confirm-dead", gone)

    refused = reset(bench, survivor, *dead)
    assert (refused.code, "MESH-4022" in refused.err) == (1, True)
    assert "MESH-4020" in reset(bench, worker).err
    for name in (returns, gone):
        built.kill(name)
    built.wipe(gone)
    started = members_in_log(built, returns)
    bench.wait_until(
        "the API server gives up", lambda: reset(bench, survivor, *dead, "--dry-run").code == 0
    )
    assert "MESH-4023" in reset(bench, survivor, "--confirm-dead", gone).err
    wrong = reset(bench, survivor, *dead, "--cluster-id", "0" * 32)
    assert (wrong.code, "MESH-4024" in wrong.err) == (2, True)
    assert status_of(built, survivor)["genesis"]["epoch"] == 0

    done = reset(bench, survivor, *dead, "--cluster-id", cluster_id)
    assert (done.code, done.err) == (0, "")
    assert "done: epoch 1" in done.out
    assert [one.uid for one in bench.clusters()] == [one.uid for one in before]
    # The Nodes of the dead are gone, and the worker has found the survivor.
    bench.wait_until("the worker is Ready again", lambda: nodes_ready(built, survivor) == 2)
    again = reset(bench, survivor, *dead)
    assert (again.code, "MESH-4027" in again.err) == (2, True), "it has one seat now"

    for name in (returns, gone):
        built.start(name)
    bench.wait_until("all are Ready", lambda: nodes_ready(built, survivor) == 4, limit_s=90)
    roles = {name: status_of(built, name)["node"]["role"] for name in built.known.names()}
    assert [name for name, role in roles.items() if role == "control-plane"] == [survivor]
    assert members_in_log(built, returns) == started, "its old etcd was not started"
    aside = built.node(returns).disk / "var-lib-rancher/k3s/set-aside"
    assert list(aside.glob("*-epoch-0/server/db/etcd/member/wal")), "its data is kept"
    assert [one.uid for one in bench.clusters()] == [one.uid for one in before]
    audit = bench.demo("audit").out.splitlines()
    assert [line.split()[0] for line in audit] == ["generation", "reset"]
    assert f"reset to epoch 1  {survivor} " in audit[1]
    for name in (survivor, worker, returns):
        told = bench.demo("exec", name, "--", "meshd", "bootstrap", "status").out
        assert "reset etcd's membership" in told
        assert returns in told
        events = bench.demo("exec", name, "--", "meshd", "events").out
        assert events.count("cluster_reset") == 1
