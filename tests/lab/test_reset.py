"""etcd's majority lost for good: a survivor is reset, and who was given up comes back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from simulations.lab import glance
from simulations.lab.laboratory import Laboratory
from tests.lab.conftest import Bench, Run
from tests.standin.machines import save_snapshot

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]


def reset(bench: Bench, name: str, *arguments: str) -> Run:
    return bench.demo("exec", name, "--", "meshd", "bootstrap", "reset", *arguments)


def status_of(built: Laboratory, name: str) -> dict[str, Any]:
    found = next(one for one in glance.look(built) if one.name == name)
    return found.status or {}


def three_servers_and_a_worker(bench: Bench) -> tuple[Laboratory, list[str], str, str]:
    """Return a laboratory with a complete cluster: its servers, its worker, the cluster's id."""
    built = bench.up(nodes=4)
    bench.wait_until_complete(built)
    status = status_of(built, "n1")
    servers = sorted(n["name"] for n in status["nodes"] if n["role"] == "control-plane")
    (worker,) = (n["name"] for n in status["nodes"] if n["role"] == "worker")
    return built, servers, worker, status["genesis"]["cluster_id"]


def nodes_ready(built: Laboratory, name: str) -> int | None:
    """Return how many Nodes are Ready, as that server's API says."""
    ready: int | None = status_of(built, name).get("cluster", {}).get("nodes_ready")
    return ready


def members_in_log(built: Laboratory, name: str) -> int:
    """Return how often a database of before was started on that node."""
    log = built.node(name).state / "k3s" / "k3s.log"
    return log.read_text(errors="replace").count("Starting etcd for existing cluster member")


def test_a_survivor_is_reset_and_who_returns_with_an_old_disk_is_a_worker(bench: Bench) -> None:
    built, (survivor, returns, gone), worker, cluster_id = three_servers_and_a_worker(bench)
    before = bench.clusters()
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


def test_with_every_database_gone_a_snapshot_takes_their_place(bench: Bench) -> None:
    built, (chosen, *others), _, cluster_id = three_servers_and_a_worker(bench)
    before = bench.clusters()
    data, kept = Path("/var/lib/rancher/k3s"), Path("/var/lib/meshd/kept.db")
    assert bench.demo("exec", chosen, "--", *save_snapshot(data, kept)).code == 0
    for name in (chosen, *others):
        built.kill(name)
        shutil.rmtree(built.node(name).k3s_folder / "server/db")
    for name in (chosen, *others):
        built.start(name)

    def refusal(*arguments: str) -> str:
        return reset(bench, chosen, *arguments, "--dry-run").err

    bench.wait_until("all servers are heard", lambda: "3 of 3 seats" in refusal())
    assert "MESH-4036" in refusal("--from-snapshot", "/nowhere")
    done = reset(bench, chosen, "--from-snapshot", str(kept), "--cluster-id", cluster_id)
    assert (done.code, done.err) == (0, "")
    assert "restored from kept.db" in done.out
    bench.wait_until("all are Ready", lambda: nodes_ready(built, chosen) == 4, limit_s=120)
    assert [one.uid for one in bench.clusters()] == [one.uid for one in before]
    roles = {name: status_of(built, name)["node"]["role"] for name in built.known.names()}
    assert {name for name, role in roles.items() if role == "control-plane"} == {chosen, *others}
    events = bench.demo("exec", others[0], "--", "meshd", "events").out
    assert f"on {chosen}, whose database, restored from kept.db, holds" in " ".join(events.split())
